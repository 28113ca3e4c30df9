"""`events`: what happened here, line by line, from any point on and without a gap.

The store's events are the truth; this only words them for the API. Who asks for events that are not kept any more gets
one `reset` with a whole status instead, and goes on from there.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import trio

from meshd.daemon import names, status
from meshd.daemon.context import Daemon
from meshd.errors import StoreError
from meshd.localapi import SCHEMA
from meshd.profile import payload
from meshd.profile.apps import GROUP, of_tag
from meshd.store import events
from meshd.store.events import Event

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call

KEEP_ALIVE = 15.0  # seconds between signs of life
PAGE = 500
_TEXTS = ("item", "application", "device", "name", "state", "role", "by", "vault")


async def stream(app: App, call: Call) -> AsyncIterator[bytes]:
    """NDJSON: every event after `since`, then, unless `follow` is off, what comes."""
    daemon = app.daemon
    connection = daemon.reader.connection
    seen: int = call.query.get("since", events.newest(connection))
    follow: bool = call.query.get("follow", True)
    yield b"\n"  # the head goes out at once: whoever connected knows that it is heard from here on
    while True:
        moved, changed = daemon.moved.count, daemon.changed.count
        if events.pruned(connection, seen):
            seen = events.newest(connection)  # read before the status, which may then say more but never less
            yield _line(await _reset(app, seen))
        while found := events.since(connection, seen, PAGE):
            yield b"".join(_line(_worded(daemon, event)) for event in found)
            seen = found[-1].id
        if not follow:
            return
        with trio.move_on_after(KEEP_ALIVE) as quiet:
            await names.moved_past(daemon, moved, changed)
        if quiet.cancelled_caught:
            yield b"\n"


async def tell_peers(app: App) -> None:
    """Record who comes and goes, for as long as it runs: a connection by itself changes nothing in the store."""
    daemon = app.daemon
    known: set[str] = set()
    while True:
        seen = daemon.changed.count
        here = {udf for udf, progress in status.connections(app).items() if progress.connected}
        for udf in sorted(here ^ known):
            state = "connected" if udf in here else "disconnected"
            try:
                name = names.shown(names.current(daemon), udf)
                await daemon.event("peer", {"device": udf, "name": name, "state": state})
            except StoreError as exc:
                daemon.log.warning("an event was not recorded: %s", exc)
        known = here
        await daemon.changed.after(seen)


async def _reset(app: App, number: int) -> dict[str, Any]:
    snapshot = await status.report(app)
    time = payload.write_date(app.daemon.now_ms() // 1000)
    return {"schema": SCHEMA, "id": number, "time": time, "type": "reset", "snapshot": snapshot}


def _worded(daemon: Daemon, event: Event) -> dict[str, Any]:
    about = {"schema": SCHEMA, "id": event.id, "time": payload.write_date(event.time // 1000)}
    return about | _said(daemon, event.type, event.data)


def _said(daemon: Daemon, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Type and details of an event in the API's words."""
    match kind:
        case "item":
            identifier = str(data.get("id", ""))
            found = daemon.snapshot.applications.get(identifier.partition("/")[0])
            if found is not None and found.tag == GROUP.tag:
                return {"type": "device"}  # what devices are called is kept as items; nobody reads it as such
            said: dict[str, Any] = {"type": "conflict" if data.get("conflict") else "item", "item": identifier}
            if found is not None:
                said["application"] = of_tag(found.tag).name
            return said
        case "items":
            return {"type": "item", "count": data.get("count", 0)}
        case "mesh":
            return {"type": "mesh", "count": len(data.get("devices", ()))}
        case "device" if "device" in data and "name" not in data:  # told before the name had come
            name = names.cached(daemon).get(str(data["device"]))
            return {"type": kind} | _details(data) | ({"name": name} if name else {})
        case "draft" | "stale":
            about = {"item": str(data.get("id", ""))}
            return {"type": kind} | about | _details(data)
        case "rejected" | "quarantine" | "fork":
            return {"type": "health", "state": kind} | _details(data)
    return {"type": kind[:64]} | _details(data)


def _details(data: Mapping[str, Any]) -> dict[str, Any]:
    """The members that the API knows; what else the store's event says is the daemon's own."""
    said: dict[str, Any] = {name: data[name] for name in _TEXTS if isinstance(data.get(name), str)}
    if type(data.get("count")) is int:
        said["count"] = data["count"]
    return said


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
