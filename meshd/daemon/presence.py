"""This device's name on the LAN, and the recognition of its siblings' (formats.md F10).

A name is made under the newest Discovery key and recognised under every key ever held, so that a rotation strands
nobody. Of two devices that rotated apart each holds a newest key that the other does not: until every sibling has
acknowledged the newest, the keys before it name this device too (decision 0023).
Names are a privacy filter and no authority: strangers can't link them, and pins decide who gets in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from meshd.daemon.context import Daemon
from meshd.net.discovery import SYNC_TYPE, Gone, Seen, Service
from meshd.net.lan import Network, format_address
from meshd.profile.apps import DISCOVERY
from meshd.profile.claim import Kind
from meshd.store import versions
from meshd.sync import names

RENEW_SECONDS = 3600.0  # a new nonce at least so often
MOST_NAMES = 4  # keys under which a device is announced at a time


@dataclass(frozen=True, slots=True)
class Sighted:
    """A device of this mesh, as it announces itself now."""

    udf: str
    instance: str
    addresses: tuple[str, ...]  # "host:port"
    key: bytes = field(repr=False)  # the Discovery key under which it is announced


class Presence:
    """Announces this device and tells of others. `port` says where this device listens, `acked` up to which seq of ours
    a sibling holds everything."""

    def __init__(
        self,
        daemon: Daemon,
        network: Network,
        port: Callable[[], int],
        acked: Callable[[str], int],
        seen: Callable[[Sighted], None],
        gone: Callable[[str], None],
    ) -> None:
        self._daemon = daemon
        self._network = network
        self._port = port
        self._acked = acked
        self._seen = seen
        self._gone = gone

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce)
            nursery.start_soon(self._listen)

    async def _announce(self) -> None:
        """Under each key that counts; a new nonce hourly, at start and on every address change (formats.md F10)."""
        version = -1
        while True:
            keys = self._keys()
            for place in range(MOST_NAMES):
                name = f"sync-{place}"
                if place < len(keys):
                    await self._network.discovery.announce(name, self._service(keys[place]))
                else:
                    await self._network.discovery.withdraw(name)
            with trio.move_on_after(RENEW_SECONDS):
                version = await self._until_network_or_keys(version, keys)

    def _service(self, key: bytes) -> Service:
        nonce = self._daemon.rng(names.NONCE_SIZE)
        tag = names.device_tag(key, nonce, self._daemon.snapshot.own)
        return Service(SYNC_TYPE, names.instance(key, nonce), self._port(), {"v": b"1", "d": tag.encode()})

    def _keys(self) -> tuple[bytes, ...]:
        """The keys to be announced under, newest first; none where this device is of no mesh."""
        tier1, snapshot = self._daemon.tier1, self._daemon.snapshot
        if tier1 is None or not tier1.discovery or not snapshot.is_member:
            return ()
        newest_first = tier1.discovery[::-1]
        return newest_first[:1] if self._everybody_has_the_newest() else newest_first[:MOST_NAMES]

    def _everybody_has_the_newest(self) -> bool:
        """By their own word. One who was away may have made a key of its own meanwhile."""
        container = self._daemon.snapshot.container(DISCOVERY.tag)
        newest = versions.last_of(self._daemon.reader.connection, Kind.CONTAINER, container) if container else 0
        return all(self._acked(udf) >= newest for udf in self._daemon.snapshot.siblings)

    async def _until_network_or_keys(self, version: int, announced: tuple[bytes, ...]) -> int:
        """A later version of the network. What siblings acknowledge alone is looked at when something else moves."""
        found = version

        async def network(scope: trio.CancelScope) -> None:
            nonlocal found
            found = await self._network.changed(version)
            scope.cancel()

        async def keys(scope: trio.CancelScope) -> None:
            seen = self._daemon.changed.count
            while self._keys() == announced:
                await self._daemon.changed.after(seen)
                seen = self._daemon.changed.count
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(network, nursery.cancel_scope)
            nursery.start_soon(keys, nursery.cancel_scope)
        return found

    async def _listen(self) -> None:
        subscription = self._network.discovery.subscribe()
        try:
            async for sighting in subscription:
                if sighting.service_type != SYNC_TYPE:
                    continue
                if isinstance(sighting, Gone):
                    self._gone(sighting.instance)
                elif (found := self._recognise(sighting)) is not None:
                    self._seen(found)
        finally:
            subscription.close()

    def _recognise(self, sighting: Seen) -> Sighted | None:
        """Which device of ours that is, also one that is no more; None for anybody else."""
        tier1, snapshot = self._daemon.tier1, self._daemon.snapshot
        found = names.recognise(sighting.instance, tier1.discovery) if tier1 is not None else None
        if tier1 is None or found is None:
            return None
        place, nonce = found
        tag = sighting.txt.get("d", b"").decode("ascii", "replace")
        candidates = (set(snapshot.devices) | snapshot.gone) - {snapshot.own}
        udf = names.find_device(tag, tier1.discovery[place], nonce, candidates)
        if udf is None:
            return None
        addresses = tuple(format_address(host, sighting.port) for host in sighting.addresses)
        return Sighted(udf, sighting.instance, addresses, tier1.discovery[place])
