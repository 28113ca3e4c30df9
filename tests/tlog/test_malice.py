"""What a malicious portal may do with its own key, and what a device makes of it: each at the first contact after it.

The evidence is checked as a stranger would: decoded from bytes, with the log's public key and nothing else.
"""

from __future__ import annotations

import dataclasses

import pytest

from harness.log_world import INTERVAL, Follower, Log, Witness, honest_life, key
from meshd.errors import MeshError, ProofError
from meshd.tlog import tree, watch
from meshd.tlog.evidence import Evidence
from meshd.tlog.frontier import Frontier, verify_page
from meshd.tlog.note import Signer

SIZES = [3, 4, 7, 8]  # what a device has seen: a proof from a power of two shows less by itself


def grown(size: int, origin: str = "portal.example/mmm-log") -> tuple[Log, Follower]:
    """An honest log of this size, and a device that has seen it."""
    log = Log(origin=origin)
    for count in range(size):
        log.publish(f"entry {count}".encode())
    who = Follower(log.origin, log.keys)
    assert isinstance(who.contact(log), watch.Advanced)
    return log, who


def convicted(evidence: Evidence | None, log: Log) -> None:
    """A stranger believes it, of this log and of no other."""
    assert evidence is not None
    again = Evidence.decode(evidence.encode())
    watch.check(again, log.keys)
    with pytest.raises(MeshError):
        watch.check(again, [Signer(log.origin, key("another")).verifier])
    assert log.origin in again.sentence()


def more(count: int) -> list[bytes]:
    return [f"more {one}".encode() for one in range(count)]


@pytest.mark.parametrize("seen", SIZES)
@pytest.mark.parametrize("grows", [2, 5, 9])
def test_a_history_rewritten_is_evidence(seen, grows):
    log, who = grown(seen)
    liar = log.fork(at=1, instead=[b"another", *log.entries[2:], *more(grows)])
    assert isinstance(who.contact(liar), watch.Contradiction)
    convicted(who.evidence, log)
    assert who.pin.size == seen


@pytest.mark.parametrize("seen", SIZES)
def test_a_dropped_entry_is_evidence(seen):
    log, who = grown(seen)
    liar = log.fork(at=1, instead=[*log.entries[2:], *more(3)])
    assert isinstance(who.contact(liar), watch.Contradiction)
    convicted(who.evidence, log)


def test_two_views_of_one_size_are_evidence_where_two_devices_meet():
    log, one = grown(6)
    other = Follower(log.origin, log.keys)
    assert isinstance(other.contact(log.fork(at=4, instead=more(2))), watch.Advanced)
    assert one.meet(other) is not None
    convicted(one.evidence, log)
    convicted(other.evidence, log)


def test_two_views_of_different_sizes_are_evidence_where_two_devices_meet():
    log, one = grown(6)
    other, liar = Follower(log.origin, log.keys), log.fork(at=4, instead=more(5))
    assert isinstance(other.contact(liar), watch.Advanced)
    assert one.meet(other) is None
    found = one.agree(other, liar)  # whichever view it proves, it has signed the other
    assert isinstance(found, watch.Contradiction)
    convicted(found.evidence, log)
    refused = one.agree(other, log)  # or it proves nothing, and is not believed
    assert isinstance(refused, watch.Suspect)


def test_a_rollback_is_refused_at_once_and_evidence_once_it_goes_on():
    log, who = grown(7)
    liar = log.fork(at=5, instead=[])
    assert isinstance(who.contact(liar), watch.Stale) and who.pin.size == 7
    for one in more(4):
        liar.publish(one)
    assert isinstance(who.contact(liar), watch.Contradiction)
    convicted(who.evidence, log)


def test_the_newest_version_withheld_shows_in_the_size_that_a_receipt_had():
    log, who = grown(5)
    old, proof = log.note(), log.consistency(5)
    who.receipt(log.publish(b"mine"), b"mine", log)
    assert isinstance(who.judge(old, proof, log), watch.Stale) and who.pin.size == 6


def test_the_newest_version_withheld_from_who_saw_nothing_newer_shows_in_the_age():
    log, who = grown(5)
    then, old = log.now, log.note()
    log.now += 3 * INTERVAL
    log.publish(b"another's")
    assert isinstance(who.judge(old, (), log), watch.Same)
    assert watch.freshness(who.pin.note, [log.witness.verifier], log.now, INTERVAL).late
    assert not watch.freshness(who.pin.note, [log.witness.verifier], then + INTERVAL, INTERVAL).late


