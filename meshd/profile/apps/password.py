"""Password items: one login each.

    {"PasswordProfilePrivate": {"Entries": [{"Sites": […], "Username": …, "Password": …}]}} LF {"MeshdItem": {…}}

The entry is the draft's own; what it has no member for (title, note, TOTP, tags, the URL as it was) is in MeshdItem.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshd.errors import FormatError
from meshd.profile import vault
from meshd.profile.apps import PASSWORD, hosts
from meshd.profile.vault import Item

MAX_SITES = 64
MAX_TEXT = {"username": 1024, "password": 65536, "title": 1024, "note": 262144, "totp": 2048, "url": 8192}


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
    if not sites or len(sites) > MAX_SITES:
        raise FormatError(f"a login is for one to {MAX_SITES} sites")
    values = {"username": username, "password": password, "title": title, "note": note, "totp": totp, "url": url}
    _check(values)
    entry = {
        "Sites": list(dict.fromkeys(hosts.normalise(site) for site in sites)),
        "Username": username,
        "Password": password,
    }
    fields = {name: value for name, value in (("Title", title), ("Url", url)) if value}
    meta = vault.new_meta(
        time, made, Fields=fields, Note=note or None, Totp=totp or None, Tags=list(tags) or None, Src=source
    )
    return Item({PASSWORD.private: {"Entries": [entry]}}, meta)


def edit(item: Item, changes: Mapping[str, Any], *, time: int, made: str) -> Item:
    """`item` with these of sites, username, password, title, note, totp, url, tags changed; None takes a member away."""
    _check({name: value for name, value in changes.items() if name in MAX_TEXT})
    private, meta = copy.deepcopy(item.private), copy.deepcopy(item.meta)
    body = private.setdefault(PASSWORD.private, {})
    if not body.get("Entries"):
        body["Entries"] = [{}]
    entry = body["Entries"][0]
    for name, member in (("username", "Username"), ("password", "Password")):
        if name in changes:
            entry[member] = changes[name] or ""
    if "sites" in changes:
        if not changes["sites"] or len(changes["sites"]) > MAX_SITES:
            raise FormatError(f"a login is for one to {MAX_SITES} sites")
        entry["Sites"] = list(dict.fromkeys(hosts.normalise(site) for site in changes["sites"]))
    fields = dict(item.fields)
    for name, member in (("title", "Title"), ("url", "Url")):
        if name in changes:
            _put(fields, member, changes[name])
    for name, member in (("note", "Note"), ("totp", "Totp"), ("tags", "Tags")):
        if name in changes:
            _put(meta, member, changes[name])
    meta.pop("Deleted", None)
    meta |= vault.new_meta(time, item.made or made, Fields=fields)
    return Item(private, meta)


def deleted(item: Item, *, time: int, made: str) -> Item:
    """The delete marker that replaces `item`: no entry, `Deleted` true (formats.md F5)."""
    return Item({PASSWORD.private: {"Entries": []}}, vault.new_meta(time, item.made or made, Fields={}, Deleted=True))


def row(item: Item) -> Row:
    """The index row of a login."""
    entry = _entry(item)
    sites = tuple(site for site in entry.get("Sites", []) if type(site) is str)
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
        "tags": [tag for tag in item.meta.get("Tags", []) if type(tag) is str]
        if type(item.meta.get("Tags")) is list
        else [],
    }


def _entry(item: Item) -> Mapping[str, Any]:
    body = item.private.get(PASSWORD.private)
    entries = body.get("Entries") if type(body) is dict else None
    if type(entries) is list and entries and type(entries[0]) is dict:
        return entries[0]
    return {}


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if type(value) is str else ""


def _put(target: dict[str, Any], name: str, value: Any) -> None:
    if value:
        target[name] = value
    else:
        target.pop(name, None)


def _check(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if value is not None and len(value) > MAX_TEXT[name]:
            raise FormatError(f"the {name} is longer than {MAX_TEXT[name]} characters")
