"""`version`, `status`, `whoami` and `wait`: how things stand, and waiting until they stand otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from meshd import __version__
from meshd.daemon import names as naming
from meshd.daemon import status as statuses
from meshd.daemon.context import Daemon
from meshd.errors import BadRequest, NotConnected, NotSynced
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
    return {"mesh": daemon.snapshot.mesh, "device": device, "locked": daemon.locked}


async def wait(app: App, call: Call) -> dict[str, Any]:
    """Until this device is in a mesh; or until devices are in step. NotConnected, NotSynced when the time is over.

    In step means everybody who is connected, or with `peer` alone that one, which must connect. Where nobody is
    connected at first, somebody gets a few seconds to.
    """
    daemon = app.daemon
    seconds = float(call.query.get("timeout", TIMEOUT))
    everybody, wanted = bool(call.query.get("synced")), call.query.get("peer")
    if not everybody and wanted is None:
        if not await _in_time(daemon, seconds, lambda: daemon.snapshot.connected):
            raise NotConnected(f"This device is in no mesh after {seconds:g} s.")
        return {"synced": not _pending(app, everybody=True, udf=None), "peers": statuses.all_peer_views(app)}
    if not daemon.snapshot.connected:
        raise NotConnected
    udf = await naming.resolve(daemon, wanted) if wanted is not None else None
    if udf == daemon.snapshot.own:
        raise BadRequest("that is this device")
    begun = trio.current_time()
    if udf is None and daemon.snapshot.siblings and app.siblings is not None:
        await _in_time(daemon, min(seconds, REACH), lambda: bool(statuses.connections(app)))
    left = max(begun + seconds - trio.current_time(), 0)
    if not await _in_time(daemon, left, lambda: not _pending(app, everybody=everybody, udf=udf)):
        names = naming.current(daemon)
        pending = [naming.shown(names, one) for one in _pending(app, everybody=everybody, udf=udf)]
        raise with_details(
            NotSynced(f"not in step after {seconds:g} s: {', '.join(pending) or 'it changed at the last moment'}"),
            pending=pending,
        )
    return {"synced": True, "peers": statuses.all_peer_views(app)}


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
