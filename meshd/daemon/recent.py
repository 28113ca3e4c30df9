"""What happened in the mesh in the last day, for people: who came and went, whose role changed, what was guessed.

Made of the events that every device records (`announce`), so that what one device did is seen on all of them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshd.daemon import announce, names
from meshd.profile import payload

DAY_MS = 24 * 3600 * 1000
MOST = 50  # announcements that a status lists
_ROLES = ("admin", "member", "relay")


@dataclass(frozen=True, slots=True)
class Recent:
    """`announcements` are as the local API lists them, the newest first; `stale` counts items that were written anew
    because somebody had not heard of a removal."""

    announcements: tuple[dict[str, Any], ...] = ()
    stale: int = 0


def since(connection: sqlite3.Connection, now_ms: int, called: Mapping[str, str]) -> Recent:
    """What the events of the last 24 hours tell. `called` names devices."""
    rows = connection.execute(
        "SELECT time, type, data FROM events WHERE time > ? AND type IN"
        " ('device', 'invitation', 'stale', 'recovery', 'master', 'health')"
        " ORDER BY id DESC",
        (now_ms - DAY_MS,),
    )
    told: list[dict[str, Any]] = []
    stale: set[object] = set()
    for time, kind, text in rows:
        data = json.loads(text)
        if kind == "stale":
            stale.add(data.get("id"))
        elif len(told) < MOST and (said := _said(kind, data, called)) is not None:
            told.append({"time": payload.write_date(time // 1000)} | said)
    return Recent(tuple(told), len(stale))


# A drill asks as a thief would, and so does who comes back.
_NOT_YOU = "; if that was none of you: meshctl recovery refresh"


_RESTORED = (
    "versions came back that this device had written and did not hold: it was restored from a backup; if it was not,"
    " its keys were stolen: remove it from the mesh, and connect it anew"
)


def _looked_up(data: Mapping[str, Any], called: Mapping[str, str]) -> dict[str, Any] | None:
    match data.get("state"):
        case "looked-up":
            text = f"the recovery entry was looked up at {data.get('name')} on {data.get('at')}"
        case "fetched":
            udf = data.get("device")
            where = names.shown(called, udf) if isinstance(udf, str) else "this device"
            text = f"the recovery entry was fetched from {where}, on its network"
        case _:
            return None
    return {"type": "recovery", "text": text + _NOT_YOU}


def _said(kind: str, data: Mapping[str, Any], called: Mapping[str, str]) -> dict[str, Any] | None:
    """One announcement; None for events that are none."""
    state = data.get("state")
    if kind == "invitation":
        if state != "burned":
            return None
        where = f" on {names.shown(called, seen)}" if isinstance(seen := data.get("device"), str) else ""
        return {"type": "burned", "text": f"an invitation{where} was burnt: its code was guessed wrongly too often"}
    if kind == "health":
        return {"type": "restored", "text": _RESTORED} if state == "restored" else None
    if kind == "recovery":
        return _looked_up(data, called)
    if kind == "master":
        if state != "published":
            return None
        return {"type": "recovery", "text": f"a device came back with the master key at {data.get('name')}{_NOT_YOU}"}
    udf = data.get("device")
    if not isinstance(udf, str):
        return None
    name = names.shown(called, udf)
    role = data["role"] if data.get("role") in _ROLES else None
    match state:
        case announce.ADDED:
            text = f"{name} joined" + (f" as {role}" if role else "")
        case announce.REMOVED:
            text = f"{name} was removed"
        case announce.ROLE:
            text = f"{name} became {role}" + (f" (was {data['before']})" if data.get("before") in _ROLES else "")
        case announce.GONE:
            text = f"{name} is no device of this mesh any more: who added it was not entitled to"
        case _:
            return None
    return {"type": state, "text": text, "device": udf, "name": name} | ({"role": role} if role else {})
