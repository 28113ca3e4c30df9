"""The other devices: who is connected, how each may be reached, and the tasks that keep one connection to each.

A listener takes knocks; a dialler a sibling tries what discovery saw, what a person said, and what worked before. Of
two
connections between the same devices the one that the lower fingerprint dialled is kept.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from meshd.crypto import certs
from meshd.daemon import introduction, recovery_door
from meshd.daemon.context import Daemon, wait
from meshd.daemon.pins import Pins
from meshd.daemon.presence import Presence, Sighted
from meshd.daemon.progress import Progress, acked
from meshd.daemon.syncing import DOUBT_SECONDS, STRIKES, Conversation
from meshd.errors import MeshError, NetworkError, Refused, RemoteProtocolError
from meshd.net import streams, tls
from meshd.net.lan import Network
from meshd.store import peers
from meshd.sync import knock

KNOCK_SECONDS = 10.0
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
LET_THE_OTHER = 1.5  # seconds that the higher fingerprint leaves to the lower to dial first
AFTER_LIES = 3600.0
UNPROVEN_EACH = 16  # connections of one address that have not proven anything yet: a stranger takes no other's place
TELL_TRIES = 8  # to tell a device that was removed, until there is news of it
KEYS_TRIED = 4  # Discovery keys that one attempt knocks with
_NETWORK_ERRORS = (MeshError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class _Unheard(NetworkError):
    """The other device hung up after the knock."""


@dataclass(slots=True)
class Sibling:
    """How one device may be reached, and how it went."""

    udf: str
    seen: dict[str, tuple[str, ...]] = field(default_factory=dict)  # instance → addresses
    key: bytes = field(default=b"", repr=False)  # the Discovery key under which it was seen
    last_error: str = ""
    introduced: bool = False  # it was shown our profiles since it last talked to us
    wake: trio.Event = field(default_factory=trio.Event)

    def nudge(self) -> None:
        """There is reason to try at once."""
        self.wake.set()
        self.wake = trio.Event()


class Siblings:
    """The registry of connections, and the policy of making them."""

    def __init__(self, daemon: Daemon, network: Network) -> None:
        self._daemon = daemon
        self._network = network
        self.port = 0
        self.connections: dict[str, Progress] = {}
        self.known: dict[str, Sibling] = {}
        self._unproven = 0
        self._callers: dict[str, int] = {}  # host → its connections that have not proven anything yet
        self.lies: dict[str, tuple[int, float]] = {}  # UDF → (strikes, when the last conversation with them ended)
        self._pins = Pins(daemon)
        self._door = recovery_door.Door(daemon)
        daemon.heard_all = self._heard_all
        self._presence = Presence(daemon, network, lambda: self.port, self._acked, self._seen, self._gone)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve and dial for as long as this device belongs to a mesh; `started` once the port is open."""
        async with trio.open_nursery() as nursery:
            self.port = await nursery.start(self._network.serve, self._take, self._daemon.config.lan.port)
            nursery.start_soon(self._presence.run)
            nursery.start_soon(self._follow_network)
            nursery.start_soon(self._keep_diallers, nursery)
            task_status.started()

    def _acked(self, udf: str) -> int:
        return acked(peers.get(self._daemon.reader.connection, udf), self.connections.get(udf))

    def _seen(self, sighted: Sighted) -> None:
        sibling = self.known.setdefault(sighted.udf, Sibling(sighted.udf))
        # A device that lost power leaves its old name behind until it times out: the newest sighting counts. What is at
        # the same place is another name of the same device, under another key.
        same = {name: where for name, where in sibling.seen.items() if where == sighted.addresses}
        if sighted.udf in self.connections and sibling.seen and not same:
            self.connections[sighted.udf].doubt()
        sibling.seen = same | {sighted.instance: sighted.addresses}
        sibling.key = sighted.key
        sibling.nudge()
        self._daemon.changed.bump()

    def _gone(self, instance: str) -> None:
        for sibling in self.known.values():
            sibling.seen.pop(instance, None)

    async def _follow_network(self) -> None:
        version = -1
        while True:
            version = await self._network.changed(version)
            for progress in self.connections.values():
                progress.doubt()
            for sibling in self.known.values():
                sibling.nudge()

    def _heard_all(self) -> bool:
        """Is somebody connected, and holds this device all that those who are connected announced?"""
        there = list(self.connections.values())
        return bool(there) and all(one.connected and one.caught_up and one.ours >= one.theirs for one in there)

    # --- being called -------------------------------------------------------------------------------------------------

    async def _take(self, stream: trio.abc.Stream, address: str) -> None:
        """One caller, from knock to goodbye. Never raises: a caller's mistake ends its connection and nothing else."""
        host = address.rpartition(":")[0]
        same = self._callers.get(host, 0)
        if self._unproven >= self._daemon.config.limits.lan_connections or same >= UNPROVEN_EACH:
            await trio.aclose_forcefully(stream)
            return
        proven = False
        self._unproven += 1
        self._callers[host] = same + 1

        def left(host: str) -> None:
            self._callers[host] -= 1
            if not self._callers[host]:
                del self._callers[host]

        def admitted() -> None:
            nonlocal proven
            if not proven:
                proven = True
                self._unproven -= 1
                left(host)

        try:
            await self._answer(stream, address, admitted)
        except* _NETWORK_ERRORS as group:
            self._log_lost(address, group)
        except* Exception as group:  # a fault of ours: it ends what this caller wanted, and is told with its place
            self._daemon.log.error("a fault in the connection from %s", address, exc_info=group)
        finally:
            if not proven:
                self._unproven -= 1
                left(host)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.abc.Stream, address: str, admitted: Callable[[], None]) -> None:
        tier1 = self._daemon.tier1
        if tier1 is None or not self._daemon.snapshot.connected:
            return
        challenge = self._daemon.rng(knock.CHALLENGE_SIZE)
        with trio.move_on_after(KNOCK_SECONDS) as scope:
            await streams.send(stream, challenge)
            given = await streams.receive_exactly(stream, knock.ANSWER_SIZE)
        if scope.cancelled_caught:
            raise NetworkError("no knock came in time")
        doors, source = recovery_door.doors(self._daemon), address.rpartition(":")[0]
        if given[0] == knock.Mode.RECOVERY:
            self._door.knocks(source)
        try:
            mode, fitting = knock.check(given, challenge, tier1.discovery, [key for key, _ in doors])
        except Refused:
            if given[0] == knock.Mode.RECOVERY:
                self._door.missed(source)
            raise
        contexts = self._pins.contexts()
        if mode is knock.Mode.SYNC:
            secured = await tls.wrap_server(stream, contexts.server)
            if not self._daemon.snapshot.is_member:  # who is left before hello introduces itself, and is shown why
                raise Refused("this device was removed from its mesh")
            udf = self._pins.device(tls.peer_certificate(secured))
            admitted()
            await self._converse(secured, Progress(udf, address, outgoing=False))
        elif mode is knock.Mode.INTRODUCTION:
            secured = await tls.wrap_server(stream, contexts.intro_server)
            await introduction.receive(self._daemon, secured)
            for gone in self._daemon.snapshot.gone & self.known.keys():
                self.known[gone].nudge()  # it may be one of these that was refused and does not know why
        else:
            certificate = certs.device_certificate(tier1.dak)
            trust = tls.recovery_server_context(certificate, certs.private_pem(tier1.dak))
            secured = await tls.wrap_server(stream, trust)
            await self._door.serve(secured, certificate, doors[fitting][1], source)

    # --- calling ------------------------------------------------------------------------------------------------------

    async def _keep_diallers(self, nursery: trio.Nursery) -> None:
        running: set[str] = set()
        telling: set[str] = set()
        while True:
            seen = self._daemon.changed.count
            for udf in self._wanted() - running:
                running.add(udf)
                self.known.setdefault(udf, Sibling(udf))
                nursery.start_soon(self._keep_connected, udf, running)
            for udf in self._to_tell() & self.known.keys():
                if udf in running:
                    self.known[udf].nudge()  # it is not to be dialled any more
                elif udf not in telling and (self.known[udf].seen or self.addresses(udf)):
                    telling.add(udf)
                    nursery.start_soon(self._tell, udf, telling)
            await self._daemon.changed.after(seen)

    def _wanted(self) -> set[str]:
        """Whom to be connected with: every other device, and nobody once this one was removed."""
        snapshot = self._daemon.snapshot
        return set(snapshot.siblings) if snapshot.is_member else set()

    def _to_tell(self) -> frozenset[str]:
        """Who is not of the mesh any more; and once that is this device, those who are: where admins removed each other
        apart, they alone know it who are removed.
        """
        snapshot = self._daemon.snapshot
        return snapshot.gone - {snapshot.own} | (frozenset() if snapshot.is_member else frozenset(snapshot.siblings))

    async def _keep_connected(self, udf: str, running: set[str]) -> None:
        """Dial one sibling whenever it is not connected, with growing pauses that any news cuts short."""
        pause = FIRST_RETRY
        try:
            while udf in self._wanted():
                sibling = self.known[udf]
                wake = sibling.wake
                if udf in self.connections:
                    await self._until_gone(udf)
                    pause = FIRST_RETRY
                    continue
                if self._daemon.snapshot.own > udf:
                    await trio.sleep(LET_THE_OTHER)
                for address in self.addresses(udf):
                    if udf in self.connections or await self._dial(sibling, address):
                        pause = FIRST_RETRY
                        break
                if udf in self.connections:
                    continue
                spread = 0.8 + 0.4 * random.random()  # noqa: S311  (nobody's secret: devices should not call in step)
                with trio.move_on_after(pause * spread) as slept:
                    await wake.wait()
                pause = min(pause * 1.5, LAST_RETRY) if slept.cancelled_caught else FIRST_RETRY
        finally:
            running.discard(udf)
            self._daemon.changed.bump()

    async def _until_gone(self, udf: str) -> None:
        while udf in self.connections:
            await self._daemon.changed.after(self._daemon.changed.count)

    def addresses(self, udf: str) -> list[str]:
        """Where to try a device: what a person said first, then what is seen now, then what worked before."""
        by_hand = [str(address) for name, address in self._daemon.config.peers.items() if self._is_called(udf, name)]
        manual = self._daemon.manual_address(udf)
        sibling = self.known.get(udf)
        seen = [address for found in (sibling.seen.values() if sibling else ()) for address in found]
        remembered = peers.get(self._daemon.reader.connection, udf).addresses
        return list(dict.fromkeys([*([manual] if manual else []), *by_hand, *seen, *remembered]))[:16]

    def _is_called(self, udf: str, name: str) -> bool:
        return name.lower() in (udf.lower(), peers.get(self._daemon.reader.connection, udf).name.lower())

    async def _dial(self, sibling: Sibling, address: str) -> bool:
        """One attempt; True if a conversation came about. Where our certificate is refused we introduce ourselves.

        Under TLS 1.3 the refusal comes after the handshake, and may be lost when the other side hangs up with it: so
        whoever
        hangs up before hello is shown our profiles.
        """
        progress = Progress(sibling.udf, address, outgoing=True)
        secured: tls.TlsStream | None = None
        try:
            secured = await self._call(sibling, address, knock.Mode.SYNC, self._pins.contexts().client)
            if self._pins.device(tls.peer_certificate(secured)) != sibling.udf:
                await trio.aclose_forcefully(secured)
                raise NetworkError("another device answers there")
            await self._converse(secured, progress)
            sibling.last_error = ""
        except* _NETWORK_ERRORS as group:
            sibling.last_error = _first(group)
            self._log_lost(address, group)
        except* Exception as group:
            sibling.last_error = _first(group)
            self._daemon.log.error("a fault in the connection to %s", address, exc_info=group)
            await trio.sleep(FIRST_RETRY)
        stranger = secured is not None and not progress.greeted and not progress.scope.cancel_called
        if progress.greeted:
            sibling.introduced = False
        elif stranger and await self._introduce(sibling, address, self._pins.contexts().intro_client):
            first, sibling.introduced = not sibling.introduced, True
            if first:  # who goes on refusing us has a reason, and is not to be called in a loop
                sibling.nudge()
        if progress.strikes >= STRIKES:
            await trio.sleep(AFTER_LIES)
        return progress.greeted

    async def _introduce(self, sibling: Sibling, address: str, trust: tls.Trust) -> bool:
        """Show our profiles to a device that does not know them; True if it took them."""
        secured: tls.TlsStream | None = None
        try:
            secured = await self._call(sibling, address, knock.Mode.INTRODUCTION, trust)
            try:
                await introduction.hand_over(self._daemon, secured)
            finally:
                await trio.aclose_forcefully(secured)
        except* _NETWORK_ERRORS as group:
            sibling.last_error = _first(group)
            self._log_lost(address, group)
            secured = None
        return secured is not None

    async def _call(self, sibling: Sibling, address: str, mode: knock.Mode, trust: tls.Trust) -> tls.TlsStream:
        """Dial, knock and shake hands. A device that was away holds older keys: the one it announces, else newest
        first.
        """
        tier1 = self._daemon.tier1
        keys = [key for key in reversed(tier1.discovery if tier1 is not None else ()) if key != sibling.key]
        keys = ([sibling.key] if sibling.key else []) + keys
        unheard = NetworkError("this device holds no key to knock with yet")
        for key in keys[:KEYS_TRIED]:
            try:
                return await self._knock(address, mode, key, trust)
            except _Unheard as exc:
                unheard = exc
        raise unheard

    async def _knock(self, address: str, mode: knock.Mode, key: bytes, trust: tls.Trust) -> tls.TlsStream:
        stream = await self._network.dial(address)
        try:
            with trio.move_on_after(KNOCK_SECONDS) as scope:
                challenge = await streams.receive_exactly(stream, knock.CHALLENGE_SIZE)
                answer = knock.answer(mode, key, challenge, self._daemon.rng(knock.NONCE_SIZE))
                await streams.send(stream, answer)
            if scope.cancelled_caught:
                raise NetworkError("whoever listens there does not speak our language")
            try:
                return await tls.wrap_client(stream, trust)
            except (NetworkError, RemoteProtocolError) as exc:
                raise _Unheard(str(exc)) from exc  # hung up on the knock, as far as we can tell
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _tell(self, udf: str, telling: set[str]) -> None:
        """Show a device the profiles that say who is not of the mesh any more; once a sighting, and again after
        somebody whom we do not know introduced himself: it may be that one.

        It is sought where it was last reached, too: its name may be made under a key that never came here.
        """
        pause, failed = FIRST_RETRY, 0
        try:
            sibling = self.known[udf]
            certificate = self._daemon.certificate_of(udf)
            while certificate is not None and udf in self._to_tell():
                wake, told = sibling.wake, False
                for address in self.addresses(udf):
                    told = told or await self._introduce(sibling, address, tls.intro_client_context([certificate]))
                failed = 0 if told else failed + 1
                with trio.move_on_after(math.inf if told or failed >= TELL_TRIES else pause) as waited:
                    await wake.wait()
                if waited.cancelled_caught:
                    pause = min(pause * 1.5, LAST_RETRY)
                else:
                    pause, failed = FIRST_RETRY, 0
        finally:
            telling.discard(udf)

    # --- both ---------------------------------------------------------------------------------------------------------

    async def _converse(self, stream: tls.TlsStream, progress: Progress) -> None:
        """Run the one conversation with a device; of two the one that the lower fingerprint dialled stays."""
        udf = progress.udf
        strikes, when = self.lies.get(udf, (0, 0.0))
        if strikes and trio.current_time() - when >= AFTER_LIES:
            del self.lies[udf]
        elif strikes >= STRIKES:
            await trio.aclose_forcefully(stream)
            raise Refused("that device sent what can't be believed, and is left alone for an hour")
        else:
            progress.strikes = strikes
        current = self.connections.get(udf)
        if current is not None:
            ours_is_lower = self._daemon.snapshot.own < udf
            if current.connected and current.outgoing == ours_is_lower and progress.outgoing != ours_is_lower:
                current.doubt()  # it would not call if it were content
                current.called = current.called or trio.current_time()
                # It answers, and is called for all the same: then a copy of its home runs, and is heard in turn.
                if trio.current_time() - current.called <= DOUBT_SECONDS:
                    await trio.aclose_forcefully(stream)
                    return
            current.scope.cancel()
        self.connections[udf] = progress
        try:
            with progress.scope:
                await self._remember(udf, progress)
                await Conversation(self._daemon, stream, progress).run()
        finally:
            if progress.strikes > self.lies.get(udf, (0, 0.0))[0]:
                self.lies[udf] = progress.strikes, trio.current_time()
            if self.connections.get(udf) is progress:
                del self.connections[udf]
            self._daemon.changed.bump()

    async def _remember(self, udf: str, progress: Progress) -> None:
        if progress.outgoing:
            now = self._daemon.now_ms()
            address = progress.address
            await wait(self._daemon.writer.submit(lambda connection: peers.seen(connection, udf, now, address=address)))

    def _log_lost(self, address: str, group: BaseExceptionGroup[BaseException]) -> None:
        self._daemon.log.info("connection with %s: %s", address, _first(group))


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return str(found) or type(found).__name__
