"""Notes, checkpoints, cosignatures and receipts: read what others wrote, write it the same, refuse the rest."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from harness.merkle_log import MemoryLog, cosigner, entries, signer
from meshd.errors import FormatError, MeshError, ProofError, SignatureError
from meshd.tlog import checkpoint, cosignature, note, proof
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.note import Note, Verifier
from meshd.tlog.policy import Policy
from meshd.tlog.proof import Proof
from meshd.tlog.witness import Request

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "tlog" / "notes.json").read_text())
LOG = MemoryLog(entries(11))
W1, W2 = cosigner("w1"), cosigner("w2")


def test_a_note_that_another_implementation_signed_verifies() -> None:
    verifier = Verifier.parse(VECTORS["signed"]["vkey"])
    data = VECTORS["signed"]["note"].encode()
    parsed = Note.parse(data)
    assert [one.verifier for one in note.verified(parsed, [verifier])] == [verifier]
    assert parsed.encode() == data
    with pytest.raises(SignatureError):
        note.verified(Note(parsed.text.replace("cryptography", "money"), parsed.signatures), [verifier])


@pytest.mark.parametrize("number", range(len(VECTORS["vkeys"]["good"])))
def test_verifier_keys_of_others_are_read_and_written_again(number: int) -> None:
    vkey = VECTORS["vkeys"]["good"][number]
    assert Verifier.parse(vkey).vkey == vkey


@pytest.mark.parametrize("number", range(len(VECTORS["vkeys"]["bad"])))
def test_what_is_no_verifier_key_is_refused(number: int) -> None:
    with pytest.raises(FormatError):
        Verifier.parse(VECTORS["vkeys"]["bad"][number])


def test_a_key_with_another_key_id_or_name_is_refused() -> None:
    name, identity, key = LOG.signer.vkey.split("+", 2)
    for vkey in (f"other+{identity}+{key}", f"{name}+00000000+{key}", f"{name}+{identity.upper()}+{key}", f"{name}+"):
        if vkey != LOG.signer.vkey:
            with pytest.raises(FormatError):
                Verifier.parse(vkey)


def test_a_post_quantum_key_is_named_as_what_is_missing() -> None:
    with pytest.raises(FormatError, match="ML-DSA-44"):
        Verifier.parse("w.example+00000000+" + base64.b64encode(b"\6" + bytes(32)).decode())


@pytest.mark.parametrize("name", ["checkpoint", "cosigned"])
def test_published_checkpoints_are_read_and_written_again(name: str) -> None:
    data = VECTORS[name].encode()
    parsed = Note.parse(data)
    assert parsed.encode() == data
    found = Checkpoint.parse(parsed.text)
    assert (found.origin, found.size, found.text) == ("example.com/behind-the-sofa", 20852163, parsed.text)


def test_the_published_witness_request_is_read_and_written_again() -> None:
    data = VECTORS["add_checkpoint"].encode()
    request = Request.parse(data)
    assert (request.old, len(request.proof), request.origin) == (20852014, 4, "example.com/behind-the-sofa")
    assert request.encode() == data


def test_a_cosignature_is_over_the_time_and_the_note_as_published() -> None:
    signature = cosignature.make(LOG.note().text, W1, 1679315147)
    public = W1.key.verify_key.public
    assert signature.key_id == hashlib.sha256(W1.name.encode() + b"\n\x04" + public).digest()[:4]
    assert signature.signature[:8] == (1679315147).to_bytes(8, "big")
    message = b"cosignature/v1\ntime 1679315147\n" + LOG.note().text.encode()
    Ed25519PublicKey.from_public_bytes(public).verify(signature.signature[8:], message)


def test_a_log_signs_the_text_as_published() -> None:
    signed = LOG.note()
    public = LOG.signer.key.verify_key.public
    [line] = signed.signatures
    assert line.key_id == hashlib.sha256(LOG.signer.name.encode() + b"\n\x01" + public).digest()[:4]
    Ed25519PublicKey.from_public_bytes(public).verify(line.signature, signed.text.encode())
    assert LOG.note().encode() == signed.encode(), "signing again gives the same bytes"


def test_a_witness_that_signs_again_replaces_its_line_and_an_old_one_does_not() -> None:
    first = cosignature.add(LOG.note(), W1, 100)
    later = cosignature.add(first, W1, 200)
    assert cosignature.verify(later, W1.verifier) == 200
    assert len(later.signatures) == 2
    assert cosignature.verify(cosignature.add(later, W1, 150), W1.verifier) == 200


def test_lines_of_a_witness_are_taken_only_if_they_verify_under_its_key() -> None:
    text = LOG.note().text
    good, strange = cosignature.make(text, W1, 5), cosignature.make(text, W2, 5)
    answer = (good.line + strange.line).encode()
    assert note.add_lines(LOG.note(), answer, [W1.verifier]).signatures[1:] == (good,)
    wrong = cosignature.make(LOG.note(3).text, W1, 5)
    with pytest.raises(SignatureError):
        note.add_lines(LOG.note(), wrong.line.encode(), [W1.verifier])
    for junk in (b"", b"\n", b"\xff\n", b"- w x\n", good.line.encode()[:-1], good.line.encode() * 100):
        with pytest.raises(FormatError):
            note.add_lines(LOG.note(), junk, [W1.verifier])


def test_the_log_can_t_be_made_to_lose_its_own_line() -> None:
    broken = Note(LOG.note().text, (note.Signature(LOG.signer.name, LOG.signer.verifier.key_id, bytes(64)),))
    assert note.merge(LOG.note(), broken, [W1.verifier]) == LOG.note()


def test_notes_with_other_texts_are_not_merged() -> None:
    with pytest.raises(FormatError):
        note.merge(LOG.note(), LOG.note(3), LOG.verifiers)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"\n\n\xe2\x80\x94 a AAAAAAA=\n",
        b"te\txt\n\n\xe2\x80\x94 a AAAAAAA=\n",
        b"text\r\n\n\xe2\x80\x94 a AAAAAAA=\n",
        b"\xff\n\n\xe2\x80\x94 a AAAAAAA=\n",
        b"text\n\n- a AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94 a+b AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94  AAAAAAA=\n",
        b"text\n\n\xe2\x80\x94 a AAAA\n",
        b"text\n\n\xe2\x80\x94 a AAAAAAB=\n",
        b"text\n\n\xe2\x80\x94 a AAAAAAA=",
        b"text\n\n\xe2\x80\x94 a AAAAAAA= x\n",
        b"text\n\n" + b"\xe2\x80\x94 a AAAAAAA=\n" * 65,
        b"text\n\n\xe2\x80\x94 a " + b"A" * (64 << 10) + b"\n",
    ],
    ids=range(16),
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        Note.parse(data)


def test_sixteen_post_quantum_lines_of_others_are_carried() -> None:
    lines = tuple(note.Signature(f"w{number}", bytes(4), bytes(2428)) for number in range(16))
    carried = Note(LOG.note().text, (*LOG.note().signatures, *lines))
    assert Note.parse(carried.encode()) == carried
    assert len(note.verified(carried, LOG.verifiers)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a\n1\n",
        "a\n01\nROOT\n",
        "a\n-1\nROOT\n",
        "a\n+1\nROOT\n",
        "a\n1 \nROOT\n",
        "a\n٣\nROOT\n",
        "a\n9223372036854775808\nROOT\n",
        "a\n0\nROOT\n",
        "a\n1\nQQ==\n",
        "a\n1\nROOT",
        "a\n1\nROOT\n\n",
        "\n1\nROOT\n",
    ],
    ids=range(12),
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        Checkpoint.parse(text.replace("ROOT", base64.b64encode(bytes(32)).decode()))


def test_extension_lines_are_signed_but_mean_nothing() -> None:
    text = LOG.checkpoint().text + "something else\n"
    found, _ = checkpoint.read(note.sign(text, [LOG.signer]), LOG.verifiers)
    assert found == LOG.checkpoint()


def test_a_key_speaks_for_the_log_of_its_name_alone() -> None:
    other = note.sign(Checkpoint("other.example/mmm-log", 3, LOG.root(3)).text, [LOG.signer])
    with pytest.raises(SignatureError):
        checkpoint.read(other, LOG.verifiers)
    as_witness = Verifier(LOG.signer.name, note.COSIGNATURE, LOG.signer.key.verify_key)
    with pytest.raises(SignatureError):
        checkpoint.read(LOG.note(), [as_witness])


def test_a_receipt_is_written_and_read_and_verified() -> None:
    receipt = LOG.proof(4, extra=b"salt")
    data = receipt.encode()
    assert data.startswith(b"c2sp.org/tlog-proof@v1\nextra c2FsdA==\nindex 4\n")
    assert Proof.parse(data) == receipt
    assert receipt.verify(LOG.leaf(4), LOG.verifiers) == LOG.checkpoint()
    assert Proof.parse(MemoryLog(entries(1)).proof(0).encode()).hashes == ()
    with pytest.raises(ProofError):
        receipt.verify(LOG.leaf(5), LOG.verifiers)
    with pytest.raises(SignatureError):
        receipt.verify(LOG.leaf(4), [signer("other.example/mmm-log").verifier])


def test_a_receipt_must_meet_the_policy() -> None:
    policy = Policy.parse(f"log {LOG.signer.vkey}\nwitness W {W1.vkey}\nquorum W\n".encode())
    receipt = LOG.proof(4)
    with pytest.raises(SignatureError, match="quorum"):
        receipt.verify(LOG.leaf(4), (), policy)
    cosigned = Proof(4, receipt.hashes, cosignature.add(receipt.checkpoint, W1, 9))
    assert cosigned.verify(LOG.leaf(4), (), policy) == LOG.checkpoint()


RECEIPT = LOG.proof(4, extra=b"salt").encode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"@v1", b"@v2"),
        (b"index 4", b"index 04"),
        (b"index 4\n", b""),
        (b"extra c2FsdA==", b"extra c2FsdA"),
        (b"extra c2FsdA==", b"extra "),
        (b"index 4\n", b"index 4\nAAAA\n"),
        (b"index 4\n", b"index 4\n" + (base64.b64encode(bytes(32)) + b"\n") * 65),
        (b"\n\n", b"\n"),
    ],
    ids=range(8),
)
def test_what_is_no_receipt_is_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(FormatError):
        Proof.parse(RECEIPT.replace(old, new))


def test_a_receipt_is_bounded() -> None:
    with pytest.raises(FormatError):
        Proof.parse(RECEIPT + bytes(proof.MAX_BYTES))
    with pytest.raises(FormatError):
        Proof.parse(LOG.proof(4, extra=bytes(proof.MAX_EXTRA + 1)).encode())


@given(st.integers(0, len(RECEIPT) - 1), st.integers(1, 255))
def test_no_bent_byte_makes_another_receipt_that_verifies(at: int, change: int) -> None:
    bent = RECEIPT[:at] + bytes([RECEIPT[at] ^ change]) + RECEIPT[at + 1 :]
    try:
        found = Proof.parse(bent)
        found.verify(LOG.leaf(4), LOG.verifiers)
    except MeshError:
        return
    assert found.extra != b"salt", "only the extra data, which proves nothing, may change"
