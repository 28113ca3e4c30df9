"""Files with proofs and evidence, as somebody reads them who has nothing else but a key."""

from __future__ import annotations

import dataclasses

import pytest

from harness.log_world import Follower, Log
from meshd.errors import BadRequest, ProofError
from meshd.tlog import watch
from meshd.tlog.leaf import Leaf
from meshd.tlog.offline import report
from meshd.tlog.proof import Proof

LEAF = Leaf("TID:6", None, "New", "MDEV-ICE", 1_790_000_000, bytes([6]) * 32, bytes(32), bytes(32))


def logged() -> tuple[Log, Proof]:
    """A log of six entries, and the proof of the last."""
    log = Log()
    for place in range(5):
        log.publish(dataclasses.replace(LEAF, tid=f"TID:{place + 1}").encode())
    found = log.publish(LEAF.encode())
    return log, dataclasses.replace(found, extra=bytes(16) + LEAF.encode())


def vkeys(log: Log) -> list[str]:
    return [one.vkey for one in log.keys]


def test_a_proof_says_what_is_proven_of_which_log_and_who_signed_when() -> None:
    log, proof = logged()
    said = report(proof.encode(), [*vkeys(log), log.witness.vkey])
    assert said["holds"] and said["kind"] == "proof"
    assert (said["origin"], said["size"], said["index"]) == (log.origin, 6, 5)
    assert said["entry"]["id"] == "MDEV-ICE" and said["entry"]["added"] == "2026-09-21T14:13:20Z"
    assert [(one["role"], one["time"]) for one in said["signers"]] == [
        ("log", None),
        ("witness", "2026-09-21T14:13:20Z"),
    ]
    assert said["unchecked"] == said["missing"] == []


def test_without_the_logs_key_nothing_is_proven_whoever_else_cosigned() -> None:
    log, proof = logged()
    for keys in ([], [log.witness.vkey]):
        said = report(proof.encode(), keys)
        assert not said["holds"] and "no key of the log" in said["message"]
    assert not report(proof.encode(), vkeys(Log(seed="another")))["holds"]


def test_another_entry_place_or_root_is_proven_by_nothing() -> None:
    log, proof = logged()
    other = dataclasses.replace(LEAF, vid=bytes(32))
    for forged in (
        dataclasses.replace(proof, extra=bytes(16) + other.encode()),
        dataclasses.replace(proof, index=4),
        dataclasses.replace(proof, hashes=proof.hashes[:-1]),
        dataclasses.replace(proof, checkpoint=Log(seed="another").publish(LEAF.encode()).checkpoint),
    ):
        assert not report(forged.encode(), vkeys(log))["holds"]


def test_a_policy_says_whose_cosignatures_it_takes() -> None:
    log, proof = logged()
    policy = f"log {vkeys(log)[0]}\nwitness own {log.witness.vkey}\nquorum own\n".encode()
    assert report(proof.encode(), [], policy)["holds"]
    bare = dataclasses.replace(proof.checkpoint, signatures=proof.checkpoint.signatures[:1])
    said = report(dataclasses.replace(proof, checkpoint=bare).encode(), [], policy)
    assert not said["holds"] and "quorum own" in said["message"]
    assert said["missing"] == [log.witness.vkey]


@pytest.mark.parametrize("grows", [0, 4])
def test_evidence_holds_for_whoever_has_the_logs_key_and_for_nobody_else(grows: int) -> None:
    log, _ = logged()
    who = Follower(log.origin, log.keys)
    who.contact(log)
    found = who.contact(log.fork(at=1, instead=[b"other", *log.entries[2:], *[b"more"] * grows]))
    assert isinstance(found, watch.Contradiction)
    said = report(found.evidence.encode(), vkeys(log))
    assert said["holds"] and said["kind"] == "evidence" and log.origin in said["message"]
    assert not report(found.evidence.encode(), [])["holds"]
    assert not report(found.evidence.encode(), vkeys(Log(seed="another")))["holds"]


def test_two_checkpoints_of_one_history_are_evidence_of_nothing() -> None:
    log, _ = logged()
    small = log.note(3)
    said = report(watch.Evidence("fork", small, log.note()).encode(), vkeys(log))
    assert not said["holds"]


@pytest.mark.parametrize("data", [b"", b"c2sp.org/tlog-proof@v1\n", b"\x80", b"hello", bytes(70_000)], ids=range(5))
def test_what_is_neither_is_said_to_be_neither(data: bytes) -> None:
    with pytest.raises(ProofError):
        report(data, [])


def test_a_proof_of_another_sort_of_entry_is_not_taken_for_one_of_a_portal() -> None:
    log, proof = logged()
    with pytest.raises(ProofError):
        report(dataclasses.replace(proof, extra=b"").encode(), vkeys(log))


def test_a_key_or_a_policy_that_is_none_is_a_mistake_of_who_asks() -> None:
    _, proof = logged()
    with pytest.raises(BadRequest):
        report(proof.encode(), ["no key"])
    with pytest.raises(BadRequest, match="line 1"):
        report(proof.encode(), [], b"nonsense\n")


def test_a_cosignature_that_does_not_verify_is_told() -> None:
    log, proof = logged()
    note = proof.checkpoint
    spoiled = [
        dataclasses.replace(one, signature=bytes(72)) if "witness" in one.name else one for one in note.signatures
    ]
    said = report(
        dataclasses.replace(proof, checkpoint=dataclasses.replace(note, signatures=tuple(spoiled))).encode(),
        [*vkeys(log), log.witness.vkey],
    )
    assert said["spoiled"] == [log.witness.vkey]
