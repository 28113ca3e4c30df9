"""Portals' logs without the portal: an honest one that crashes, restores and rotates, and the pasts it may pretend to.

log = Log(seed)                     # keys, entries, clock; what is not durable is lost by `crash`
log.publish(b"…")                   # a receipt
who = Follower(log.origin, log.keys)
who.contact(log)                    # a Judgement, as a device, a mirror or a witness comes to it
who.receipt(log.publish(b"…"), b"…")

A liar signs with the log's own key, for that is what a malicious portal can do; `fork` gives the same log another past.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

from meshd.crypto.keys import SigningKey
from meshd.errors import FormatError, MeshError
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import cosignature, tree, watch, witness
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.cosignature import Cosigner
from meshd.tlog.evidence import Evidence
from meshd.tlog.note import Note, Signer, Verifier
from meshd.tlog.proof import Proof
from meshd.tlog.watch import Pin

DAY = 24 * 3600
INTERVAL = 3600
ORIGIN = "portal.example/mmm-log"


def key(seed: str) -> SigningKey:
    return SigningKey.generate(lambda length: random.Random(seed).randbytes(length))


@dataclass
class Tree:
    """Leaves and all nodes above them."""

    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    size: int = 0

    def append(self, data: bytes) -> None:
        for level, number, hash_ in tree.append_nodes(self.size, tree.leaf_hash(data), self.read):
            self.nodes[level, number] = hash_
        self.size += 1

    def read(self, level: int, number: int) -> bytes:
        return self.nodes[level, number]

    def root(self, size: int | None = None) -> bytes:
        return tree.root(self.size if size is None else size, self.read)


@dataclass
class Log:
    """An honest log. `entries` are durable; the signed checkpoint is always of durable entries."""

    seed: str = "log"
    origin: str = ORIGIN
    entries: list[bytes] = field(default_factory=list)
    now: int = 1_790_000_000
    generation: int = 0
    tree: Tree = field(default_factory=Tree)

    def __post_init__(self) -> None:
        self.signers = [Signer(self.origin, key(f"{self.seed}/0"))]
        self.witness = Cosigner(f"{self.origin.partition('/')[0]}/mmm-witness", key(f"{self.seed}/witness"))
        self.cosigned = self.now

    @property
    def keys(self) -> tuple[Verifier, ...]:
        return tuple(one.verifier for one in self.signers)

    # --- what clients ask ---------------------------------------------------------------------------------------------

    def publish(self, data: bytes) -> Proof:
        self.entries.append(data)
        self.tree.append(data)
        self.heartbeat()
        return self.proof(self.tree.size - 1)

    def proof(self, index: int) -> Proof:
        return Proof(index, tree.inclusion_proof(index, self.tree.size, self.tree.read), self.note())

    def note(self, size: int | None = None) -> Note:
        wanted = self.tree.size if size is None else size
        signed = checkpoints.sign(Checkpoint(self.origin, wanted, self.tree.root(wanted)), self.signers)
        return cosignature.add(signed, self.witness, self.cosigned)

    def status(self, old: int | None, who: str = "") -> tuple[Note, tuple[bytes, ...] | None]:
        """The newest checkpoint, and the consistency proof from `old` where there is one."""
        return self.note(), self.consistency(old)

    def consistency(self, old: int | None) -> tuple[bytes, ...] | None:
        known = old is not None and old <= self.tree.size
        return tree.consistency_proof(old or 0, self.tree.size, self.tree.read) if known else None

    # --- what happens to it -------------------------------------------------------------------------------------------

    def heartbeat(self) -> None:
        self.cosigned = self.now

    def rotate(self) -> None:
        """A new key signs beside the one before it."""
        self.generation += 1
        self.signers = [Signer(self.origin, key(f"{self.seed}/{self.generation}")), self.signers[0]]

    def backup(self) -> list[bytes]:
        return list(self.entries)

    def restore(self, kept: list[bytes], newest_seen: int) -> bool:
        """Start from a backup. The guard: nothing is written or signed while somebody has seen more; then the missing
        entries come from a mirror. False where there is none, and the log stays closed: here, as it was."""
        if len(kept) < newest_seen:
            return False
        self._become(kept)
        return True

    def fork(self, *, at: int, instead: list[bytes]) -> Log:
        """The same keys over another past: the first `at` entries, then these."""
        other = copy.copy(self)
        other._become([*self.entries[:at], *instead])
        return other

    def _become(self, entries: list[bytes]) -> None:
        self.entries, self.tree = [], Tree()
        for one in entries:
            self.entries.append(one)
            self.tree.append(one)


@dataclass
class Follower:
    """A device, a mirror or a witness of someone: pins, judges, and asks again where that helps."""

    origin: str
    trusted: tuple[Verifier, ...]
    pin: Pin | None = None
    receipts: dict[int, tuple[Proof, bytes]] = field(default_factory=dict)
    evidence: Evidence | None = None
    tries: int = 3

    def contact(self, log: Log, who: str = "") -> watch.Judgement:
        """One contact: Status, and again as often as a device would."""
        for _ in range(self.tries):
            old = self.pin.size if self.pin is not None else None
            note, proof = log.status(old, who)
            found = self.judge(note, proof, log)
            if isinstance(found, watch.Advanced | watch.Same | watch.Contradiction):
                return found
        return found

    def judge(self, note: Note, proof: tuple[bytes, ...] | None, log: Log | None = None) -> watch.Judgement:
        now = log.now if log is not None else 0
        named = log.keys if log is not None and self.pin is not None else ()  # as Status names them
        found = watch.judge(self.pin, note, (*self.trusted, *named), None, proof, now, self.origin)
        if isinstance(found, watch.Suspect) and found.ask is not None and log is not None and self.pin is not None:
            _, more = log.status(found.ask)
            found = watch.accuse(self.pin, note, more or ()) or found
        if isinstance(found, watch.Advanced | watch.Same):
            self.pin = found.pin
        if isinstance(found, watch.Contradiction):
            self.evidence = found.evidence
        return found

    def receipt(self, proof: Proof, data: bytes, log: Log) -> watch.Judgement | MeshError:
        """Check the receipt of an own publish, hold it to the pin, keep it; the error where it proves nothing."""
        keys = self.pin.keys if self.pin is not None else self.trusted
        try:
            checkpoint = proof.verify(tree.leaf_hash(data), keys)
        except MeshError as exc:
            return exc
        if checkpoint.origin != self.origin:
            return FormatError("a receipt of another log")
        held = self.receipts.get(proof.index)
        if held is not None and held[1] != data:
            pair = (held[0], tree.leaf_hash(held[1]), proof, tree.leaf_hash(data))
            self.evidence = Evidence.of_leaves(*pair, keys)
            if self.evidence is not None:
                return watch.Contradiction(self.evidence)
        self.receipts[proof.index] = (proof, data)
        return self.judge(proof.checkpoint, log.consistency(self.pin.size if self.pin is not None else None), log)

    def meet(self, other: Follower) -> Evidence | None:
        """On the LAN: compare the newest notes. Different sizes are compared by asking the portal, see `agree`."""
        if self.pin is None or other.pin is None:
            return None
        found = watch.compare(self.pin.note, other.pin.note, (*self.pin.keys, *other.pin.keys))
        self.evidence = other.evidence = found or self.evidence
        return found

    def agree(self, other: Follower, log: Log) -> watch.Judgement | None:
        """A sibling's note of another size: have the log prove that both are of one tree."""
        if self.pin is None or other.pin is None:
            return None
        small, large = sorted((self.pin, other.pin), key=lambda pin: pin.size)
        proof = None
        if large.size <= log.tree.size:
            proof = tree.consistency_proof(small.size, large.size, log.tree.read)
        return watch.judge(small, large.note, self.trusted, None, proof, log.now, self.origin)


