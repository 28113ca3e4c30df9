"""One conversation of the device that invites: greeting, proof, request, decision, welcome (docs/specs/pairing.md).

The core answers up to the proof by itself; here a try is paid for before its bytes leave, the request is held against
what was proven, and nothing is told to the joiner before it is durable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from meshd.crypto.keys import SigningKey
from meshd.daemon import membership, pairing_wire, renewal
from meshd.daemon.context import Daemon, wait
from meshd.daemon.pairing_window import Decision, Question, Window, move
from meshd.daemon.pairing_wire import PROOF_SECONDS, STARTED, Talk
from meshd.daemon.pen import Pen
from meshd.errors import Denied, FormatError, Locked, MeshError, NetworkError, Refused, StoreError, TrustError
from meshd.pairing.events import Closed, Greeted, GuessFailed, PollRequested, Proven, Requested, TryReserved
from meshd.pairing.limits import Attempts, OfferBackoff
from meshd.pairing.machine import Host
from meshd.pairing.proof import same_token
from meshd.pairing.states import State
from meshd.profile import connection as connections
from meshd.profile import device, version
from meshd.profile.claim import Kind, Role
from meshd.profile.claim import State as VersionState
from meshd.profile.connection import ConnectionRequest
from meshd.store import versions
from meshd.store.db import Reader

REQUEST_SECONDS = 30.0  # from the proof to the request: the joiner writes to its disk in between
ASK_SECONDS = 120.0  # for the person who is asked
DELIVER_SECONDS = 120.0  # from the decision until the joiner has stored what came with it
MAX_HANDED_OVER = 48 * 1024 * 1024  # bytes of versions that go along; the rest comes by sync
OFFERS = "offers"  # where the back-off is saved


class Hosting:
    """One caller of a window. `addresses` gives where this device can be reached for syncing."""

    def __init__(
        self,
        daemon: Daemon,
        window: Window,
        backoff: OfferBackoff,
        stream: trio.abc.Stream,
        addresses: Callable[[], Sequence[str]],
    ) -> None:
        ttl = max(0, math.ceil(window.deadline - trio.current_time()))
        self._core = Host(
            window.secrets,
            window.certificate,
            daemon.rng,
            window.invitation.slot,
            window.counter().left,
            ttl,
            window.token,
        )
        self._talk = Talk(self._core, stream)
        self._daemon = daemon
        self._window = window
        self._backoff = backoff
        self._addresses = addresses
        self._reserved: Attempts | None = None
        self._proven = False

    async def run(self, *, busy: bool = False) -> None:
        """Talk until it is over; `busy`: only say so. MeshError says what was wrong with the caller."""
        window, over = self._window, False
        window.cores.add(self._core)
        try:
            with trio.move_on_after(PROOF_SECONDS) as scope:
                self._proven = self._refuse("busy") if busy else await self._prove()
            if scope.cancelled_caught:
                raise NetworkError("a caller did not prove the code in time")
            if self._proven:
                window.deciding += 1
                await self._serve()
            over = True
        except MeshError:
            over = True
            raise
        finally:
            if not over:  # the window closes, or the daemon stops
                self._refuse(window.word if window.invitation.ended else "cancelled")
            window.cores.discard(self._core)
            window.deciding -= self._proven
            with trio.CancelScope(shield=True):
                await self._give_back()
                await self._talk.part(hear_out=True)
                if window.finished or (trio.current_time() >= window.deadline and not window.deciding):
                    window.closing.set()

    # --- until the proof ----------------------------------------------------------------------------------------------

    async def _prove(self) -> bool:
        while True:
            match await self._talk.next():
                case Greeted(udf=udf):
                    reason = self._window.turns_away(udf)
                    if reason is None and self._daemon.locked:
                        reason = "unavailable"
                    if reason is not None:
                        return self._refuse(reason)
                case TryReserved():
                    reason = self._window.turns_away(self._core.joiner) or self._window.counter().refusal
                    if reason is not None:
                        return self._refuse(reason)
                    self._reserved = self._window.counter()
                    self._reserved.reserve()
                    await move(self._daemon, self._window, "proving")
                case GuessFailed():
                    await self._guessed()
                    return False
                case Proven(udf=udf):
                    return await self._used_up(udf)
                case Closed():
                    return False
                case event:
                    raise AssertionError(f"{type(event).__name__} before the proof")

    async def _guessed(self) -> None:
        """A wrong code: counted, and the back-off on disk, before the caller hears of it."""
        window, now = self._window, self._daemon.now_ms() / 1000
        assert self._reserved is not None  # the core tells TryReserved first
        self._reserved.fail()
        counter, self._reserved = self._reserved, None
        window.count_left()
        self._backoff.failed(now)
        if not counter.left:
            self._backoff.burned(now)
        await self._save_backoff()
        if counter is not window.counter():
            return  # somebody else was right meanwhile
        if not counter.left:
            await move(self._daemon, window, "burned", Refused("The code was wrong too often."))
        elif not window.attempts.pending:
            await move(self._daemon, window, "open")

    async def _used_up(self, udf: str) -> bool:
        """The right code: from now on it is this device's alone."""
        window, counter = self._window, self._reserved
        assert counter is not None  # the core tells TryReserved first
        self._reserved = None
        if window.device not in ("", udf) or (window.invitation.ended and window.invitation.state != "admitted"):
            counter.give_back()
            return self._refuse("used" if window.device else window.word)
        if not window.device:
            counter.succeed()
            window.device = udf
            window.again = Attempts(max(1, counter.left))
            window.count_left()
            self._backoff.succeeded()
            await self._save_backoff()
        else:
            counter.give_back()
        return True

    async def _give_back(self) -> None:
        """No confirmation came: nobody learned anything."""
        if self._reserved is not None:
            self._reserved.give_back()
            self._reserved = None
            if not self._window.device and not self._window.attempts.pending:
                await move(self._daemon, self._window, "open")

    async def _save_backoff(self) -> None:
        state = self._backoff.to_dict()
        try:
            await wait(self._daemon.writer.submit(lambda connection: pairing_wire.save(connection, OFFERS, state)))
        except StoreError as exc:
            self._daemon.log.warning("the limits of pairing could not be saved: %s", exc)

    def _refuse(self, reason: str) -> bool:
        if self._core.state not in (State.DECIDED, State.DONE, State.CLOSED):
            self._core.refuse(reason)
        return False

    # --- from the proof on --------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        snapshot = self._daemon.snapshot
        raw = versions.raw(self._daemon.reader.connection, snapshot.heads[0])
        assert raw is not None  # profiles are never pruned
        self._core.offer_profile(pairing_wire.write_profile(version.parse(raw)))
        within = REQUEST_SECONDS
        while True:
            match await self._talk.next(within):
                case Requested() as event:
                    if not await self._requested(event):
                        return
                    within = DELIVER_SECONDS
                case PollRequested():
                    if self._window.decision is not None:
                        await self._deliver(self._window.decision)
                        within = DELIVER_SECONDS
                    elif self._core.state is not State.STARTED:
                        self._core.started(STARTED)
                case Closed(finished=finished):
                    # The joiner closes once it has stored everything; a crash ends without TLS's farewell, as an error.
                    self._window.delivered = finished
                    return
                case event:
                    raise AssertionError(f"{type(event).__name__} after the proof")

    async def _requested(self, event: Requested) -> bool:
        """Judge, ask, admit, and hand over; False when there is nothing more to say."""
        daemon, window = self._daemon, self._window
        try:
            request = self._read(event.message)
            keyring = daemon.unlocked()
            if window.decision is None:
                if window.terms.confirm and not await self._asked(request, event.name):
                    if self._core.state is not State.CLOSED:
                        rejected = connections.write_result(keyring.device.dsk, request.device, connections.REJECTED)
                        self._core.decide(pairing_wire.write_status(rejected))
                    return False
                await self._admit(request, event.name, keyring.device.dsk)
            elif window.decision.device != request.device.vid:
                raise Denied("a device that was admitted asks again with another profile")
        except MeshError as exc:
            self._refuse(_reason(exc))
            await move(daemon, window, "failed", exc)
            return False
        if window.decision is None:
            return False  # withdrawn while we were asking
        await self._deliver(window.decision)
        return True

    def _read(self, message: bytes) -> ConnectionRequest:
        """What asks to be connected; FormatError, TrustError, Denied."""
        signed, unsealed = pairing_wire.read_start(message)
        request = connections.read_request(signed)
        if request.device.identifier != self._core.joiner:
            raise TrustError("another device asks than the one that knew the code")
        if request.parent != self._daemon.snapshot.mesh:
            raise TrustError("a device asks to join another mesh")
        if not same_token(request.block_token, self._core.block_token):
            raise TrustError("a request that was not made in this conversation")
        device.read(request.device)  # the certificate must be the key's: TLS will pin it
        if request.device.links.p or request.device.links.q:
            raise FormatError("the profile of a new device that is not the first of its kind")
        terms = self._window.terms
        if unsealed and terms.role is Role.ADMIN and not terms.force:
            raise _Unsealed(
                "That device keeps its keys without a passphrase, and can't be an admin.",
                hint="give it one, or run: meshctl invite --role admin --force",
            )
        return request

    async def _asked(self, request: ConnectionRequest, name: str) -> bool:
        """Ask the person. False: they said no, or nothing, or the device went away, and then the core is closed."""
        window = self._window
        window.question = question = Question()
        window.invitation.device = _shown(request.device.identifier, name)
        if self._core.state is State.REQUESTED:
            self._core.started(STARTED)
        await move(self._daemon, window, "asked")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope)
                with trio.move_on_after(ASK_SECONDS):
                    await question.answered.wait()
                nursery.cancel_scope.cancel()
        finally:
            window.question = None
        if question.accepted:
            return True
        if self._core.state is State.CLOSED:
            window.invitation.device = None
            await move(self._daemon, window, "proving")  # it may come back within the window
        else:
            said = "You did not admit the device." if question.answered.is_set() else "Nobody answered for the device."
            await move(self._daemon, window, "failed", Refused(said))
        return False

    async def _watch(self, scope: trio.CancelScope) -> None:
        """See whether the joiner goes away while the person thinks; a poll needs no other answer than the decision."""
        try:
            while not isinstance(await self._talk.next(math.inf), Closed):
                pass
        except MeshError:
            self._refuse("cancelled")  # it won't hear it, but the core is closed
        scope.cancel()

    async def _admit(self, request: ConnectionRequest, name: str, dsk: SigningKey) -> None:
        """Take the device into the mesh, unless the invitation was withdrawn meanwhile."""
        daemon, window, terms = self._daemon, self._window, self._window.terms
        joiner = request.device

        def admit(pen: Pen) -> str:
            known = joiner.identifier in pen.replica.authority.devices()
            if known and versions.get(pen.connection, joiner.vid) is None:
                raise Denied("a device of this mesh asks again with another profile")
            if terms.replaces and not known:
                said = pairing_wire.device_names(pen.connection, pen.keyring).get(terms.replaces)
                called = said or pairing_wire.name_for(pen, name, joiner.identifier)
                renewal.replace_device(pen, terms.replaces, joiner, called, master_key=window.master_key)
                return called
            called = pairing_wire.name_for(pen, name, joiner.identifier)
            membership.admit(pen, joiner, terms.role, called, terms.grants, window.master_key)
            return pairing_wire.device_names(pen.connection, pen.keyring).get(joiner.identifier, called)

        async with window.lock:
            if window.invitation.ended:
                self._refuse(window.word)
                return
            with trio.CancelScope(shield=True):  # what is being written can't be called back
                called = await daemon.write(admit)
                result = connections.write_result(dsk, joiner, connections.ACCEPTED)
                window.decision = Decision(joiner.vid, pairing_wire.write_status(result))
                window.master_key = None
                window.invitation.device = _shown(joiner.identifier, called)
                await move(daemon, window, "admitted")

    async def _deliver(self, decision: Decision) -> None:
        """The decision, then what the joiner needs before it can sync, then the welcome."""
        store = self._daemon.paths.store
        entries = await trio.to_thread.run_sync(lambda: handed_over(Reader(store)))
        raw = versions.raw(self._daemon.reader.connection, self._daemon.snapshot.heads[0])
        assert raw is not None  # profiles are never pruned
        self._core.decide(decision.message)
        self._core.send_entries(entries)
        self._core.welcome(pairing_wire.write_profile(version.parse(raw)), self._addresses())


