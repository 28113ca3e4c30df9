"""`recovery open-2016`: what shares of 2016 bring back. Nothing is kept, asked for, or changed; no mesh is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from meshd.crypto.legacy import RsaDecryptKey
from meshd.errors import NotFound
from meshd.profile import recovery2016, shares2016
from meshd.profile.shares import ShareError
from meshd.profile.shares2016 import OVERFLOW, Secret, Share2016

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call

_OVERFLOW = (
    "The program of 2016 let powers run over 32 bits when it made these shares. They were combined as it made them;"
    " a program that computes exactly gets another secret."
)


async def open_shares(app: App, call: Call) -> dict[str, Any]:
    """Combine, and open the entry where one is given. ShareError, NotFound, DecryptError, FormatError."""
    body = call.body
    return await trio.to_thread.run_sync(_opened, body["shares"], body.get("entry"), body.get("private") is True)


def _opened(texts: list[str], entry: str | None, private: bool) -> dict[str, Any]:
    given = [_read(number, text) for number, text in enumerate(texts, 1)]
    if entry is None:
        found = shares2016.combine(given)
        return _answer(found)
    held = recovery2016.hold(entry)
    if not held.entries:
        raise NotFound("In this file is no recovery entry of 2016.", hint="it is an OfflineEscrowEntry, or holds one")
    (secret,) = shares2016.combine(given, held.entries)
    recovered = recovery2016.open_entry(held, secret)
    standing = recovery2016.standing(held, recovered)
    keys = [_key("master", recovered.master, private), *(_key("escrow", key, private) for key in recovered.escrow)]
    profile = None if standing is None else {"devices": standing.devices, "escrow_named": standing.escrow_named}
    return _answer((secret,)) | {"mesh": recovered.mesh, "keys": keys, "profile": profile}


def _read(number: int, text: str) -> Share2016:
    try:
        return shares2016.read(text)
    except ShareError as exc:
        raise ShareError(exc.fault, f"Share {number}: {exc}", places=(number - 1,)) from None


def _answer(found: tuple[Secret, ...]) -> dict[str, Any]:
    notes = [secret.mended for secret in found if secret.mended]
    notes += [_OVERFLOW for secret in found if secret.how == OVERFLOW]
    return {
        "entries": [{"id": secret.identifier, "how": secret.how} for secret in found],
        "notes": notes,
        "mesh": None,
        "keys": [],
        "profile": None,
    }


def _key(use: str, key: RsaDecryptKey, private: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"use": use, "fingerprint": key.udf, "bits": key.bits}
    return told | {"private": key.pem()} if private else told
