"""Documents of 2016: RSA-signed entries as a portal takes, judges and gives them back (protocol-2016.md §6.1, §7 [R]).

    personal profile      kid in Devices or OnlineSignatureKeys; master and devices signed themselves
    application profile   kid in SignID of the owner's personal profile
    connection request    kid is the device's own; result: an administrator's

Reading is lenient in form and strict in what must be equal: Identifier = UDF everywhere. Nothing around the payload is
kept but the members that the schema has, so what is served can't break a 2016 reader, whoever published it. The
payload bytes stay as they were signed. A document has a vid like every version (its token is empty) and F4 bytes,
`[kind, Identifier, header, payload, signature, kid]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshd.crypto import base64url, cbor, legacy, udf
from meshd.crypto.keys import RsaVerifyKey, read_legacy_public_key
from meshd.errors import FormatError, TrustError, UnknownSigner
from meshd.profile import version
from meshd.profile.claim import Kind

MAX_PAYLOAD = 2 * 1024 * 1024
MAX_LISTED = 256
MAX_TEXT = 512

_SIGNED = {
    "SignedPersonalProfile": (Kind.PERSONAL, "PersonalProfile"),
    "SignedApplicationProfile": (Kind.CONTAINER, None),
}
_TAGS = {Kind.PERSONAL: "SignedPersonalProfile", Kind.CONTAINER: "SignedApplicationProfile"}
_NOT_APPLICATIONS = frozenset(
    {"PersonalProfile", "MasterProfile", "DeviceProfile", "ConnectionRequest", "ConnectionResult", "EscrowedKeySet"}
)


@dataclass(frozen=True, slots=True)
class Document:
    """A 2016 entry, well formed. Its signature is verified only if a function here says so."""

    kind: Kind
    identifier: str
    kid: str  # "" for escrow entries
    header: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    tag: str  # of the payload
    body: Mapping[str, Any] = field(repr=False)
    vid: bytes
    raw: bytes = field(repr=False)

    def verify(self, key: RsaVerifyKey) -> None:
        """SignatureError unless `key` made the signature over the payload bytes."""
        if not udf.equal(self.kid, key.udf):
            raise TrustError("signed by another key than the expected one")
        key.verify(self.signature, self.payload)


@dataclass(frozen=True, slots=True)
class Application:
    identifier: str
    sign_ids: frozenset[str]
    decrypt_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Profile:
    """A personal profile of 2016 whose signatures verified: its own, its master's, its devices'."""

    document: Document
    mesh: str
    devices: Mapping[str, RsaVerifyKey]  # signature keys by UDF
    authentication: Mapping[str, str]  # UDF of a device's authentication key → UDF of the device
    online: Mapping[str, RsaVerifyKey]
    applications: Mapping[str, Application]

    def administrator(self, kid: str) -> RsaVerifyKey | None:
        """The key of who may write the next personal profile: in 2016 every device, and the online keys."""
        return self.devices.get(kid) or self.online.get(kid)

    def writer(self, identifier: str, kid: str) -> RsaVerifyKey | None:
        """The key of who may write this application."""
        application = self.applications.get(identifier)
        return self.devices.get(kid) if application is not None and kid in application.sign_ids else None


@dataclass(frozen=True, slots=True)
class Request:
    """A connection request that its device signed."""

    parent: str
    device: str
    key: RsaVerifyKey
    dak: str
    wire: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Result:
    """An answer, not verified: whose signature it needs is the account's business."""

    device: str
    result: str
    document: Document
    wire: dict[str, Any] = field(repr=False)


# --- entries ----------------------------------------------------------------------------------------------------------


def is_2016(obj: Any) -> bool:
    """Has a tagged (or bare) entry the form of 2016? Their signature has a `header`; their escrow no `tag`."""
    body = next(iter(obj.values())) if isinstance(obj, dict) and len(obj) == 1 else obj
    if not isinstance(body, dict):
        return False
    signed, envelope = body.get("SignedData"), body.get("EncryptedData")
    if isinstance(signed, dict):
        return "header" in signed
    return isinstance(envelope, dict) and "tag" not in envelope


def read(obj: Any) -> Document:
    """Read a tagged entry of 2016 in the kinds that a portal keeps; FormatError."""
    if not isinstance(obj, dict) or len(obj) != 1:
        raise FormatError("an entry is one tagged object")
    ((name, bare),) = obj.items()
    if name == "OfflineEscrowEntry":
        return _read_escrow(bare)
    if name not in _SIGNED:
        raise FormatError(f"an entry of the type {str(name)[:40]!r}, which is not published by itself")
    kind, expected = _SIGNED[name]
    document = _read_signed(kind, bare)
    if expected is None:
        if document.tag in _NOT_APPLICATIONS or not document.tag.endswith("Profile"):
            raise FormatError(f"an application profile tagged {document.tag[:40]!r}")
        _read_encrypted(document.body.get("EncryptedData"))
    elif document.tag != expected:
        raise FormatError(f"{document.tag[:40]!r} where {expected} is due")
    return document


