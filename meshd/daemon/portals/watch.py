"""What a device holds a portal's log to: every newer checkpoint must extend the one that was believed (protocol D1.7).

The one idea: a checkpoint is believed when the portal has proved that it is of the same tree as the pin. `look` asks
for the newest, `agree` has the portal prove the same of any other that turned up: in a receipt, or at a sibling. What
can't be proved makes the portal suspect, and the pin stays. Two trees that it signed are evidence, and freeze it: then
nothing from it is believed until a person decides.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from meshd.crypto import base64url
from meshd.daemon.portals import known_keys, quorum
from meshd.errors import Denied, FormatError, MeshError, NotFound, Refused, RemoteProtocolError, TrustError
from meshd.portal.log_status import interval_of, named_keys, proof_hashes
from meshd.portal.messages import StatusRequest, StatusResponse
from meshd.profile import payload
from meshd.store import events
from meshd.store import portal_pins as store
from meshd.store.portal_pins import Heard, PinRow
from meshd.store.replica import Outcome
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import watch
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.note import COSIGNATURE, ED25519, Note, Verifier
from meshd.tlog.policy import Policy
from meshd.tlog.watch import Evidence, Judgement, Pin

if TYPE_CHECKING:
    from meshd.daemon.portals.link import Link
    from meshd.daemon.portals.state import Portal

TRIES = 3
TRY_PAUSE = 0.5  # seconds: a portal may answer from a copy that is a moment behind
LOOK_SECONDS = 900.0  # between two looks at a portal from which nothing comes
_ANYBODY = Policy()


class Contradicted(RemoteProtocolError):
    """The portal's log has contradicted itself."""

    def __init__(self) -> None:
        super().__init__(
            "the portal has contradicted itself; nothing from it is believed",
            hint="keep what shows it: meshctl portal verify --evidence FILE; then remove it, or trust it anew",
        )


class Unproved(TrustError):
    """The portal does not prove what it owes. No evidence: only it could show more."""


