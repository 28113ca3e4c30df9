"""Who is asking: HTTP Message Signatures by a device's authentication key (RFC 9421, RFC 9530).

    Content-Digest: sha-256=:…:
    Signature-Input: mesh=("@method" "@authority" "@path" "content-digest" "content-type" "mesh-extensions");created=…
        ;expires=…;nonce="…";keyid="MANI4-…";alg="ed25519";tag="mmm-req"
    Signature: mesh=:…:

A device signs with Ed25519, an RSA device of 2016 with rsa-pss-sha512; the key decides, no message does. The signature
covers the whole body through its digest, and every `Mesh-…` header that there is. It counts for two minutes, and once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshd.crypto.keys import RsaVerifyKey, SigningKey, VerifyKey
from meshd.errors import FormatError, SignatureError

LABEL = "mesh"
TAG_REQUEST = "mmm-req"
TAG_PEER = "mmm-peer"
ED25519 = "ed25519"
RSA_PSS_SHA512 = "rsa-pss-sha512"

COVERED = ("@method", "@authority", "@path", "content-digest", "content-type", "mesh-extensions")
WINDOW = 120  # seconds that two clocks may differ, and that a signature counts
REMEMBERED = 300  # seconds that a nonce is remembered: longer than anything that could come again would count
MAX_HEADER = 4096  # characters
MAX_COMPONENTS = 24
NONCE_BYTES = 16

_MEMBER = re.compile(r'(?P<label>[a-z*][a-z0-9_.*-]*)=\((?P<list>(?:"[^"\\]*"(?: "[^"\\]*")*)?)\)(?P<params>[^,()]*)')
_PARAMETER = re.compile(r';(?P<name>[a-z*][a-z0-9_.*-]*)=(?:(?P<number>-?[0-9]{1,15})|"(?P<text>[ !#-\[\]-~]*)")')
_COMPONENT = re.compile(r'"(@?[a-z][a-z0-9-]*)"')
_BYTES = re.compile(r"(?P<label>[a-z*][a-z0-9_.*-]*)=:(?P<data>[A-Za-z0-9+/]*={0,2}):")
_SEPARATOR = re.compile(r"[ \t]*,[ \t]*")


@dataclass(frozen=True, slots=True)
class Signable:
    """The parts of an HTTP request that a signature can cover. Header names in lower case; values as sent."""

    method: str
    authority: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = ""


@dataclass(frozen=True, slots=True)
class Presented:
    """A signature as it came, not verified. `params` is its input verbatim, which is itself signed."""

    components: tuple[str, ...]
    params: str
    signature: bytes = field(repr=False)
    keyid: str = ""
    created: int | None = None
    expires: int | None = None
    nonce: str = ""
    alg: str = ""
    tag: str = ""


def content_digest(body: bytes) -> str:
    """The value of Content-Digest for a body."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def check_digest(header: str, body: bytes) -> None:
    """SignatureError unless the header states the SHA-256 (or else SHA-512) of the body; FormatError."""
    stated = dict(_dictionary(header))
    for name in ("sha-256", "sha-512"):
        if name in stated:
            if not hmac.compare_digest(stated[name], hashlib.new(name.replace("-", ""), body).digest()):
                raise SignatureError("the body is not the one that was signed")
            return
    raise FormatError("a Content-Digest without sha-256")


def signature_base(components: Iterable[str], params: str, message: Signable) -> bytes:
    """What is signed (RFC 9421 §2.5). FormatError for a component that the request has not."""
    lines = [f'"{name}": {_component(name, message)}' for name in components]
    lines.append(f'"@signature-params": {params}')
    return "\n".join(lines).encode("utf-8")


def sign(
    message: Signable, body: bytes, key: SigningKey, *, now: int, nonce: bytes, tag: str = TAG_REQUEST
) -> dict[str, str]:
    """The three headers to add to a request. `now` is UTC seconds, `nonce` 16 random bytes.

    Covers COVERED and every further `mesh-…` header; `message.headers` must have content-type and mesh-extensions.
    """
    digest = content_digest(body)
    covering = Signable(
        message.method, message.authority, message.path, {**message.headers, "content-digest": digest}, message.query
    )
    components = [*COVERED, *sorted(_mesh_headers(message) - set(COVERED))]
    covered = " ".join(f'"{name}"' for name in components)
    spelled = base64.urlsafe_b64encode(nonce).rstrip(b"=").decode()
    params = (
        f'({covered});created={now};expires={now + WINDOW};nonce="{spelled}"'
        f';keyid="{key.udf}";alg="{ED25519}";tag="{tag}"'
    )
    signature = key.sign(signature_base(components, params, covering))
    return {
        "Content-Digest": digest,
        "Signature-Input": f"{LABEL}={params}",
        "Signature": f"{LABEL}=:{base64.b64encode(signature).decode()}:",
    }


def read(headers: Mapping[str, str], label: str = LABEL) -> Presented | None:
    """The signature with our label that a request carries; None if it has none, FormatError if it can't be read.

    Header names in lower case. The key that its `keyid` names is the caller's to find.
    """
    inputs, signatures = headers.get("signature-input"), headers.get("signature")
    if inputs is None and signatures is None:
        return None
    if inputs is None or signatures is None:
        raise FormatError("one of Signature and Signature-Input without the other")
    params = _inputs(inputs).get(label)
    signature = dict(_dictionary(signatures)).get(label)
    if params is None and signature is None:
        return None
    if params is None or signature is None:
        raise FormatError("a signature without its input, or the other way round")
    return _presented(params, signature)