def parse(raw: bytes) -> Document:
    """The document of F4 bytes that `read` made."""
    fields = cbor.decode(raw)
    if type(fields) is not list or len(fields) not in (6, 7) or type(fields[1]) is not str:
        raise FormatError("not the bytes of a 2016 document")
    if len(fields) == 7:
        return _escrow(fields[1], fields[2], fields[3], fields[4])
    return _document(Kind(fields[0]), fields[1], fields[2], fields[3], fields[4])


def to_json(document: Document) -> dict[str, Any]:
    """The tagged entry, with the members of 2016 and base64url without line feeds."""
    if document.kind is Kind.OFFLINE_ESCROW:
        return {"OfflineEscrowEntry": dict(document.body)}
    return {_TAGS[document.kind]: _bare(document)}


def read_profile(document: Document) -> Profile:
    """Verify a personal profile whole, by what is in it. SignatureError, TrustError, FormatError.

    Whether its signer was an administrator before is the portal's to ask."""
    body = document.body
    master = _read_signed(Kind.MASTER, body.get("SignedMasterProfile"))
    if master.tag != "MasterProfile":
        raise FormatError("a SignedMasterProfile that holds something else")
    key = read_legacy_public_key(master.body.get("MasterSignatureKey"))
    _same("a master profile", key.udf, master.identifier, master.kid, document.identifier)
    master.verify(key)
    devices, authentication = {}, {}
    for entry in _list(body, "Devices"):
        udf_, device, dak = _read_device(entry)
        devices[udf_] = device
        authentication[dak] = udf_
    online = {key.udf: key for key in map(read_legacy_public_key, _list(master.body, "OnlineSignatureKeys"))}
    profile = Profile(document, key.udf, devices, authentication, online, _applications(body))
    signer = profile.administrator(document.kid)
    if signer is None:
        raise UnknownSigner("a personal profile signed by none of its devices")
    document.verify(signer)
    return profile


def _applications(body: Mapping[str, Any]) -> dict[str, Application]:
    found = {}
    for entry in _list(body, "Applications"):
        if not isinstance(entry, dict):
            raise FormatError("an application that is no object")
        identifier = udf.check(entry.get("Identifier"))
        lists = [
            frozenset(one for one in _list(entry, name) if isinstance(one, str)) for name in ("SignID", "DecryptID")
        ]
        found[identifier] = Application(identifier, lists[0], lists[1])
    return found


def _read_device(bare: Any) -> tuple[str, RsaVerifyKey, str]:
    """(UDF, signature key, UDF of the authentication key) of a device profile that signed itself."""
    device = _read_signed(Kind.DEVICE, bare)
    if device.tag != "DeviceProfile":
        raise FormatError("a SignedDeviceProfile that holds something else")
    key = read_legacy_public_key(device.body.get("DeviceSignatureKey"))
    _same("a device profile", key.udf, device.identifier, device.kid)
    device.verify(key)
    dak = device.body.get("DeviceAuthenticationKey")
    return key.udf, key, read_legacy_public_key(dak).udf if dak is not None else key.udf


def authentication_key(profile: Profile, dak: str) -> RsaVerifyKey | None:
    """The authentication key of a device in the profile, for HTTP signatures."""
    for entry in _list(profile.document.body, "Devices"):
        device = _read_signed(Kind.DEVICE, entry)
        stated = device.body.get("DeviceAuthenticationKey") or device.body.get("DeviceSignatureKey")
        key = read_legacy_public_key(stated)
        if key.udf == dak:
            return key
    return None


# --- connecting -------------------------------------------------------------------------------------------------------


def read_request(bare: Any) -> Request:
    """Verify a SignedConnectionRequest by the device in it. `ParentUDF` is what 2016 puts there: the account's name."""
    document = _read_signed(Kind.DEVICE, bare)
    if document.tag != "ConnectionRequest":
        raise FormatError("a SignedConnectionRequest that holds something else")
    device, key, dak = _read_device(document.body.get("Device"))
    _same("a connection request", key.udf, document.identifier, document.kid)
    document.verify(key)
    return Request(_text(document.body, "ParentUDF"), device, key, dak, _bare(document))


def read_result(bare: Any) -> Result:
    """Read a SignedConnectionResult; not verified."""
    document = _read_signed(Kind.DEVICE, bare)
    if document.tag != "ConnectionResult":
        raise FormatError("a SignedConnectionResult that holds something else")
    stated = document.body.get("Device")
    if stated is not None:
        _same("a connection result", _read_device(stated)[0], document.identifier)
    return Result(document.identifier, _text(document.body, "Result"), document, _bare(document))