class Watch:
    """One portal's log, as this device sees it."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._daemon = portal.daemon
        self._looking = trio.Lock()
        self.frozen = False  # it has contradicted itself, as far as was looked
        self._logless = -math.inf  # when it said last that it has no log

    @property
    def pin(self) -> PinRow | None:
        pin = store.get(self._daemon.reader.connection, self._portal.name)
        self.frozen = pin is not None and pin.frozen > 0
        return pin

    @property
    def policy(self) -> Policy:
        """Whose signatures this portal's log has to have, as the settings say."""
        return self._daemon.config.policies.get(self._portal.account.portal, _ANYBODY)

    @property
    def doubted(self) -> bool:
        """Is it suspect, or worse?"""
        pin = self.pin
        return pin is not None and bool(pin.suspect or pin.frozen)

    def check(self) -> None:
        """Contradicted where nothing from this portal is to be believed."""
        pin = self.pin
        if pin is not None and pin.frozen:
            raise Contradicted

    def view(self) -> dict[str, Any]:
        """As the local API shows it."""
        pin = store.shown(self._daemon.reader.connection, self._portal.name)
        if pin is None:
            return {"state": "none"}
        if not pin.note:
            return {"state": "suspect", "since": payload.write_date(pin.suspect // 1000)}
        stale = pin.fresh and pin.time > pin.fresh
        state = "contradicted" if pin.frozen else "suspect" if pin.suspect else "stale" if stale else "verified"
        since = pin.frozen or pin.suspect
        return {
            "state": state,
            "origin": pin.origin,
            "size": pin.size,
            "checked": payload.write_date(pin.time // 1000),
            "since": payload.write_date(since // 1000) if since else None,
            "keys": list(pin.keys),
        }

    async def run(self) -> None:
        """Look now and then, and whenever a sibling has shown what was not compared yet."""
        portal, daemon = self._portal, self._daemon
        await portal.entered.wait()
        while True:
            seen = daemon.changed.count
            try:
                await self.settle(await self.look())
                await self.compare_siblings()
            except MeshError as exc:
                daemon.log.info("the log of %s was not looked at: %s", portal.name, exc)
            with trio.move_on_after(LOOK_SECONDS):
                while self.doubted or not self._unheard():
                    seen = await daemon.changed.after(seen)
                    await trio.lowlevel.checkpoint_if_cancelled()  # it may be the end that changed

    # --- the newest checkpoint ----------------------------------------------------------------------------------------

    async def look(self) -> PinRow | None:
        """The newest checkpoint, proved to extend the pin; None for a portal without a log, or one that proves nothing
        more and is suspect now. To be written with `settle`, in the transaction of what came with it.

        Contradicted, NetworkError, RemoteProtocolError.
        """
        async with self._looking:
            if self.pin is None and trio.current_time() - self._logless < LOOK_SECONDS - 1:
                return None
            for attempt in range(TRIES):
                if attempt:
                    await trio.sleep(TRY_PAUSE)
                self.check()
                pin = self.pin
                try:
                    answer = await self._status(pin.size if pin is not None else None)
                    if answer.checkpoint_value is None and pin is None:
                        self._logless = trio.current_time()
                        return None
                    return await self._judge(pin, answer)
                except (FormatError, TrustError) as exc:
                    why = exc
            await self.suspect(str(why))
            return None

    async def settle(self, seen: PinRow | None) -> None:
        """Make it the pin, where nothing else came with it."""
        before = self.pin
        if seen is None or (before is not None and _same(before, seen)):
            return
        name = self._portal.name

        def write(connection: sqlite3.Connection, outcome: Outcome) -> None:
            settle(connection, name, seen)

        await self._daemon.transact(write)
        self._daemon.changed.bump()

    async def suspect(self, why: str, *, owes: bool = False) -> None:
        """Keep the pin and say what is wrong. `owes`: a newer checkpoint does not mend it."""
        name, now = self._portal.name, self._daemon.now_ms()
        self._daemon.log.warning("portal %s: %s", name, why)

        def write(connection: sqlite3.Connection, outcome: Outcome) -> None:
            if store.suspect(connection, name, why[:300], now, owes=owes):
                events.append(connection, now, "health", {"state": "portal-suspect", "name": name})

        await self._daemon.transact(write)
        self._daemon.changed.bump()

    async def freeze(self, evidence: Evidence) -> None:
        """Believe nothing of it any more."""
        await freeze(self._portal, evidence)

    async def _status(self, old_size: int | None, tree_size: int | None = None) -> StatusResponse:
        """With a proof from `old_size` to `tree_size`, where the portal knows that word; else to the newest."""
        return await status(self._portal.link, old_size, tree_size)

    async def _judge(self, pin: PinRow | None, answer: StatusResponse) -> PinRow:
        """FormatError, Unproved: not believed, and the pin stays. Contradicted."""
        note, named = checkpoint_of(answer)
        held = held_as(pin) if pin is not None else None
        found = await self._passed(held, note, named, proof_hashes(answer))
        now = self._daemon.now_ms()
        cosigners = tuple(one for one in named if one.kind == COSIGNATURE)
        before, span = pin.fresh if pin is not None else None, 2000 * interval_of(answer)
        fresh = quorum.fresh_until(self.policy, found.note, cosigners, before, now, span)
        keys = tuple(one.vkey for one in (*found.keys, *cosigners))
        text = found.note.encode().decode()
        return PinRow(self._portal.name, found.origin, keys, found.size, found.root, text, now, fresh)

    async def _passed(
        self, held: Pin | None, note: Note, named: tuple[Verifier, ...], proof: tuple[bytes, ...] | None
    ) -> Pin:
        """The pin after this checkpoint. Unproved, Contradicted."""
        quorum.check_log(self.policy, note)
        told = known_keys.read(self._portal.told_keys)
        policy = quorum.without_quorum(self.policy, told)
        origin = told[0].name if told else None
        judged = watch.judge(held, note, named, policy, proof, self._daemon.now_ms() // 1000, origin)

        async def more(size: int) -> tuple[bytes, ...] | None:
            return proof_hashes(await self._status(size, Checkpoint.parse(note.text).size))

        match await looked_into(judged, held, note, more):
            case watch.Advanced(pin) | watch.Same(pin):
                return pin
            case watch.Contradiction(evidence):
                await self.freeze(evidence)
                raise Contradicted
            case watch.Stale(reason=reason):
                raise Unproved(f"the portal shows {reason}")
            case watch.Suspect(reason):
                raise Unproved(f"the portal does not prove that its log only grew: {reason}")

    # --- other checkpoints --------------------------------------------------------------------------------------------

    async def agree(self, note: Note) -> PinRow:
        """Have the portal prove that a checkpoint that it signed is of the tree that is pinned; the pin to write.

        Unproved, Contradicted, FormatError, SignatureError, NetworkError."""
        pin = await self.look()
        why = "the portal proves nothing of its log"
        for attempt in range(TRIES):
            if pin is None:
                doubted = self.pin
                raise Unproved(doubted.why if doubted is not None and doubted.why else why)
            held = held_as(pin)
            checkpoint, _ = checkpoints.read(note, held.keys)
            if checkpoint.size > pin.size:
                why = f"the portal shows a log of {pin.size} entries, and has signed one of {checkpoint.size}"
                await trio.sleep(TRY_PAUSE * attempt)
                pin = await self.look()
                continue
            proof: tuple[bytes, ...] | None = None
            if checkpoint.size < pin.size:
                answer = await self._status(checkpoint.size, pin.size)
                shown = Checkpoint.parse(Note.parse((answer.checkpoint_value or "").encode()).text)
                if shown.size != pin.size:  # it grew in between
                    pin = await self.look()
                    continue
                proof = proof_hashes(answer)
            mine = watch.Pin(checkpoint.origin, checkpoint.size, checkpoint.root, note, held.time, held.keys)
            try:
                await self._passed(mine, held.note, held.keys, proof)
            except Unproved as exc:
                why = str(exc)
                await trio.sleep(TRY_PAUSE)
                continue
            return pin
        raise Unproved(why)

    def _unheard(self) -> list[Heard]:
        pin, connection = self.pin, self._daemon.reader.connection
        if pin is None or pin.frozen:
            return []
        keys = held_as(pin).keys
        return [one for one in store.heard(connection, pin.origin) if not one.agreed and _signed(one, keys)]

    async def compare_siblings(self) -> bool:
        """Compare what siblings have shown with what this device sees; False where the portal does not prove it.

        Contradicted, NetworkError."""
        for one in self._unheard():
            try:
                seen = await self.agree(Note.parse(one.note.encode()))
            except Contradicted:
                raise
            except (FormatError, TrustError) as exc:
                await self.suspect(f"what another device of this mesh saw of its log is not proved: {exc}", owes=True)
                return False
            await self._agreed(one, seen)
        return True

    async def _agreed(self, one: Heard, seen: PinRow) -> None:
        name, now = self._portal.name, self._daemon.now_ms()

        def write(connection: sqlite3.Connection, outcome: Outcome) -> None:
            settle(connection, name, seen)
            store.agree(connection, one, now)

        await self._daemon.transact(write)


# --- in transactions --------------------------------------------------------------------------------------------------


def check(connection: sqlite3.Connection, account: str) -> None:
    """Contradicted where nothing from this portal is to be believed."""
    pin = store.get(connection, account)
    if pin is not None and pin.frozen:
        raise Contradicted


def settle(connection: sqlite3.Connection, account: str, seen: PinRow | None) -> None:
    """Write the pin with what came with it. Contradicted: nothing of both."""
    check(connection, account)
    if seen is not None:
        store.advance(connection, seen)


async def freeze(portal: Portal, evidence: Evidence) -> None:
    """Write down that a portal contradicted itself, and what shows it."""
    daemon, name = portal.daemon, portal.name
    now = daemon.now_ms()

    def write(connection: sqlite3.Connection, outcome: Outcome) -> None:
        if store.freeze(connection, name, base64url.encode(evidence.encode()), now):
            events.append(connection, now, "health", {"state": "portal-contradiction", "name": name})

    await daemon.transact(write)
    daemon.log.error("portal %s has contradicted itself: nothing from it is believed", name)
    daemon.changed.bump()


# --- what a portal says of its log ------------------------------------------------------------------------------------


async def status(link: Link, old_size: int | None, tree_size: int | None = None) -> StatusResponse:
    """A portal's word on its log; nothing of it where it knows no such transaction. NetworkError."""
    asked = StatusRequest(old_size=old_size, tree_size=tree_size)
    try:
        return await link.ask("Status", asked, StatusResponse, signed=False)
    except (Denied, NotFound, Refused):
        return StatusResponse()


def checkpoint_of(answer: StatusResponse) -> tuple[Note, tuple[Verifier, ...]]:
    """The checkpoint, and the keys that are named with it. Unproved, FormatError."""
    if answer.checkpoint_value is None:
        raise Unproved("the portal shows no log any more")
    return Note.parse(answer.checkpoint_value.encode()), named_keys(answer)


async def looked_into(
    judged: Judgement, held: Pin | None, note: Note, more: Callable[[int], Awaitable[tuple[bytes, ...] | None]]
) -> Judgement:
    """What becomes of a suspicion when the log's own proof is asked for, `more` from a size: it may show two
    histories."""
    if isinstance(judged, watch.Suspect) and held is not None and judged.ask is not None:
        return watch.accuse(held, note, await more(judged.ask) or ()) or judged
    return judged


# --- reading ----------------------------------------------------------------------------------------------------------


def held_as(pin: PinRow) -> Pin:
    """The pin as it is judged by. Its keys are the log's own."""
    keys = tuple(one for one in map(Verifier.parse, pin.keys) if one.kind == ED25519)
    return Pin(pin.origin, pin.size, pin.root, Note.parse(pin.note.encode()), pin.time // 1000, keys)


def _signed(one: Heard, keys: tuple[Verifier, ...]) -> bool:
    """Has a key that counts now signed it? A sibling that was away may believe one that was replaced long ago."""
    try:
        checkpoints.read(Note.parse(one.note.encode()), keys)
    except (FormatError, TrustError):
        return False
    return True


def _same(before: PinRow, seen: PinRow) -> bool:
    """Nothing that is worth writing."""
    return replace(seen, time=before.time) == before and seen.time - before.time < 600_000