def check(
    presented: Presented,
    message: Signable,
    body: bytes,
    key: VerifyKey | RsaVerifyKey,
    *,
    now: int,
    tag: str = TAG_REQUEST,
) -> None:
    """SignatureError unless `key` signed this request within the last two minutes, all of it; FormatError.

    What remains for the caller is that it was not used before: `NonceCache.use`.
    """
    headers = message.headers
    required = set(COVERED) | _mesh_headers(message)
    if message.query or not required <= set(presented.components):
        raise SignatureError("the signature does not cover the whole request")
    if presented.tag != tag or presented.keyid != key.udf:
        raise SignatureError("a signature for another purpose, or by another key")
    if presented.alg != (ED25519 if isinstance(key, VerifyKey) else RSA_PSS_SHA512):
        raise SignatureError("a signature whose algorithm is not its key's")
    if presented.created is None or presented.expires is None or not 16 <= len(presented.nonce) <= 128:
        raise FormatError("a signature without created, expires or a nonce")
    if abs(now - presented.created) > WINDOW or not presented.created < presented.expires:
        raise SignatureError("a signature of another time: the clocks differ", hint="check this device's clock")
    if presented.expires <= now:
        raise SignatureError("a signature that has expired", hint="check this device's clock")
    check_digest(headers.get("content-digest", ""), body)
    base = signature_base(presented.components, presented.params, message)
    if isinstance(key, VerifyKey):
        key.verify(presented.signature, base)
    else:
        key.verify_pss(presented.signature, base)


class NonceCache:
    """The nonces of the last five minutes. Signatures made before `started` don't count: their nonces are forgotten.

    Holds at most `limit` of them, in buckets by time that are dropped whole. `use` after the signature verified.
    """

    _BUCKET = 30  # seconds

    def __init__(self, started: int, limit: int = 500_000) -> None:
        self._started, self._limit = started, limit
        self._buckets: dict[int, set[bytes]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def full(self, now: int) -> bool:
        """Is there room for no more? Then whoever comes is to come again."""
        self._forget(now)
        return self._count >= self._limit

    def use(self, presented: Presented, now: int) -> bool:
        """Mark a signature as used; False if it was used before, or nobody could tell any more."""
        created = presented.created
        if created is None or created < self._started or self.full(now):
            return False
        mark = hashlib.blake2b(f"{presented.keyid}\n{presented.nonce}".encode(), digest_size=16).digest()
        if any(mark in bucket for bucket in self._buckets.values()):
            return False
        self._buckets.setdefault(now // self._BUCKET, set()).add(mark)
        self._count += 1
        return True

    def _forget(self, now: int) -> None:
        for at in [at for at in self._buckets if (at + 1) * self._BUCKET <= now - REMEMBERED]:
            self._count -= len(self._buckets.pop(at))


def _mesh_headers(message: Signable) -> set[str]:
    return {name for name in message.headers if name.startswith("mesh-")}


def _component(name: str, message: Signable) -> str:
    if name == "@method":
        return message.method
    if name == "@authority":
        return message.authority.lower()
    if name == "@path":
        return message.path or "/"
    if name.startswith("@") or name not in message.headers:
        raise FormatError(f"a signature over {name[:40]}, which the request does not have")
    value = " ".join(part.strip() for part in message.headers[name].split("\n")).strip()
    if not value.isascii():
        raise FormatError(f"a header {name[:40]} that is not ASCII")
    return value


def _presented(params: str, signature: bytes) -> Presented:
    listed, _, rest = params.partition(")")
    names = tuple(_COMPONENT.findall(listed))
    if len(names) != listed.count('"') // 2 or len(set(names)) != len(names) or len(names) > MAX_COMPONENTS:
        raise FormatError("a signature whose covered components can't be read")
    texts: dict[str, str] = {}
    numbers: dict[str, int] = {}
    at = 0
    while at < len(rest):
        found = _PARAMETER.match(rest, at)
        if found is None or found["name"] in texts or found["name"] in numbers:
            raise FormatError("a signature whose parameters can't be read")
        if found["number"] is not None:
            numbers[found["name"]] = int(found["number"])
        else:
            texts[found["name"]] = found["text"]
        at = found.end()
    if not texts.keys() <= {"nonce", "keyid", "alg", "tag"} or not numbers.keys() <= {"created", "expires"}:
        raise FormatError("a signature with parameters that are not known here")
    return Presented(
        names,
        params,
        signature,
        keyid=texts.get("keyid", ""),
        created=numbers.get("created"),
        expires=numbers.get("expires"),
        nonce=texts.get("nonce", ""),
        alg=texts.get("alg", ""),
        tag=texts.get("tag", ""),
    )


def _inputs(header: str) -> dict[str, str]:
    """Label → inner list with parameters, verbatim, of a Signature-Input."""
    found: dict[str, str] = {}
    for member in _members(header, _MEMBER):
        if member["label"] in found:
            raise FormatError("a signature label twice")
        found[member["label"]] = f"({member['list']}){member['params'].rstrip()}"
    return found


def _dictionary(header: str) -> list[tuple[str, bytes]]:
    """A dictionary of byte sequences (RFC 8941 §3.2, §3.3.5)."""
    found = []
    for member in _members(header, _BYTES):
        try:
            found.append((member["label"], base64.b64decode(member["data"], validate=True)))
        except binascii.Error:
            raise FormatError("a header whose bytes are not base64") from None
    if len(dict(found)) != len(found):
        raise FormatError("a header member twice")
    return found


def _members(header: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    header = header.strip()
    if len(header) > MAX_HEADER:
        raise FormatError("a header that is too long")
    found, at = [], 0
    while True:
        member = pattern.match(header, at)
        if member is None:
            raise FormatError("a header that is no dictionary of signatures or digests")
        found.append(member)
        at = member.end()
        if at == len(header):
            return found
        separator = _SEPARATOR.match(header, at)
        if separator is None:
            raise FormatError("a header that is no dictionary of signatures or digests")
        at = separator.end()
