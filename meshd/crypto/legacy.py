"""Reading what 2016 made: lenient JSON, RS512 over the payload alone, AES-CBC without a tag. None of it is made here.

Only documents that are known to be of 2016 come here (their JWS has `header`, ours has `protected`); one form is never
tried after the other. What these forms leave out is left out: the header is not covered by the signature, and
ciphertext carries no integrity, so a plaintext counts only inside data whose signature was verified.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from meshd.crypto import base64url, udf
from meshd.crypto.keys import MAX_RSA_BITS, RsaVerifyKey
from meshd.errors import DecryptError, FormatError, SignatureError

MAX_TEXT = 8 * 1024 * 1024  # characters of JSON
MAX_DEPTH = 32
MAX_RECIPIENTS = 256

_BETWEEN = " \t\r\n\x1e\x00"
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303 - what 2016 used
_BLOCK_BYTES = 16


def read_json(text: str) -> Any:
    """Parse one JSON text that may have raw line feeds in its strings; FormatError otherwise.

    Members named twice, NaN, more than 32 levels and more than 8 Mi characters are refused.
    """
    values = list(iter_concatenated(text))
    if len(values) != 1:
        raise FormatError(f"{len(values)} JSON values instead of one")
    return values[0]


def iter_concatenated(text: str) -> Iterator[Any]:
    """The JSON values of a 2016 log, which stand one after another with nothing (or white space) between them."""
    if len(text) > MAX_TEXT:
        raise FormatError(f"a JSON text of {len(text)} characters: at most {MAX_TEXT} are allowed")
    at = 1 if text.startswith("\ufeff") else 0
    while True:
        while at < len(text) and text[at] in _BETWEEN:
            at += 1
        if at == len(text):
            return
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise FormatError("not JSON, not even in the lenient form of 2016") from None
        _check_depth(value)
        yield value


def signer(obj: Any) -> str:
    """The UDF of the key that a 2016 signature names; FormatError unless `alg` is RS512.

    The header is `{"alg", "kid"}`, in the earliest log wrapped in `{"Header": …}`. It is not covered by the signature.
    """
    header, _, _ = _signed_parts(obj)
    return _kid(header)


def open_signed(obj: Any, key: RsaVerifyKey) -> bytes:
    """The payload bytes of a 2016 signature (`{"header", "payload", "signature"}`), exactly as they were signed.

    SignatureError if the named signer is another key or the signature does not verify; FormatError for another form.
    """
    header, payload, signature = _signed_parts(obj)
    if not udf.equal(_kid(header), key.udf):
        raise SignatureError("signed by another key than the expected one")
    key.verify(signature, payload)
    return payload


class RsaDecryptKey:
    """An RSA private key of 2016, with which a device opened application profiles."""

    __slots__ = ("_native", "udf")

    udf: str

    def __init__(self, native: rsa.RSAPrivateKey) -> None:
        numbers = native.public_key().public_numbers()
        self.udf = RsaVerifyKey.from_numbers(numbers.n, numbers.e).udf
        self._native = native

    @classmethod
    def from_json(cls, obj: Any) -> RsaDecryptKey:
        """Read `{"n","e","d","p","q",…}`, bare or tagged PrivateKeyRSA; FormatError if it is no consistent key."""
        if isinstance(obj, dict) and obj.keys() == {"PrivateKeyRSA"}:
            obj = obj["PrivateKeyRSA"]
        if not isinstance(obj, dict):
            raise FormatError("a private key that is not an object")
        n, e, d, p, q = (_number(obj, member) for member in "nedpq")
        RsaVerifyKey.from_numbers(n, e)  # bounds first: inconsistent numbers take long to check
        try:
            crt = (rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
            native = rsa.RSAPrivateNumbers(p, q, d, *crt, rsa.RSAPublicNumbers(e, n)).private_key()
        except (ValueError, ZeroDivisionError):
            raise FormatError("an RSA private key that can't be one") from None
        key = cls(native)
        if obj.get("kid", key.udf) != key.udf:
            raise FormatError("a key whose UDF is not its own")
        return key

    def unwrap(self, encrypted_key: bytes) -> bytes:
        """The content key under RSAES-OAEP with SHA-1; DecryptError if it does not open."""
        try:
            return self._native.decrypt(encrypted_key, _OAEP)
        except ValueError:
            raise DecryptError from None

    @property
    def bits(self) -> int:
        return self._native.key_size

    def pem(self) -> str:
        """The key itself, PKCS#8 in PEM, for its person alone."""
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self._native.private_bytes(*form).decode("ascii")

    def __repr__(self) -> str:
        return f"RsaDecryptKey({self.udf})"


