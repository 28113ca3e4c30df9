"""The key types of the mesh: one class per purpose, no algorithm arguments (formats.md F3, protocol D6).

    SigningKey → VerifyKey      Ed25519   signs and verifies
    DecryptKey → RecipientKey   X25519    opens and receives
    RsaVerifyKey                RS512     verifies what 2016 signed; nothing new is made with it

A key has one spelling and one fingerprint: points that are not canonical, of small order or off the curve are refused
when the key is read, so nothing later has to ask. Private keys never show their private part in `repr`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, overload

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign_open
from nacl.exceptions import BadSignatureError

from meshd.crypto import base64url, udf
from meshd.errors import DecryptError, FormatError, SignatureError

Rng = Callable[[int], bytes]

KEY_BYTES = 32
SIGNATURE_BYTES = 64
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192

# SubjectPublicKeyInfo of RFC 8410 is a constant followed by the 32 bytes of the key.
_SPKI_ED25519 = bytes.fromhex("302a300506032b6570032100")
_SPKI_X25519 = bytes.fromhex("302a300506032b656e032100")
_FIELD_PRIME = 2**255 - 19
_ANY_SCALAR = X25519PrivateKey.from_private_bytes(bytes([0x40]) * KEY_BYTES)  # for the small-order test alone


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """An Ed25519 public key."""

    public: bytes
    udf: str = field(compare=False)

    @classmethod
    def from_public(cls, public: bytes) -> VerifyKey:
        """Read 32 bytes (RFC 8032); FormatError unless they are a canonical point of the prime-order group."""
        public = _exactly(public, KEY_BYTES, "an Ed25519 key")
        if not crypto_core_ed25519_is_valid_point(public):
            raise FormatError("an Ed25519 key that is not a point of the prime-order group")
        return cls(public, udf.make(udf.X509_KEYINFO, _SPKI_ED25519 + public))

    @property
    def spki(self) -> bytes:
        """The SubjectPublicKeyInfo in DER, over which the UDF is made."""
        return _SPKI_ED25519 + self.public

    def verify(self, signature: bytes, data: bytes) -> None:
        """SignatureError unless `signature` (64 bytes) is this key's over `data`.

        libsodium does it: 1.8 times as fast as OpenSSL, without the GIL, and strict (canonical S, no small-order R).
        """
        if len(signature) != SIGNATURE_BYTES:  # a shorter one would borrow bytes from the data
            raise SignatureError("a signature that is not 64 bytes long")
        try:
            crypto_sign_open(signature + data, self.public)
        except BadSignatureError:
            raise SignatureError(f"the signature of {self.udf} does not verify") from None

    def parameters(self) -> dict[str, Any]:
        """`{"PublicKeyOKP": {"kty", "crv", "x"}}` (RFC 8037)."""
        return _okp("Ed25519", self.public)


class SigningKey:
    """An Ed25519 private key."""

    __slots__ = ("_private", "verify_key")

    verify_key: VerifyKey

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.verify_key = VerifyKey.from_public(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, rng: Rng) -> SigningKey:
        return cls.from_private(rng(KEY_BYTES))

    @classmethod
    def from_private(cls, private: bytes) -> SigningKey:
        """From the 32-byte seed of RFC 8032; FormatError for any other length."""
        return cls(Ed25519PrivateKey.from_private_bytes(_exactly(private, KEY_BYTES, "an Ed25519 private key")))

    @property
    def private(self) -> bytes:
        """The 32-byte seed. Only to be sealed."""
        return self._private.private_bytes_raw()

    @property
    def native(self) -> Ed25519PrivateKey:
        """The key as `cryptography` takes it, for certificates."""
        return self._private

    @property
    def udf(self) -> str:
        return self.verify_key.udf

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over `data`."""
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey({self.udf})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")


@dataclass(frozen=True, slots=True)
class RecipientKey:
    """An X25519 public key, to which something is sealed."""

    public: bytes
    udf: str = field(compare=False)

    @classmethod
    def from_public(cls, public: bytes) -> RecipientKey:
        """Read 32 bytes (RFC 7748); FormatError for a coordinate that is not canonical or a point of small order."""
        public = _exactly(public, KEY_BYTES, "an X25519 key")
        if int.from_bytes(public, "little") >= _FIELD_PRIME:
            raise FormatError("an X25519 key that is not canonical")
        try:
            _ANY_SCALAR.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # the shared secret would be zero whatever our key is
            raise FormatError("an X25519 key of small order") from None
        return cls(public, udf.make(udf.X509_KEYINFO, _SPKI_X25519 + public))

    @property
    def spki(self) -> bytes:
        """The SubjectPublicKeyInfo in DER, over which the UDF is made."""
        return _SPKI_X25519 + self.public

    def parameters(self) -> dict[str, Any]:
        """`{"PublicKeyOKP": {"kty", "crv", "x"}}` (RFC 8037)."""
        return _okp("X25519", self.public)


class DecryptKey:
    """An X25519 private key."""

    __slots__ = ("_private", "recipient")

    recipient: RecipientKey

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.recipient = RecipientKey.from_public(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, rng: Rng) -> DecryptKey:
        return cls.from_private(rng(KEY_BYTES))

    @classmethod
    def from_private(cls, private: bytes) -> DecryptKey:
        """From the 32 bytes of RFC 7748; FormatError for any other length."""
        return cls(X25519PrivateKey.from_private_bytes(_exactly(private, KEY_BYTES, "an X25519 private key")))

    @property
    def private(self) -> bytes:
        """The 32 private bytes. Only to be sealed."""
        return self._private.private_bytes_raw()

    @property
    def udf(self) -> str:
        return self.recipient.udf

    def exchange(self, public: bytes) -> bytes:
        """The 32-byte X25519 secret shared with the holder of `public`; DecryptError if it would be zero."""
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise DecryptError("a key agreement with an invalid public key") from None

    def __repr__(self) -> str:
        return f"DecryptKey({self.udf})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")