class _Unsealed(Denied):
    """A device without a passphrase asks to become an admin."""


def _reason(exc: MeshError) -> str:
    """The word for the joiner."""
    if isinstance(exc, _Unsealed):
        return "unsealed"
    return "unavailable" if isinstance(exc, (Locked, StoreError)) else "rejected"


def _shown(udf: str, name: str) -> dict[str, str]:
    return {"id": udf, "name": name, "fingerprint": udf}


def handed_over(reader: Reader) -> list[bytes]:
    """The versions that a new device needs before it can sync, in the order in which they can be judged.

    Personal profiles with all their ancestors (they embed the master and device profiles), escrow entries, and the
    containers with their histories, the shortest first. Closes the reader.
    """
    try:
        connection, kept = reader.connection, (VersionState.APPLIED, VersionState.QUARANTINED)
        rows = sorted(versions.of_kind(connection, Kind.PERSONAL, kept), key=lambda row: (row.gen, row.seq))
        for kind in (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW):
            rows += versions.of_kind(connection, kind)
        histories: dict[str, list[versions.Row]] = {}
        for row in versions.of_kind(connection, Kind.CONTAINER, kept):
            histories.setdefault(row.identifier, []).append(row)
        for history in sorted(histories.values(), key=len):
            rows += sorted(history, key=lambda row: (row.gen, row.seq))
        found: list[bytes] = []
        size = 0
        for row in rows:
            raw = versions.raw(connection, row.vid)
            if raw is not None and size + len(raw) <= MAX_HANDED_OVER:
                found.append(raw)
                size += len(raw)
        return found
    finally:
        reader.close()
