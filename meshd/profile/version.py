"""One signed state of an entry, named by its vid; everything that syncs is one of these (formats.md F1, F4).

A version is read in two steps. `parse` turns bytes into a `Parsed` (shapes checked, nothing believed); `verify`
checks the signature with a key from context and is the only way to a `Version`. The bytes that were signed are kept
and forwarded as they came.

    vid = SHA-256( lv(kid) ‖ lv(NotaryToken) ‖ SHA-256(bytes that the signature covers) )        lv(x) = u32 length ‖ x
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from meshd.crypto import base64url, cbor, jwe, jws, udf
from meshd.crypto.keys import VerifyKey
from meshd.errors import FormatError, TrustError, UnknownSigner
from meshd.profile import links, payload
from meshd.profile.claim import ALL, READ, WRITE, Claim, Kind
from meshd.profile.links import Links

MAX_RAW = 4 * 1024 * 1024
MAX_CARRIED = 64 * 1024  # of an entry of a kind that is only carried
MAX_KIND = 2**16
MAX_LISTED = 512  # devices, applications or admins in one profile
MAX_ESCROW_HEADER = 4096  # bytes of one recipient's header
ITEM_PART = re.compile(r"[a-z2-7]{26}\Z")
_TAGS = {Kind.PERSONAL: "PersonalProfile", Kind.MASTER: "MasterProfile", Kind.DEVICE: "DeviceProfile"}
_RESERVED_TAGS = frozenset(_TAGS.values()) | {"ConnectionRequest", "ConnectionResult", "EscrowedKeySet"}
_SIGNED = {
    Kind.PERSONAL: "SignedPersonalProfile",
    Kind.MASTER: "SignedMasterProfile",
    Kind.DEVICE: "SignedDeviceProfile",
    Kind.CONTAINER: "SignedApplicationProfile",
    Kind.ITEM: "SignedApplicationProfile",
}
_ESCROW_MEMBERS = {"protected", "iv", "ciphertext", "tag"}
_ESCROW = {Kind.OFFLINE_ESCROW: "OfflineEscrowEntry", Kind.ONLINE_ESCROW: "OnlineEscrowEntry"}


class KeyDirectory(Protocol):
    """Where a verifier finds the keys of the devices that it knows."""

    def signing_key(self, signer: str) -> VerifyKey | None: ...


@dataclass(frozen=True, slots=True)
class Parsed:
    """A version as it arrived: well formed, not yet believed. `body` is the decoded profile, `signed` is None for
    escrow entries."""

    claim: Claim
    tag: str
    body: dict[str, Any] = field(repr=False)
    digest: bytes
    raw: bytes = field(repr=False)
    token: str
    updated: int
    signed: jws.Jws | None = field(repr=False)
    embedded: tuple[Parsed, ...] = field(default=(), repr=False)  # PersonalProfile: its master and device profiles


@dataclass(frozen=True, slots=True)
class Version(Parsed):
    """A version whose signature verified, embedded documents included."""

    @property
    def vid(self) -> bytes:
        return self.claim.vid

    @property
    def kind(self) -> Kind:
        return self.claim.kind

    @property
    def identifier(self) -> str:
        return self.claim.identifier

    @property
    def signer(self) -> str:
        return self.claim.signer

    @property
    def links(self) -> Links:
        return self.claim.links


def version_id(kid: str, token: str, digest: bytes) -> bytes:
    """The vid of (signer, NotaryToken, SHA-256 of what the signature covers)."""
    kid_bytes, token_bytes = kid.encode(), token.encode()
    return hashlib.sha256(
        len(kid_bytes).to_bytes(4, "big") + kid_bytes + len(token_bytes).to_bytes(4, "big") + token_bytes + digest
    ).digest()


def kind_of_application(identifier: str) -> Kind:
    """An application entry is an item or a container by the shape of its Identifier (formats.md F3)."""
    container, slash, part = identifier.partition("/")
    if not udf.is_current(container):
        raise FormatError("an application Identifier that is not of 200 bits")
    if not slash:
        return Kind.CONTAINER
    if not ITEM_PART.match(part):
        raise FormatError("an item Identifier is CONTAINER/26 base32 characters")
    return Kind.ITEM


def parse(raw: bytes) -> Parsed:
    """Read one entry from its F4 bytes; FormatError. Signatures are not checked here."""
    if len(raw) > MAX_RAW:
        raise FormatError(f"an entry of {len(raw)} bytes")
    fields = cbor.decode(raw)
    if type(fields) is list and len(fields) > 0 and type(fields[0]) is int and is_carried(fields[0]):
        return _parse_carried(fields[0], raw)
    if type(fields) is not list or len(fields) < 2 or type(fields[0]) is not int or type(fields[1]) is not str:
        raise FormatError("an entry is an array of kind, Identifier, …")
    number, identifier = fields[0], fields[1]
    if number in _SIGNED:
        return _parse_signed(Kind(number), identifier, _signed_parts(fields), raw)
    if number in _ESCROW:
        return _parse_escrow(Kind(number), identifier, fields, raw)
    raise FormatError(f"an entry of the unknown kind {number}")


def is_carried(number: int) -> bool:
    """Is this an odd kind that this release can't read, but keeps and forwards (formats.md F4)? Receipts are such."""
    return number >= Kind.RECEIPT and number % 2 == 1 and number < MAX_KIND


