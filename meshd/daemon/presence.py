"""This device's name on the LAN, and the recognition of its siblings' (formats.md F10).

A name is made under the newest Discovery key and recognised under every key ever held, so that a rotation strands
nobody.
Names are a privacy filter and no authority: strangers can't link them, and pins decide who gets in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from meshd.daemon.context import Daemon
from meshd.net.discovery import SYNC_TYPE, Gone, Seen, Service
from meshd.net.lan import Network, format_address
from meshd.sync import names

RENEW_SECONDS = 3600.0  # a new nonce at least so often


@dataclass(frozen=True, slots=True)
class Sighted:
    """A device of this mesh, as it announces itself now."""

    udf: str
    instance: str
    addresses: tuple[str, ...]  # "host:port"
    key: bytes = field(repr=False)  # the Discovery key under which it is announced


class Presence:
    """Announces this device and tells of others. `port` says where this device listens."""

    def __init__(
        self,
        daemon: Daemon,
        network: Network,
        port: Callable[[], int],
        seen: Callable[[Sighted], None],
        gone: Callable[[str], None],
    ) -> None:
        self._daemon = daemon
        self._network = network
        self._port = port
        self._seen = seen
        self._gone = gone

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce)
            nursery.start_soon(self._listen)

    async def _announce(self) -> None:
        """Under the newest key, with a new nonce hourly, at start and on every address change (formats.md F10)."""
        version = -1
        while True:
            tier1, snapshot = self._daemon.tier1, self._daemon.snapshot
            if tier1 is not None and tier1.discovery and snapshot.is_member:
                key, nonce = tier1.discovery[-1], self._daemon.rng(names.NONCE_SIZE)
                tag = names.device_tag(key, nonce, snapshot.own)
                await self._network.discovery.announce(
                    "sync",
                    Service(SYNC_TYPE, names.instance(key, nonce), self._port(), {"v": b"1", "d": tag.encode()}),
                )
                newest = key
            else:
                await self._network.discovery.withdraw("sync")
                newest = b""
            with trio.move_on_after(RENEW_SECONDS):
                version = await self._until_network_or_key(version, newest)

    async def _until_network_or_key(self, version: int, key: bytes) -> int:
        found = version

        async def network(scope: trio.CancelScope) -> None:
            nonlocal found
            found = await self._network.changed(version)
            scope.cancel()

        async def keys(scope: trio.CancelScope) -> None:
            while True:
                seen = self._daemon.changed.count
                tier1 = self._daemon.tier1
                newest = tier1.discovery[-1] if tier1 is not None and tier1.discovery else b""
                if (newest if self._daemon.snapshot.is_member else b"") != key:
                    break
                await self._daemon.changed.after(seen)
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