@dataclass(frozen=True, slots=True)
class RsaVerifyKey:
    """An RSA key of 2016, which verifies RS512 over the payload bytes alone, and requests in PSS; it makes nothing."""

    modulus: int
    exponent: int
    udf: str = field(compare=False)
    _native: rsa.RSAPublicKey = field(compare=False, repr=False)

    @classmethod
    def from_numbers(cls, modulus: int, exponent: int) -> RsaVerifyKey:
        """FormatError outside 2048 to 8192 bits, or for an exponent nobody uses (even, below 3, above 32 bits)."""
        if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
            raise FormatError(f"an RSA key of {modulus.bit_length()} bits")
        if not 3 <= exponent < 2**32 or exponent % 2 == 0 or modulus % 2 == 0:
            raise FormatError("an RSA key that can't be one")
        try:
            native = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        except ValueError:
            raise FormatError("an RSA key that can't be one") from None
        spki = native.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(modulus, exponent, udf.make(udf.X509_KEYINFO, spki, udf.BITS_2016), native)

    def verify(self, signature: bytes, payload: bytes) -> None:
        """SignatureError unless `signature` is RSASSA-PKCS1-v1_5 with SHA-512 over the payload bytes alone."""
        try:
            self._native.verify(signature, payload, padding.PKCS1v15(), hashes.SHA512())
        except InvalidSignature:
            raise SignatureError(f"the signature of {self.udf} does not verify") from None

    def verify_pss(self, signature: bytes, data: bytes) -> None:
        """SignatureError unless `signature` is RSASSA-PSS with SHA-512 and 64 bytes of salt (RFC 9421 §3.3.1)."""
        try:
            self._native.verify(signature, data, padding.PSS(padding.MGF1(hashes.SHA512()), 64), hashes.SHA512())
        except InvalidSignature:
            raise SignatureError(f"the signature of {self.udf} does not verify") from None


def public_key_json(key: VerifyKey | RecipientKey, certificate: bytes | None = None) -> dict[str, Any]:
    """The schema's PublicKey: `{"UDF", "X509Certificate"?, "PublicParameters"}`."""
    obj: dict[str, Any] = {"UDF": key.udf}
    if certificate is not None:
        obj["X509Certificate"] = base64url.encode(certificate)
    obj["PublicParameters"] = key.parameters()
    return obj


@overload
def read_public_key(obj: object, kind: Literal["sign"] = "sign") -> VerifyKey: ...
@overload
def read_public_key(obj: object, kind: Literal["encrypt"]) -> RecipientKey: ...
def read_public_key(obj: object, kind: Literal["sign", "encrypt"] = "sign") -> VerifyKey | RecipientKey:
    """Read a PublicKey whose purpose the caller states; FormatError if it is of another type or its UDF is not its own.

    Members of the PublicKey that are not known here are left alone; those of PublicKeyOKP are exactly three.
    """
    name, parameters = _parameters(obj, "PublicKeyOKP")
    if parameters.keys() != {"kty", "crv", "x"} or parameters["kty"] != "OKP":
        raise FormatError("a PublicKeyOKP with other members than kty, crv and x")
    curve = "Ed25519" if kind == "sign" else "X25519"
    if parameters["crv"] != curve:
        raise FormatError(f"a key that is not for {curve}")
    public = base64url.decode(parameters["x"])
    key = VerifyKey.from_public(public) if kind == "sign" else RecipientKey.from_public(public)
    if not udf.equal(key.udf, name):
        raise FormatError("a key whose UDF is not its own")
    return key


def read_legacy_public_key(obj: object) -> RsaVerifyKey:
    """Read a PublicKey of 2016 (`PublicKeyRSA`, members read leniently); FormatError if its UDF is not its own."""
    name, parameters = _parameters(obj, "PublicKeyRSA")
    numbers = [base64url.decode_lenient(parameters.get(member, "")) for member in ("n", "e")]
    if any(len(number) > MAX_RSA_BITS // 8 + 1 for number in numbers):
        raise FormatError("an RSA key that is too long")
    key = RsaVerifyKey.from_numbers(*(int.from_bytes(number, "big") for number in numbers))
    if not udf.equal(key.udf, name) or parameters.get("kid", name) != name:
        raise FormatError("a key whose UDF is not its own")
    return key


def _parameters(obj: object, tag: str) -> tuple[str, dict[str, Any]]:
    """The UDF member and the body of the one tagged `PublicParameters`."""
    if not isinstance(obj, dict):
        raise FormatError("a public key that is not an object")
    tagged = obj.get("PublicParameters")
    if not isinstance(tagged, dict) or tagged.keys() != {tag} or not isinstance(tagged[tag], dict):
        raise FormatError(f"a public key without {tag}")
    return udf.check(obj.get("UDF")), tagged[tag]


def _okp(curve: str, public: bytes) -> dict[str, Any]:
    return {"PublicKeyOKP": {"kty": "OKP", "crv": curve, "x": base64url.encode(public)}}


def _exactly(data: object, length: int, what: str) -> bytes:
    if not isinstance(data, bytes) or len(data) != length:
        raise FormatError(f"{what} that is not {length} bytes long")
    return data
