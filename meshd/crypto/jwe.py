"""Encrypted data: JWE in two shapes and no other (formats.md F5, F6; RFC 7516, RFC 7518, RFC 8037).

* direct (flattened JSON): items and escrow entries under a key that is known by its kid, `dir` + `A256GCM`;
* to recipients (general JSON): containers and sealed keys, `A256GCM` under a fresh key that every recipient gets by
  `ECDH-ES+A256KW` over X25519. The protected header lists in clear which keys are inside.

Each shape has exactly one set of members, so `zip`, `crit`, `apu`, unprotected headers and algorithms of the sender's
choice have no place to stand.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from meshd.crypto import base64url, udf
from meshd.crypto.keys import KEY_BYTES, DecryptKey, RecipientKey, Rng
from meshd.crypto.sealing import NONCE_BYTES, TAG_BYTES, cipher
from meshd.errors import DecryptError, FormatError

MAX_CIPHERTEXT = 2 * 1024 * 1024
MAX_RECIPIENTS = 256
MAX_KIDS = 4096

_DIRECT_HEAD = '{"alg":"dir","enc":"A256GCM","kid":"'
_DIRECT_TAIL = '"}'
_DIRECT_MEMBERS = {"protected", "iv", "ciphertext", "tag"}
_GENERAL_MEMBERS = _DIRECT_MEMBERS | {"recipients"}
_WRAP = "ECDH-ES+A256KW"
_ENC = "A256GCM"
_WRAPPED_BYTES = KEY_BYTES + 8  # RFC 3394
_MAX_PROTECTED = 64 + 50 * MAX_KIDS


def seal_direct(key: bytes, kid: str, plaintext: bytes, rng: Rng) -> dict[str, str]:
    """Seal under a 32-byte key known as `kid` (a UDF): `{"protected", "iv", "ciphertext", "tag"}`.

    FormatError for a key, kid or plaintext (above 2 MiB) that no reader would take.
    """
    protected = base64url.encode((_DIRECT_HEAD + udf.check(kid) + _DIRECT_TAIL).encode("ascii"))
    return {"protected": protected, **_encrypt(key, protected, plaintext, rng)}


def direct_kid(obj: Any) -> str:
    """The kid under which a direct JWE was sealed; FormatError unless it has that shape."""
    _members(obj, _DIRECT_MEMBERS)
    return _read_direct_header(_text(obj, "protected", 128))


@functools.lru_cache(maxsize=256)  # a vault has many items under few keys
def _read_direct_header(header: str) -> str:
    try:
        text = base64url.decode(header).decode("ascii")
    except UnicodeDecodeError:
        raise FormatError("encrypted data with an unreadable header") from None
    kid = text[len(_DIRECT_HEAD) : -len(_DIRECT_TAIL)]
    if not udf.is_udf(kid) or text != _DIRECT_HEAD + kid + _DIRECT_TAIL:
        raise FormatError("encrypted data whose header is not alg dir, enc A256GCM and a kid")
    return kid


def open_direct(obj: Any, keys: Callable[[str], bytes]) -> bytes:
    """The plaintext of a direct JWE under `keys(kid)`.

    `keys` raises DecryptError or LookupError for a kid that it does not know. DecryptError if the key is unknown or
    does not fit, FormatError for any other shape.
    """
    kid = direct_kid(obj)
    try:
        key = keys(kid)
    except LookupError:
        raise DecryptError(f"the key {kid} is not held here") from None
    return _decrypt(key, obj)


def seal_to(plaintext: bytes, recipients: Sequence[RecipientKey], kids: Sequence[str], rng: Rng) -> dict[str, Any]:
    """Seal to recipients, naming in clear the keys that are inside.

    `{"protected", "recipients": [{"header": {"alg", "kid", "epk"}, "encrypted_key"}], "iv", "ciphertext", "tag"}`,
    protected `{"enc":"A256GCM","kids":[…]}`, without `kids` when there are none. FormatError for no or more than 256
    recipients, for one named twice, for kids that are no UDFs or more than 4096.
    """
    if not 1 <= len(recipients) <= MAX_RECIPIENTS or len({key.udf for key in recipients}) != len(recipients):
        raise FormatError(f"{len(recipients)} recipients: 1 to {MAX_RECIPIENTS}, each once, are allowed")
    protected = base64url.encode(_general_header(_check_kids(list(kids))))
    content_key = rng(KEY_BYTES)
    wrapped = [_wrap(content_key, recipient, rng) for recipient in recipients]
    return {"protected": protected, "recipients": wrapped, **_encrypt(content_key, protected, plaintext, rng)}


def open_with(obj: Any, key: DecryptKey) -> bytes:
    """The plaintext for one recipient.

    DecryptError if `key` is none of them or does not fit, FormatError unless all of it has the general shape.
    """
    if key.udf not in recipients_of(obj):
        raise DecryptError("not sealed to this device")
    kids_of(obj)
    ours = next(recipient for recipient in obj["recipients"] if recipient["header"]["kid"] == key.udf)
    ephemeral = base64url.decode(ours["header"]["epk"]["x"])
    try:
        content_key = aes_key_unwrap(_agree(key, ephemeral), base64url.decode(ours["encrypted_key"]))
    except InvalidUnwrap:
        raise DecryptError from None
    return _decrypt(content_key, obj)


def recipients_of(obj: Any) -> tuple[str, ...]:
    """The UDFs to which a general JWE is sealed, in its order; FormatError unless all of it has that shape."""
    _members(obj, _GENERAL_MEMBERS)
    recipients = obj["recipients"]
    if not isinstance(recipients, list) or not 1 <= len(recipients) <= MAX_RECIPIENTS:
        raise FormatError(f"encrypted data without 1 to {MAX_RECIPIENTS} recipients")
    names = tuple(_read_recipient(recipient) for recipient in recipients)
    if len(set(names)) != len(names):
        raise FormatError("encrypted data that names a recipient twice")
    return names


def kids_of(obj: Any) -> tuple[str, ...]:
    """The keys that a general JWE says are inside, in its order; FormatError unless it has that shape."""
    _members(obj, _GENERAL_MEMBERS)
    raw = base64url.decode(_text(obj, "protected", _MAX_PROTECTED))
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise FormatError("encrypted data with an unreadable header") from None
    kids = header.get("kids", []) if isinstance(header, dict) else []
    # Spelled again it must be what came: no other member, no other order, no member twice.
    if raw != _general_header(_check_kids(kids)):
        raise FormatError("encrypted data whose header is not enc A256GCM and kids")
    return tuple(kids)


def _general_header(kids: list[str]) -> bytes:
    header: dict[str, Any] = {"enc": _ENC, "kids": kids} if kids else {"enc": _ENC}
    return json.dumps(header, separators=(",", ":")).encode("ascii")


def _check_kids(kids: Any) -> list[str]:
    if not isinstance(kids, list) or len(kids) > MAX_KIDS:
        raise FormatError(f"kids that are no list of at most {MAX_KIDS}")
    checked = [udf.check(kid) for kid in kids]
    if len(set(checked)) != len(checked):
        raise FormatError("a kid named twice")
    return checked


def _wrap(content_key: bytes, recipient: RecipientKey, rng: Rng) -> dict[str, Any]:
    """One recipient's share. Each has an ephemeral key of its own, so shares can be dropped or added one by one."""
    ephemeral = DecryptKey.generate(rng)
    kek = _agree(ephemeral, recipient.public)
    epk = {"kty": "OKP", "crv": "X25519", "x": base64url.encode(ephemeral.recipient.public)}
    return {
        "header": {"alg": _WRAP, "kid": recipient.udf, "epk": epk},
        "encrypted_key": base64url.encode(aes_key_wrap(kek, content_key)),
    }


