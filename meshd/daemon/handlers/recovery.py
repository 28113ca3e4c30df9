"""`recovery`: shares that bring the mesh back when every device is lost; making, checking, rehearsing, replacing them.

What holds the words of a share lives for one request, or in memory, sealed on a device of a mesh; nothing logs one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshd.crypto.keys import SigningKey
from meshd.daemon import authoring, drilling, recovering
from meshd.daemon.background import with_pen
from meshd.daemon.context import Daemon
from meshd.daemon.handlers import wishes
from meshd.daemon.portals import proving
from meshd.daemon.recovering import Wish
from meshd.daemon.recovery_state import due, group_views, report, to_ask
from meshd.errors import BadRequest, MeshError
from meshd.profile import payload, shares
from meshd.profile.apps.recovery_note import Drill, Noted
from meshd.profile.shares import Group, Scheme, Share, ShareError
from meshd.profile.words import Misread

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call
    from meshd.daemon.portals.state import Portal


async def state(app: App, call: Call) -> dict[str, Any]:
    """What the mesh can be recovered from, and where it is."""
    found = await report(app)
    return found | {"drill_given": len(app.recovering.drill.of(app.daemon)), "due": due(app.daemon)}


# --- making -----------------------------------------------------------------------------------------------------------


async def prepare(app: App, call: Call) -> dict[str, Any]:
    """New shares, told once. Denied, WrongPassphrase, Exists, NotFound, BadRequest."""
    body = call.body
    key = await _master(app, body)
    running = _portals(app)
    believed = [pin for portal in running if (pin := portal.watch.pin) is not None and not pin.frozen]
    scheme, labels = await _split(app.daemon, body)
    wish = Wish(
        scheme,
        labels,
        body.get("strength", 256),
        body.get("share_passphrase", ""),
        bool(body.get("replace")),
        tuple(portal.name for portal in running),
        tuple(dict.fromkeys(portal.account.portal for portal in running)),
        *proving.to_remember(believed),
    )
    prepared, made, check = await recovering.prepare(app.daemon, key, wish)
    app.recovering.keep(prepared)
    return {
        "token": prepared.token,
        "set": prepared.noted.set_name,
        "check": check,
        "made": prepared.noted.made,
        "group_threshold": scheme.threshold,
        "groups": group_views(scheme),
        "shares": [
            {
                "number": number,
                "label": noted.label,
                "words": share.mnemonic,
                "group": share.group + 1,
                "index": share.index + 1,
            }
            for number, (share, noted) in enumerate(zip(made, prepared.noted.shares, strict=True), 1)
        ],
    }


async def commit(app: App, call: Call) -> dict[str, Any]:
    """The shares that were told count. NotFound where they don't wait any more; Denied, WrongPassphrase."""
    daemon = app.daemon
    key = await _master(app, call.body)
    prepared = app.recovering.take(daemon, call.body["token"])
    rotated = await daemon.write(lambda pen: recovering.commit(pen, key, prepared))
    await daemon.event("recovery", {"state": "refreshed" if prepared.replaces else "created"})
    return {
        "set": prepared.noted.set_name,
        "entry": prepared.entry.identifier,
        "rotated": wishes.vault_views(daemon, rotated),
    }


async def revoke(app: App, call: Call) -> dict[str, Any]:
    """No shares count any more. NotFound where there are none; Denied, WrongPassphrase."""
    key = await _master(app, call.body)
    rotated = await app.daemon.write(lambda pen: recovering.revoke(pen, key))
    await app.daemon.event("recovery", {"state": "revoked"})
    return {"revoked": True, "rotated": wishes.vault_views(app.daemon, rotated)}


async def _master(app: App, body: dict[str, Any]) -> SigningKey:
    key = await wishes.master_key(app, body)
    if key is None:
        raise wishes.master_needed("What recovery shares are for needs the master passphrase.")
    return key


async def _split(daemon: Daemon, body: dict[str, Any]) -> tuple[Scheme, tuple[str, ...]]:
    """How shares are to be split, and their labels. Those that replace others are split as these, unless it is said."""
    labels = tuple(body.get("labels", ()))
    if body.get("replace") and not body.keys() & {"threshold", "shares", "groups", "group_threshold"}:
        noted, entries = await _current(daemon) or ([], frozenset())
        for one in noted:
            if one.entry in entries:
                return one.scheme, labels or tuple(share.label for share in one.shares)
    return _scheme(body), labels


def _scheme(body: dict[str, Any]) -> Scheme:
    listed = body.get("groups")
    if listed is None:
        if "group_threshold" in body:
            raise BadRequest("How many groups are needed can be said where there are groups.")
        return Scheme.simple(body.get("threshold", 3), body.get("shares", 5))
    if "threshold" in body or "shares" in body:
        raise BadRequest("Either groups, or how many shares there are.")
    groups = tuple(Group(row["threshold"], row["shares"], row.get("name", "")) for row in listed)
    return Scheme(groups, body.get("group_threshold", len(groups)))


# --- one share --------------------------------------------------------------------------------------------------------


