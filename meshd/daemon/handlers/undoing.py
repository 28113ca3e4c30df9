"""`undo`: roles, rights and names of the last 24 hours, and taking one of them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meshd.daemon import names, undo
from meshd.daemon.background import with_pen
from meshd.daemon.context import Daemon, wait
from meshd.daemon.handlers import wishes
from meshd.daemon.undo import Rights, Undoable
from meshd.errors import Ambiguous, NotFound
from meshd.profile import payload
from meshd.profile.claim import Role

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call

LEAST = 6  # characters of an id that may stand for it


async def every(app: App, call: Call) -> dict[str, Any]:
    """The newest first. Denied on a device that was removed."""
    daemon = app.daemon
    called = names.current(daemon)
    return {"undo": [_view(daemon, called, one) for one in await with_pen(daemon, undo.every)]}


async def one(app: App, call: Call) -> dict[str, Any]:
    """Take a change back, named by its id or the id's beginning. NotFound, Ambiguous; Denied, with `needs`."""
    daemon = app.daemon
    chosen = _chosen(await with_pen(daemon, undo.every), call.params["change"])
    key = await wishes.master_key(app, call.body)
    if chosen.needs_master and key is None:
        raise wishes.master_needed("Making or unmaking an admin takes the master passphrase.")
    view = _view(daemon, names.current(daemon), chosen)
    await daemon.write(lambda pen: undo.undo(pen, chosen.id, master_key=key))
    if (saved := names.refresh(daemon)) is not None:
        await wait(saved)
    about: dict[str, Any] = {name: view[name] for name in ("device", "name") if name in view}
    await daemon.event("undo", about | {"state": chosen.what})
    return {"undone": view}


def _chosen(found: list[Undoable], text: str) -> Undoable:
    exact = [one for one in found if one.id == text]
    fitting = exact or [one for one in found if len(text) >= LEAST and one.id.startswith(text)]
    if len(fitting) > 1:
        raise Ambiguous("More than one change begins like that.", hint="give more of its id: meshctl undo list --json")
    if not fitting:
        raise NotFound("There is nothing like that to take back.", hint="see: meshctl undo list")
    return fitting[0]


def _view(daemon: Daemon, called: Mapping[str, str], change: Undoable) -> dict[str, Any]:
    view: dict[str, Any] = {
        "id": change.id,
        "time": payload.write_date(change.received_ms // 1000),
        "until": payload.write_date(change.until_ms // 1000),
        "type": change.what,
        "text": _text(daemon, called, change),
        "by": "the master key" if change.by == daemon.snapshot.mesh else names.shown(called, change.by),
        "needs_master": change.needs_master,
    }
    if change.what != undo.VAULT_NAME:
        view |= {"device": change.subject, "name": names.shown(called, change.subject)}
    return view


def _text(daemon: Daemon, called: Mapping[str, str], change: Undoable) -> str:
    """What was done, in a sentence."""
    before, after = change.before, change.after
    if isinstance(before, Rights) and isinstance(after, Rights):
        name = names.shown(called, change.subject)
        if before.role is not after.role:
            return f"{name} became {after.role} (was {before.role})"
        return f"{name} has {_rights(daemon, after)} (had {_rights(daemon, before)})"
    what = "device" if change.what == undo.DEVICE_NAME else "vault"
    return f"the {what} {before} is called {after}"


def _rights(daemon: Daemon, rights: Rights) -> str:
    if rights.role is Role.ADMIN:
        return "all rights"
    views = wishes.grant_views(daemon, rights.grants.items())
    return ", ".join(wishes.grant_text(view) for view in views) or "no vault"
