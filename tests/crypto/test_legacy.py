"""Reading what 2016 made: every golden signature, fingerprint and ciphertext, and nothing that pretends to be one."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.crypto import base64url, jws, keys, legacy, udf
from meshd.errors import DecryptError, FormatError, MeshError, SignatureError

pytestmark = pytest.mark.draft("Documents of 2016")

VECTORS = Path(__file__).parent.parent / "vectors" / "mesh2016"
LOGS = ["2015-11-02-runmesh-test.json", "2016-01-07-server.json", "2016-01-27-server.json", "2016-03-08-examples.json"]


def _vectors(name: str, kind: str) -> list[dict[str, Any]]:
    found = [vector for vector in json.loads((VECTORS / name).read_text())["vectors"] if vector["kind"] == kind]
    assert found
    return found


def _key(vector: dict[str, Any]) -> keys.RsaVerifyKey:
    n, e = (int.from_bytes(base64url.decode_lenient(vector[name])) for name in ("signer_n", "signer_e"))
    return keys.RsaVerifyKey.from_numbers(n, e)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a 2016 document, also inside the payloads of its signatures."""
    if isinstance(value, dict):
        yield value
        if value.keys() >= {"payload", "signature"}:
            yield from _objects(legacy.read_json(base64url.decode_lenient(value["payload"]).decode()))
    if isinstance(value, (dict, list)):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _objects(child)


def _verify_all(document: Any) -> tuple[int, int]:
    """Verify every key and every signature whose signer is in the document: how many of each."""
    objects = list(_objects(document))
    known = {key.udf: key for key in (keys.read_legacy_public_key(obj) for obj in objects if "PublicParameters" in obj)}
    signed = [obj for obj in objects if "payload" in obj and legacy.signer(obj) in known]
    for obj in signed:
        assert legacy.open_signed(obj, known[legacy.signer(obj)]) == base64url.decode_lenient(obj["payload"])
    return len(known), len(signed)


@pytest.mark.parametrize("name", LOGS)
def test_fingerprints_of_rsa_keys_are_those_of_2016(name: str) -> None:
    for vector in _vectors(name, "udf-rsa"):
        parameters = {"PublicKeyRSA": {"kid": vector["kid"], "n": vector["n"], "e": vector["e"]}}
        key = keys.read_legacy_public_key({"UDF": vector["udf"], "PublicParameters": parameters})
        assert key.udf == vector["udf"]
        with pytest.raises(FormatError):
            keys.read_legacy_public_key({"UDF": udf.make(udf.RANDOM, b"", 150), "PublicParameters": parameters})


@pytest.mark.parametrize("name", LOGS)
def test_signatures_of_2016_verify_over_the_payload_alone(name: str) -> None:
    for vector in _vectors(name, "jws"):
        key, signed = _key(vector), vector["object"]["SignedData"]
        assert legacy.signer(signed) == vector["kid"] == key.udf
        payload = legacy.open_signed(signed, key)
        assert hashlib.sha512(payload).hexdigest() == vector["payload_sha512"]
        header, signature = (base64url.decode_lenient(signed[name]) for name in ("header", "signature"))
        with pytest.raises(SignatureError):
            key.verify(signature, jws.signing_input(header, payload))


def test_a_changed_payload_signature_or_signer_of_2016_is_refused() -> None:
    vectors = _vectors("2016-03-08-examples.json", "jws")
    signed, key = vectors[0]["object"]["SignedData"], _key(vectors[0])
    for member in ("payload", "signature"):
        data = bytearray(base64url.decode_lenient(signed[member]))
        for at in range(0, len(data), 97):
            data[at] ^= 1
            with pytest.raises(SignatureError):
                legacy.open_signed({**signed, member: base64url.encode(bytes(data))}, key)
            data[at] ^= 1
    other = next(_key(vector) for vector in vectors if vector["kid"] != key.udf)
    with pytest.raises(SignatureError):
        legacy.open_signed(signed, other)


