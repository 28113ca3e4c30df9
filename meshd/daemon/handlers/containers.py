"""`vaults` and `rotations`: making, naming and deleting vaults, and new keys for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshd.daemon import rotation, vault_admin
from meshd.daemon.context import Daemon
from meshd.daemon.handlers import wishes
from meshd.daemon.handlers.mesh import vault_list
from meshd.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call


async def add(app: App, call: Call) -> dict[str, Any]:
    """A new vault, empty. Denied, Exists, BadRequest."""
    daemon, body = app.daemon, call.body
    identifier = await daemon.write(lambda pen: vault_admin.create(pen, body["application"], body["name"]))
    return await _told(daemon, identifier, "created")


async def change(app: App, call: Call) -> dict[str, Any]:
    """Another name; or the deletion taken back. Denied, Exists, NotFound, BadRequest."""
    daemon, body = app.daemon, call.body
    name: str | None = body.get("name")
    if body.get("deleted"):
        raise BadRequest("To delete a vault, DELETE it.")
    if name is None and "deleted" not in body:
        raise BadRequest("there is nothing to change: name, or deleted false, is expected")
    identifier = _named(daemon, call, deleted="deleted" in body)
    if "deleted" in body:
        await daemon.write(lambda pen: vault_admin.restore(pen, identifier))
    if name is not None:
        await daemon.write(lambda pen: vault_admin.rename(pen, identifier, name))
    return await _told(daemon, identifier, "renamed" if name is not None else "restored")


async def delete(app: App, call: Call) -> dict[str, Any]:
    """Hide a vault and its items everywhere; nothing is lost. Denied, NotFound."""
    daemon = app.daemon
    identifier = _named(daemon, call)
    await daemon.write(lambda pen: vault_admin.delete(pen, identifier))
    return await _told(daemon, identifier, "deleted")


async def rotate(app: App, call: Call) -> dict[str, Any]:
    """New keys for one vault, or for all that this device opens. Denied, NotFound."""
    daemon, wish = app.daemon, call.body.get("vault")
    container = wishes.vault(daemon.unlocked(), wish).application.identifier if wish is not None else None
    rotated = await daemon.write(lambda pen: rotation.rotate(pen, container))
    views = wishes.vault_views(daemon, rotated)
    await daemon.event("rotation", {"count": len(views)})
    return {"rotated": views}


def _named(daemon: Daemon, call: Call, *, deleted: bool = False) -> str:
    opened = wishes.vault(daemon.unlocked(), call.params["vault"], deleted=deleted)
    return opened.application.identifier


async def _told(daemon: Daemon, identifier: str, state: str) -> dict[str, Any]:
    """Record what became of a vault; the vault as lists show it."""
    found = [view for view in await vault_list(daemon, deleted=True) if view["id"] == identifier]
    if not found:
        raise NotFound("That vault is gone.")  # taken away by somebody in this very moment
    await daemon.event("vault", {"vault": identifier, "name": found[0]["name"], "state": state})
    return found[0]
