"""`recovery restore`: the mesh comes back to a new device, or a device that is in it becomes its admin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from meshd.daemon import drilling, names, restoring, searching
from meshd.daemon.handlers import recovery
from meshd.daemon.handlers.keys import FORGOTTEN, check_unsealed
from meshd.daemon.handlers.mesh import checked_name
from meshd.daemon.portals.link import Where
from meshd.daemon.portals.proving import Contradiction
from meshd.daemon.portals.roster import where_of
from meshd.daemon.searching import Found
from meshd.errors import (
    BadRequest,
    DecryptError,
    Exists,
    FormatError,
    Locked,
    MeshError,
    NetworkError,
    NotFound,
    Refused,
    RemoteProtocolError,
)
from meshd.localapi.errors import with_details
from meshd.profile import escrow, shares
from meshd.profile.shares import Share, ShareError

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call


async def given(app: App, call: Call) -> dict[str, Any]:
    """The shares that wait here for a restore."""
    there = app.recovering.restore.of(app.daemon)
    return {"given": len(there), "lacking": shares.lacking(there)}


async def give(app: App, call: Call) -> dict[str, Any]:
    """One share more, in any order and on any day; refused ones don't count. Whether it is current shows later."""
    kept = app.recovering.restore
    there = kept.of(app.daemon)
    share, refused = recovery.one_more(there, call.body["words"])
    if share is None:
        return refused
    kept.add(app.daemon, share)
    return recovery.progress([*there, share], None, "The words are right.")


async def forget(app: App, call: Call) -> dict[str, Any]:
    app.recovering.restore.forget()
    return {"given": 0}


async def restore(app: App, call: Call) -> dict[str, Any]:
    """Shares, a place to ask, and a new master passphrase. ShareError, WrongPassphrase, NotFound, TrustError,
    PossibleAttack, Exists, Locked; nothing is changed then."""
    daemon, body = app.daemon, call.body
    passphrase: str | None = body.get("passphrase")
    inside = daemon.snapshot.connected
    if inside and daemon.locked:
        raise Locked("This device is of a mesh, and locked.", hint=f"meshctl unlock; {FORGOTTEN}")
    if not inside:
        if (passphrase is None) != bool(body.get("no_passphrase")):
            raise BadRequest("either a passphrase for this device or no_passphrase is expected")
        if passphrase is None:
            check_unsealed(admin=True, force=bool(body.get("force")))
    name = checked_name(body.get("name", "device"))
    kept = app.recovering.restore
    together = _read(body["shares"]) if "shares" in body else kept.of(daemon)
    key = await app.guard.tried(
        lambda: drilling.combine(together, body.get("share_passphrase", ""), body.get("check", ""))
    )
    async with app.founding:
        if daemon.snapshot.connected != inside or any(not one.ended for one in app.joining):
            raise Exists("This device is joining a mesh.", hint="wait, or stop the other meshctl")
        found = await _found(app, body, key)
        sealed = await trio.to_thread.run_sync(
            lambda: escrow.seal_master(found.escrowed.master, body["master_passphrase"], daemon.rng, app.master_kdf)
        )
        if inside:
            done = await restoring.promote(daemon, found, sealed, name)
        else:
            done = await restoring.restore(daemon, found, passphrase, name, sealed, app.kdf, lambda: _caught_up(app))
    if done.missing:
        kept.of(daemon)  # they are needed once more, and sealed from now on
    else:
        kept.forget()
    called, proof = names.current(daemon), found.proof
    return {
        "mesh": done.mesh,
        "device": done.device,
        "name": names.shown(called, done.device),
        "missing": done.missing,
        "complete": done.complete,
        "proof": None if proof is None else {"state": proof.state, "why": proof.why[:300], "records": proof.records},
        "others": [{"id": udf, "name": names.shown(called, udf)} for udf in sorted(daemon.snapshot.siblings)],
    }


def _read(listed: list[str]) -> list[Share]:
    found = []
    for place, words in enumerate(listed):
        try:
            found.append(shares.read(words))
        except ShareError as exc:
            raise ShareError(exc.fault, f"Share {place + 1}: {exc}", misread=exc.misread, places=(place,)) from None
    return found


def _caught_up(app: App) -> bool:
    """Has a portal or a device told all that it holds?"""
    portals = app.online.portals.running.values() if app.online is not None else ()
    return app.daemon.heard_all() or any(portal.caught_up for portal in portals)


async def _found(app: App, body: dict[str, Any], key: bytes) -> Found:
    """What the places that were named give, together: one that answers is enough, unless another one lies."""
    daemon = app.daemon
    looks: list[Callable[[], Awaitable[Found]]] = []
    address = body.get("address", "")
    if "account" in body:
        where = where_of(body["account"], address, plain=body.get("plain") is True)
        looks.append(lambda: _from_portal(app, where, key, unproved=body.get("unproved") is True))
        address = ""
    if body.get("lan"):
        looks.append(lambda: _from_lan(app, key, address))
    if not looks:
        here = searching.held(daemon, key) if daemon.snapshot.connected else None
        if here is None:
            raise BadRequest(
                "Where is the mesh to be looked for?",
                hint="at a portal: --account NAME@PORTAL; on this network: --lan; or both",
            )
        return here
    found: list[Found] = []
    failures: list[MeshError] = []
    for look in looks:
        try:
            found.append(await look())
        except (NetworkError, NotFound, Refused, RemoteProtocolError) as exc:
            failures.append(exc)
            daemon.log.info("a place gave nothing to recover from: %s", exc)
    if not found:
        raise (
            failures[0]
            if len(failures) == 1
            else NotFound(" ".join(f"{str(one).rstrip('.')}." for one in failures), hint=failures[0].hint)
        )
    return searching.together(found)


async def _from_portal(app: App, where: Where, key: bytes, *, unproved: bool) -> Found:
    if app.online is None:
        raise NetworkError("This daemon talks to no portals.")
    try:
        return await searching.from_portal(app.online.portals, where, key, unproved=unproved)
    except Contradiction as exc:
        raise with_details(exc, evidence=exc.evidence) from None
    except (DecryptError, FormatError) as exc:
        raise RemoteProtocolError(
            f"What {where.account.portal} gave is not the recovery entry of these shares, or was altered: {exc}",
            hint="nothing was taken from it; look for a device or relay of yours: --lan",
        ) from None


async def _from_lan(app: App, key: bytes, address: str) -> Found:
    if app.network is None:
        raise NetworkError("This daemon uses no local network.", hint="see lan.enabled in its configuration")
    return await searching.from_lan(app.network, key, app.daemon.rng, address)
