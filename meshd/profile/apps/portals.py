"""Discovery items: the portals that a mesh uses. One item an account, readable by every device, locked ones too.

    {"DiscoveryProfilePrivate": {"Entries": [{"Account": "alice@example.net", "Address"?, "Plain"?, "LogKeys"?}]}}
    LF {"MeshdItem": {…}}

`Address` is host:port as a person gave it, where DNS does not tell; `Plain` true: without TLS, which a person chose;
`LogKeys` are the keys by which devices of the mesh know the portal's log (decision 0027).
Deleted: the mesh does not use that portal any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from meshd.crypto import udf
from meshd.errors import DecryptError
from meshd.profile import vault
from meshd.profile.apps import DISCOVERY
from meshd.profile.vault import Item

MAX_ACCOUNT = 320
MAX_KEYS, MAX_KEY = 8, 512
_ADDRESS = re.compile(r"[!-~]{1,256}:[0-9]{1,5}\Z")


@dataclass(frozen=True, slots=True)
class PortalEntry:
    """An account of the mesh, and how its portal is reached."""

    account: str
    address: str = ""
    plain: bool = False
    log_keys: tuple[str, ...] = ()


def item(entry: PortalEntry, *, time: int, made: str) -> Item:
    """The item that says that the mesh has this account."""
    fields: dict[str, Any] = {"Account": entry.account}
    if entry.address:
        fields["Address"] = entry.address
    if entry.plain:
        fields["Plain"] = True
    if entry.log_keys:
        fields["LogKeys"] = list(entry.log_keys[:MAX_KEYS])
    return Item({DISCOVERY.private: {"Entries": [fields]}}, vault.new_meta(time, made, Fields={}))


def deleted(previous: Item, *, time: int, made: str) -> Item:
    """The mesh does not use it any more. What it said stays readable in its history."""
    meta = {name: value for name, value in previous.meta.items() if name not in ("T", "Made")}
    return Item({DISCOVERY.private: {"Entries": []}}, meta | vault.new_meta(time, made, Deleted=True))


def read(found: Item) -> PortalEntry | None:
    """What the item says; None where it says something else."""
    body = found.private.get(DISCOVERY.private)
    entries = body.get("Entries") if type(body) is dict else None
    fields = entries[0] if type(entries) is list and entries else None
    account = fields.get("Account") if type(fields) is dict else None
    if type(fields) is not dict or type(account) is not str or not 3 <= len(account) <= MAX_ACCOUNT:
        return None
    address = fields.get("Address", "")
    if type(address) is not str or not _ADDRESS.match(address):
        address = ""
    return PortalEntry(account, address, fields.get("Plain") is True, _keys(fields.get("LogKeys")))


def _keys(found: object) -> tuple[str, ...]:
    """What is none is left out: a key is a help, and the account is there without one."""
    if type(found) is not list:
        return ()
    return tuple(key for key in found[:MAX_KEYS] if type(key) is str and len(key) <= MAX_KEY)


def keys(held: tuple[bytes, ...]) -> Callable[[str], bytes]:
    """The look-up for `vault.open_item` over the Discovery keys that a device holds without being unlocked."""
    ring = {udf.make(udf.MMM_EPOCH, key): key for key in held}

    def find(kid: str) -> bytes:
        if kid not in ring:
            raise DecryptError("encrypted under a key that this device does not hold")
        return ring[kid]

    return find
