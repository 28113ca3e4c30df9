"""Keys: RFC examples, one spelling a key, and nothing weak gets in."""

from __future__ import annotations

import copy
import pickle
import secrets
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from meshd.crypto import base64url, keys, udf
from meshd.errors import DecryptError, FormatError, SignatureError

pytestmark = pytest.mark.draft("PublicKey")

ORDER = 2**252 + 27742317777372353535851937790883648493
PRIME = 2**255 - 19

# RFC 8032 §7.1: seed, public key, message, signature
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]

SMALL_ORDER_EDWARDS = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]
SMALL_ORDER_MONTGOMERY = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def test_signatures_are_those_of_rfc_8032() -> None:
    for seed, public, message, signature in RFC_8032:
        key = keys.SigningKey.from_private(bytes.fromhex(seed))
        assert key.private.hex() == seed
        assert key.verify_key.public.hex() == public
        assert key.sign(bytes.fromhex(message)).hex() == signature
        keys.VerifyKey.from_public(bytes.fromhex(public)).verify(bytes.fromhex(signature), bytes.fromhex(message))


def test_the_okp_form_is_that_of_rfc_8037() -> None:
    key = keys.SigningKey.from_private(base64url.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
    assert key.verify_key.parameters() == {
        "PublicKeyOKP": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    }


def test_key_agreement_is_that_of_rfc_7748() -> None:
    """RFC 7748 §6.1: Bob's private key, Alice's public key."""
    bob = keys.DecryptKey.from_private(
        bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    )
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert bob.recipient.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert bob.exchange(alice).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_the_fingerprint_is_over_the_subject_public_key_info() -> None:
    signing, decrypt = keys.SigningKey.generate(secrets.token_bytes), keys.DecryptKey.generate(secrets.token_bytes)
    for native, ours in (
        (Ed25519PublicKey.from_public_bytes(signing.verify_key.public), signing.verify_key),
        (X25519PublicKey.from_public_bytes(decrypt.recipient.public), decrypt.recipient),
    ):
        der = native.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert ours.spki == der
        assert ours.udf == udf.make("application/x509-keyinfo", der, 200)
    assert signing.udf == signing.verify_key.udf
    assert decrypt.udf == decrypt.recipient.udf


def test_both_libraries_agree_on_our_signatures() -> None:
    for size in (0, 1, 31, 1000):
        key, data = keys.SigningKey.generate(secrets.token_bytes), secrets.token_bytes(size)
        signature = key.sign(data)
        key.verify_key.verify(signature, data)
        native = Ed25519PublicKey.from_public_bytes(key.verify_key.public)
        native.verify(signature, data)
        for changed in (signature[:1] + bytes([signature[1] ^ 1]) + signature[2:], signature[:-1] + b"\x7f"):
            with pytest.raises(SignatureError):
                key.verify_key.verify(changed, data)
            with pytest.raises(InvalidSignature):
                native.verify(changed, data)


def test_a_signature_with_s_above_the_group_order_is_refused() -> None:
    key = keys.SigningKey.generate(secrets.token_bytes)
    signature = key.sign(b"data")
    s = int.from_bytes(signature[32:], "little") + ORDER
    with pytest.raises(SignatureError):
        key.verify_key.verify(signature[:32] + s.to_bytes(32, "little"), b"data")


def test_a_signature_of_another_length_borrows_nothing_from_the_data() -> None:
    key = keys.SigningKey.generate(secrets.token_bytes)
    signature = key.sign(b"data")
    for wrong, data in (
        (signature[:-1], signature[-1:] + b"data"),
        (signature + b"d", b"ata"),
        (b"", signature + b"data"),
    ):
        with pytest.raises(SignatureError):
            key.verify_key.verify(wrong, data)


@pytest.mark.parametrize("public", SMALL_ORDER_EDWARDS)
def test_signing_keys_of_small_order_are_refused(public: str) -> None:
    with pytest.raises(FormatError):
        keys.VerifyKey.from_public(bytes.fromhex(public))


@pytest.mark.parametrize("public", SMALL_ORDER_MONTGOMERY)
def test_recipient_keys_of_small_order_are_refused(public: str) -> None:
    with pytest.raises(FormatError):
        keys.RecipientKey.from_public(bytes.fromhex(public))
    with pytest.raises(DecryptError):
        keys.DecryptKey.generate(secrets.token_bytes).exchange(bytes.fromhex(public))


def test_a_key_has_one_spelling() -> None:
    recipient = keys.DecryptKey.generate(secrets.token_bytes).recipient
    other_bit = recipient.public[:-1] + bytes([recipient.public[-1] | 0x80])
    for public in (other_bit, (PRIME + 9).to_bytes(32, "little")):
        with pytest.raises(FormatError):
            keys.RecipientKey.from_public(public)
    for number in (PRIME, PRIME + 1, PRIME + 3, 2**255 - 1, 2):  # not canonical; 2: not on the curve
        with pytest.raises(FormatError):
            keys.VerifyKey.from_public(number.to_bytes(32, "little"))


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_a_key_or_refused(data: bytes) -> None:
    for read in (keys.VerifyKey.from_public, keys.RecipientKey.from_public):
        try:
            assert read(data).public == data
        except FormatError:
            pass


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_private_keys_of_another_length_are_refused(length: int) -> None:
    for read in (keys.SigningKey.from_private, keys.DecryptKey.from_private):
        with pytest.raises(FormatError):
            read(bytes(length))


def test_private_keys_come_from_the_randomness_that_is_given() -> None:
    assert keys.SigningKey.generate(lambda n: b"\x07" * n).private == b"\x07" * 32
    assert keys.DecryptKey.generate(lambda n: b"\x07" * n).private == b"\x07" * 32


def test_private_keys_show_and_pickle_nothing() -> None:
    for key in (keys.SigningKey.generate(secrets.token_bytes), keys.DecryptKey.generate(secrets.token_bytes)):
        for shown in (repr(key), str(key), f"{key}"):
            assert key.private.hex() not in shown and repr(key.private)[2:-1] not in shown
            assert key.udf in shown
        with pytest.raises(TypeError):
            pickle.dumps(key)
        with pytest.raises(TypeError):
            copy.deepcopy(key)


def _public() -> dict[str, Any]:
    return keys.public_key_json(keys.SigningKey.generate(lambda n: b"\x01" * n).verify_key)


def test_a_public_key_reads_back_and_keeps_foreign_members_out_of_the_way() -> None:
    verify = keys.SigningKey.generate(secrets.token_bytes).verify_key
    recipient = keys.DecryptKey.generate(secrets.token_bytes).recipient
    assert keys.read_public_key(keys.public_key_json(verify)) == verify
    assert keys.read_public_key(keys.public_key_json(recipient), "encrypt") == recipient
    with_certificate = keys.public_key_json(verify, b"der")
    assert list(with_certificate) == ["UDF", "X509Certificate", "PublicParameters"]
    assert keys.read_public_key({**with_certificate, "Later": 1}) == verify


@pytest.mark.parametrize(
    "change",
    [
        lambda o: o.pop("UDF"),
        lambda o: o.update(UDF=udf.make(udf.RANDOM, b"")),
        lambda o: o.update(UDF=o["UDF"].lower()),
        lambda o: o.update(UDF=o["UDF"][:35]),
        lambda o: o.update(UDF=5),
        lambda o: o.pop("PublicParameters"),
        lambda o: o.update(PublicParameters=[]),
        lambda o: o["PublicParameters"].update(PublicKeyRSA={}),
        lambda o: o["PublicParameters"].update(PublicKeyOKP=[]),
        lambda o: o["PublicParameters"]["PublicKeyOKP"].update(d="AA"),
        lambda o: o["PublicParameters"]["PublicKeyOKP"].update(kty="EC"),
        lambda o: o["PublicParameters"]["PublicKeyOKP"].update(crv="X25519"),
        lambda o: o["PublicParameters"]["PublicKeyOKP"].update(x=o["PublicParameters"]["PublicKeyOKP"]["x"] + "="),
        lambda o: o["PublicParameters"]["PublicKeyOKP"].update(x=None),
        lambda o: o["PublicParameters"]["PublicKeyOKP"].pop("x"),
    ],
)
def test_a_public_key_that_is_not_exactly_itself_is_refused(change: Any) -> None:
    obj = _public()
    keys.read_public_key(obj)
    change(obj)
    with pytest.raises(FormatError):
        keys.read_public_key(obj)


@pytest.mark.parametrize("obj", [None, [], "x", 5, {}])
def test_what_is_no_public_key_is_refused(obj: object) -> None:
    for kind in ("sign", "encrypt"):
        with pytest.raises(FormatError):
            keys.read_public_key(obj, kind)  # type: ignore[call-overload]
    with pytest.raises(FormatError):
        keys.read_legacy_public_key(obj)


@pytest.mark.parametrize(
    "numbers",
    [
        (2**1023 + 1, 65537),
        (2**8192 + 1, 65537),
        (2**2047 + 1, 1),
        (2**2047 + 1, 4),
        (2**2047, 65537),
        (2**2047 + 1, 2**33 + 1),
    ],
    ids=["1024 bits", "8193 bits", "exponent 1", "even exponent", "even modulus", "long exponent"],
)
def test_rsa_keys_that_are_weak_or_dear_are_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(FormatError):
        keys.RsaVerifyKey.from_numbers(*numbers)
