"""`version`, `status`, `whoami` and `wait`: how things stand, and waiting until they stand otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from meshd import __version__
from meshd.crypto import fingerprint
from meshd.daemon import names as naming
from meshd.daemon import status as statuses
from meshd.daemon.context import Daemon
from meshd.daemon.portals.state import Portal
from meshd.errors import BadRequest, NotConnected, NotFound, NotSynced
from meshd.localapi import API
from meshd.localapi.errors import with_details

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call

TIMEOUT = 60.0
# What is in reach connects within moments of being seen or of a restart. `wait --synced` gives it so long before it
# believes that nobody is there.
REACH = 5.0


async def version(app: App, call: Call) -> dict[str, Any]:
    return {"version": __version__, "api": API}


async def status(app: App, call: Call) -> dict[str, Any]:
    return await statuses.report(app)


async def whoami(app: App, call: Call) -> dict[str, Any]:
    daemon = app.daemon
    device = statuses.device_name(daemon, naming.current(daemon))
    mesh = daemon.snapshot.mesh
    return {"mesh": mesh, "fingerprint_words": fingerprint.text(mesh), "device": device, "locked": daemon.locked}


async def wait(app: App, call: Call) -> dict[str, Any]:
    """Until this device is in a mesh; or until devices are in step. NotConnected, NotSynced when the time is over.

    In step means everybody who is connected, or with `peer` alone that one, which must connect. Where nobody is
    connected at first, somebody gets a few seconds to.
    """
    daemon = app.daemon
    seconds = float(call.query.get("timeout", TIMEOUT))
    everybody, wanted = bool(call.query.get("synced")), call.query.get("peer")
    through = bool(call.query.get("portal"))
    if not everybody and wanted is None and not through:
        if not await _in_time(daemon, seconds, lambda: daemon.snapshot.connected):
            raise NotConnected(f"This device is in no mesh after {seconds:g} s.")
        return {"synced": not _pending(app, everybody=True, udf=None), "peers": statuses.all_peer_views(app)}
    if not daemon.snapshot.connected:
        raise NotConnected
    udf = await naming.resolve(daemon, wanted) if wanted is not None else None
    if udf == daemon.snapshot.own:
        raise BadRequest("that is this device")
    begun = trio.current_time()
    portals = _portals(app, must=through, everybody=everybody)
    for portal in portals:
        portal.nudge()  # what it says from now on counts
    if udf is None and daemon.snapshot.siblings and app.siblings is not None:
        await _in_time(daemon, min(seconds, REACH), lambda: bool(statuses.connections(app)))
    left = max(begun + seconds - trio.current_time(), 0)
    if not await _in_time(
        daemon, left, lambda: not _pending(app, everybody=everybody, udf=udf) and not _behind(portals, through)
    ):
        names = naming.current(daemon)
        pending = [naming.shown(names, one) for one in _pending(app, everybody=everybody, udf=udf)]
        pending += [portal.name for portal in _behind(portals, through)]
        raise with_details(
            NotSynced(f"not in step after {seconds:g} s: {', '.join(pending) or 'it changed at the last moment'}"),
            pending=pending,
        )
    return {"synced": True, "peers": statuses.all_peer_views(app)}


def _portals(app: App, *, must: bool, everybody: bool) -> list[Portal]:
    """The portals that are waited for. NotFound where they must be in step and there is none."""
    found = list(app.online.portals.running.values()) if app.online is not None and (must or everybody) else []
    if must and not found:
        raise NotFound("This mesh has no portal.", hint="meshctl portal add NAME@PORTAL")
    return found


def _behind(portals: list[Portal], must: bool) -> list[Portal]:
    """Those that are not in step. One that can't be reached is no reason to wait, unless it `must` be."""
    return [one for one in portals if not one.in_step and (must or (one.error is None and not one.plain))]


def _pending(app: App, *, everybody: bool, udf: str | None) -> list[str]:
    """The devices that are waited for and are not in step."""
    connections = statuses.connections(app)
    newest = statuses.newest_seq(app.daemon.reader.connection)
    found = [
        one
        for one, progress in connections.items()
        if (everybody or one == udf) and not statuses.in_step(progress, newest)
    ]
    if udf is not None and udf not in connections:
        found.append(udf)
    return found


async def _in_time(daemon: Daemon, seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until `condition` holds, at most so long; whether it does."""
    with trio.move_on_after(seconds):
        while True:
            seen, version = daemon.moved.count, daemon.changed.count
            if condition():
                return True
            await naming.moved_past(daemon, seen, version)
    return condition()
