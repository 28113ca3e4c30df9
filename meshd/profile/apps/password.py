"""Password items: one login each.

    {"PasswordProfilePrivate": {"Entries": [{"Sites": […], "Username": …, "Password": …}]}} LF {"MeshdItem": {…}}

The entry is the draft's own; what it has no member for (title, note, TOTP, tags, the URL as it was) is in MeshdItem.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshd.errors import FormatError
from meshd.profile import vault
from meshd.profile.apps import PASSWORD, hosts
from meshd.profile.vault import Item

MAX_SITES = 64
MAX_TAGS = 64
MAX_TEXT = {"username": 1024, "password": 65536, "title": 1024, "note": 262144, "totp": 2048, "url": 8192, "tag": 256}

_FREE = ("password", "note")  # may have line feeds and other control characters
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_UNWRITABLE = re.compile("[\ud800-\udfff]")  # lone surrogates: no UTF-8


@dataclass(frozen=True, slots=True)
class Row:
    """What the index remembers of a login: no secrets."""

    title: str
    sites: tuple[str, ...]
    username: str


def new(
    sites: Sequence[str],
    username: str,
    password: str,
    *,
    time: int,
    made: str,
    title: str | None = None,
    note: str | None = None,
    totp: str | None = None,
    url: str | None = None,
    tags: Sequence[str] = (),
    source: str | None = None,
) -> Item:
    """A new login. FormatError names the member that is too long or empty."""
    values = {"username": username, "password": password, "title": title, "note": note, "totp": totp, "url": url}
    _check({**values, "tags": tags})
    entry = {"Sites": _sites(sites), "Username": username, "Password": password}
    fields = {name: value for name, value in (("Title", title), ("Url", url)) if value}
    meta = vault.new_meta(
        time, made, Fields=fields, Note=note or None, Totp=totp or None, Tags=list(tags) or None, Src=source
    )
    return Item({PASSWORD.private: {"Entries": [entry]}}, meta)


def edit(item: Item, changes: Mapping[str, Any], *, time: int, made: str) -> Item:
    """`item` with these of sites, username, password, title, note, totp, url, tags changed; None takes a member
    away."""
    _check(changes)
    private, meta = copy.deepcopy(item.private), copy.deepcopy(item.meta)
    body = private.setdefault(PASSWORD.private, {})
    entries = body.get("Entries") if type(body) is dict else None
    if not entries:
        entries = [{}]  # it was deleted
    if type(body) is not dict or type(entries) is not list or type(entries[0]) is not dict:
        raise FormatError("an item that is no login")
    body["Entries"], entry = entries, entries[0]
    for name, member in (("username", "Username"), ("password", "Password")):
        if name in changes:
            entry[member] = changes[name] or ""
    if "sites" in changes:
        entry["Sites"] = _sites(changes["sites"])
    fields = dict(item.fields)
    for name, member in (("title", "Title"), ("url", "Url")):
        if name in changes:
            _put(fields, member, changes[name])
    for name, member in (("note", "Note"), ("totp", "Totp"), ("tags", "Tags")):
        if name in changes:
            _put(meta, member, list(changes[name] or ()) if name == "tags" else changes[name])
    meta.pop("Deleted", None)
    meta |= vault.new_meta(time, item.made or made, Fields=fields)
    return Item(private, meta)


def deleted(item: Item, *, time: int, made: str) -> Item:
    """The delete marker that replaces `item`: no entry, `Deleted` true (formats.md F5)."""
    return Item({PASSWORD.private: {"Entries": []}}, vault.new_meta(time, item.made or made, Fields={}, Deleted=True))


def row(item: Item) -> Row:
    """The index row of a login."""
    entry = _entry(item)
    sites = tuple(_texts(entry.get("Sites")))
    title = item.fields.get("Title")
    return Row(title if type(title) is str else "", sites, _text(entry, "Username"))


def view(item: Item) -> dict[str, Any]:
    """Everything that a person may ask of a login, secrets included."""
    entry = _entry(item)
    found = row(item)
    return {
        "title": found.title,
        "sites": list(found.sites),
        "username": found.username,
        "password": _text(entry, "Password"),
        "url": _text(item.fields, "Url"),
        "note": _text(item.meta, "Note"),
        "totp": _text(item.meta, "Totp"),
        "tags": _texts(item.meta.get("Tags")),
    }


def _entry(item: Item) -> Mapping[str, Any]:
    body = item.private.get(PASSWORD.private)
    entries = body.get("Entries") if type(body) is dict else None
    if type(entries) is list and entries and type(entries[0]) is dict:
        return entries[0]
    return {}


def _texts(value: Any) -> list[str]:
    return [text for text in value if type(text) is str] if type(value) is list else []


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if type(value) is str else ""


def _put(target: dict[str, Any], name: str, value: Any) -> None:
    if value:
        target[name] = value
    else:
        target.pop(name, None)


def _sites(sites: Any) -> list[str]:
    if not isinstance(sites, (list, tuple)) or not 1 <= len(sites) <= MAX_SITES:
        raise FormatError(f"a login is for one to {MAX_SITES} sites")
    return list(dict.fromkeys(hosts.normalise(site) for site in sites))


def _check(values: Mapping[str, Any]) -> None:
    """FormatError, which repeats no value, for a text that is none, too long, or of more than one line where it has
    one."""
    for name, value in values.items():
        if name in MAX_TEXT:
            check_text(name, value)
    tags = values.get("tags") or ()
    if not isinstance(tags, (list, tuple)) or len(tags) > MAX_TAGS:
        raise FormatError(f"a login has at most {MAX_TAGS} tags")
    for tag in tags:
        check_text("tag", tag)


def check_text(name: str, value: Any) -> None:
    """FormatError unless a member called `name` may have this value (None: it is absent)."""
    if value is None:
        return
    if type(value) is not str:
        raise FormatError(f"the {name} is no text")
    if len(value) > MAX_TEXT[name]:
        raise FormatError(f"the {name} is longer than {MAX_TEXT[name]} characters")
    if _UNWRITABLE.search(value) or (name not in _FREE and _CONTROL.search(value)):
        raise FormatError(f"the {name} has characters that are not allowed there")
