"""What a portal gives to who has nothing but shares, held to its log (protocol D1.7, D7.5).

A device that comes back has no pin. It has what the recovery entry carries: the keys of the log, and the checkpoint
that was believed when the shares were made. The log must have only grown since then, and every record must be in it.
That shows that nothing was put in beside the log and that nothing before the checkpoint was dropped; what is newer and
withheld no log can show. Nothing is written here: the pin goes into the store with what it covers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from meshd.crypto import base64url
from meshd.daemon.portals import watch as watches
from meshd.daemon.portals.link import Link
from meshd.daemon.portals.receipts import read
from meshd.daemon.portals.watch import Unproved
from meshd.errors import FormatError, PossibleAttack, TrustError
from meshd.portal.log_status import interval_of, named_keys, proof_hashes
from meshd.portal.messages import StatusResponse
from meshd.profile.recovery import Info
from meshd.store.portal_pins import PinRow
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import watch
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.leaf import content_digest
from meshd.tlog.note import COSIGNATURE, Note, Verifier
from meshd.tlog.policy import Policy
from meshd.tlog.watch import Pin

PROVED, NO_LOG, UNPROVED = "proved", "no-log", "unproved"
MOST_NOTES = 64  # checkpoints that receipts may be of


@dataclass(frozen=True, slots=True)
class Given:
    """A record as a portal gave it, and its receipt; empty where none came."""

    vid: bytes
    raw: bytes = field(repr=False)
    receipt: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of it. `pin` is to be written with what was given."""

    state: str
    why: str
    records: int = 0
    pin: PinRow | None = field(default=None, repr=False)


class Contradiction(PossibleAttack):
    """The log has signed two histories. `evidence` is for anybody to check, in base64url."""

    def __init__(self, evidence: str) -> None:
        super().__init__(
            "The portal has contradicted itself: its log has signed two histories. Nothing was taken from it.",
            hint="recover from a device or relay of yours instead: --lan; --json shows the evidence",
        )
        self.evidence = evidence


async def prove(link: Link, given: Sequence[Given], info: Info, held: PinRow | None, now: Callable[[], int]) -> Proof:
    """Hold what a portal gave to its log. `info` is of the recovery entry, `held` the pin of this device where there is
    one, `now` in seconds. Contradiction, NetworkError."""
    prover = _Prover(link, now)
    try:
        if not await prover.begin(info, held):
            return Proof(NO_LOG, "the portal keeps no log: whether it withholds something newer can't be told")
        for one in given:
            await prover.check(one)
    except (FormatError, TrustError) as exc:
        return Proof(UNPROVED, str(exc))
    pin = prover.row(str(link.where.account))
    stale = (
        "; its newest checkpoint is old, it may be withholding what is newer" if now() * 1000 > pin.fresh > 0 else ""
    )
    return Proof(PROVED, f"all that it gave is in its log, which only grew{stale}", len(given), pin)