def test_a_forged_receipt_proves_nothing():
    log, who = grown(5)
    receipt = log.publish(b"mine")
    pin = who.pin
    forged = [
        (dataclasses.replace(receipt, hashes=(bytes(32), *receipt.hashes[1:])), b"mine"),
        (dataclasses.replace(receipt, hashes=receipt.hashes[:-1]), b"mine"),
        (dataclasses.replace(receipt, checkpoint=grown(6, "another.example/mmm-log")[0].note()), b"mine"),
        (receipt, b"what was not published"),
    ]
    for proof, data in forged:
        assert isinstance(who.receipt(proof, data, log), MeshError)
    assert who.pin == pin and not who.receipts
    assert isinstance(who.receipt(receipt, b"mine", log), watch.Advanced)


def test_a_receipt_with_a_wrong_index_proves_nothing():
    log, who = grown(5)
    receipt = log.publish(b"mine")
    for wrong in (0, 4, 6, 2**62):
        assert isinstance(who.receipt(dataclasses.replace(receipt, index=wrong), b"mine", log), MeshError)


def test_two_entries_at_one_index_are_evidence():
    log, who = grown(5)
    liar = log.fork(at=5, instead=[])
    who.receipt(log.publish(b"mine"), b"mine", log)
    assert isinstance(who.receipt(liar.publish(b"mine too"), b"mine too", liar), watch.Contradiction)
    convicted(who.evidence, log)


def test_a_frozen_clock_shows_in_the_age_of_the_checkpoint():
    log, who = grown(5)
    frozen = log.now
    for hours in range(4):
        assert isinstance(who.contact(log), watch.Advanced | watch.Same)
        late = watch.freshness(who.pin.note, [log.witness.verifier], frozen + hours * INTERVAL, INTERVAL).late
        assert late == (hours > 2)


@pytest.mark.parametrize("garbage", [None, (), (bytes(32),) * 3, (b"\xff" * 32,) * 64, (b"short",), (bytes(32),) * 500])
def test_garbage_for_a_proof_moves_no_pin_and_accuses_nobody(garbage):
    log, who = grown(5)
    pin = who.pin
    for one in more(4):
        log.publish(one)
    found = who.judge(log.note(), garbage, log)
    assert isinstance(found, watch.Suspect) and who.pin == pin and who.evidence is None
    assert isinstance(who.contact(log), watch.Advanced)  # and the right proof mends it


def test_a_fork_that_a_restart_has_healed_is_evidence_for_who_saw_it():
    log, who = grown(5)
    assert isinstance(who.contact(log.fork(at=5, instead=more(3))), watch.Advanced)
    for one in (b"a", b"b", b"c", b"d", b"e"):
        log.publish(one)
    assert isinstance(who.contact(log), watch.Contradiction)
    convicted(who.evidence, log)


def test_of_a_tampered_page_nothing_is_taken():
    log, _ = grown(13)
    hashes = [tree.leaf_hash(one) for one in log.entries]
    edge = verify_page(Frontier(), hashes[:5], 13, log.tree.root(), tree.consistency_proof(5, 13, log.tree.read))
    proof = tree.consistency_proof(9, 13, log.tree.read)
    page = hashes[5:9]
    pages = [page[::-1], page[:3], [*page, page[0]], [tree.leaf_hash(b"other"), *page[1:]], []]
    for tampered in pages:
        with pytest.raises(ProofError):
            verify_page(edge, tampered, 13, log.tree.root(), proof)
    assert verify_page(edge, page, 13, log.tree.root(), proof).root() == log.tree.root(9)


def test_a_checkpoint_of_another_log_is_no_checkpoint_of_this_one():
    log, who = grown(5)
    other, _ = grown(9, "another.example/mmm-log")  # by the same key
    found = who.judge(other.note(), other.consistency(5), other)
    assert isinstance(found, watch.Suspect) and who.pin.origin == log.origin and who.pin.size == 5
    fresh = Follower(log.origin, (*log.keys, *other.keys))
    assert isinstance(fresh.contact(other), watch.Suspect) and fresh.pin is None


def test_a_witness_cosigns_no_fork_and_keeps_what_shows_it():
    log, _ = grown(5)
    peer = Witness({log.origin: log.keys})
    assert peer.push(log) == 200
    liar = log.fork(at=3, instead=more(2))
    assert peer.push(liar) == 409
    convicted(peer.evidence, log)
    liar = log.fork(at=3, instead=more(4))
    peer.evidence = None
    assert peer.push(liar) == 422
    convicted(peer.evidence, log)


def test_no_honest_log_is_ever_accused():
    for seed in range(250):
        honest_life(seed)