def _parse_carried(number: int, raw: bytes) -> Parsed:
    """Whatever it holds, it is named by its bytes and believed in nothing."""
    if len(raw) > MAX_CARRIED:
        raise FormatError(f"an entry of the kind {number} of {len(raw)} bytes: at most {MAX_CARRIED} are carried")
    digest = hashlib.sha256(raw).digest()
    kind = cast(Kind, number)  # an IntEnum can't have members for what is yet to come
    return Parsed(Claim(digest, kind, "", "", Links(g=1)), "", {}, digest, raw, "", 0, None)


def _signed_parts(fields: list[Any]) -> jws.Jws:
    if len(fields) != 5 or not all(type(part) is bytes for part in fields[2:]):
        raise FormatError("a signed entry is [kind, Identifier, protected, payload, signature]")
    return jws.Jws(fields[2], fields[3], fields[4])


def _parse_signed(kind: Kind, identifier: str, signed: jws.Jws, raw: bytes) -> Parsed:
    signer = jws.signer(signed.protected)
    tag, body = payload.decode_tagged(signed.payload)
    if body.get("Identifier") != identifier:
        raise FormatError("the Identifier outside is not the Identifier that was signed")
    expected = _TAGS.get(kind)
    if expected is None:
        if tag in _RESERVED_TAGS:
            raise FormatError(f"an application profile tagged {tag}")
        if kind_of_application(identifier) is not kind:
            raise FormatError("the shape of the Identifier is that of another kind")
        _check_envelope(kind, payload.object_member(body, "EncryptedData"))
    elif tag != expected:
        raise FormatError(f"{tag} where {expected} is due")
    token = payload.text_member(body, "NotaryToken", links.MAX_TOKEN)
    found = links.parse(token)
    updated = payload.read_date(payload.text_member(body, "Updated", 20))
    digest = signed.digest
    vid = version_id(signer, token, digest)
    embedded: tuple[Parsed, ...] = ()
    if kind is Kind.MASTER:
        claim = Claim(vid, kind, identifier, signer, found, admins=_online_keys(body))
        if identifier != signer or master_key(body).udf != signer:
            raise TrustError("a master profile that its own key has not signed")
    elif kind is Kind.PERSONAL:
        embedded = _embedded(identifier, body)
        claim = _personal_claim(vid, identifier, signer, found, body, embedded)
    else:
        claim = Claim(vid, kind, identifier, signer, found)
        if kind is Kind.DEVICE and (identifier != signer or device_keys(body)[0].udf != signer):
            raise TrustError("a device profile that its own key has not signed")
        if kind is not Kind.DEVICE and not found.a:
            raise FormatError("an application profile that names no authority")
    if not found.n and kind not in (Kind.MASTER, Kind.PERSONAL):
        raise FormatError("a version that is not on its author's chain")
    return Parsed(claim, tag, body, digest, raw, token, updated, signed, embedded)