# --- parts ------------------------------------------------------------------------------------------------------------


def _read_signed(kind: Kind, bare: Any) -> Document:
    if not isinstance(bare, dict) or not isinstance(bare.get("SignedData"), dict):
        raise FormatError("a signed entry has Identifier and SignedData")
    signed = bare["SignedData"]
    legacy.signer(signed)  # its form, and RS512
    parts = [base64url.decode_lenient(signed[name]) for name in ("header", "payload", "signature")]
    return _document(kind, udf.check(bare.get("Identifier")), *parts)


def _document(kind: Kind, identifier: str, header: bytes, payload: bytes, signature: bytes) -> Document:
    if len(payload) > MAX_PAYLOAD:
        raise FormatError(f"a payload of {len(payload)} bytes: at most {MAX_PAYLOAD} are allowed")
    kid = legacy.signer({name: base64url.encode(part) for name, part in _named(header, payload, signature).items()})
    try:
        tree = legacy.read_json(payload.decode("utf-8"))
    except UnicodeDecodeError:
        raise FormatError("a payload that is not UTF-8") from None
    if not isinstance(tree, dict) or len(tree) != 1:
        raise FormatError("a payload is one tagged object")
    ((tag, body),) = tree.items()
    if not isinstance(body, dict):
        raise FormatError("a payload is one tagged object")
    inner = body.get("Identifier", identifier)  # connection requests of 2016 have none inside
    if inner != identifier:
        raise FormatError("the Identifier outside is not the Identifier that was signed")
    vid = version.version_id(kid, "", hashlib.sha256(payload).digest())
    raw = cbor.encode([int(kind), identifier, header, payload, signature, kid])
    return Document(kind, identifier, kid, header, payload, signature, tag, body, vid, raw)


def _named(header: bytes, payload: bytes, signature: bytes) -> dict[str, bytes]:
    return {"header": header, "payload": payload, "signature": signature}


def _bare(document: Document) -> dict[str, Any]:
    parts = _named(document.header, document.payload, document.signature)
    return {
        "Identifier": document.identifier,
        "SignedData": {name: base64url.encode(part) for name, part in parts.items()},
    }


def _read_escrow(bare: Any) -> Document:
    if not isinstance(bare, dict) or not isinstance(bare.get("EncryptedData"), dict):
        raise FormatError("an escrow entry has Identifier and EncryptedData")
    envelope = bare["EncryptedData"]
    if not {"protected", "iv", "ciphertext"} <= envelope.keys() or not all(
        isinstance(envelope[name], str) for name in ("protected", "iv", "ciphertext")
    ):
        raise FormatError("an escrow entry of 2016 has protected, iv and ciphertext")
    parts = [base64url.decode_lenient(envelope[name]) for name in ("protected", "iv", "ciphertext")]
    return _escrow(udf.check(bare.get("Identifier")), *parts)


def _escrow(identifier: str, protected: bytes, iv: bytes, ciphertext: bytes) -> Document:
    if len(iv) != 16 or not ciphertext or len(ciphertext) % 16 or len(protected) > MAX_TEXT:
        raise FormatError("an escrow entry whose ciphertext is not whole blocks")
    raw = cbor.encode([int(Kind.OFFLINE_ESCROW), identifier, protected, iv, ciphertext, b"", []])
    envelope = {
        "protected": base64url.encode(protected),
        "iv": base64url.encode(iv),
        "ciphertext": base64url.encode(ciphertext),
    }
    vid = version.version_id("", "", hashlib.sha256(raw).digest())
    body = {"Identifier": identifier, "EncryptedData": envelope}
    return Document(Kind.OFFLINE_ESCROW, identifier, "", protected, b"", b"", "", body, vid, raw)


def _read_encrypted(envelope: Any) -> None:
    if not isinstance(envelope, dict) or not isinstance(envelope.get("ciphertext"), str):
        raise FormatError("an application profile without EncryptedData")
    recipients = envelope.get("recipients", [])
    if not isinstance(recipients, list) or len(recipients) > MAX_LISTED:
        raise FormatError("an application profile with too many recipients")


def _same(what: str, first: str, *others: str) -> None:
    if not all(udf.equal(first, other) for other in others):
        raise TrustError(f"{what} whose Identifier, key and signer are not one")


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name, [])
    if not isinstance(value, list) or len(value) > MAX_LISTED:
        raise FormatError(f"{name} is no list, or one of more than {MAX_LISTED}")
    return value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise FormatError(f"{name} is no short text")
    return value
