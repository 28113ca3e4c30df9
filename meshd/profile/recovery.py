"""What recovery shares open: the OfflineEscrowEntry (formats.md F6).

It holds the master signature key and the master escrow key, sealed under a key derived from the random K that the
shares bring back. The entry is everywhere, K is nowhere but under the shares.

    Identifier = UDF("application/mmm-escrowed", K)      seal key = HKDF-SHA256(K, "mmm-escrow/1 enc", 32)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from meshd.crypto import base64url, jwe, sealing, udf
from meshd.crypto.keys import DecryptKey, Rng, SigningKey
from meshd.errors import BadRequest, DecryptError, FormatError
from meshd.profile import payload, version
from meshd.profile.claim import Kind
from meshd.profile.shares import MAX_GIVEN, MAX_SHARES, Group, Scheme, identifier
from meshd.profile.version import Parsed, Version

STRENGTHS = (256, 128)
STEP = 256  # plaintext lengths are multiples of this
_SEAL = b"mmm-escrow/1 enc"


@dataclass(frozen=True, slots=True)
class Info:
    """What else an entry tells who opens it: where to look, and how it was split. For nobody else."""

    profile: str  # UDF of the master key
    created: int  # UTC seconds
    scheme: Scheme
    labels: tuple[str, ...] = ()  # of the shares, in order
    accounts: tuple[str, ...] = ()
    portals: tuple[str, ...] = ()
    origin_keys: tuple[str, ...] = ()  # of the portals' logs: vkeys
    checkpoints: tuple[str, ...] = ()  # of these logs, as believed when the entry was made: signed notes


@dataclass(frozen=True, slots=True)
class Escrowed:
    """What the shares bring back."""

    master: SigningKey = field(repr=False)
    escrow: tuple[DecryptKey, ...] = field(repr=False)  # the newest first
    info: Info


def new_key(strength: int, rng: Rng) -> bytes:
    """K, of 256 or 128 bits."""
    if strength not in STRENGTHS:
        raise BadRequest("Shares have a strength of 256 or 128 bits.")
    return rng(strength // 8)


def entry(key: bytes, escrowed: Escrowed, rng: Rng) -> Version:
    """The OfflineEscrowEntry under K."""
    keys = [_private_json("Ed25519", escrowed.master.udf, escrowed.master.verify_key.public, escrowed.master.private)]
    keys += [_private_json("X25519", one.udf, one.recipient.public, one.private) for one in escrowed.escrow]
    plaintext = payload.encode_private({"EscrowedKeySet": {"PrivateKeys": keys}})
    plaintext += b"\n" + payload.encode_private({"MeshdEscrowInfo": _info_json(escrowed.info)})
    plaintext += b" " * (-len(plaintext) % STEP)
    envelope = jwe.seal_direct(_seal_key(key), identifier(key), plaintext, rng)
    return version.verify(version.parse(version.escrow_raw(Kind.OFFLINE_ESCROW, identifier(key), envelope)))


def open_entry(parsed: Parsed, key: bytes) -> Escrowed:
    """What is in an entry. DecryptError where it is not K's or was altered, FormatError."""
    kid = identifier(key)
    if parsed.claim.kind is not Kind.OFFLINE_ESCROW or not udf.equal(parsed.claim.identifier, kid):
        raise DecryptError("That is not the recovery entry of these shares.")

    def find(named: str) -> bytes:
        if not udf.equal(named, kid):
            raise DecryptError("A recovery entry under another key than its name says.")
        return _seal_key(key)

    plaintext = jwe.open_direct(payload.object_member(parsed.body, "EncryptedData"), find)
    first, _, rest = plaintext.partition(b"\n")
    keys = payload.list_member(_tagged(first, "EscrowedKeySet"), "PrivateKeys", 17)
    if len(keys) < 2:
        raise FormatError("a recovery entry without the two master keys")
    master = SigningKey.from_private(_private_of(keys[0], "Ed25519"))
    escrow = tuple(DecryptKey.from_private(_private_of(one, "X25519")) for one in keys[1:])
    named = [one.get("kid") for one in keys]
    if named != [master.udf, *(one.udf for one in escrow)]:
        raise FormatError("a recovery entry whose keys are not the ones that it names")
    return Escrowed(master, escrow, _read_info(_tagged(rest.rstrip(b" "), "MeshdEscrowInfo")))


def _seal_key(key: bytes) -> bytes:
    return sealing.hkdf(key, _SEAL)


def _private_json(curve: str, kid: str, public: bytes, private: bytes) -> dict[str, str]:
    return {
        "kid": kid,
        "kty": "OKP",
        "crv": curve,
        "x": base64url.encode(public),
        "d": base64url.encode(private),
    }


def _private_of(obj: Any, curve: str) -> bytes:
    if type(obj) is not dict or obj.get("kty") != "OKP" or obj.get("crv") != curve:
        raise FormatError(f"a recovery entry without the {curve} key that is due there")
    return base64url.decode(payload.text_member(obj, "d", 64))


def _tagged(data: bytes, tag: str) -> dict[str, Any]:
    value = payload.decode_private(data)
    if type(value) is not dict:
        raise FormatError("a recovery entry that holds no object")
    return payload.object_member(value, tag)


def _info_json(info: Info) -> dict[str, Any]:
    scheme = info.scheme
    told: dict[str, Any] = {
        "V": 1,
        "Account": list(info.accounts),
        "Portals": list(info.portals),
        "Origin vkeys": list(info.origin_keys),
        "Checkpoints": list(info.checkpoints),
        "Profile": info.profile,
        "Created": payload.write_date(info.created),
        "Threshold": scheme.groups[0].threshold if len(scheme.groups) == 1 else scheme.threshold,
        "Shares": scheme.shares,
        "Label": list(info.labels),
    }
    if len(scheme.groups) > 1:
        told["Groups"] = [
            {"Name": group.name, "Threshold": group.threshold, "Shares": group.shares} for group in scheme.groups
        ]
    return told


def _read_info(told: dict[str, Any]) -> Info:
    if told.get("V") != 1:
        raise FormatError("a recovery entry by a release that is newer than this one")
    threshold, listed = told.get("Threshold"), payload.list_member(told, "Groups", MAX_SHARES)
    rows = listed or [{"Threshold": threshold, "Shares": told.get("Shares")}]
    groups = []
    for row in rows:
        if type(row) is not dict or type(row.get("Threshold")) is not int or type(row.get("Shares")) is not int:
            raise FormatError("a recovery entry that does not say how it was split")
        name = row.get("Name", "")
        groups.append(Group(row["Threshold"], row["Shares"], name if type(name) is str else ""))
    if type(threshold) is not int:
        raise FormatError("a recovery entry that does not say how it was split")
    return Info(
        udf.check(told.get("Profile")),
        payload.read_date(payload.text_member(told, "Created", 20)),
        Scheme(tuple(groups), threshold if listed else 1),
        _texts(told, "Label"),
        _texts(told, "Account"),
        _texts(told, "Portals"),
        _texts(told, "Origin vkeys"),
        _texts(told, "Checkpoints"),
    )


def _texts(told: dict[str, Any], member: str) -> tuple[str, ...]:
    found = payload.list_member(told, member, MAX_GIVEN)
    if not all(type(one) is str for one in found):
        raise FormatError(f"{member} of a recovery entry is no list of texts")
    return tuple(found)