@pytest.mark.parametrize(
    "change",
    [
        {"protected": "e30"},
        {"header": base64url.encode(b'{"alg":"none","kid":"MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR"}')},
        {"header": base64url.encode(b'{"alg":"RS512"}')},
        {"header": base64url.encode(b'{"alg":"RS512","kid":"x"}')},
        {"header": base64url.encode(b"[1]")},
        {"header": base64url.encode(b"\xff")},
        {"header": ""},
        {"header": None},
        {"payload": 5},
    ],
    ids=str,
)
def test_every_other_form_of_signature_is_refused(change: dict[str, Any]) -> None:
    vector = _vectors("2016-03-08-examples.json", "jws")[0]
    with pytest.raises(FormatError):
        legacy.open_signed({**vector["object"]["SignedData"], **change}, _key(vector))


def test_the_published_examples_verify() -> None:
    totals = [
        _verify_all(legacy.read_json(vector["text"]))
        for vector in _vectors("2016-03-08-examples-messages.json", "example-message")
    ]
    assert sum(count for count, _ in totals) > 50
    assert sum(count for _, count in totals) > 20


@pytest.mark.parametrize("expected", sorted((VECTORS / "logs").glob("*.expected.json")), ids=lambda path: path.name)
def test_whole_logs_are_read_record_by_record(expected: Path) -> None:
    records = json.loads(expected.read_text())["records"]
    text = (expected.parent / json.loads(expected.read_text())["file"]).read_text("utf-8")
    found = list(legacy.iter_concatenated(text))
    assert len(found) == len(records)
    for record, want in zip(found, records, strict=True):
        if "DataItem" in record:
            item = record["DataItem"]
            assert hashlib.sha256(item["Text"].encode()).hexdigest() == want["text_sha256"]
            document = legacy.read_json(item["Text"])
            assert list(document) == [want["type"]]
            _verify_all(document)


def test_strings_of_the_2016_writer_are_read() -> None:
    for vector in _vectors("fresh-json-string.json", "json-string"):
        if "error" not in vector:
            assert legacy.read_json(vector["encoded"])["ValidateRequest"]["Account"] == vector["value"]


def test_bulk_data_of_2016_opens() -> None:
    for vector in _vectors("fresh-bulk.json", "bulk"):
        if len(vector["key"]) != 32:
            continue
        iv, ciphertext = (base64url.encode(bytes.fromhex(vector[name])) for name in ("iv", "ciphertext"))
        obj = {"protected": base64url.encode(b'{"alg": "AE128"}'), "iv": iv, "ciphertext": ciphertext}
        assert legacy.open_escrow(obj, bytes.fromhex(vector["key"])).hex() == vector["plaintext"]


def test_an_application_profile_of_2016_opens_for_each_of_its_devices() -> None:
    for vector in _vectors("fresh-profile-set.json", "profile-set"):
        private = [legacy.RsaDecryptKey.from_json(key) for key in vector["keys"]]
        for text in ("signed_personal", "signed_app", "signed_request", "signed_result"):
            legacy.read_json(vector[text])
        assert _verify_all([legacy.read_json(vector[name]) for name in ("signed_personal", "signed_app")])[1] > 1
        signed = legacy.read_json(vector["signed_app"])["SignedApplicationProfile"]["SignedData"]
        inner = legacy.read_json(base64url.decode_lenient(signed["payload"]).decode())
        encrypted = inner["PasswordProfile"]["EncryptedData"]
        readers = {recipient["Header"]["kid"] for recipient in encrypted["recipients"]}
        assert readers
        for key in private:
            if key.udf in readers:
                assert legacy.open_encrypted(encrypted, key).decode() == vector["app_plaintext"]
            else:
                with pytest.raises(DecryptError):
                    legacy.open_encrypted(encrypted, key)


def test_the_escrow_entry_of_the_2016_program_does_not_open() -> None:
    for vector in _vectors("fresh-profile-set.json", "profile-set"):
        entry = legacy.read_json(vector["escrow"])["OfflineEscrowEntry"]
        secret = bytes.fromhex(vector["escrow_secret"])
        assert udf.make(udf.MMM_ESCROWED, secret, 150) == entry["Identifier"]
        with pytest.raises(DecryptError):
            legacy.open_escrow(entry["EncryptedData"], secret)


