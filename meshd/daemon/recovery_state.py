"""What is known of a mesh's recovery: which entries count, who holds them, and when somebody last rehearsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshd.daemon import authoring, recovering
from meshd.daemon import names as naming
from meshd.daemon.background import with_pen
from meshd.daemon.context import DAY_MS, Daemon
from meshd.daemon.drilling import Peer
from meshd.profile import payload
from meshd.profile.apps.recovery_note import Noted
from meshd.profile.shares import Scheme
from meshd.store import peers
from meshd.store import portals_client as store

if TYPE_CHECKING:
    from meshd.daemon.api import App

DRILL_DAYS = 180


async def report(app: App) -> dict[str, Any]:
    """The entries that count, with what is noted of their shares and where they are, and the sets that were replaced.
    Locked, NotConnected."""
    daemon = app.daemon
    connection = daemon.reader.connection
    entries = await with_pen(daemon, authoring.recovery_entries)
    noted = recovering.noted(connection, daemon.unlocked())
    known = {one.entry: one for one in noted}
    names = naming.current(daemon)
    listed = []
    for name, vid in sorted(entries.items()):
        one = known.get(name)
        listed.append({"entry": name, "held": _held(app, vid, names)} | (_about(one, names) if one else {}))
    old = [
        {"set": one.set_name, "made": one.made, "labels": [share.label for share in one.shares]}
        for one in noted
        if one.entry not in entries
    ]
    return {"entries": listed, "old": old}


def due(daemon: Daemon) -> bool:
    """Have 180 days gone since the shares that count were made, or since the last drill that succeeded? By what this
    device can read: False while it is locked."""
    if daemon.keyring is None:
        return False
    for one in recovering.noted(daemon.reader.connection, daemon.keyring):
        if one.entry in daemon.snapshot.escrow:
            last = one.drill.date if one.drill is not None and one.drill.success else one.made
            if daemon.now_ms() - payload.read_date(last) * 1000 > DRILL_DAYS * DAY_MS:
                return True
    return False


def to_ask(app: App, known: dict[str, Any]) -> list[Peer]:
    """The other devices, for a drill; `known` is a report."""
    held = {one["where"] for entry in known["entries"] for one in entry["held"] if one["holds"]}
    names = naming.current(app.daemon)
    found = []
    for udf in sorted(app.daemon.snapshot.siblings):
        name, progress = naming.shown(names, udf), app.siblings.connections.get(udf) if app.siblings else None
        where = tuple(app.siblings.addresses(udf)) if app.siblings is not None else ()
        found.append(Peer(name, where, progress is not None and progress.connected, name in held))
    return found


def _held(app: App, vid: bytes, names: dict[str, str]) -> list[dict[str, Any]]:
    daemon = app.daemon
    connection = daemon.reader.connection
    row = connection.execute("SELECT seq FROM versions WHERE vid = ? AND raw IS NOT NULL", (vid,)).fetchone()
    seq = row[0] if row is not None else None
    found: list[dict[str, Any]] = [{"kind": "device", "where": "this device", "holds": seq is not None}]
    remembered = {peer.udf: peer for peer in peers.every(connection)}
    connections = app.siblings.connections if app.siblings is not None else {}
    for udf in sorted(daemon.snapshot.siblings):
        acked = remembered[udf].their_ack if udf in remembered else 0
        if (progress := connections.get(udf)) is not None and progress.connected:
            acked = progress.acked
        holds = seq is not None and acked >= seq
        found.append({"kind": "peer", "where": naming.shown(names, udf), "holds": holds})
    portals = app.online.portals.running if app.online is not None else {}
    for name, portal in sorted(portals.items()):
        holds = vid in portal.holds or (seq is not None and store.cursor(connection, name) >= seq)
        found.append({"kind": "portal", "where": name, "holds": holds})
    return found


def group_views(scheme: Scheme) -> list[dict[str, Any]]:
    return [{"name": group.name, "threshold": group.threshold, "shares": group.shares} for group in scheme.groups]


def _about(one: Noted, names: dict[str, str]) -> dict[str, Any]:
    drill = one.drill
    return {
        "set": one.set_name,
        "made": one.made,
        "group_threshold": one.scheme.threshold,
        "groups": group_views(one.scheme),
        "labels": [share.label for share in one.shares],
        "drill": None
        if drill is None
        else {
            "date": drill.date,
            "device": naming.shown(names, drill.device),
            "success": drill.success,
            "sources": [{"where": where, "what": what} for where, what in drill.sources],
        },
    }