async def check(app: App, call: Call) -> dict[str, Any]:
    """Is it a share, and does it count? Says as much as this device can tell."""
    try:
        share = shares.read(call.body["words"])
    except ShareError as exc:
        return {"ok": False, "current": None, "share": None, **_fault(exc.fault, str(exc), exc.misread)}
    seen: dict[str, Any] = {
        "set": share.set_name,
        "group": share.group + 1,
        "groups": share.groups,
        "index": share.index + 1,
        "threshold": share.threshold,
    }
    current, fault, message, more = _judge(app.daemon, share, await _current(app.daemon))
    ok = current is not False
    return {"ok": ok, "current": current, "share": seen | more, **_fault(fault, message)}


async def _current(daemon: Daemon) -> tuple[list[Noted], frozenset[str]] | None:
    """The sets that were noted, and the entries that count; None where this device can't tell."""
    if not daemon.snapshot.connected or daemon.keyring is None:
        return None
    try:
        entries = await with_pen(daemon, authoring.recovery_entries)
    except MeshError:
        return None
    return recovering.noted(daemon.reader.connection, daemon.keyring), frozenset(entries)


def _judge(
    daemon: Daemon, share: Share, known: tuple[list[Noted], frozenset[str]] | None
) -> tuple[bool | None, str | None, str, dict[str, Any]]:
    """(current, fault, message, more about the share)."""
    if known is None or not known[0]:
        if not daemon.snapshot.connected:
            why = "this device is in no mesh"
        elif daemon.keyring is None:
            why = "this device is locked"
        else:
            why = "this device knows of no shares of its mesh"
        return None, None, f"The words are right. Whether it is current can't be told: {why}.", {}
    noted, entries = known
    for one in noted:
        found = one.find(share)
        if found is None:
            continue
        number = one.shares.index(found) + 1
        more = {"label": found.label, "number": number, "shares": len(one.shares), "made": one.made}
        if one.entry in entries:
            return True, None, f"Share {number} of {len(one.shares)} of this mesh ({found.label}), current.", more
        why = f"Share {number} of an older set, which was replaced: it counts no more. Throw it away."
        return False, "stale", why, more
    if any(one.set_name == share.set_name for one in noted):
        return False, "altered", "It says that it is of a set of this mesh, but it is no share that was made.", {}
    return False, "unknown", "The words are right, but it is no share of this mesh.", {}


def _fault(fault: str | None, message: str, misread: tuple[Misread, ...] = ()) -> dict[str, Any]:
    listed = [{"place": one.place, "likely": list(one.likely[:8])} for one in misread]
    return {"fault": fault, "message": message, "misread": listed}


# --- the drill --------------------------------------------------------------------------------------------------------


async def give(app: App, call: Call) -> dict[str, Any]:
    """One share more for a drill, in any order; refused ones don't count."""
    daemon, kept = app.daemon, app.recovering.drill
    given = kept.of(daemon)
    share, refused = one_more(given, call.body["words"])
    if share is None:
        return refused
    current, fault, message, _ = _judge(daemon, share, await _current(daemon))
    if current is False:
        return progress(given, fault, message)
    kept.add(daemon, share)
    return progress([*given, share], None, message)


def one_more(given: list[Share], words: str) -> tuple[Share | None, dict[str, Any]]:
    """The share, where it can be one more of these; else what speaks against it."""
    try:
        share = shares.read(words)
    except ShareError as exc:
        return None, progress(given, exc.fault, str(exc), exc.misread)
    if any(one.mnemonic == share.mnemonic for one in given):
        return None, progress(given, "duplicate", "This share was given already.")
    if given and given[0].common != share.common:
        return None, progress(given, "other-set", "This share is of another set than those before.")
    if len(given) >= shares.MAX_GIVEN:
        raise BadRequest("These are more shares than any set has.")
    return share, {}


def progress(given: list[Share], fault: str | None, message: str, misread: tuple[Misread, ...] = ()) -> dict[str, Any]:
    """How far it has come, and what is said of the share that was given last."""
    told = {"given": len(given), "lacking": shares.lacking(given), "ok": fault is None}
    return told | _fault(fault, message, misread)


async def forget(app: App, call: Call) -> dict[str, Any]:
    app.recovering.drill.forget()
    return {"given": 0}


async def drill(app: App, call: Call) -> dict[str, Any]:
    """Rehearse. ShareError, WrongPassphrase; NotFound where the shares are not this mesh's, or not current."""
    daemon, body = app.daemon, call.body
    given = app.recovering.drill.of(daemon)
    key = await app.guard.tried(
        lambda: drilling.combine(given, body.get("share_passphrase", ""), body.get("check", ""))
    )
    found = await drilling.drill(daemon, key, _portals(app), to_ask(app, await report(app)), app.network)
    app.recovering.drill.forget()
    sources = tuple((source.where, source.what) for source in found.sources)
    done = Drill(payload.write_date(daemon.now_ms() // 1000), daemon.snapshot.own, found.success, sources)
    await with_pen(daemon, lambda pen: recovering.record(pen, found.entry, done))
    await daemon.event("recovery", {"state": "drilled", "success": found.success})
    return {
        "success": found.success,
        "entry": found.entry,
        "keys_fit": found.keys_fit,
        "why": found.why,
        "sources": [{"kind": one.kind, "where": one.where, "what": one.what, "why": one.why} for one in found.sources],
        "vaults": [
            {"id": one.id, "application": one.application, "opens": one.opens, "keys": one.keys, "why": one.why}
            for one in found.vaults
        ],
    }


def _portals(app: App) -> list[Portal]:
    return [] if app.online is None else sorted(app.online.portals.running.values(), key=lambda portal: portal.name)