def test_captured_exchanges_verify_and_open() -> None:
    capture = json.loads((VECTORS / "captures" / "reference-mar2016.json").read_text())
    private = {key.udf: key for key in map(legacy.RsaDecryptKey.from_json, capture["private_keys"])}
    opened = verified = 0
    for vector in capture["vectors"]:
        for body in (vector["request_body"], vector["response_body"]):
            document = legacy.read_json(body) if body else None
            verified += _verify_all(document)[1]
            for obj in _objects(document):
                if "recipients" in obj:
                    for recipient in obj["recipients"]:
                        legacy.read_json(legacy.open_encrypted(obj, private[recipient["Header"]["kid"]]).decode())
                        opened += 1
    assert opened > 5
    assert verified > 20


def _combine(shares: list[str]) -> bytes:
    """The 16 bytes behind two 2016 shares of a quorum of two: a line through two points, read at zero."""
    points = []
    for share in shares:
        letters = share.replace("-", "")
        data = base64.b32decode(
            letters[: len(letters) - len(letters) % 8] + letters[-(len(letters) % 8) :].ljust(8, "A")
        )
        data = data[: len(letters) * 5 // 8]
        points.append(((data[0] & 15) + 1, int.from_bytes(data[1:], "little")))
    (x1, y1), (x2, y2) = points
    prime = 2**129 - 25
    return ((y1 * x2 - y2 * x1) * pow(x2 - x1, -1, prime) % prime % 2**128).to_bytes(16, "little")


def test_an_escrow_entry_as_it_was_meant_opens_and_is_refused_when_changed() -> None:
    (vector,) = _vectors("fresh-escrow-intended.json", "escrow-intended")
    entry, secret = vector["entry"]["OfflineEscrowEntry"], _combine(vector["shares"][:2])
    obj = entry["EncryptedData"]
    assert udf.make(udf.MMM_ESCROWED, secret, 150) == entry["Identifier"]
    plaintext = legacy.open_escrow(obj, secret).decode()
    assert plaintext == vector["plaintext"]
    for key in legacy.read_json(plaintext)["EscrowedKeySet"]["PrivateKeys"]:
        assert legacy.RsaDecryptKey.from_json(key).udf == key["kid"]
    with pytest.raises(DecryptError):
        legacy.open_escrow(obj, bytes(16))
    for change in (
        {"tag": "AAAA"},
        {"iv": "AAAA"},
        {"ciphertext": ""},
        {"ciphertext": "AAAA"},
        {"protected": base64url.encode(b'{"alg": "A128CBC"}')},
    ):
        with pytest.raises(FormatError):
            legacy.open_escrow({**obj, **change}, secret)
    with pytest.raises(FormatError):
        legacy.open_escrow(obj, bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}{}",
        "{",
        "nul",
        '{"a":1,"a":2}',
        "[NaN]",
        "[-Infinity]",
        "[" * 100_000,
        "[" * 40 + "]" * 40,
        "1" * 5000,
        "{}x",
    ],
    ids=lambda text: text[:20],
)
def test_texts_that_are_not_one_json_value_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        legacy.read_json(text)


def test_raw_line_feeds_and_byte_order_marks_are_read() -> None:
    assert legacy.read_json('\ufeff {"a": "x\ny"} \n') == {"a": "x\ny"}
    assert list(legacy.iter_concatenated('{"a":1}{"b":2}\x1e[]')) == [{"a": 1}, {"b": 2}, []]
    assert list(legacy.iter_concatenated(" \n")) == []


@given(st.text(max_size=60))
def test_garbage_text_raises_only_our_errors(text: str) -> None:
    try:
        legacy.read_json(text)
    except MeshError:
        pass


MEMBERS = ["header", "payload", "signature", "protected", "iv", "ciphertext", "recipients", "Header", "kid", "n", "e"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=6),
    max_leaves=8,
)


@given(JSON)
def test_garbage_raises_only_our_errors(obj: Any) -> None:
    readers = (
        legacy.signer,
        legacy.RsaDecryptKey.from_json,
        keys.read_legacy_public_key,
        lambda o: keys.read_legacy_public_key({"UDF": "MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR", "PublicParameters": o}),
        lambda o: legacy.open_escrow(o, bytes(16)),
    )
    for read in readers:
        with pytest.raises(MeshError):
            read(obj)
