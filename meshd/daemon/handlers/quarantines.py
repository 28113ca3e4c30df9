"""`quarantine`: what was signed by who was not entitled to, shown, and taken over by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from meshd.crypto import base64url
from meshd.daemon import fallen, names, quarantine
from meshd.daemon.context import Daemon
from meshd.daemon.handlers import wishes
from meshd.daemon.handlers.items import content
from meshd.daemon.pen import Pen
from meshd.daemon.quarantine import Entry
from meshd.errors import Ambiguous, BadRequest, DecryptError, Denied, NotFound
from meshd.profile import payload
from meshd.profile.apps import of_tag
from meshd.profile.claim import Kind
from meshd.profile.vault import Item

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call

_KINDS = {
    Kind.PERSONAL: "profile",
    Kind.CONTAINER: "vault",
    Kind.MASTER: "master profile",
    Kind.DEVICE: "device profile",
    Kind.ITEM: "item",
}


async def every(app: App, call: Call) -> dict[str, Any]:
    """What came last first; without `all`, only what could still be imported or is no item."""
    called = names.current(app.daemon)
    entries = _entries(app.daemon)
    if not call.query.get("all"):
        entries = [entry for entry in entries if entry.newest and not entry.imported]
    return {"quarantine": [_view(entry, called) for entry in entries], "fell": await _fell(app.daemon)}


async def one(app: App, call: Call) -> dict[str, Any]:
    """An item with its secrets, and what is applied in its place. NotFound, BadRequest; DecryptError."""
    daemon = app.daemon
    keyring, connection = daemon.unlocked(), daemon.reader.connection
    vid = quarantine.find(connection, call.params["version"])
    found = quarantine.show(connection, keyring, vid, daemon.snapshot.removed)
    # The list knows more of it: whether another one replaces it.
    entry = next((entry for entry in _entries(daemon) if entry.vid == vid), found.entry)
    now = _content(daemon, entry, found.now) if found.now is not None else None
    return _view(entry, names.current(daemon)) | {"content": _content(daemon, entry, found.item), "now": now}


async def take_over(app: App, call: Call) -> dict[str, Any]:
    """Sign what these items say anew, over what they say now. NotFound, BadRequest."""
    daemon, body = app.daemon, call.body
    if ("ids" in body) == ("device" in body):
        raise BadRequest("either ids or a device is expected")
    daemon.unlocked()
    if "ids" in body:
        chosen = [quarantine.find(daemon.reader.connection, text) for text in body["ids"]]
    else:
        chosen = _written_by(_entries(daemon), await wishes.writer(daemon, body["device"]))
    taken, unchanged, rejected = await daemon.write(lambda pen: _take(pen, list(dict.fromkeys(chosen))))
    if taken:
        await daemon.event("import", {"count": len(taken), "state": "quarantine"})
    return {"imported": taken, "unchanged": unchanged, "rejected": rejected}


async def confirm(app: App, call: Call) -> dict[str, Any]:
    """Take back devices and vaults that fell with the admin who had added them. Denied, NotFound, Ambiguous."""
    daemon = app.daemon
    daemon.unlocked()
    if daemon.snapshot.own not in daemon.snapshot.admins:
        raise Denied("This device is no admin.", hint="do this on an admin device")
    known = await _fell(daemon)
    chosen = {one["key"]: one for text in call.body["names"] for one in [_meant(known, text)]}
    await daemon.write(lambda pen: fallen.confirm(pen, list(chosen)))
    return {"confirmed": list(chosen.values())}


def _meant(known: list[dict[str, Any]], text: str) -> dict[str, Any]:
    found = [one for one in known if text in (one["name"], one["key"])] or [
        one for one in known if len(text) >= 5 and one["key"][2:].startswith(text.upper())
    ]
    if len(found) > 1:
        choices = ", ".join(f"{one['text']} {one['key'][2:]}" for one in found)
        raise Ambiguous(f"more than one fits: {choices}", hint="give the beginning of its id")
    if not found:
        raise NotFound("Nothing called that fell with an admin.", hint="see: meshctl quarantine list")
    return found[0]


async def _fell(daemon: Daemon) -> list[dict[str, Any]]:
    """What can be taken back here, in words; nothing where this device is locked, or no admin."""
    if daemon.locked or daemon.snapshot.own not in daemon.snapshot.admins:
        return []
    found, called = await daemon.write(fallen.every), names.current(daemon)
    views = []
    for key, name in found.items():
        sort, _, identifier = key.partition(":")
        if sort == "D":
            name = names.shown(called, identifier)
        text = f"the {'device' if sort == 'D' else 'vault'} {name or identifier}"
        views.append({"key": key, "name": name or identifier, "text": text})
    return views


def _take(pen: Pen, chosen: list[bytes]) -> tuple[list[dict[str, Any]], int, list[dict[str, Any]]]:
    """All in one transaction; what can't be taken is told and keeps nobody else from it."""
    taken: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    unchanged = 0
    for vid in chosen:
        name = base64url.encode(vid)
        try:
            written = quarantine.take_over(pen, vid)
        except (DecryptError, Denied, BadRequest, NotFound) as exc:
            rejected.append({"id": name, "reason": str(exc)})
            continue
        if written is None:
            unchanged += 1
        else:
            taken.append({"id": name, "item": written.identifier})
    return taken, unchanged, rejected


def _written_by(entries: Iterable[Entry], udf: str) -> list[bytes]:
    """The items of one device that are worth importing, oldest first, so that the order of events stays."""
    found = [
        entry.vid
        for entry in entries
        if entry.signer == udf and entry.kind is Kind.ITEM and entry.newest and not entry.imported
    ]
    return found[::-1]


def _entries(daemon: Daemon) -> list[Entry]:
    return quarantine.every(daemon.reader.connection, daemon.keyring, daemon.snapshot.removed, daemon.snapshot.own)


def _view(entry: Entry, called: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": entry.name,
        "item": entry.id,
        "kind": _KINDS.get(entry.kind, str(int(entry.kind))),
        "application": entry.application,
        "title": entry.title,
        "device": names.shown(called, entry.signer),
        "device_id": entry.signer,
        "received": payload.write_date(entry.received_ms // 1000),
        "updated": payload.write_date(entry.updated),
        "why": entry.why,
        "newest": entry.newest,
        "imported": entry.imported,
    }


def _content(daemon: Daemon, entry: Entry, item: Item) -> dict[str, Any]:
    opened = daemon.unlocked().vaults.get(entry.id.partition("/")[0])
    tag = opened.application.tag if opened is not None else ""
    return content(of_tag(tag).name, item)