def _check_envelope(kind: Kind, envelope: dict[str, Any]) -> None:
    """formats.md F3: the shape of the Identifier decides the kind and must match the JWE's shape."""
    if kind is Kind.ITEM:
        jwe.direct_kid(envelope)
    else:  # whole: who looks at a stored container may rely on its lists
        jwe.recipients_of(envelope)
        jwe.kids_of(envelope)


def _parse_escrow(kind: Kind, identifier: str, fields: list[Any], raw: bytes) -> Parsed:
    if len(fields) != 7 or not all(type(part) is bytes for part in fields[2:6]) or type(fields[6]) is not list:
        raise FormatError("an escrow entry is [kind, Identifier, protected, iv, ciphertext, tag, [[header, key] …]]")
    if len(fields[6]) > jwe.MAX_RECIPIENTS or len(fields[4]) > jwe.MAX_CIPHERTEXT:
        raise FormatError("an escrow entry that is too large")
    udf.check(identifier)
    digest = hashlib.sha256(raw).digest()
    claim = Claim(version_id("", "", digest), kind, identifier, "", Links(g=1))
    envelope: dict[str, Any] = {"protected": base64url.encode(fields[2])}
    if fields[6]:
        envelope["recipients"] = [_escrow_recipient(recipient) for recipient in fields[6]]
    envelope |= {
        name: base64url.encode(part) for name, part in zip(("iv", "ciphertext", "tag"), fields[3:6], strict=True)
    }
    return Parsed(claim, _ESCROW[kind], {"Identifier": identifier, "EncryptedData": envelope}, digest, raw, "", 0, None)


def _escrow_recipient(recipient: Any) -> dict[str, Any]:
    if type(recipient) is not list or len(recipient) != 2 or not all(type(part) is bytes for part in recipient):
        raise FormatError("an escrow recipient is [header, key]")
    header = payload.decode(recipient[0], MAX_ESCROW_HEADER)
    if type(header) is not dict or payload.encode(header) != recipient[0]:  # else the JSON form would have another vid
        raise FormatError("an escrow recipient whose header is not compact JSON")
    return {"header": header, "encrypted_key": base64url.encode(recipient[1])}


def escrow_raw(kind: Kind, identifier: str, envelope: dict[str, Any]) -> bytes:
    """The F4 bytes of an escrow entry whose EncryptedData is this JWE; FormatError."""
    if not _ESCROW_MEMBERS <= envelope.keys() <= _ESCROW_MEMBERS | {"recipients"}:
        raise FormatError("encrypted data with other members than an escrow entry has")
    recipients = []
    for entry in payload.list_member(envelope, "recipients", jwe.MAX_RECIPIENTS):
        if type(entry) is not dict or entry.keys() != {"header", "encrypted_key"}:
            raise FormatError("an escrow recipient has a header and an encrypted_key")
        recipients.append([payload.encode(entry["header"]), base64url.decode(entry["encrypted_key"])])
    parts = [base64url.decode(envelope[name]) for name in ("protected", "iv", "ciphertext", "tag")]
    return cbor.encode([int(kind), identifier, *parts, recipients])


def signed_raw(kind: Kind, identifier: str, signed: jws.Jws) -> bytes:
    """The F4 bytes of a signed entry."""
    return cbor.encode([int(kind), identifier, signed.protected, signed.payload, signed.signature])


def to_json(parsed: Parsed) -> dict[str, Any]:
    """The draft's JSON form, tagged; byte-exact in the signed parts."""
    if parsed.signed is None:
        return {parsed.tag: dict(parsed.body)}
    return {_SIGNED[parsed.claim.kind]: bare_json(parsed)}


