"""ConnectionRequest and ConnectionResult: how a device asks to join a mesh, and the answer (draft, "Connect").

The request is signed by the new device's DSK and carries its DeviceProfile; the result by an admin's DSK. Neither is a
version: they are no part of any chain and are not replicated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshd.crypto import jws
from meshd.crypto.keys import SigningKey, VerifyKey
from meshd.errors import FormatError, TrustError
from meshd.profile import payload, version
from meshd.profile.version import Parsed, Version

ACCEPTED = "Accepted"
REJECTED = "Rejected"


@dataclass(frozen=True, slots=True)
class ConnectionRequest:
    """A verified request: signed by the device that it introduces."""

    parent: str  # UDF of the mesh that the device asks to join
    device: Version
    block_token: str


@dataclass(frozen=True, slots=True)
class ConnectionResult:
    """A verified answer. `device` is the profile that it is about, None where the admin's release leaves it out."""

    result: str
    device: Version | None


def write_request(key: SigningKey, device: Parsed, parent: str, block_token: str = "") -> dict[str, Any]:
    """`{"Identifier", "SignedData"}`: a SignedConnectionRequest."""
    body: dict[str, Any] = {"Identifier": key.udf, "ParentUDF": parent, "Device": version.bare_json(device)}
    if block_token:
        body["BlockToken"] = block_token
    return _signed(key, key.udf, "ConnectionRequest", body)


def read_request(obj: Any) -> ConnectionRequest:
    """Verify a SignedConnectionRequest; FormatError, TrustError, SignatureError."""
    signed, body = _read(obj, "ConnectionRequest")
    device = version.verify(version.from_json({"SignedDeviceProfile": payload.object_member(body, "Device")}))
    if device.identifier != body.get("Identifier") or jws.signer(signed.protected) != device.identifier:
        raise TrustError("a connection request that the device in it has not signed")
    jws.verify(signed, version.device_keys(device.body)[0])
    token = body.get("BlockToken", "")
    if type(token) is not str or len(token) > 256:
        raise FormatError("a BlockToken that is no short text")
    return ConnectionRequest(payload.text_member(body, "ParentUDF", 256), device, token)


def write_result(key: SigningKey, device: Parsed, result: str) -> dict[str, Any]:
    """`{"Identifier", "SignedData"}`: a SignedConnectionResult. ParentUDF is left out, as the reference does."""
    body = {"Identifier": device.claim.identifier, "Device": version.bare_json(device), "Result": result}
    return _signed(key, device.claim.identifier, "ConnectionResult", body)


def read_result(obj: Any, admin: VerifyKey, device: str) -> ConnectionResult:
    """Verify a SignedConnectionResult about `device` (its UDF) by this admin."""
    signed, body = _read(obj, "ConnectionResult")
    jws.verify(signed, admin)
    if body.get("Identifier") != device:
        raise TrustError("a connection result about another device")
    stated = body.get("Device")
    profile = version.verify(version.from_json({"SignedDeviceProfile": stated})) if stated is not None else None
    if profile is not None and profile.identifier != device:
        raise TrustError("a connection result about another device")
    return ConnectionResult(payload.text_member(body, "Result", 64), profile)


def result_signer(obj: Any) -> str:
    """The UDF of who signed a result, before anything is believed."""
    return jws.signer(_read(obj, "ConnectionResult")[0].protected)


def _signed(key: SigningKey, identifier: str, tag: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"Identifier": identifier, "SignedData": jws.to_json(jws.sign(key, payload.encode_tagged(tag, body)))}


def _read(obj: Any, tag: str) -> tuple[jws.Jws, dict[str, Any]]:
    if type(obj) is not dict or set(obj) != {"Identifier", "SignedData"}:
        raise FormatError(f"a Signed{tag} has Identifier and SignedData")
    signed = jws.from_json(payload.object_member(obj, "SignedData"))
    found, body = payload.decode_tagged(signed.payload)
    if found != tag or body.get("Identifier") != obj["Identifier"]:
        raise FormatError(f"not a {tag}, or one under another Identifier")
    return signed, body
