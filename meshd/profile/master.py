"""MasterProfile: who is an admin. Signed by the master key, whose fingerprint is the name of the mesh.

The master key is nowhere but sealed in an OnlineEscrowEntry and under recovery shares; it is loaded for one command.
`OnlineSignatureKeys` lists the signature keys of the admins' devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from meshd.crypto.keys import RecipientKey, SigningKey, VerifyKey, public_key_json, read_public_key
from meshd.errors import FormatError
from meshd.profile import author, payload
from meshd.profile.claim import Kind
from meshd.profile.links import Cut, Links
from meshd.profile.version import Parsed, Version

MAX_ESCROW_KEYS = 16
_ENTRY = "MeshdEntry"  # member of a master escrow key: the Identifier of the entry that holds its private half


def write(
    key: SigningKey,
    admins: Iterable[VerifyKey],
    *,
    parents: Iterable[Parsed] = (),
    escrow: Mapping[str, bytes],
    recovery: Mapping[str, RecipientKey] | None = None,
    cuts: Iterable[Cut] = (),
    now: int,
) -> Version:
    """A MasterProfile that lists these admins and these escrow entries ({Identifier: vid}). `parents` are the heads
    that it replaces; members of the first that this release does not know are carried over. Master escrow keys stay
    for as long as the entry that holds them is listed; `recovery` are further ones, by their entries' Identifiers."""
    heads = sorted(parents, key=lambda head: head.claim.vid)
    body: dict[str, Any] = dict(heads[0].body) if heads else {"MasterEscrowKeys": []}
    keys = {
        payload.text_member(key, "UDF", 64): key
        for head in heads
        for key in _escrow_members(head)
        if key.get(_ENTRY, "") in (*escrow, "")
    }
    keys |= {key.udf: public_key_json(key) | {_ENTRY: entry} for entry, key in (recovery or {}).items()}
    listed = {admin.udf: admin for admin in admins}
    body |= {
        "MasterSignatureKey": public_key_json(key.verify_key),
        "OnlineSignatureKeys": [public_key_json(listed[admin]) for admin in sorted(listed)],
        "MasterEscrowKeys": [keys[udf] for udf in sorted(keys)],
    }
    links = Links(
        g=1 + max((head.claim.links.g for head in heads), default=0),
        p=tuple(head.claim.vid for head in heads),
        e=tuple(sorted(escrow.items())),
        x=tuple(cuts),
    )
    return author.sign(key, Kind.MASTER, key.udf, "MasterProfile", body, links, now)


def escrow_keys(parsed: Parsed) -> tuple[RecipientKey, ...]:
    """The master escrow keys: recipients of every container, once recovery was set up."""
    return tuple(read_public_key(entry, "encrypt") for entry in _escrow_members(parsed))


def recovery_entries(parsed: Parsed) -> frozenset[str]:
    """The Identifiers of the offline entries that hold the master escrow keys."""
    return frozenset(entry for key in _escrow_members(parsed) if type(entry := key.get(_ENTRY)) is str)


def _escrow_members(parsed: Parsed) -> list[dict[str, Any]]:
    found = payload.list_member(parsed.body, "MasterEscrowKeys", MAX_ESCROW_KEYS)
    if not all(type(key) is dict for key in found):
        raise FormatError("a master escrow key that is no object")
    return found
