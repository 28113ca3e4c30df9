"""What this device knows of itself and its siblings right now: `status`, and whether devices are in step.

A status is asked for when something is wrong, so it never fails itself: whatever can't be read is left out and named in
`health` instead. It waits for nothing.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meshd import __version__
from meshd.daemon import drafts, recent
from meshd.daemon import names as naming
from meshd.daemon.context import Daemon
from meshd.daemon.health import Health, examine
from meshd.daemon.index import conflicted
from meshd.daemon.progress import Progress
from meshd.errors import MeshError
from meshd.localapi import API
from meshd.net.lan import format_address
from meshd.profile import payload
from meshd.profile.apps import of_tag
from meshd.profile.claim import Role
from meshd.store import events, peers, versions
from meshd.store.db import store_errors
from meshd.store.peers import Peer

if TYPE_CHECKING:
    from meshd.daemon.api import App

COUNTED = 5000  # rows that a status counts for a sibling
FRESH = 200  # marked items that a status reads again; more is left to whoever lists them


async def report(app: App) -> dict[str, Any]:
    """The body of `GET /v1/status`."""
    daemon, snapshot, health = app.daemon, app.daemon.snapshot, Health()
    connection = daemon.reader.connection
    remembered: dict[str, Peer] = health.read(lambda: {peer.udf: peer for peer in peers.every(connection)}, {})
    names: dict[str, str] = health.read(lambda: naming.current(daemon), {})
    newest = health.read(lambda: newest_seq(connection), 0)
    items, in_conflict = await _counts(daemon, health)
    waiting = health.read(lambda: drafts.count(connection), 0)
    lately = health.read(lambda: recent.since(connection, daemon.now_ms(), names), recent.Recent())
    if snapshot.connected:
        examine(app, connections(app), names, waiting, health)
    return {
        "mesh": snapshot.mesh or None,
        "device": device_name(daemon, names) if snapshot.connected else None,
        "locked": daemon.locked,
        "peers": peer_views(app, names, remembered, newest),
        "portals": portal_views(app, health),
        "conflicts": in_conflict,
        "health": health.listed(),
        "items": items,
        "listening": listening(app),
        "discovery": discovery(app),
        "events": health.read(lambda: events.newest(connection), 0),
        "uptime": round(time.monotonic() - daemon.started, 3),
        "version": __version__,
        "api": API,
        "synced": all(in_step(progress, newest) for progress in connections(app).values()),
        "announcements": list(lately.announcements),
        "drafts": waiting,
        "stale": lately.stale,
    }


def portal_views(app: App, health: Health) -> list[dict[str, Any]]:
    """The accounts of the mesh, as a status lists them."""
    return health.read(app.online.portals.views, []) if app.online is not None else []


async def _counts(daemon: Daemon, health: Health) -> tuple[dict[str, int], int]:
    """Live items per application, and items in conflict. A locked device counts heads and knows no applications."""
    index = daemon.index
    if index is None or index.stale > FRESH:
        return {}, health.read(lambda: conflicted(daemon.reader.connection), 0)
    if index.stale:
        try:
            with store_errors():
                index = await daemon.fresh_index()
        except MeshError as exc:
            health.add(exc.code, str(exc), exc.hint)
    items: dict[str, int] = {}
    in_conflict = 0
    vaults = list(daemon.keyring.vaults.items()) if daemon.keyring is not None else []
    hidden = {identifier for identifier, opened in vaults if opened.container.deleted}
    for sort, count in index.tally.items():
        kind = of_tag(sort.tag)
        if count and kind.vault and sort.container not in hidden:
            in_conflict += count if sort.in_conflict else 0
            if not sort.deleted:
                items[kind.name] = items.get(kind.name, 0) + count
    return items, in_conflict


# --- the other devices ------------------------------------------------------------------------------------------------


def connections(app: App) -> Mapping[str, Progress]:
    """The connections to siblings, those that have not greeted yet too."""
    return app.siblings.connections if app.siblings is not None else {}


def newest_seq(connection: sqlite3.Connection) -> int:
    """The seq of the last version that siblings can have from us."""
    row = connection.execute("SELECT seq FROM versions WHERE raw IS NOT NULL ORDER BY seq DESC LIMIT 1").fetchone()
    return 0 if row is None else int(row[0])


def in_step(progress: Progress, newest: int) -> bool:
    """It has committed everything of ours, and we everything that it announced."""
    return progress.connected and progress.caught_up and progress.acked >= newest and progress.ours >= progress.theirs


def behind(connection: sqlite3.Connection, progress: Progress | None, remembered: Peer, newest: int) -> int:
    """Versions of ours that a sibling has not acknowledged, its own not counted; of very many, at most so many."""
    acked = progress.acked if progress is not None and progress.connected else remembered.their_ack
    if newest - acked <= COUNTED:
        try:
            return versions.count_after(connection, acked, remembered.udf)
        except sqlite3.Error:  # a damaged store: whoever asks for a status is told by what reads it first
            pass
    return max(newest - acked, 0)


def peer_views(app: App, names: Mapping[str, str], remembered: Mapping[str, Peer], newest: int) -> list[dict[str, Any]]:
    """The siblings as a status lists them, by name."""
    daemon, found = app.daemon, []
    now, portal = daemon.now_ms(), portal_in_step(app)
    for udf in daemon.snapshot.siblings:
        progress, known = connections(app).get(udf), remembered.get(udf, Peer(udf))
        connected = progress is not None and progress.connected
        last_address = known.addresses[0] if known.addresses else None
        view: dict[str, Any] = {} if connected else {"heard": heard(daemon.reader.connection, udf)}
        if portal is not None and not connected:
            view["through"] = portal
        found.append(
            view
            | {
                "id": udf,
                "name": naming.shown(names, udf),
                "role": role(daemon, udf),
                "connected": connected,
                "address": progress.address or last_address if progress is not None and connected else last_address,
                "behind": behind(app.daemon.reader.connection, progress, known, newest),
                "last_seen": moment(now if connected else known.last_seen),
            }
        )
    return sorted(found, key=lambda view: (str(view["name"]).casefold(), view["id"]))


def portal_in_step(app: App) -> str | None:
    """A portal that holds all that is here, and gave all that it has: what a sibling lacks it finds there."""
    running = app.online.portals.running if app.online is not None else {}
    try:
        return next((name for name in sorted(running) if running[name].in_step), None)
    except sqlite3.Error:  # a damaged store: whoever asks for a status is told by what reads it first
        return None


def heard(connection: sqlite3.Connection, udf: str) -> str | None:
    """When the newest version that a device wrote came here, by whatever way."""
    try:
        row = connection.execute(
            "SELECT received FROM versions WHERE signer = ? ORDER BY n DESC LIMIT 1", (udf,)
        ).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else moment(int(row[0]))


def all_peer_views(app: App) -> list[dict[str, Any]]:
    """`peer_views` with what the store says now."""
    connection = app.daemon.reader.connection
    remembered = {peer.udf: peer for peer in peers.every(connection)}
    return peer_views(app, naming.current(app.daemon), remembered, newest_seq(connection))


def device_name(daemon: Daemon, names: Mapping[str, str]) -> dict[str, Any]:
    """This device: id, name, role."""
    own = daemon.snapshot.own
    return {"id": own, "name": naming.shown(names, own), "role": role(daemon, own)}


def role(daemon: Daemon, udf: str) -> str:
    """The role of a device; one that was removed had one that does not matter any more."""
    return daemon.snapshot.roles.get(udf, Role.MEMBER).value


def moment(time_ms: int) -> str | None:
    """RFC 3339 of milliseconds since 1970; None for never."""
    return payload.write_date(time_ms // 1000) if time_ms > 0 else None


# --- the network ------------------------------------------------------------------------------------------------------


def listening(app: App) -> list[str]:
    """Where siblings can reach this device, best first."""
    if app.network is None or app.siblings is None or not app.siblings.port:
        return []
    return [format_address(host, app.siblings.port) for host in app.network.hosts()]


def discovery(app: App) -> dict[str, Any]:
    """Whether names are announced and heard on the LAN."""
    if app.network is None:
        return {"state": "off", "interfaces": []}
    state = "on" if app.network.discovery.problem is None else "waiting"
    return {"state": state, "interfaces": list(app.daemon.config.lan.interfaces)}
