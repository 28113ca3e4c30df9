"""An invitation that goes through a portal: its URI, and what proves that a request comes from who was given it.

    mesh-pair:?a=alice%40example.net&m=MB2GK-…&s=SECRET        a: account, m: UDF of the mesh, s: ≥ 80 random bits
        &h=192.0.2.7:8443&i=1           h: where DNS does not tell where the portal is; i: it is reached without TLS
    BlockToken  pin1.NONCE.WITNESS      WITNESS = HMAC-SHA256(SECRET, "mmm-pin/1" ‖ lv(m) ‖ lv(vid) ‖ lv(nonce))
    BlockToken  fp1.NONCE               no secret: people compare fingerprints
                … .unsealed             behind either: the device keeps its keys without a passphrase

Whoever scans the URI knows the mesh by its fingerprint, so nobody needs to compare; the witness tells the admin that
the request was made by who scanned it, for exactly that device profile (its vid) and mesh. A portal sees the witness,
and could try secrets against it as fast as it likes: that is why a short code must never be used here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from meshd.crypto import base64url, udf
from meshd.errors import FormatError
from meshd.pairing.code import check_address

LEAST_SECRET = 10  # bytes: 80 bits
SECRET_BYTES = 16
MAX_SECRET = 64
NONCE_BYTES = 16
MAX_URI = 1024
MAX_ACCOUNT = 320
PIN, FINGERPRINT = "pin1", "fp1"
_SCHEME = "mesh-pair:?"
_UNSEALED = ".unsealed"


@dataclass(frozen=True, slots=True)
class RemoteUri:
    """An invitation in one line. `address` and `plain` as the admin's device reaches the portal."""

    account: str
    mesh: str
    secret: bytes = field(repr=False)
    address: str = ""
    plain: bool = False

    def __post_init__(self) -> None:
        if not udf.is_current(self.mesh):
            raise FormatError("an invitation without the fingerprint of a mesh")
        if not LEAST_SECRET <= len(self.secret) <= MAX_SECRET:
            raise FormatError("an invitation whose secret is too short to go through a portal")
        if not 3 <= len(self.account) <= MAX_ACCOUNT or "@" not in self.account:
            raise FormatError("an invitation without an account")
        if self.address:
            object.__setattr__(self, "address", check_address(self.address))
        if len(self.text) > MAX_URI:
            raise FormatError("an invitation that is too long")

    @property
    def text(self) -> str:
        """The one spelling of this URI."""
        parts = [f"a={quote(self.account, safe='')}", f"m={self.mesh}", f"s={base64url.encode(self.secret)}"]
        if self.address:
            parts.append(f"h={quote(self.address, safe=':')}")
        if self.plain:
            parts.append("i=1")
        return _SCHEME + "&".join(parts)


def is_remote(text: str) -> bool:
    """Does a pairing URI go through a portal? The others begin with their version."""
    return text.strip().startswith(f"{_SCHEME}a=")


def parse(text: str) -> RemoteUri:
    """FormatError for any other spelling than its own `text`."""
    text = text.strip()
    if not is_remote(text) or len(text) > MAX_URI:
        raise FormatError("not an invitation through a portal")
    parts = dict(part.partition("=")[::2] for part in text.removeprefix(_SCHEME).split("&"))
    if not {"a", "m", "s"} <= parts.keys() <= {"a", "m", "s", "h", "i"}:
        raise FormatError(
            "an invitation with unknown or missing parts", hint="put it in quotes: a shell ends it at the &"
        )
    try:
        account = unquote(parts["a"], errors="strict")
    except UnicodeDecodeError:
        raise FormatError("an invitation without an account") from None
    address = unquote(parts.get("h", ""))
    found = RemoteUri(account, parts["m"], base64url.decode(parts["s"]), address, parts.get("i") == "1")
    if found.text != text:
        raise FormatError("an invitation that is misspelled")
    return found


def fingerprint_token(rng: Callable[[int], bytes], *, unsealed: bool = False) -> str:
    """The BlockToken of a request that people vouch for."""
    return f"{FINGERPRINT}.{base64url.encode(rng(NONCE_BYTES))}{_UNSEALED if unsealed else ''}"


def pin_token(secret: bytes, mesh: str, device: bytes, rng: Callable[[int], bytes], *, unsealed: bool = False) -> str:
    """The BlockToken of a request that the secret vouches for. `device` is the vid of the DeviceProfile in it."""
    nonce = rng(NONCE_BYTES)
    witness = base64url.encode(_witness(secret, mesh, device, nonce))
    return f"{PIN}.{base64url.encode(nonce)}.{witness}{_UNSEALED if unsealed else ''}"


def is_unsealed(token: str) -> bool:
    """Does the device say that it keeps its keys without a passphrase? The request that holds the token is signed."""
    return token.endswith(_UNSEALED)


def proves(token: str, secret: bytes, mesh: str, device: bytes) -> bool:
    """Does a request's BlockToken show that who made it knows the secret? Constant in time."""
    kind, _, rest = token.removesuffix(_UNSEALED).partition(".")
    nonce_text, _, witness_text = rest.partition(".")
    if kind != PIN or len(secret) < LEAST_SECRET:
        return False
    try:
        nonce, witness = base64url.decode(nonce_text), base64url.decode(witness_text)
    except FormatError:
        return False
    return len(nonce) == NONCE_BYTES and hmac.compare_digest(witness, _witness(secret, mesh, device, nonce))


def _witness(secret: bytes, mesh: str, device: bytes, nonce: bytes) -> bytes:
    said = b"mmm-pin/1" + b"".join(len(part).to_bytes(4, "big") + part for part in (mesh.encode(), device, nonce))
    return hmac.new(secret, said, hashlib.sha256).digest()
