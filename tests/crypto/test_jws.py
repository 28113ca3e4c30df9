"""Signed data: one header, one form, and joserfc agrees in both directions."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

import joserfc.jws
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from meshd.crypto import base64url, jws, keys, udf
from meshd.errors import FormatError, MeshError, SignatureError

pytestmark = pytest.mark.draft("JoseWebSignature")

KEY = keys.SigningKey.from_private(bytes(range(32)))
PAYLOAD = '{"PasswordProfile":{"Identifier":"ä€"}}'.encode()


def _jose(key: keys.SigningKey) -> OKPKey:
    parameters = key.verify_key.parameters()["PublicKeyOKP"]
    return OKPKey.import_key({**parameters, "d": base64url.encode(key.private)})


def test_a_signature_verifies_and_returns_as_it_was() -> None:
    signed = jws.sign(KEY, PAYLOAD)
    jws.verify(signed, KEY.verify_key)
    assert signed.protected == b'{"alg":"Ed25519","kid":"' + KEY.udf.encode() + b'"}'
    assert jws.signer(signed.protected) == KEY.udf
    assert jws.from_json(json.loads(json.dumps(jws.to_json(signed)))) == signed
    assert jws.sign(KEY, PAYLOAD) == signed


def test_the_signing_input_is_that_of_rfc_7515() -> None:
    """RFC 8037 appendix A.4, whose header is another than ours."""
    key = keys.SigningKey.from_private(base64url.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
    covered = jws.signing_input(b'{"alg":"EdDSA"}', b"Example of Ed25519 signing")
    assert covered == b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    assert (
        base64url.encode(key.sign(covered))
        == "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
    assert jws.Jws(b'{"alg":"EdDSA"}', b"Example of Ed25519 signing", b"").digest == hashlib.sha256(covered).digest()


@given(st.binary(max_size=400))
def test_joserfc_verifies_what_we_sign(payload: bytes) -> None:
    obj: Any = jws.to_json(jws.sign(KEY, payload))
    assert joserfc.jws.deserialize_json(obj, _jose(KEY), algorithms=["Ed25519"]).payload == payload


@given(st.binary(max_size=400))
def test_we_verify_what_joserfc_signs(payload: bytes) -> None:
    member: Any = {"protected": {"alg": "Ed25519", "kid": KEY.udf}}
    obj = joserfc.jws.serialize_json(member, payload, _jose(KEY), algorithms=["Ed25519"])
    signed = jws.from_json(obj)
    jws.verify(signed, KEY.verify_key)
    assert signed == jws.sign(KEY, payload)


def test_no_changed_byte_passes() -> None:
    signed = jws.sign(KEY, b'{"A":{}}')
    for part in ("protected", "payload", "signature"):
        value = getattr(signed, part)
        for at in range(len(value)):
            changed = {
                name: getattr(signed, name) for name in ("protected", "payload", "signature") if name != part
            } | {part: value[:at] + bytes([value[at] ^ 0x01]) + value[at + 1 :]}
            with pytest.raises((SignatureError, FormatError)):
                jws.verify(jws.Jws(**changed), KEY.verify_key)


def test_no_changed_character_of_the_json_form_passes() -> None:
    obj = jws.to_json(jws.sign(KEY, b'{"A":{}}'))
    for part, text in obj.items():
        for at in range(len(text)):
            for letter in ("A", "-", "=", "\n"):
                if text[at] == letter:
                    continue
                with pytest.raises((SignatureError, FormatError)):
                    jws.verify(jws.from_json({**obj, part: text[:at] + letter + text[at + 1 :]}), KEY.verify_key)


def test_another_key_is_not_the_signer() -> None:
    other = keys.SigningKey.generate(secrets.token_bytes)
    with pytest.raises(SignatureError):
        jws.verify(jws.sign(KEY, PAYLOAD), other.verify_key)
    forged = jws.Jws(jws.protected_header(KEY.udf), PAYLOAD, jws.sign(other, PAYLOAD).signature)
    with pytest.raises(SignatureError):
        jws.verify(forged, KEY.verify_key)


@pytest.mark.parametrize(
    "protected",
    [
        b"",
        b"{}",
        b'{"alg":"none","kid":"%s"}',
        b'{"alg":"EdDSA","kid":"%s"}',
        b'{"alg":"HS256","kid":"%s"}',
        b'{"kid":"%s","alg":"Ed25519"}',
        b'{"alg": "Ed25519","kid":"%s"}',
        b'{"alg":"Ed25519","kid":"%s"} ',
        b'{"alg":"Ed25519","kid":"%s","crit":["b64"],"b64":false}',
        b'{"alg":"Ed25519","kid":"%s","jwk":{}}',
        b'{"alg":"Ed25519","kid":"MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR"}',
        b'{"alg":"Ed25519","kid":"' + b"\xff" * 47 + b'"}',
    ],
)
def test_every_other_header_is_refused_even_when_the_signer_made_it(protected: bytes) -> None:
    protected = protected.replace(b"%s", KEY.udf.encode())
    signed = jws.Jws(protected, PAYLOAD, KEY.sign(jws.signing_input(protected, PAYLOAD)))
    with pytest.raises(FormatError):
        jws.signer(protected)
    with pytest.raises(FormatError):
        jws.verify(signed, KEY.verify_key)
    with pytest.raises(FormatError):
        jws.from_json(jws.to_json(signed))


@pytest.mark.parametrize(
    "change",
    [
        {"header": {"kid": "x"}},
        {"signatures": []},
        {"payload": None},
        {"payload": "AA=="},
        {"signature": ""},
        {"signature": "AAAA"},
        {"signature": "A" * 1000},
        {"protected": 5},
        {"protected": "A" * 1000},
    ],
)
def test_another_json_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        jws.from_json({**jws.to_json(jws.sign(KEY, PAYLOAD)), **change})


def test_a_missing_member_is_refused() -> None:
    for missing in ("protected", "payload", "signature"):
        obj = jws.to_json(jws.sign(KEY, PAYLOAD))
        del obj[missing]
        with pytest.raises(FormatError):
            jws.from_json(obj)


def test_a_payload_above_two_mebibytes_is_refused() -> None:
    most = bytes(jws.MAX_PAYLOAD)
    jws.verify(jws.from_json(jws.to_json(jws.sign(KEY, most))), KEY.verify_key)
    with pytest.raises(FormatError):
        jws.sign(KEY, most + b"\0")
    with pytest.raises(FormatError):
        jws.verify(jws.Jws(jws.protected_header(KEY.udf), most + b"\0", bytes(64)), KEY.verify_key)
    with pytest.raises(FormatError):
        jws.from_json({**jws.to_json(jws.sign(KEY, b"")), "payload": base64url.encode(most + b"\0")})


def test_a_header_is_made_only_for_a_fingerprint() -> None:
    for kid in ("", "x", 'M","crit":"', "\u00e9" * 47):
        with pytest.raises(FormatError):
            jws.protected_header(kid)
    assert jws.signer(jws.protected_header(udf.random_udf(secrets.token_bytes)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["protected", "payload", "signature", "x"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(JSON)
def test_garbage_raises_only_our_errors(obj: Any) -> None:
    with pytest.raises(MeshError):
        jws.from_json(obj)


@given(st.binary(max_size=120), st.binary(max_size=40), st.binary(max_size=70))
def test_garbage_bytes_raise_only_our_errors(protected: bytes, payload: bytes, signature: bytes) -> None:
    with pytest.raises(MeshError):
        jws.verify(jws.Jws(protected, payload, signature), KEY.verify_key)
    with pytest.raises(MeshError):
        jws.verify(jws.Jws(jws.protected_header(KEY.udf), payload, signature), KEY.verify_key)


def test_joserfc_refuses_our_forgeries_too() -> None:
    obj: Any = jws.to_json(jws.sign(KEY, PAYLOAD))
    obj["payload"] = base64url.encode(b"another")
    with pytest.raises(JoseError):
        joserfc.jws.deserialize_json(obj, _jose(KEY), algorithms=["Ed25519"])