def _agree(private: DecryptKey, public: bytes) -> bytes:
    """The key-encryption key of ECDH-ES+A256KW (RFC 7518 §4.6.2): Concat KDF over alg, empty PartyInfos, 256 bits."""
    other_info = len(_WRAP).to_bytes(4, "big") + _WRAP.encode("ascii") + bytes(8) + (256).to_bytes(4, "big")
    return ConcatKDFHash(SHA256(), KEY_BYTES, other_info).derive(private.exchange(public))


def _read_recipient(recipient: Any) -> str:
    """Check the whole form of one recipient and return who it is."""
    _members(recipient, {"header", "encrypted_key"})
    header = recipient["header"]
    _members(header, {"alg", "kid", "epk"})
    epk = header["epk"]
    _members(epk, {"kty", "crv", "x"})
    if header["alg"] != _WRAP or epk["kty"] != "OKP" or epk["crv"] != "X25519":
        raise FormatError(f"a recipient that is not {_WRAP} over X25519")
    _bytes(epk, "x", KEY_BYTES)
    _bytes(recipient, "encrypted_key", _WRAPPED_BYTES)
    return udf.check(header["kid"])


def _encrypt(key: bytes, protected: str, plaintext: bytes, rng: Rng) -> dict[str, str]:
    if len(plaintext) > MAX_CIPHERTEXT:
        raise FormatError(f"a plaintext of {len(plaintext)} bytes: at most {MAX_CIPHERTEXT} are allowed")
    iv = rng(NONCE_BYTES)
    sealed = cipher(key).encrypt(iv, plaintext, protected.encode("ascii"))
    return {
        "iv": base64url.encode(iv),
        "ciphertext": base64url.encode(sealed[:-TAG_BYTES]),
        "tag": base64url.encode(sealed[-TAG_BYTES:]),
    }


def _decrypt(key: bytes, obj: dict[str, Any]) -> bytes:
    """Authenticate and decrypt; the associated data are the characters of `protected` (RFC 7516 §5.1, step 14)."""
    iv, tag = _bytes(obj, "iv", NONCE_BYTES), _bytes(obj, "tag", TAG_BYTES)
    ciphertext = base64url.decode(_text(obj, "ciphertext", MAX_CIPHERTEXT))
    try:
        return cipher(key).decrypt(iv, ciphertext + tag, obj["protected"].encode("ascii"))
    except InvalidTag:
        raise DecryptError from None


def _members(obj: Any, members: set[str]) -> None:
    if not isinstance(obj, dict) or obj.keys() != members:
        raise FormatError(f"encrypted data with other members than {', '.join(sorted(members))}")


def _text(obj: dict[str, Any], member: str, limit: int) -> str:
    """A member in base64url of at most `limit` bytes."""
    value = obj[member]
    if not isinstance(value, str) or len(value) > (limit * 4 + 2) // 3:
        raise FormatError(f"encrypted data whose {member} is no text or too long")
    return value


def _bytes(obj: dict[str, Any], member: str, length: int) -> bytes:
    """A member in base64url of exactly `length` bytes."""
    data = base64url.decode(_text(obj, member, length))
    if len(data) != length:
        raise FormatError(f"encrypted data whose {member} is not {length} bytes long")
    return data
