"""Group items: what the devices of a mesh are called. One item per device, readable by admins and members.

{"GroupProfilePrivate": {"Entries": [{"Device": UDF, "Name": …}]}} LF {"MeshdItem": {…}}
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from meshd.crypto import udf
from meshd.errors import FormatError
from meshd.profile import vault
from meshd.profile.apps import GROUP
from meshd.profile.vault import Item

MAX_NAME = 64
_ADDRESS = re.compile(r"[!-~]{1,256}:[0-9]{1,5}\Z")


def check_name(name: str) -> str:
    """A device name: 1 to 64 printable characters, no leading or trailing blanks; FormatError."""
    if name != name.strip() or not 1 <= len(name) <= MAX_NAME:
        raise FormatError(f"a device name has 1 to {MAX_NAME} characters and no blanks at its ends")
    if any(unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" for char in name):
        raise FormatError("a device name with characters that can't be shown")
    if udf.is_udf(name.upper()):
        raise FormatError("a device name that looks like a fingerprint")
    return name


def name_item(
    device: str, name: str, *, time: int, made: str, address: str | None = None, previous: Item | None = None
) -> Item:
    """The item that says what `device` (its UDF) is called, and where it can be dialled if a person said so.

    `previous` is the item that it replaces: an address that is not given and what this release does not know are
    carried over. An empty address takes it away.
    """
    entry: dict[str, Any] = dict(_entry(previous) or {}) if previous is not None else {}
    entry |= {"Device": device, "Name": check_name(name)}
    if address is not None:
        entry.pop("Address", None)
    if address:
        entry["Address"] = check_address(address)
    meta = {member: value for member, value in previous.meta.items() if member != "Deleted"} if previous else {}
    fields = previous.fields if previous is not None else {}
    return Item({GROUP.private: {"Entries": [entry]}}, meta | vault.new_meta(time, made, Fields=fields))


def check_address(address: str) -> str:
    """host:port as a person gave it; FormatError."""
    if not _ADDRESS.match(address):
        raise FormatError("an address is HOST:PORT")
    return address


def read(item: Item) -> tuple[str, str, str] | None:
    """(device UDF, name, address or "") or None where the item says something else."""
    entry = _entry(item)
    if entry is None or type(entry.get("Device")) is not str or type(entry.get("Name")) is not str:
        return None
    address = entry.get("Address")
    if type(address) is not str or not _ADDRESS.match(address):
        address = ""
    try:
        return udf.check(entry["Device"]), check_name(entry["Name"]), address
    except FormatError:
        return None


def _entry(item: Item) -> dict[str, Any] | None:
    body = item.private.get(GROUP.private)
    entries = body.get("Entries") if type(body) is dict else None
    entry = entries[0] if type(entries) is list and entries else None
    return entry if type(entry) is dict else None