def stored_json(raw: bytes) -> dict[str, Any]:
    """As `to_json`, of the bytes of an entry that was verified before it was stored: nothing is judged again."""
    fields = cbor.decode(raw)
    if type(fields) is list and fields and fields[0] in _SIGNED:
        signed = jws.json_of(*fields[2:])
        return {_SIGNED[Kind(fields[0])]: {"Identifier": fields[1], "SignedData": signed}}
    return to_json(parse(raw))


def bare_json(parsed: Parsed) -> dict[str, Any]:
    """The draft's JSON form without its tag, as it stands embedded in a PersonalProfile."""
    if parsed.signed is None:
        return dict(parsed.body)
    return {"Identifier": parsed.claim.identifier, "SignedData": jws.to_json(parsed.signed)}


def from_json(obj: Any) -> Parsed:
    """Read the draft's tagged JSON form of an entry (already decoded); FormatError."""
    if type(obj) is not dict or len(obj) != 1:
        raise FormatError("an entry is one tagged object")
    ((tag, body),) = obj.items()
    if type(body) is not dict:
        raise FormatError("an entry is one tagged object")
    identifier = payload.text_member(body, "Identifier", 256)
    for escrow, name in _ESCROW.items():
        if tag == name:
            if body.keys() != {"Identifier", "EncryptedData"}:
                raise FormatError("an escrow entry has Identifier and EncryptedData")
            return parse(escrow_raw(escrow, identifier, payload.object_member(body, "EncryptedData")))
    for kind, name in _SIGNED.items():
        if tag == name:
            if kind in (Kind.CONTAINER, Kind.ITEM):
                kind = kind_of_application(identifier)
            return _from_bare(kind, body)
    raise FormatError(f"an entry of the unknown type {tag[:40]!r}")


def _from_bare(kind: Kind, body: Any) -> Parsed:
    if type(body) is not dict or set(body) != {"Identifier", "SignedData"}:
        raise FormatError("a signed entry has Identifier and SignedData")
    identifier = payload.text_member(body, "Identifier", 256)
    signed = jws.from_json(payload.object_member(body, "SignedData"))
    return _parse_signed(kind, identifier, signed, signed_raw(kind, identifier, signed))


def _embedded(identifier: str, body: dict[str, Any]) -> tuple[Parsed, ...]:
    master = _from_bare(Kind.MASTER, payload.object_member(body, "SignedMasterProfile"))
    if master.claim.identifier != identifier:
        raise TrustError("a personal profile that embeds another mesh's master profile")
    devices = [_from_bare(Kind.DEVICE, entry) for entry in payload.list_member(body, "Devices", MAX_LISTED)]
    if len({device.claim.identifier for device in devices}) != len(devices):
        raise FormatError("a device listed twice")
    return (master, *devices)


def _online_keys(body: dict[str, Any]) -> frozenset[str]:
    keys = payload.list_member(body, "OnlineSignatureKeys", MAX_LISTED)
    return frozenset(_read_sign_key(key).udf for key in keys)


def _personal_claim(
    vid: bytes, identifier: str, signer: str, found: Links, body: dict[str, Any], embedded: tuple[Parsed, ...]
) -> Claim:
    listed = payload.list_member(body, "Applications", MAX_LISTED)
    if not all(type(entry) is dict for entry in listed):
        raise FormatError("an application that is no object")
    applications = frozenset(udf.check(payload.text_member(entry, "Identifier", 256)) for entry in listed)
    if len(applications) != len(listed):
        raise FormatError("an application listed twice")
    grants: set[tuple[str, str, str]] = set()
    roles: list[tuple[str, str]] = []
    stated = body.get("MeshdGrants", {})
    if type(stated) is not dict or len(stated) > MAX_LISTED:
        raise FormatError("MeshdGrants is no object, or too large")
    for device, entry in stated.items():
        udf.check(device)
        if type(entry) is not dict or entry.get("Role") not in ("member", "relay"):
            raise FormatError("MeshdGrants states a role that is neither member nor relay")
        roles.append((device, entry["Role"]))
        granted = entry.get("Grant", {})
        if type(granted) is not dict or len(granted) > MAX_LISTED:
            raise FormatError("a Grant is no object, or too large")
        for container, level in granted.items():
            if level not in (READ, WRITE):
                raise FormatError("a Grant that is neither read nor write")
            grants.add((device, container if container == ALL else udf.check(container), level))
    return Claim(
        vid,
        Kind.PERSONAL,
        identifier,
        signer,
        found,
        master=embedded[0].claim.vid,
        devices=frozenset(device.claim.identifier for device in embedded[1:]),
        applications=applications,
        grants=frozenset(grants),
        roles=tuple(roles),
    )


