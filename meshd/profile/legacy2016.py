"""Documents that 2016 signed, as versions: read and verified whole, never written (formats.md F1, F4).

    [kind, Identifier, header, payload, signature, kid]        vid = SHA-256( lv(kid) ‖ lv("") ‖ SHA-256(payload) )

An RS512 signature of 2016 covers the payload bytes alone, so these are what the vid commits to, and the NotaryToken
is empty: such a version has no links, and authority never counts it. It is where the import of a mesh of 2016 begins.
JSON inside is read leniently by `meshd.crypto.legacy`; the two forms of signature are told apart by their members and
never tried in turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshd.crypto import base64url, cbor, legacy, udf
from meshd.crypto.keys import RsaVerifyKey, read_legacy_public_key
from meshd.errors import FormatError, TrustError, UnknownSigner
from meshd.profile import payload, version
from meshd.profile.claim import Kind

MAX_PAYLOAD = 2 * 1024 * 1024
MAX_HEADER = 4096
MAX_SIGNATURE = 1024
_KINDS = {
    "SignedPersonalProfile": Kind.PERSONAL,
    "SignedApplicationProfile": Kind.CONTAINER,
    "SignedMasterProfile": Kind.MASTER,
    "SignedDeviceProfile": Kind.DEVICE,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_TAGS = {Kind.PERSONAL: "PersonalProfile", Kind.MASTER: "MasterProfile", Kind.DEVICE: "DeviceProfile"}
_OTHER_TAGS = frozenset(_TAGS.values()) | {"ConnectionRequest", "ConnectionResult", "EscrowedKeySet"}


@dataclass(frozen=True, slots=True)
class LegacyVersion:
    """A document of 2016 whose signature verified, embedded documents included."""

    vid: bytes
    kind: Kind  # CONTAINER for application profiles: in 2016 one document is a whole vault
    identifier: str
    signer: str  # UDF of 150 bits
    tag: str  # MasterProfile, PasswordProfile, …
    body: dict[str, Any] = field(repr=False)
    raw: bytes = field(repr=False)  # the F4 bytes
    embedded: tuple[LegacyVersion, ...] = field(default=(), repr=False)  # PersonalProfile: master, then devices


@dataclass(frozen=True, slots=True)
class _Parts:
    header: bytes
    payload: bytes
    signature: bytes

    def signed_data(self) -> dict[str, str]:
        parts = {"header": self.header, "payload": self.payload, "signature": self.signature}
        return {member: base64url.encode(data) for member, data in parts.items()}


def read_signed(obj: Any, keys: Mapping[str, RsaVerifyKey]) -> LegacyVersion:
    """Verify a tagged JSON document of 2016, `{"SignedMasterProfile": {"Identifier", "SignedData"}}` or another of
    the four.

    Master, device and personal profiles bring the keys that they need; `keys`, by fingerprint, are those that may
    have signed an application profile (`signers_of`). FormatError, TrustError, SignatureError; UnknownSigner where no
    key fits.
    """
    if type(obj) is not dict or len(obj) != 1:
        raise FormatError("a document of 2016 is one tagged object")
    ((name, bare),) = obj.items()
    if name not in _KINDS:
        raise FormatError("a document of 2016 of an unknown type")
    return _read_bare(_KINDS[name], bare, keys)


def read_raw(raw: bytes, keys: Mapping[str, RsaVerifyKey]) -> LegacyVersion:
    """Verify the F4 bytes of a document of 2016; errors as `read_signed`."""
    if len(raw) > version.MAX_RAW:
        raise FormatError(f"an entry of {len(raw)} bytes")
    fields = cbor.decode(raw)
    if (
        type(fields) is not list
        or [type(part) for part in fields] != [int, str, bytes, bytes, bytes, str]
        or fields[0] not in _NAMES
    ):
        raise FormatError("a document of 2016 is [kind, Identifier, header, payload, signature, kid]")
    found = _read(Kind(fields[0]), fields[1], _Parts(*fields[2:5]), keys)
    if found.signer != fields[5]:
        raise FormatError("a document of 2016 that names two signers")
    return found


def to_json(document: LegacyVersion) -> dict[str, Any]:
    """The tagged JSON form, byte-exact in the signed parts."""
    fields = cbor.decode(document.raw)
    assert type(fields) is list  # read_signed wrote it
    return {
        _NAMES[document.kind]: {
            "Identifier": document.identifier,
            "SignedData": _Parts(*fields[2:5]).signed_data(),
        }
    }


def signers_of(profile: LegacyVersion, application: str) -> dict[str, RsaVerifyKey]:
    """The signature keys of the devices that a personal profile of 2016 lists in `SignID` of this application."""
    for entry in payload.list_member(profile.body, "Applications", version.MAX_LISTED):
        if type(entry) is dict and entry.get("Identifier") == application:
            named = payload.list_member(entry, "SignID", version.MAX_LISTED)
            return {signer: key for signer, key in signature_keys(profile).items() if signer in named}
    return {}


def signature_keys(profile: LegacyVersion) -> dict[str, RsaVerifyKey]:
    """The signature keys of all devices in a personal profile of 2016, for applications that it does not list (any
    more)."""
    keys = [_signature_key(part) for part in profile.embedded if part.kind is Kind.DEVICE]
    return {key.udf: key for key in keys}


def _read_bare(kind: Kind, obj: Any, keys: Mapping[str, RsaVerifyKey]) -> LegacyVersion:
    if type(obj) is not dict or obj.keys() != {"Identifier", "SignedData"}:
        raise FormatError("a document of 2016 has Identifier and SignedData")
    signed = payload.object_member(obj, "SignedData")
    parts = [
        base64url.decode_lenient(payload.text_member(signed, member, legacy.MAX_TEXT))
        for member in ("header", "payload", "signature")
    ]
    if signed.keys() != {"header", "payload", "signature"}:
        raise FormatError("signed data of 2016 with other members than header, payload and signature")
    return _read(kind, payload.text_member(obj, "Identifier", 256), _Parts(*parts), keys)


def _read(kind: Kind, identifier: str, parts: _Parts, keys: Mapping[str, RsaVerifyKey]) -> LegacyVersion:
    for data, limit in ((parts.header, MAX_HEADER), (parts.payload, MAX_PAYLOAD), (parts.signature, MAX_SIGNATURE)):
        if len(data) > limit:
            raise FormatError(f"a document of 2016 with a part of {len(data)} bytes")
    signed = parts.signed_data()
    signer = legacy.signer(signed)
    tag, body = _tagged(parts.payload)
    if udf.check(identifier) != body.get("Identifier"):
        raise FormatError("the Identifier outside is not the Identifier that was signed")
    if tag in _OTHER_TAGS if kind is Kind.CONTAINER else tag != _TAGS[kind]:
        raise FormatError("a document of 2016 whose payload is of another type")
    embedded: tuple[LegacyVersion, ...] = ()
    if kind is Kind.MASTER:
        keys = _own_key(body, "MasterSignatureKey", identifier)
    elif kind is Kind.DEVICE:
        keys = _own_key(body, "DeviceSignatureKey", identifier)
    elif kind is Kind.PERSONAL:
        embedded = _embedded(identifier, body)
        keys = _personal_keys(embedded)
    key = keys.get(signer)
    if key is None:
        raise UnknownSigner(f"signed by {signer[:11]}…, which may not sign this document of 2016")
    legacy.open_signed(signed, key)
    raw = cbor.encode([int(kind), identifier, parts.header, parts.payload, parts.signature, signer])
    vid = version.version_id(signer, "", hashlib.sha256(parts.payload).digest())
    return LegacyVersion(vid, kind, identifier, signer, tag, body, raw, embedded)


def _tagged(data: bytes) -> tuple[str, dict[str, Any]]:
    try:
        value = legacy.read_json(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise FormatError("a payload of 2016 that is no text") from None
    if type(value) is not dict or len(value) != 1:
        raise FormatError("a payload is one tagged object")
    ((tag, body),) = value.items()
    if type(body) is not dict:
        raise FormatError("a payload is one tagged object")
    return tag, body


def _own_key(body: dict[str, Any], member: str, identifier: str) -> dict[str, RsaVerifyKey]:
    key = read_legacy_public_key(body.get(member))
    if key.udf != identifier:
        raise TrustError("a profile of 2016 under another name than its key's")
    return {key.udf: key}


def _embedded(identifier: str, body: dict[str, Any]) -> tuple[LegacyVersion, ...]:
    master = _read_bare(Kind.MASTER, body.get("SignedMasterProfile"), {})
    if master.identifier != identifier:
        raise TrustError("a personal profile that embeds another mesh's master profile")
    listed = payload.list_member(body, "Devices", version.MAX_LISTED)
    return (master, *(_read_bare(Kind.DEVICE, device, {}) for device in listed))


def _personal_keys(embedded: tuple[LegacyVersion, ...]) -> dict[str, RsaVerifyKey]:
    """Who may sign a personal profile: its text says an online signature key, its writers used their device's."""
    master, *devices = embedded
    online = [
        read_legacy_public_key(entry)
        for entry in payload.list_member(master.body, "OnlineSignatureKeys", version.MAX_LISTED)
    ]
    return {key.udf: key for key in [*online, *(_signature_key(device) for device in devices)]}


def _signature_key(device: LegacyVersion) -> RsaVerifyKey:
    return read_legacy_public_key(device.body.get("DeviceSignatureKey"))