def open_encrypted(obj: Any, key: RsaDecryptKey) -> bytes:
    """The plaintext of a 2016 application profile's EncryptedData, for the first recipient that is `key`.

    DecryptError if it is none of them or does not fit, FormatError for another form. Not authenticated (see above).
    """
    iv, ciphertext = _encrypted_parts(obj)
    recipients = obj.get("recipients")
    if not isinstance(recipients, list) or len(recipients) > MAX_RECIPIENTS:
        raise FormatError("encrypted data without recipients")
    for recipient in recipients:
        if not isinstance(recipient, dict) or not isinstance(recipient.get("Header"), dict):
            raise FormatError("encrypted data with a recipient that is none")
        if recipient["Header"].get("kid") == key.udf:
            return _decrypt(key.unwrap(_binary(recipient, "encrypted_key")), iv, ciphertext)
    raise DecryptError("not encrypted to this key")


def open_escrow(obj: Any, secret: bytes) -> bytes:
    """The plaintext of a 2016 OfflineEscrowEntry's EncryptedData under the 16 bytes that its shares combine to.

    DecryptError if it does not open: entries that 2016 programs published never do (their key was lost at once).
    """
    if len(secret) != 16:
        raise FormatError(f"a recovery secret of {len(secret)} bytes: 16 are needed")
    return _decrypt(secret, *_encrypted_parts(obj))


def _signed_parts(obj: Any) -> tuple[bytes, bytes, bytes]:
    if not isinstance(obj, dict) or obj.keys() != {"header", "payload", "signature"}:
        raise FormatError("a 2016 signature with other members than header, payload and signature")
    return _binary(obj, "header"), _binary(obj, "payload"), _binary(obj, "signature")


def _kid(header: bytes) -> str:
    parsed = _header(header)
    if parsed.keys() == {"Header"} and isinstance(parsed["Header"], dict):
        parsed = parsed["Header"]
    if parsed.get("alg") != "RS512":
        raise FormatError("a 2016 signature that is not RS512")
    return udf.check(parsed.get("kid"))


def _encrypted_parts(obj: Any) -> tuple[bytes, bytes]:
    """IV and ciphertext of AE128, which names AES-CBC with PKCS#7 under a key of 128 or 256 bits."""
    if not isinstance(obj, dict) or not {"protected", "iv", "ciphertext"} <= obj.keys() or "tag" in obj:
        raise FormatError("encrypted data that is not of 2016")
    if _header(_binary(obj, "protected")).get("alg") != "AE128":
        raise FormatError("encrypted data of 2016 that is not AE128")
    iv, ciphertext = _binary(obj, "iv"), _binary(obj, "ciphertext")
    if len(iv) != _BLOCK_BYTES or not ciphertext or len(ciphertext) % _BLOCK_BYTES:
        raise FormatError("encrypted data that is not whole blocks")
    return iv, ciphertext


def _decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    if len(key) not in (16, 32):
        raise DecryptError(f"a content key of {len(key)} bytes")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    unpadder = PKCS7(8 * _BLOCK_BYTES).unpadder()
    try:
        return unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        raise DecryptError from None


def _header(data: bytes) -> dict[str, Any]:
    try:
        parsed = read_json(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise FormatError("a header that is not text") from None
    if not isinstance(parsed, dict):
        raise FormatError("a header that is not an object")
    return parsed


def _binary(obj: dict[str, Any], member: str) -> bytes:
    value = obj.get(member)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise FormatError(f"a {member} that is no text or too long")
    return base64url.decode_lenient(value)


def _number(obj: dict[str, Any], member: str) -> int:
    data = _binary(obj, member)
    if len(data) > MAX_RSA_BITS // 8 + 1:
        raise FormatError("an RSA key that is too long")
    return int.from_bytes(data, "big")


def _check_depth(value: Any) -> None:
    """FormatError below 32 levels; walks level by level, so that depth costs no stack."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise FormatError(f"JSON of more than {MAX_DEPTH} levels")
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member named twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
