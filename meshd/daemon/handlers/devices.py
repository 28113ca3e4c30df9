"""`devices`: who is in the mesh, what each is called, and where it is reached."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meshd.daemon import membership, names, status
from meshd.daemon.context import Daemon, wait
from meshd.daemon.handlers import wishes
from meshd.daemon.handlers.mesh import checked_name
from meshd.errors import BadRequest, Denied, Exists, Locked
from meshd.net.lan import parse_address
from meshd.profile import payload
from meshd.profile.claim import Kind
from meshd.store import peers, versions
from meshd.store.db import set_meta

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call


async def every(app: App, call: Call) -> dict[str, Any]:
    """This device first, then the others by name."""
    called = names.current(app.daemon)
    views = [_view(app, udf, called) for udf in app.daemon.snapshot.devices]
    return {"devices": sorted(views, key=lambda view: (not view["this"], view["name"].casefold(), view["id"]))}


async def one(app: App, call: Call) -> dict[str, Any]:
    """Everything that is known of a device; of a member, what it may read and write too."""
    daemon = app.daemon
    udf = await names.resolve(daemon, call.params["device"])
    view = _whole(app, udf)
    if view["role"] == "member":
        view["grants"] = wishes.grant_views(daemon, await _grants(daemon, udf))
    return view


async def _grants(daemon: Daemon, udf: str) -> list[tuple[str, str]]:
    """(vault, level). Authority lives in the writer's thread, so it is asked there."""

    def ask(connection: sqlite3.Connection) -> list[tuple[str, str]]:
        return [(vault, level) for holder, vault, level in daemon.replica.authority.grants() if holder == udf]

    return await wait(daemon.writer.submit(ask))


async def change(app: App, call: Call) -> dict[str, Any]:
    """A new name, for everybody; an address, on this device alone. Locked, Denied, Exists, BadRequest."""
    daemon = app.daemon
    if not {"name", "address"} & set(call.body):
        raise BadRequest("there is nothing to change: name or address is expected")
    udf = await names.resolve(daemon, call.params["device"])
    address: str | None = call.body.get("address")
    if "address" in call.body:
        if udf == daemon.snapshot.own:
            raise BadRequest("that is this device: it needs no address", hint="set [lan] port in meshd.toml")
        if address is not None:
            parse_address(address)
    if "name" in call.body:
        await _rename(daemon, udf, checked_name(call.body["name"]))
    if "address" in call.body:
        await _set_address(app, udf, address)
    return _whole(app, udf)


async def _rename(daemon: Daemon, udf: str, name: str) -> None:
    if daemon.locked:
        raise Locked
    own = daemon.snapshot.own
    if udf != own and own not in daemon.snapshot.admins:
        raise Denied("Only an admin renames other devices.", hint="do this on an admin device, or on that one")
    taken = [other for other, called in names.cached(daemon).items() if called == name and other != udf]
    if any(other in daemon.snapshot.devices for other in taken):
        raise Exists("Another device of this mesh has that name.")
    await daemon.write(lambda pen: membership.name_device(pen, udf, name))
    saved = names.refresh(daemon)
    if saved is not None:
        await wait(saved)


async def _set_address(app: App, udf: str, address: str | None) -> None:
    daemon, key = app.daemon, f"address {udf}"

    def save(connection: sqlite3.Connection) -> None:
        if address is None:
            connection.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            set_meta(connection, key, address.encode())

    await wait(daemon.writer.submit(save))
    sibling = app.siblings.known.get(udf) if app.siblings is not None else None
    if sibling is not None:
        sibling.nudge()
    daemon.changed.bump()


def _view(app: App, udf: str, called: Mapping[str, str]) -> dict[str, Any]:
    """A device as lists show it."""
    daemon = app.daemon
    known = peers.get(daemon.reader.connection, udf)
    progress = status.connections(app).get(udf)
    this = udf == daemon.snapshot.own
    connected = progress is not None and progress.connected
    beyond = {} if connected or this else {"heard": status.heard(daemon.reader.connection, udf)}
    return beyond | {
        "id": udf,
        "name": names.shown(called, udf),
        "role": status.role(daemon, udf),
        "this": this,
        "connected": connected,
        "address": daemon.manual_address(udf),
        "last_seen": status.moment(daemon.now_ms() if connected or this else known.last_seen),
    }


def _whole(app: App, udf: str) -> dict[str, Any]:
    """Everything that is known of a device."""
    daemon = app.daemon
    connection = daemon.reader.connection
    known = peers.get(connection, udf)
    view = _view(app, udf, names.current(daemon))
    written = [row.updated for row in versions.of_entry(connection, Kind.DEVICE, udf)]
    view["addresses"] = list(known.addresses)
    view["added"] = payload.write_date(min(written)) if written else None
    if view["this"]:
        return view
    progress = status.connections(app).get(udf)
    sibling = app.siblings.known.get(udf) if app.siblings is not None else None
    portal = None if view["connected"] else status.portal_in_step(app)
    if portal is not None:
        view["through"] = portal
    view["behind"] = status.behind(connection, progress, known, status.newest_seq(connection))
    view["last_error"] = (sibling.last_error[:1024] or None) if sibling is not None else None
    return view