def _read_sign_key(obj: Any) -> VerifyKey:
    from meshd.crypto.keys import read_public_key

    key = read_public_key(obj, "sign")
    if not isinstance(key, VerifyKey):
        raise FormatError("a key that does not sign")
    return key


def master_key(body: dict[str, Any]) -> VerifyKey:
    """The master signature key that a MasterProfile states."""
    return _read_sign_key(payload.object_member(body, "MasterSignatureKey"))


def online_keys(body: dict[str, Any]) -> dict[str, VerifyKey]:
    """UDF → key of the admins that a MasterProfile lists."""
    keys = [_read_sign_key(key) for key in payload.list_member(body, "OnlineSignatureKeys", MAX_LISTED)]
    return {key.udf: key for key in keys}


def device_keys(body: dict[str, Any]) -> tuple[VerifyKey, VerifyKey, Any]:
    """(DSK, DAK, DEK) of a DeviceProfile; the third is a RecipientKey."""
    from meshd.crypto.keys import read_public_key

    return (
        _read_sign_key(payload.object_member(body, "DeviceSignatureKey")),
        _read_sign_key(payload.object_member(body, "DeviceAuthenticationKey")),
        read_public_key(payload.object_member(body, "DeviceEncryptiontionKey"), "encrypt"),
    )


def verify(parsed: Parsed, directory: KeyDirectory | None = None) -> Version:
    """Check the signatures of `parsed` and of what it embeds. SignatureError, UnknownSigner, TrustError, FormatError.

    Profiles carry the keys that they need: a master or device profile names its own (it is the hash in the
    Identifier), a personal profile is signed by the embedded master key or by an admin that the embedded master
    profile lists. The keys of containers and items come from the directory of the devices that this store knows. An
    admin whom only an ancestor made one is found there too.
    """
    if parsed.signed is None:  # escrow entries are unsigned: the master profile lists their vids
        return _believed(parsed)
    kind = parsed.claim.kind
    embedded = tuple(verify(part) for part in parsed.embedded)
    key: VerifyKey | None
    if kind is Kind.MASTER:
        key = master_key(parsed.body)
    elif kind is Kind.DEVICE:
        key = device_keys(parsed.body)[0]
    elif kind is Kind.PERSONAL and parsed.claim.signer == parsed.claim.identifier:
        key = master_key(parsed.embedded[0].body)
    else:
        key = directory.signing_key(parsed.claim.signer) if directory is not None else None
        if key is None and kind is Kind.PERSONAL:
            key = online_keys(parsed.embedded[0].body).get(parsed.claim.signer)
    if key is None:
        raise UnknownSigner(f"signed by {parsed.claim.signer[:11]}…, which is not a device of this mesh")
    jws.verify(parsed.signed, key)
    return _believed(parsed, embedded)


def _believed(parsed: Parsed, embedded: tuple[Parsed, ...] = ()) -> Version:
    return Version(
        parsed.claim,
        parsed.tag,
        parsed.body,
        parsed.digest,
        parsed.raw,
        parsed.token,
        parsed.updated,
        parsed.signed,
        embedded,
    )