@dataclass
class Witness:
    """A peer that cosigns, as c2sp.org/tlog-witness has it. Slow: `push` is called whenever it comes to it."""

    keys: dict[str, tuple[Verifier, ...]]
    seen: dict[str, witness.Seen] = field(default_factory=dict)
    evidence: Evidence | None = None

    def push(self, log: Log) -> int:
        """The log brings its newest checkpoint; after a 409 once more, from the size that was told."""
        held = self.seen.get(log.origin)
        for old in (0, held.size if held is not None else 0):
            asked = witness.Request(old, log.consistency(old) or (), log.note())
            found = witness.decide(self.keys.get(log.origin, ()), held, witness.Request.parse(asked.encode()))
            if found.evidence is not None:
                self.evidence = found.evidence
            if found.seen is not None:
                self.seen[log.origin] = found.seen
            if found.status != 409:
                break
        return found.status

    def trust_newer_keys(self, log: Log) -> None:
        """Its operator takes over the keys of a rotation."""
        self.keys[log.origin] = tuple(dict.fromkeys((*self.keys[log.origin], *log.keys)))


# --- honest lives -----------------------------------------------------------------------------------------------------


def honest_life(seed: int, steps: int = 30) -> None:
    """One random schedule; AssertionError, which names the seed, if anybody is ever accused or holds no true pin."""
    rng = random.Random(seed)
    log = Log(f"honest/{seed}")
    followers = [Follower(log.origin, log.keys) for _ in range(3)]
    peer = Witness({log.origin: log.keys})
    kept, late = log.backup(), None
    for step in range(steps):
        log.now += rng.randrange(1, 2 * INTERVAL)
        who = rng.choice(followers)
        match rng.choice(("publish", "publish", "publish", "look", "look", "crash", "backup", "restore", "witness",
                          "lag", "rotate", "meet", "beat")):  # fmt: skip
            case "publish":
                data = f"{seed}/{step}".encode()
                found = who.receipt(log.publish(data), data, log)
                assert isinstance(found, watch.Judgement), f"seed {seed}, step {step}: {found}"
                _innocent(found, seed, step)
            case "look":
                found = who.contact(log)
                assert isinstance(found, watch.Advanced | watch.Same), f"seed {seed}, step {step}: {found}"
            case "crash":  # after COMMIT, before the signature: the same checkpoint is signed again
                note = log.note()
                log.restore(log.backup(), log.tree.size)
                assert log.note() == note, f"seed {seed}, step {step}"
            case "backup":
                kept = log.backup()
            case "restore":
                newest = max(one.pin.size if one.pin is not None else 0 for one in followers)
                held = peer.seen.get(log.origin)
                if log.restore(kept, max(newest, held.size if held is not None else 0)):
                    late = None  # what was on its way went with the process
            case "witness":
                peer.trust_newer_keys(log)
                assert peer.push(log) == 200, f"seed {seed}, step {step}"
            case "lag":  # an answer that was on its way for long
                if late is not None:
                    _innocent(who.judge(*late, log), seed, step)
                late = log.status(who.pin.size if who.pin is not None else None)
            case "rotate":
                if all(one.pin is not None and set(log.keys[:1]) <= set(one.pin.keys) for one in followers):
                    log.rotate()
            case "meet":
                other = rng.choice(followers)
                assert who.meet(other) is None, f"seed {seed}, step {step}"
                if (found_both := who.agree(other, log)) is not None:
                    _innocent(found_both, seed, step)
            case "beat":
                log.heartbeat()
    assert peer.evidence is None and all(one.evidence is None for one in followers), f"seed {seed}"
    for one in followers:
        assert isinstance(one.contact(log), watch.Advanced | watch.Same), f"seed {seed}"


def _innocent(found: watch.Judgement, seed: int, step: int) -> None:
    assert not isinstance(found, watch.Contradiction), f"seed {seed}, step {step}: {found.evidence.sentence()}"
