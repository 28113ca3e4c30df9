"""Pins and verdicts: what a log can't explain away becomes evidence, and an honest log is never accused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.merkle_log import ORIGIN, MemoryLog, cosigner, entries, signer
from meshd.errors import FormatError, MeshError, ProofError, SignatureError
from meshd.tlog import cosignature, evidence, note, tree, witness
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.evidence import Evidence, check, compare
from meshd.tlog.note import Note
from meshd.tlog.policy import Policy
from meshd.tlog.watch import (
    Advanced,
    Contradiction,
    Pin,
    Same,
    Stale,
    Suspect,
    accuse,
    freshness,
    judge,
)

SIZE = 70
LOG = MemoryLog(entries(SIZE))
TWINS = {keep: LOG.twin(keep) for keep in (0, 1, 5, 31, 32, 63, 69)}
W1 = cosigner("w1")


def pinned(size: int, log: MemoryLog = LOG) -> Pin:
    verdict = judge(None, log.note(size), log.verifiers, None, None, 1000, ORIGIN)
    assert isinstance(verdict, Advanced)
    return verdict.pin


def test_the_first_checkpoint_is_pinned() -> None:
    pin = pinned(10)
    assert (pin.origin, pin.size, pin.root, pin.time, pin.keys) == (
        ORIGIN,
        10,
        LOG.root(10),
        1000,
        tuple(LOG.verifiers),
    )


def test_a_newer_checkpoint_with_its_proof_advances_the_pin() -> None:
    verdict = judge(pinned(10), LOG.note(33), (), None, LOG.consistency(10, 33), 2000)
    assert verdict == Advanced(Pin(ORIGIN, 33, LOG.root(33), LOG.note(33), 2000, tuple(LOG.verifiers)))


def test_the_same_checkpoint_brings_its_newer_cosignatures() -> None:
    seen = cosignature.add(LOG.note(10), W1, 77)
    verdict = judge(pinned(10), seen, [W1.verifier], None, None, 2000)
    assert isinstance(verdict, Same)
    assert (verdict.pin.time, verdict.pin.note) == (1000, seen)


def test_a_newer_checkpoint_without_a_proof_is_suspect_and_no_more() -> None:
    verdict = judge(pinned(10), LOG.note(33), (), None, None, 2000)
    assert isinstance(verdict, Suspect)
    assert "33" in verdict.reason


def test_a_garbage_proof_is_suspect_and_no_more() -> None:
    for proof in ((bytes(32),) * 6, LOG.consistency(9, 33), (b"x",), (bytes(32),) * 200):
        assert isinstance(judge(pinned(10), LOG.note(33), (), None, proof, 2000), Suspect)


def test_a_smaller_checkpoint_is_stale() -> None:
    for proof in (None, LOG.consistency(10, 33)):
        verdict = judge(pinned(33), LOG.note(10), (), None, proof, 2000)
        assert isinstance(verdict, Stale)
        assert verdict.size == 10


def test_a_checkpoint_of_another_log_is_suspect_even_under_its_own_key() -> None:
    other = MemoryLog(entries(20), signer("other.example/mmm-log"))
    assert isinstance(judge(pinned(10), other.note(), other.verifiers, None, None, 2000), Suspect)
    assert isinstance(judge(None, other.note(), other.verifiers, None, None, 2000, ORIGIN), Suspect)


def test_a_strange_key_is_not_taken_in_the_place_of_the_pinned_one() -> None:
    stranger = MemoryLog(entries(33), signer(secret="stranger"))
    verdict = judge(pinned(10), stranger.note(), stranger.verifiers, None, stranger.consistency(10), 2000)
    assert isinstance(verdict, Suspect)


def test_a_new_key_is_taken_from_a_note_that_the_pinned_one_signed_too() -> None:
    new = signer(secret="new")
    both = LOG.note(20, new)
    verdict = judge(pinned(10), both, [new.verifier], None, LOG.consistency(10, 20), 2000)
    assert isinstance(verdict, Advanced)
    assert verdict.pin.keys == (LOG.signer.verifier, new.verifier)
    alone = note.sign(LOG.checkpoint(33).text, [new])
    last = judge(verdict.pin, alone, [], None, LOG.consistency(20, 33), 3000)
    assert isinstance(last, Advanced)
    assert last.pin.keys == (new.verifier,), "who does not sign any longer does not speak any longer"


def test_a_new_key_is_taken_from_the_policy_file() -> None:
    new = signer(secret="new")
    policy = Policy.parse(f"log {new.vkey}\nquorum none\n".encode())
    alone = note.sign(LOG.checkpoint(20).text, [new])
    assert isinstance(judge(pinned(10), alone, [new.verifier], None, LOG.consistency(10, 20), 2000), Suspect)
    assert isinstance(judge(pinned(10), alone, (), policy, LOG.consistency(10, 20), 2000), Advanced)


def test_a_policy_that_is_not_met_keeps_the_pin() -> None:
    policy = Policy.parse(f"witness W {W1.vkey}\nquorum W\n".encode())
    proof = LOG.consistency(10, 20)
    assert isinstance(judge(pinned(10), LOG.note(20), (), policy, proof, 2000), Suspect)
    cosigned = cosignature.add(LOG.note(20), W1, 5)
    assert isinstance(judge(pinned(10), cosigned, (), policy, proof, 2000), Advanced)


def test_a_pinned_checkpoint_seen_again_without_its_cosignatures_is_the_same() -> None:
    policy = Policy.parse(f"witness W {W1.vkey}\nquorum W\n".encode())
    first = judge(None, cosignature.add(LOG.note(20), W1, 5), LOG.verifiers, policy, None, 1000)
    assert isinstance(first, Advanced)
    assert judge(first.pin, LOG.note(20), (), policy, None, 2000) == Same(first.pin)


@pytest.mark.parametrize("keep", TWINS)
def test_two_roots_for_one_size_are_evidence(keep: int) -> None:
    twin = TWINS[keep]
    verdict = judge(pinned(SIZE), twin.note(), (), None, None, 2000)
    assert isinstance(verdict, Contradiction)
    assert verdict.evidence.kind == "fork"
    assert_holds(verdict.evidence)


@pytest.mark.parametrize("keep", TWINS)
def test_a_rewritten_past_is_evidence_where_the_portal_shows_how_it_rewrote(keep: int) -> None:
    twin = TWINS[keep]
    for old in range(keep + 1, SIZE - 1):
        verdict = judge(pinned(old), twin.note(), (), None, twin.consistency(old), 2000)
        if isinstance(verdict, Suspect):
            assert old & (old - 1) == 0, "only from a power of two a proof does not name its start"
            if verdict.ask is None:
                continue
            found = accuse(pinned(old), twin.note(), twin.consistency(verdict.ask))
            assert found is not None
            verdict = found
        assert isinstance(verdict, Contradiction)
        assert_holds(verdict.evidence)


def test_a_rollback_to_another_past_is_evidence_too() -> None:
    twin = TWINS[5]
    verdict = judge(pinned(SIZE), twin.note(43), (), None, LOG.consistency(43), 2000)
    assert isinstance(verdict, Contradiction)
    assert_holds(verdict.evidence)


def test_two_entries_at_one_place_are_evidence() -> None:
    twin = TWINS[31]
    found = Evidence.of_leaves(twin.proof(40, 50), twin.leaf(40), LOG.proof(40), LOG.leaf(40), LOG.verifiers)
    assert found is not None
    assert found.kind == "leaf"
    assert_holds(found)
    assert Evidence.of_leaves(LOG.proof(40), LOG.leaf(40), twin.proof(41), twin.leaf(41), LOG.verifiers) is None
    assert Evidence.of_leaves(LOG.proof(30), LOG.leaf(30), twin.proof(30), twin.leaf(30), LOG.verifiers) is None


def test_devices_that_meet_find_the_split_view() -> None:
    here, there = LOG.note(), cosignature.add(TWINS[31].note(), W1, 9)
    found = compare(here, there, LOG.verifiers)
    assert found is not None
    assert_holds(found)
    assert compare(here, LOG.note(), LOG.verifiers) is None
    assert compare(here, LOG.note(50), LOG.verifiers) is None


def test_a_note_that_the_log_did_not_sign_accuses_nobody() -> None:
    forged = MemoryLog(entries(SIZE, past="forged"), signer(secret="stranger"))
    assert compare(LOG.note(), forged.note(), LOG.verifiers) is None
    renamed = Note(forged.note().text, LOG.note().signatures)
    assert compare(LOG.note(), renamed, LOG.verifiers) is None
    for kind in ("fork", "rewrite"):
        with pytest.raises(MeshError):
            check(Evidence(kind, LOG.note(), renamed), LOG.verifiers)


def test_evidence_needs_keys_of_the_log() -> None:
    found = compare(LOG.note(), TWINS[5].note(), LOG.verifiers)
    assert found is not None
    with pytest.raises(SignatureError):
        check(found, [signer(secret="stranger").verifier])


def test_evidence_says_in_a_sentence_what_it_shows() -> None:
    found = compare(LOG.note(), TWINS[5].note(), LOG.verifiers)
    assert found is not None
    assert found.sentence() == "portal.example/mmm-log has signed two different logs of 70 entries"
    assert found.origin == ORIGIN


@given(st.data())
def test_an_honest_log_is_never_accused(data: st.DataObject) -> None:
    one = data.draw(st.integers(0, SIZE))
    other = data.draw(st.integers(0, SIZE))
    answers = [None, LOG.consistency(min(one, other), max(one, other))]
    a, b = sorted((data.draw(st.integers(0, SIZE)), data.draw(st.integers(0, SIZE))))
    answers += [LOG.consistency(a, b), TWINS[5].consistency(a, b), data.draw(junk(LOG.consistency(a, b)))]
    if a < b:
        answers.append((LOG.leaf(a), *tree.inclusion_proof(a, b, LOG.read)))
    pin = pinned(one)
    for proof in answers:
        verdict = judge(pin, LOG.note(other), LOG.verifiers, None, proof, 2000)
        assert not isinstance(verdict, Contradiction)
        if other == one:
            assert isinstance(verdict, Same)
        assert accuse(pin, LOG.note(other), proof or ()) is None
        assert Evidence.of_rewrite(LOG.note(other), pin.note, proof or (), LOG.verifiers) is None
    assert compare(pin.note, LOG.note(other), LOG.verifiers) is None


@given(st.data())
def test_no_evidence_can_be_made_up_against_an_honest_log(data: st.DataObject) -> None:
    first, second = sorted((data.draw(st.integers(0, SIZE)), data.draw(st.integers(0, SIZE))))
    index = data.draw(st.integers(0, SIZE))
    leaves = tuple(data.draw(st.lists(st.sampled_from([*NODES, bytes(32)]), max_size=2)))
    proofs = tuple(data.draw(st.lists(junk(LOG.consistency(first, second)), max_size=2)))
    for kind in evidence.KINDS:
        with pytest.raises(MeshError):
            check(Evidence(kind, LOG.note(first), LOG.note(second), index, leaves, proofs), LOG.verifiers)


NODES = list(LOG.nodes.values())


def junk(good: tuple[bytes, ...]) -> st.SearchStrategy[tuple[bytes, ...]]:
    """Lists of true nodes of the log, in any order, and bent good proofs."""
    nodes = st.lists(st.sampled_from(NODES), max_size=8).map(tuple)
    return st.one_of(nodes, st.permutations(good).map(tuple), st.just(good[:-1]), st.just((*good, bytes(32))))


@given(st.data())
def test_evidence_is_written_and_read_and_no_bent_byte_makes_other_evidence(data: st.DataObject) -> None:
    found = compare(LOG.note(), TWINS[5].note(), LOG.verifiers)
    assert found is not None
    raw = found.encode()
    assert Evidence.decode(raw) == found
    at = data.draw(st.integers(0, len(raw) - 1))
    bent = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    with pytest.raises(MeshError):
        check(Evidence.decode(bent), LOG.verifiers)


def test_evidence_is_bounded() -> None:
    with pytest.raises(FormatError):
        Evidence.decode(bytes(evidence.MAX_BYTES + 1))
    many = TWINS[5].note()
    for number in range(12):
        many = cosignature.add(many, cosigner(f"w{number}"), 1)
    found = compare(LOG.note(), many, LOG.verifiers)
    assert found is not None
    assert len(found.second.signatures) == 1, "cosignatures of others are no part of it"


def assert_holds(found: Evidence) -> None:
    """A third party finds the same, with nothing but the bytes and the key of the log."""
    again = Evidence.decode(found.encode())
    assert again == found
    check(again, LOG.verifiers)
    with pytest.raises((ProofError, SignatureError)):
        check(again, [signer("other.example/mmm-log").verifier])


@pytest.mark.parametrize(
    ("times", "now", "newest", "late"),
    [((), 1000, None, True), ((900,), 1000, 900, False), ((799,), 1000, 799, True), ((9000,), 1000, None, True)],
)
def test_a_log_whose_cosigners_fell_silent_may_be_withholding(
    times: tuple[int, ...], now: int, newest: int | None, late: bool
) -> None:
    seen = LOG.note()
    for time in times:
        seen = cosignature.add(seen, W1, time)
    found = freshness(seen, [W1.verifier], now, 100)
    assert (found.newest, found.late) == (newest, late)


def test_a_witness_cosigns_what_continues_what_it_saw() -> None:
    seen = None
    for size in (0, 3, 3, 33, SIZE):
        old = seen.size if seen else 0
        request = witness.Request(old, LOG.consistency(old, size), LOG.note(size))
        outcome = witness.decide(LOG.verifiers, seen, witness.Request.parse(request.encode()))
        assert (outcome.status, outcome.evidence) == (200, None)
        seen = outcome.seen
        assert seen is not None
        assert (seen.size, seen.root) == (size, LOG.root(size))


def seen_at(size: int) -> witness.Seen:
    return witness.Seen(size, LOG.root(size), LOG.note(size))


def test_a_witness_answers_as_the_protocol_says() -> None:
    ask, twin = witness.Request, TWINS[5]
    good = ask(10, LOG.consistency(10, 33), LOG.note(33))
    assert witness.decide((), seen_at(10), good).status == 404
    assert witness.decide([signer(secret="stranger").verifier], seen_at(10), good).status == 403
    assert witness.decide(LOG.verifiers, seen_at(10), ask(34, (), LOG.note(33))).status == 400
    conflict = witness.decide(LOG.verifiers, seen_at(20), good)
    assert (conflict.status, conflict.body, conflict.seen) == (409, b"20\n", None)
    assert witness.decide(LOG.verifiers, None, good).body == b"0\n"
    bad = witness.decide(LOG.verifiers, seen_at(10), ask(10, (bytes(32),), LOG.note(33)))
    assert (bad.status, bad.evidence, bad.seen) == (422, None, None)
    rewrite = witness.decide(LOG.verifiers, seen_at(10), ask(10, twin.consistency(10, 33), twin.note(33)))
    assert (rewrite.status, rewrite.seen) == (422, None)
    assert rewrite.evidence is not None
    assert_holds(rewrite.evidence)
    for old in (0, 33):
        fork = witness.decide(LOG.verifiers, seen_at(33), ask(old, (), twin.note(33)))
        assert (fork.status, fork.seen) == (409, None)
        assert fork.evidence is not None
        assert_holds(fork.evidence)


def test_a_proof_from_nothing_must_be_empty() -> None:
    request = witness.Request(0, (bytes(32),), LOG.note(3))
    assert witness.decide(LOG.verifiers, None, request).status == 422


@pytest.mark.parametrize("old", ["", "old", "old 01", "old -1", "new 3", "old 3 ", "old 9223372036854775808"])
def test_a_request_of_another_form_is_refused(old: str) -> None:
    with pytest.raises(FormatError):
        witness.Request.parse(f"{old}\n\n".encode() + LOG.note().encode())


def test_a_request_with_too_many_hashes_or_with_no_checkpoint_is_refused() -> None:
    many = witness.Request(3, (bytes(32),) * 64, LOG.note()).encode()
    with pytest.raises(FormatError, match="63"):
        witness.Request.parse(many)
    with pytest.raises(FormatError):
        witness.Request.parse(b"old 3\n\n" + note.sign("hello\n", [LOG.signer]).encode())
    with pytest.raises(FormatError):
        witness.Request.parse(bytes(witness.MAX_BYTES + 1))


def test_a_log_is_found_by_the_hash_of_its_origin() -> None:
    assert witness.origin_hash("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


def test_the_root_of_an_empty_log_is_that_of_nothing() -> None:
    with pytest.raises(FormatError):
        Checkpoint(ORIGIN, 0, bytes(32))


def test_evidence_against_a_log_that_stuffs_its_checkpoints_fits_its_bound() -> None:
    keys = [signer(secret=f"key {number}") for number in range(note.MAX_SIGNATURES)]
    stuffing = "x" * 3900 + "\n"
    here, there = (note.sign(log.checkpoint().text + stuffing, keys) for log in (LOG, TWINS[5]))
    found = compare(here, there, [one.verifier for one in keys])
    assert found is not None
    assert Evidence.decode(found.encode()) == found
    assert isinstance(judge(None, note.sign(LOG.checkpoint().text + stuffing * 2, keys), [], None, None, 1), Suspect)
