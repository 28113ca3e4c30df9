"""`removals` and `exposure`: what removing devices would do, doing it, who has heard, and what is left to change.

A removal is one request that waits some seconds for the others: before it, for what they have still to bring, and after
it, for their word that they hold it. Whoever is away is `pending` and hears by itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meshd.daemon import names, removal, removing, status
from meshd.daemon.context import Daemon
from meshd.daemon.exposure import counts
from meshd.daemon.handlers import items, wishes
from meshd.daemon.removal import Plan
from meshd.daemon.removing import Acknowledgement
from meshd.errors import Denied, NotFound
from meshd.profile import links
from meshd.profile.claim import Kind
from meshd.profile.links import SCOPE_REMOVED
from meshd.store import versions

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call


async def plan(app: App, call: Call) -> dict[str, Any]:
    """What a removal would do, as this store sees it now. NotFound, BadRequest."""
    daemon = app.daemon
    chosen, since = await _asked_for(daemon, call)
    found = await daemon.write(lambda pen: removal.plan(pen, chosen, since_ms=since))
    called = names.current(daemon)
    return {
        "devices": [
            {
                "id": udf,
                "name": names.shown(called, udf),
                "role": None if found.roles[udf] is None else str(found.roles[udf]),
                "removed": found.roles[udf] is None,
            }
            for udf in found.devices
        ],
        "vaults": wishes.vault_views(daemon, found.vaults),
        "needs_master": found.needs_master,
        "last_admin": found.last_admin,
        "quarantined": found.quarantined,
        "lost": wishes.vault_views(daemon, found.lost),
        "undone": [
            {
                "id": one.victim,
                "name": names.shown(called, one.victim),
                "remover": names.shown(called, one.remover) if one.remover else "?",
            }
            for one in found.undone
        ],
        "adds": [_add_view(daemon, called, key) for key in found.adds],
        "since": status.moment(since) if since is not None else None,
        "known_since": status.moment(found.known_since_ms),
    }


async def remove(app: App, call: Call) -> dict[str, Any]:
    """Denied, with `needs` where it is the master passphrase; Refused where something would fall unseen."""
    daemon, body = app.daemon, call.body
    chosen, since = await _asked_for(daemon, call)
    key = await wishes.master_key(app, body)
    if key is None:
        _check_terms(await daemon.write(lambda pen: removal.plan(pen, chosen, since_ms=since)), since)
    seconds = float(body.get("wait", removing.CATCH_UP_SECONDS))
    report = await removing.remove_device(
        daemon,
        status.connections(app),
        chosen,
        since_ms=since,
        master_key=key,
        keep_removed=await wishes.devices(daemon, body.get("keep_removed", ())),
        readmit=await wishes.devices(daemon, body.get("readmit", ())),
        confirm=tuple(body.get("confirm", ())),
        leave_no_admin=bool(body.get("leave_no_admin")),
        catch_up=seconds,
        acknowledge=seconds,
    )
    vaults = wishes.vault_views(daemon, report.rotated)
    called = names.current(daemon)
    return {
        "removed": [names.shown(called, udf) for udf in report.removed],
        "rotated": len(vaults),
        **_heard(report.acknowledgement, called),
        "exposed": report.exposed,
        "unchanged": report.unchanged,
        "devices": [wishes.called(daemon, udf) for udf in report.removed],
        "vaults": vaults,
        "left": wishes.vault_views(daemon, report.left),
        "others": _others(app, report.acknowledgement, called),
    }


async def every(app: App, call: Call) -> dict[str, Any]:
    """The removed devices, the newest removal first."""
    daemon, called = app.daemon, names.current(app.daemon)
    when = _when(daemon.reader.connection)
    found = []
    for udf in daemon.snapshot.removed:
        try:
            heard = removing.acknowledgement(daemon, udf, status.connections(app))
        except NotFound:
            continue  # moved on since the snapshot
        view = {"id": udf, "name": names.shown(called, udf), "removed": status.moment(when.get(udf, 0))}
        found.append((when.get(udf, 0), view | _heard(heard, called)))
    return {"removed": [view for _, view in sorted(found, key=lambda pair: (-pair[0], str(pair[1]["id"])))]}


async def exposure(app: App, call: Call) -> dict[str, Any]:
    """What a device could ever read; what is still to be changed first, then by title."""
    daemon = app.daemon
    udf = await wishes.writer(daemon, call.params["device"])
    found = await removing.list_exposed(daemon, [udf])
    index = await daemon.fresh_index()
    listed = []
    for one in found:
        view: dict[str, Any] = {"id": one.id, "title": one.title, "changed": one.changed, "deleted": one.deleted}
        if one.username:
            view["username"] = one.username
        opened = daemon.unlocked().vaults.get(one.id.partition("/")[0])
        if opened is not None and (named := wishes.vault_view(daemon, opened.application.identifier)) is not None:
            view["application"] = named["application"]
        entry = index.entries.get(one.id)  # what was deleted has no user name there any more
        if entry is not None and not entry.deleted:
            view |= {name: value for name, value in items.summary(entry, {}).items() if name in ("title", "username")}
        listed.append(view)
    exposed, unchanged = counts(found)
    return {"device": wishes.called(daemon, udf), "items": listed, "exposed": exposed, "unchanged": unchanged}


async def _asked_for(daemon: Daemon, call: Call) -> tuple[tuple[str, ...], int | None]:
    """The devices and the moment of a request."""
    since: str | None = call.body.get("since")
    chosen = await wishes.devices(daemon, call.body["devices"])
    if since is None:
        for udf in chosen:
            if udf in daemon.snapshot.removed:
                name = wishes.called(daemon, udf)["name"]
                raise Denied(
                    f"{name} was removed already.",
                    hint="see: meshctl device list --removed; --since moves the moment from which its writes fall",
                )
    return chosen, wishes.moment(since) if since is not None else None


def _check_terms(found: Plan, since: int | None) -> None:
    if found.needs_master and since is not None:
        raise wishes.master_needed("Removing a device as of an earlier moment takes the master passphrase.")
    if found.needs_master:
        raise wishes.master_needed("Removing an admin takes the master passphrase.")


def _heard(heard: Acknowledgement, called: Mapping[str, str]) -> dict[str, Any]:
    return {
        "acknowledged": sorted(names.shown(called, udf) for udf in heard.acknowledged),
        "pending": sorted(names.shown(called, udf) for udf, _ in heard.pending),
    }


def _others(app: App, heard: Acknowledgement, called: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each device that stays; when it was last met, where it has yet to hear."""
    connected = {udf for udf, progress in status.connections(app).items() if progress.connected}
    met = dict(heard.pending)
    views = [
        {
            "id": udf,
            "name": names.shown(called, udf),
            "acknowledged": udf in heard.acknowledged,
            "connected": udf in connected,
            "last_seen": status.moment(met.get(udf, app.daemon.now_ms())),
        }
        for udf in (*heard.acknowledged, *met)
    ]
    return sorted(views, key=lambda view: (not view["acknowledged"], str(view["name"]).casefold(), str(view["id"])))


def _when(connection: sqlite3.Connection) -> dict[str, int]:
    """UDF → when this store heard of its removal, in milliseconds."""
    found: dict[str, int] = {}
    for kind in (Kind.MASTER, Kind.PERSONAL):
        for row in versions.of_kind(connection, kind):
            for cut in links.parse(row.token).x:
                if cut.scope == SCOPE_REMOVED:
                    found[cut.udf] = min(row.received, found.get(cut.udf, row.received))
    return found


def _add_view(daemon: Daemon, called: Mapping[str, str], key: str) -> dict[str, Any]:
    """What would fall, in words: `D:UDF`, `X:vault`, `G:UDF@vault` (formats.md F7)."""
    sort, _, name = key.partition(":")
    udf, _, container = name.partition("@")
    vault = "all vaults"
    if (container if sort == "G" else name) != "*":
        view = wishes.vault_view(daemon, container if sort == "G" else name)
        vault = "names of devices" if view is None else f"{view['application']}/{view['name']}"
    if sort == "X":
        return {"key": key, "name": vault[:64], "text": f"the vault {vault}"}
    who = names.shown(called, udf)
    text = f"the device {who}" if sort == "D" else f"the right of {who} to {vault}"
    return {"key": key, "name": who, "text": text}
