"""Telling on every device who came, who went, and whose role or rights changed, whichever device did it.

What was told last is kept in the store, and the events that tell what is new are written together with it: told once,
whatever crashes. They are what `meshctl events` shows, and a line in the log.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

import trio

from meshd.daemon import names, notices
from meshd.daemon.context import Daemon, wait
from meshd.daemon.snapshot import Snapshot
from meshd.errors import MeshError
from meshd.store import events
from meshd.store.db import get_meta, set_meta

_TOLD = "told"  # meta: {"devices": {UDF: role}, "removed": [UDF]}

ADDED, REMOVED, ROLE, GONE = "added", "removed", "role", "gone"


async def announcements(daemon: Daemon) -> None:
    """Tell what changes in the mesh, and what other devices give notice of, until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notices.follow, daemon)
        nursery.start_soon(_changes, daemon)


async def _changes(daemon: Daemon) -> None:
    last: Snapshot | None = None
    while True:
        seen = daemon.changed.count
        if daemon.snapshot is not last and daemon.snapshot.connected:
            last = daemon.snapshot
            try:
                await catch_up(daemon)
            except MeshError as exc:  # a full disk: it is told with the next change
                daemon.log.warning("what changed in the mesh was not recorded: %s", exc)
                last = None
        await daemon.changed.after(seen)


async def catch_up(daemon: Daemon) -> list[dict[str, Any]]:
    """Tell what is not told yet; returns the events' data. The first time nothing is news."""
    snapshot, now, called = daemon.snapshot, daemon.now_ms(), names.cached(daemon)
    state = _state(snapshot)

    def write(connection: sqlite3.Connection) -> list[dict[str, Any]]:
        told = get_meta(connection, _TOLD)
        before = json.loads(told) if told else state
        if told and before == state:
            return []
        set_meta(connection, _TOLD, _encoded(state))
        found = differences(before, state, called)
        for data in found:
            events.append(connection, now, "device", data)
        return found

    if get_meta(daemon.reader.connection, _TOLD) == _encoded(state):
        return []
    found = await wait(daemon.writer.submit(write))
    for data in found:
        role = f" {data['role']}" if "role" in data else ""
        daemon.log.info("device %s: %s%s", data.get("name") or data["device"], data["state"], role)
    if found:
        daemon.changed.bump()
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any], called: Mapping[str, str]) -> list[dict[str, Any]]:
    """What became of each device between two states, as events tell it."""
    found: list[dict[str, Any]] = []
    old, new = before["devices"], after["devices"]
    for udf in sorted(old.keys() | new.keys()):
        data: dict[str, Any] = {"device": udf} | ({"name": called[udf]} if udf in called else {})
        if udf not in old:
            found.append(data | {"state": ADDED, "role": new[udf]})
        elif udf not in new:
            found.append(data | {"state": REMOVED if udf in after["removed"] else GONE})
        elif old[udf] != new[udf]:
            found.append(data | {"state": ROLE, "role": new[udf], "before": old[udf]})
    return found


def _state(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "devices": {udf: str(snapshot.roles[udf]) for udf in sorted(snapshot.devices)},
        "removed": sorted(snapshot.removed),
    }


def _encoded(state: Mapping[str, Any]) -> bytes:
    return json.dumps(state, separators=(",", ":")).encode()
