"""What a device, a mirror and a witness make of the checkpoints that a portal shows them (protocol D1.7).

A pin is the newest checkpoint of a log that was found good. `judge` says what to think of a newer one. Three things are
kept apart: what is older than the pin (Stale), what can't be shown to be right, for which a bad network or a lagging
server may be the reason (Suspect: keep the pin, ask again, tell the person), and what the log can't explain away
(Contradiction: evidence that anybody can check). An honest log is never accused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from meshd.errors import FormatError, MeshError, ProofError, SignatureError, TrustError
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import note as notes
from meshd.tlog import tree
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.evidence import Evidence, check, compare
from meshd.tlog.note import Note, Verified, Verifier
from meshd.tlog.policy import Policy

__all__ = [
    "Advanced",
    "Contradiction",
    "Evidence",
    "Freshness",
    "Judgement",
    "Pin",
    "Same",
    "Stale",
    "Suspect",
    "accuse",
    "check",
    "compare",
    "freshness",
    "judge",
]

FUTURE = 3600  # seconds that a cosigner's clock may go fast before its time is not believed


@dataclass(frozen=True, slots=True)
class Pin:
    """The newest good checkpoint of a log, when it was pinned (seconds), and the keys that speak for the log since.

    `keys` are those that signed `note`: during a rotation the old one and the new.
    """

    origin: str
    size: int
    root: bytes
    note: Note
    time: int
    keys: tuple[Verifier, ...]


@dataclass(frozen=True, slots=True)
class Advanced:
    """The checkpoint is good and newer, or the first: this is the pin to store."""

    pin: Pin


@dataclass(frozen=True, slots=True)
class Same:
    """The checkpoint that is pinned; `pin` may have more or newer cosignatures."""

    pin: Pin


@dataclass(frozen=True, slots=True)
class Stale:
    """Signed by the log, but smaller than what is pinned: a replay, a lagging copy or a rollback. Nothing changes."""

    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class Suspect:
    """Not shown to be right. The pin stays; ask again, and tell the person if it stays so.

    With `ask`, a consistency proof from that size may turn the suspicion into evidence: see `accuse`.
    """

    reason: str
    ask: int | None = None


@dataclass(frozen=True, slots=True)
class Contradiction:
    """The log has signed two histories. Freeze the pin, keep the evidence, show it, pass it on."""

    evidence: Evidence


Judgement = Advanced | Same | Stale | Suspect | Contradiction


def judge(
    pin: Pin | None,
    note: Note,
    verifiers: Iterable[Verifier],
    policy: Policy | None,
    proof: Sequence[bytes] | None,
    now: int,
    origin: str | None = None,
) -> Judgement:
    """What to think of a checkpoint that a portal showed at `now` (seconds).

    `verifiers` are the log keys, and the cosigners whose lines are worth keeping, that the portal or the configuration
    names. With no pin a log key among them is trusted at first sight; with one, a key that is new is taken only where
    the pinned one, or one of the policy file, has signed the same note. `proof` is the consistency proof between the
    pinned size and the note's, whichever is smaller first; None if none came. `origin` names the log that is expected,
    for where nothing is pinned.
    """
    known = tuple(verifiers)
    policy = policy or Policy()
    try:
        checkpoint = Checkpoint.parse(note.text)
        expected = pin.origin if pin is not None else origin
        if expected is not None and checkpoint.origin != expected:
            return Suspect(f"a checkpoint of the log {checkpoint.origin}, not of {expected}")
        trusted = policy.log_keys(checkpoint.origin) + (pin.keys if pin is not None else ())
        if trusted or pin is not None:
            checkpoints.read(note, trusted)  # one of these must have signed, whoever else did
        checkpoint, signed = checkpoints.read(note, (*trusted, *known))
    except (FormatError, TrustError) as exc:
        return Suspect(str(exc))
    keys = tuple(dict.fromkeys(one.verifier for one in signed))
    if pin is not None and (found := _contradiction(pin, note, checkpoint, proof, keys)):
        return found
    if pin is not None and checkpoint.size < pin.size:
        return Stale(checkpoint.size, f"a checkpoint of {checkpoint.size} entries after one of {pin.size}")
    try:
        if pin is not None and checkpoint.size == pin.size:
            seen = _merged(pin.note, note, (*keys, *known, *policy.witnesses.values()))
            policy.satisfied(seen, keys)  # with what was seen of it before: a slow witness makes nobody suspect
            return Same(replace(pin, note=seen, keys=keys))
        policy.satisfied(note, keys)
        if pin is not None:
            tree.verify_consistency(
                pin.size, checkpoint.size, pin.root, checkpoint.root, _needed(pin, checkpoint, proof)
            )
    except ProofError as exc:
        return Suspect(str(exc), _worth_asking(pin.size, checkpoint.size) if pin is not None else None)
    except (FormatError, SignatureError) as exc:
        return Suspect(str(exc))
    return Advanced(Pin(checkpoint.origin, checkpoint.size, checkpoint.root, note, now, keys))


def accuse(pin: Pin, note: Note, proof: Sequence[bytes], policy: Policy | None = None) -> Contradiction | None:
    """What the proof from `Suspect.ask` shows: evidence, or None, in which case it stays a suspicion."""
    trusted = pin.keys + (policy or Policy()).log_keys(pin.origin)
    try:
        found = Evidence.of_rewrite(pin.note, note, proof, trusted)
    except FormatError:
        return None
    return Contradiction(found) if found else None


@dataclass(frozen=True, slots=True)
class Freshness:
    """When a checkpoint was last cosigned (seconds; None: never), and whether that is too long ago."""

    newest: int | None
    late: bool


def freshness(note: Note, cosigners: Iterable[Verifier], now: int, interval: int) -> Freshness:
    """Whether the log may be withholding: late if nobody of `cosigners` signed within twice the `interval` (seconds).

    Lines that do not verify and times more than an hour ahead count for nothing.
    """
    times = [one.time for one in _good_lines(note, cosigners) if one.time is not None and one.time <= now + FUTURE]
    newest = max(times, default=None)
    return Freshness(newest, newest is None or now - newest > 2 * interval)


def _contradiction(
    pin: Pin, note: Note, checkpoint: Checkpoint, proof: Sequence[bytes] | None, keys: tuple[Verifier, ...]
) -> Contradiction | None:
    """What two notes show, whatever else is to be said of the newer: each signed by a key that spoke for the log."""
    both = (*pin.keys, *keys)
    if checkpoint.size == pin.size:
        found = compare(pin.note, note, both)
    else:
        found = Evidence.of_rewrite(pin.note, note, proof or (), both)
    return Contradiction(found) if found else None


def _needed(pin: Pin, checkpoint: Checkpoint, proof: Sequence[bytes] | None) -> Sequence[bytes]:
    if pin.size == 0:
        return ()
    if proof is None:
        raise ProofError(f"no proof that the log of {checkpoint.size} entries continues that of {pin.size}")
    return proof


def _worth_asking(old: int, new: int) -> int | None:
    """A proof from a power of two does not name the node it starts from; one from the next size does."""
    if old >= 2 and old & (old - 1) == 0 and new > old + 1:
        return old + 1
    return None


def _merged(held: Note, note: Note, verifiers: Iterable[Verifier]) -> Note:
    """The pinned note with the good lines of the same checkpoint seen again."""
    try:
        return notes.merge(
            held, Note(note.text, tuple(one.signature for one in _good_lines(note, verifiers))), verifiers
        )
    except MeshError:  # extension lines differ, or there are too many signatures: what is pinned is as good
        return held


def _good_lines(note: Note, verifiers: Iterable[Verifier]) -> list[Verified]:
    """What verifies, line by line; a bad line does not spoil the others here."""
    good: list[Verified] = []
    for verifier in verifiers:
        try:
            good += notes.verified(note, [verifier])
        except SignatureError:
            continue
    return good
