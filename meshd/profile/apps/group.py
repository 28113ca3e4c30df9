"""Group items: what the devices of a mesh are called. One item per device, readable by admins and members.

{"GroupProfilePrivate": {"Entries": [{"Device": UDF, "Name": …}]}} LF {"MeshdItem": {…}}
"""

from __future__ import annotations

import unicodedata
from typing import Any

from meshd.crypto import udf
from meshd.errors import FormatError
from meshd.profile import vault
from meshd.profile.apps import GROUP
from meshd.profile.vault import Item

MAX_NAME = 64


def check_name(name: str) -> str:
    """A device name: 1 to 64 printable characters, no leading or trailing blanks; FormatError."""
    if name != name.strip() or not 1 <= len(name) <= MAX_NAME:
        raise FormatError(f"a device name has 1 to {MAX_NAME} characters and no blanks at its ends")
    if any(unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" for char in name):
        raise FormatError("a device name with characters that can't be shown")
    if udf.is_udf(name.upper()):
        raise FormatError("a device name that looks like a fingerprint")
    return name


def name_item(device: str, name: str, *, time: int, made: str, address: str | None = None) -> Item:
    """The item that says what `device` (its UDF) is called, and where it can be dialled if a person said so."""
    entry: dict[str, Any] = {"Device": device, "Name": check_name(name)}
    if address:
        entry["Address"] = address
    return Item({GROUP.private: {"Entries": [entry]}}, vault.new_meta(time, made, Fields={}))


def read(item: Item) -> tuple[str, str, str] | None:
    """(device UDF, name, address or "") or None where the item says something else."""
    body = item.private.get(GROUP.private)
    entries = body.get("Entries") if type(body) is dict else None
    entry = entries[0] if type(entries) is list and entries else None
    if type(entry) is not dict or type(entry.get("Device")) is not str or type(entry.get("Name")) is not str:
        return None
    address = entry.get("Address")
    try:
        return udf.check(entry["Device"]), check_name(entry["Name"]), address if type(address) is str else ""
    except FormatError:
        return None