class _Prover:
    def __init__(self, link: Link, now: Callable[[], int]) -> None:
        self._link = link
        self._now = now
        self._pin: Pin | None = None
        self._answer = StatusResponse()
        self._agreed: set[str] = set()

    async def begin(self, info: Info, held: PinRow | None) -> bool:
        """The newest checkpoint becomes the pin; False for a portal that has no log and never had."""
        keys, before = remembered(info, self._link.where.account.portal)
        if held is not None:
            if held.frozen:
                raise Contradiction(held.evidence)
            keys, before = (), watches.held_as(held)
        answer = await self._status(before.size if before is not None else None)
        if answer.checkpoint_value is None:
            if keys or before is not None:
                raise Unproved("the portal had a log when the shares were made, and shows none now")
            return False
        await self._advance(before, answer, Policy(keys), keys[0].name if keys else None)
        return True

    async def check(self, given: Given) -> None:
        """One record is in the log. FormatError, TrustError, Contradiction."""
        if not given.receipt:
            raise Unproved("the portal does not prove that all of what it gave is in its log")
        proof, leaf = read(given.receipt)
        if leaf.vid != given.vid or leaf.content != content_digest(given.raw):
            raise Unproved("the portal gave the receipt of another record")
        assert self._pin is not None  # it began
        if proof.checkpoint.text not in self._agreed:
            if len(self._agreed) >= MOST_NOTES:
                raise Unproved("the portal proves by more checkpoints than one can look at")
            await self._agree(proof.checkpoint)
            self._agreed.add(proof.checkpoint.text)
        proof.verify(leaf.hash(), self._pin.keys)

    def row(self, account: str) -> PinRow:
        """The pin, for the store."""
        pin, answer, now = self._pin, self._answer, self._now()
        assert pin is not None
        cosigners = tuple(one for one in named_keys(answer) if one.kind == COSIGNATURE)
        interval = interval_of(answer)
        newest = watch.freshness(pin.note, cosigners, now, interval).newest or 0
        fresh = 0 if not cosigners else (newest + 2 * interval) * 1000
        keys = tuple(one.vkey for one in (*pin.keys, *cosigners))
        return PinRow(account, pin.origin, keys, pin.size, pin.root, pin.note.encode().decode(), now * 1000, fresh)

    async def _agree(self, note: Note) -> None:
        """A checkpoint that a receipt is of lies in the tree that is pinned."""
        for _ in range(watches.TRIES):
            assert self._pin is not None
            checkpoint = Checkpoint.parse(note.text)
            answer = await self._status(checkpoint.size, self._pin.size)
            newest, _ = watches.checkpoint_of(answer)
            if newest.text != self._pin.note.text:  # it grew in between
                await self._advance(self._pin, await self._status(self._pin.size), Policy(), None)
                continue
            mine = Pin(checkpoint.origin, checkpoint.size, checkpoint.root, note, self._now(), self._pin.keys)
            await self._passed(mine, self._pin.note, self._pin.keys, proof_hashes(answer), Policy(), None)
            return
        raise Unproved("the portal's log grows faster than it can be looked at")

    async def _advance(self, before: Pin | None, answer: StatusResponse, policy: Policy, origin: str | None) -> None:
        note, named = watches.checkpoint_of(answer)
        self._pin = await self._passed(before, note, named, proof_hashes(answer), policy, origin)
        self._answer = answer

    async def _passed(
        self,
        before: Pin | None,
        note: Note,
        named: Sequence[Verifier],
        proof: Sequence[bytes] | None,
        policy: Policy,
        origin: str | None,
    ) -> Pin:
        judged = watch.judge(before, note, named, policy, proof, self._now(), origin)

        async def more(size: int) -> tuple[bytes, ...] | None:
            return proof_hashes(await self._status(size, Checkpoint.parse(note.text).size))

        match await watches.looked_into(judged, before, note, more):
            case watch.Advanced(pin) | watch.Same(pin):
                return pin
            case watch.Contradiction(evidence):
                raise Contradiction(base64url.encode(evidence.encode()))
            case watch.Stale(reason=reason):
                raise Unproved(f"the portal's log is shorter than it was: {reason}")
            case watch.Suspect(reason):
                raise Unproved(f"the portal does not prove that its log only grew: {reason}")

    async def _status(self, old_size: int | None, tree_size: int | None = None) -> StatusResponse:
        return await watches.status(self._link, old_size, tree_size)


# --- what a recovery entry remembers of logs --------------------------------------------------------------------------


def remembered(info: Info, domain: str) -> tuple[tuple[Verifier, ...], Pin | None]:
    """The keys of a portal's log, and the checkpoint that was believed, as an entry has them. What can't be read is of
    a sort that other releases write."""
    keys = tuple(key for key in map(_key, info.origin_keys) if key is not None and key.name.split("/")[0] == domain)
    pins = [pin for pin in (_pin(text, keys, info.created) for text in info.checkpoints) if pin is not None]
    return keys, max(pins, key=lambda pin: pin.size, default=None)


def to_remember(pins: Iterable[PinRow]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(vkeys, checkpoints) that a recovery entry is to have of the logs that are believed: the logs' own keys, and the
    notes with no more than these keys' lines."""
    keys: list[str] = []
    notes: list[str] = []
    for pin in pins:
        held = watches.held_as(pin)
        ids = {(one.name, one.key_id) for one in held.keys}
        lines = tuple(one for one in held.note.signatures if (one.name, one.key_id) in ids)
        keys += [one.vkey for one in held.keys]
        notes.append(Note(held.note.text, lines).encode().decode())
    return tuple(dict.fromkeys(keys)), tuple(notes)


def _key(vkey: str) -> Verifier | None:
    try:
        return Verifier.parse(vkey)
    except FormatError:
        return None


def _pin(text: str, keys: tuple[Verifier, ...], time: int) -> Pin | None:
    try:
        note = Note.parse(text.encode())
        checkpoint, signed = checkpoints.read(note, keys)
    except (FormatError, TrustError):
        return None
    named = tuple(one.verifier for one in signed)
    return Pin(checkpoint.origin, checkpoint.size, checkpoint.root, note, time, named)
