"""HTTP requests are signed by a device: the RFC's own example, and everything that makes a signature not count."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from meshd.crypto import base64url
from meshd.crypto.keys import RsaVerifyKey, SigningKey
from meshd.errors import FormatError, MeshError, SignatureError
from meshd.portal import httpsig
from meshd.portal.httpsig import NonceCache, Presented, Signable

NOW = 1_790_000_000
BODY = b'{"Hello":{"HelloRequest":{}}}'
KEY = SigningKey.from_private(bytes(range(32)))
RFC_SIGNATURE = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
RFC_PARAMS = (
    '("date" "@method" "@path" "@authority" "content-type" "content-length")'
    ';created=1618884473;keyid="test-key-ed25519"'
)
REQUEST = Signable(
    "POST",
    "example.net",
    "/.well-known/mmm/",
    {"content-type": "application/json", "mesh-extensions": "log, auth"},
)


def signed(message: Signable = REQUEST, body: bytes = BODY, now: int = NOW, nonce: bytes = bytes(16)) -> Signable:
    added = httpsig.sign(message, body, KEY, now=now, nonce=nonce)
    return replace(message, headers={**message.headers, **{name.lower(): value for name, value in added.items()}})


def check(message: Signable, body: bytes = BODY, now: int = NOW, tag: str = httpsig.TAG_REQUEST) -> Presented:
    presented = httpsig.read(message.headers)
    assert presented is not None
    httpsig.check(presented, message, body, KEY.verify_key, now=now, tag=tag)
    return presented


def test_the_example_of_rfc_9421_appendix_b_2_6_verifies_and_is_made_again():
    key = SigningKey.from_private(base64url.decode("n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU"))  # RFC 9421, B.1.4
    assert base64url.encode(key.verify_key.public) == "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"
    message = Signable(
        "POST",
        "example.com",
        "/foo",
        {
            "date": "Tue, 20 Apr 2021 02:07:55 GMT",
            "content-type": "application/json",
            "content-length": "18",
            "signature-input": f"sig-b26={RFC_PARAMS}",
            "signature": f"sig-b26=:{RFC_SIGNATURE}:",
        },
    )
    presented = httpsig.read(message.headers, "sig-b26")
    assert presented is not None
    base = httpsig.signature_base(presented.components, presented.params, message)
    assert base.decode().splitlines() == [
        '"date": Tue, 20 Apr 2021 02:07:55 GMT',
        '"@method": POST',
        '"@path": /foo',
        '"@authority": example.com',
        '"content-type": application/json',
        '"content-length": 18',
        f'"@signature-params": {RFC_PARAMS}',
    ]
    key.verify_key.verify(presented.signature, base)
    assert key.sign(base) == presented.signature


def test_the_digest_is_that_of_rfc_9530():
    assert httpsig.content_digest(b'{"hello": "world"}') == "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"


def test_a_signed_request_counts():
    presented = check(signed())
    assert (presented.keyid, presented.created, presented.expires) == (KEY.udf, NOW, NOW + 120)
    assert presented.components == httpsig.COVERED


def test_a_request_without_signature_has_none():
    assert httpsig.read(REQUEST.headers) is None
    assert httpsig.read({"signature-input": 'x=("@method")', "signature": "x=:AA==:"}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"authority": "other.example"},
        {"path": "/"},
        {"query": "a=b"},
        {"headers": {"mesh-extensions": "log"}},
        {"headers": {"content-type": "application/cbor"}},
        {"headers": {"mesh-if-head": "added later"}},
        {"headers": {"content-digest": httpsig.content_digest(b"other")}},
    ],
)
def test_nothing_that_is_signed_can_be_changed(change: dict[str, object]):
    message = signed()
    headers = {**message.headers, **change.pop("headers", {})}  # type: ignore[dict-item]
    with pytest.raises(SignatureError):
        check(replace(message, headers=headers, **change))  # type: ignore[arg-type]


def test_the_body_is_signed():
    with pytest.raises(SignatureError):
        check(signed(), BODY + b" ")


def test_every_mesh_header_is_signed():
    message = replace(REQUEST, headers={**REQUEST.headers, "mesh-if-head": "x"})
    assert "mesh-if-head" in check(signed(message)).components


@pytest.mark.parametrize("now", [NOW - 121, NOW + 121, NOW + 120])
def test_it_counts_for_two_minutes(now: int):
    with pytest.raises(SignatureError):
        check(signed(), now=now)
    check(signed(), now=NOW + 119)
    check(signed(), now=NOW - 119)


def test_it_counts_for_one_purpose():
    with pytest.raises(SignatureError):
        check(signed(), tag=httpsig.TAG_PEER)


def test_another_key_and_another_algorithm_do_not_count():
    message = signed()
    other = SigningKey.from_private(bytes(32)).verify_key
    presented = httpsig.read(message.headers)
    assert presented is not None
    with pytest.raises(SignatureError):
        httpsig.check(presented, message, BODY, other, now=NOW)
    with pytest.raises(SignatureError):
        httpsig.check(replace(presented, alg="hmac-sha256"), message, BODY, KEY.verify_key, now=NOW)


def test_a_signature_over_less_than_the_request_does_not_count():
    params = (
        f'("@method");created={NOW};expires={NOW + 60};nonce="{"n" * 22}";keyid="{KEY.udf}";alg="ed25519";tag="mmm-req"'
    )
    signature = KEY.sign(httpsig.signature_base(["@method"], params, REQUEST))
    message = replace(
        REQUEST,
        headers={
            **REQUEST.headers,
            "content-digest": httpsig.content_digest(BODY),
            "signature-input": f"mesh={params}",
            "signature": f"mesh=:{base64.b64encode(signature).decode()}:",
        },
    )
    with pytest.raises(SignatureError):
        check(message)


def test_an_rsa_device_of_2016_signs_with_pss():
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.public_key().public_numbers()
    key = RsaVerifyKey.from_numbers(numbers.n, numbers.e)
    covered = " ".join(f'"{name}"' for name in httpsig.COVERED)
    params = (
        f'({covered});created={NOW};expires={NOW + 60};nonce="{"n" * 22}";keyid="{key.udf}"'
        ';alg="rsa-pss-sha512";tag="mmm-req"'
    )
    headers = {**REQUEST.headers, "content-digest": httpsig.content_digest(BODY)}
    message = replace(REQUEST, headers=headers)
    base = httpsig.signature_base(httpsig.COVERED, params, message)
    pss = padding.PSS(padding.MGF1(hashes.SHA512()), 64)
    presented = Presented(
        httpsig.COVERED, params, private.sign(base, pss, hashes.SHA512()),
        keyid=key.udf, created=NOW, expires=NOW + 60, nonce="n" * 22, alg="rsa-pss-sha512", tag="mmm-req",
    )  # fmt: skip
    httpsig.check(presented, message, BODY, key, now=NOW)
    with pytest.raises(SignatureError):
        httpsig.check(replace(presented, signature=bytes(256)), message, BODY, key, now=NOW)


def test_other_labels_may_stand_beside_ours():
    message = signed()
    headers = dict(message.headers)
    headers["signature-input"] = f'proxy=("@method");created=1, {headers["signature-input"]}'
    headers["signature"] = f"proxy=:AA==:,{headers['signature']}"
    check(replace(message, headers=headers))


@pytest.mark.parametrize(
    ("inputs", "signature"),
    [
        ('mesh=("@method")', None),
        (None, "mesh=:AA==:"),
        ('mesh=("@method")', "other=:AA==:"),
        ("mesh=", "mesh=:AA==:"),
        ('mesh=("@method";req)', "mesh=:AA==:"),
        ('mesh=("@method" "@method")', "mesh=:AA==:"),
        ('mesh=("@method");created=1;created=2', "mesh=:AA==:"),
        ('mesh=("@method");other=1', "mesh=:AA==:"),
        ('mesh=("@method");created="1"', "mesh=:AA==:"),
        ('mesh=("@method"), mesh=("@path")', "mesh=:AA==:"),
        ('mesh=("@method")', "mesh=:A:"),
        ('mesh=("@method")', "mesh=:AA==:, mesh=:AA==:"),
        ('mesh=("@method");nonce="' + "a" * 5000 + '"', "mesh=:AA==:"),
        ('mesh=("@method")x', "mesh=:AA==:"),
        ('mesh=("METHOD")', "mesh=:AA==:"),
    ],
)
def test_what_is_no_signature_is_refused(inputs: str | None, signature: str | None):
    headers = {"signature-input": inputs, "signature": signature}
    with pytest.raises(FormatError):
        httpsig.read({name: value for name, value in headers.items() if value is not None})


@given(st.text(max_size=200), st.text(max_size=100))
def test_garbage_raises_only_our_errors(inputs: str, signature: str):
    for one in (inputs, f"mesh=({inputs})", f'mesh=("@method"){inputs}'):
        try:
            httpsig.read({"signature-input": one, "signature": f"mesh=:{signature}:"})
        except MeshError:
            pass


def test_a_nonce_is_used_once():
    cache = NonceCache(NOW - 1000)
    presented = check(signed())
    assert cache.use(presented, NOW)
    assert not cache.use(presented, NOW)
    assert cache.use(check(signed(nonce=bytes([1]) * 16)), NOW)
    assert not cache.use(presented, NOW + 239)  # as long as it could count by any clock


def test_nonces_are_forgotten_when_they_can_not_count_any_more():
    cache = NonceCache(NOW - 1000)
    for count in range(100):
        assert cache.use(Presented((), "", b"", keyid="k", created=NOW, nonce=str(count)), NOW)
    assert len(cache) == 100
    cache.use(Presented((), "", b"", keyid="k", created=NOW + 400, nonce="new"), NOW + 400)
    assert len(cache) == 1


def test_a_full_or_new_cache_lets_nothing_pass_that_it_can_not_tell():
    full = NonceCache(NOW - 1000, limit=1)
    assert full.use(Presented((), "", b"", keyid="k", created=NOW, nonce="1"), NOW)
    assert not full.use(Presented((), "", b"", keyid="k", created=NOW, nonce="2"), NOW)
    assert not NonceCache(NOW).use(Presented((), "", b"", keyid="k", created=NOW - 1, nonce="1"), NOW)
