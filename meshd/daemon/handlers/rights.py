"""`role` and `rights` of devices: who is an admin, and which vaults a member reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshd.daemon import names, roles
from meshd.daemon.context import Daemon
from meshd.daemon.handlers import wishes
from meshd.daemon.pen import Pen
from meshd.daemon.roles import Changed
from meshd.errors import BadRequest
from meshd.profile.claim import ALL, Role

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call


async def set_role(app: App, call: Call) -> dict[str, Any]:
    """Denied, with `needs` where it is the master passphrase; Refused for the last admin; BadRequest, NotFound."""
    daemon, body = app.daemon, call.body
    udf = await names.resolve(daemon, call.params["device"])
    role = Role(body["role"])
    if body.get("grant") and role is not Role.MEMBER:
        raise BadRequest("Only a member's rights can be narrowed: admins read everything, relays nothing.")
    grants = _parsed(daemon, body["grant"]) if body.get("grant") else None
    key = await wishes.master_key(app, body)
    if key is None and await daemon.write(lambda pen: roles.needs_master(pen, udf, role)):
        raise wishes.master_needed("Making or unmaking an admin takes the master passphrase.")
    changed = await daemon.write(
        lambda pen: roles.set_role(
            pen, udf, role, master_key=key, grants=grants, leave_no_admin=bool(body.get("leave_no_admin"))
        )
    )
    return rights(daemon, changed)


async def change(app: App, call: Call) -> dict[str, Any]:
    """Grant, revoke, or both, in one step. Denied, BadRequest, NotFound."""
    daemon, body = app.daemon, call.body
    udf = await names.resolve(daemon, call.params["device"])
    if not body.get("grant") and not body.get("revoke"):
        raise BadRequest("there is nothing to change: grant or revoke is expected")
    granted = _parsed(daemon, body.get("grant", ()))
    revoked = [container for text in body.get("revoke", ()) for container in _containers(daemon, text)]
    keep_read = bool(body.get("keep_read"))
    key = await wishes.master_key(app, body)

    def write(pen: Pen) -> Changed:
        found: list[Changed] = []
        if revoked:
            found.append(roles.revoke(pen, udf, revoked, keep_read=keep_read, master_key=key))
        if granted:
            found.append(roles.grant(pen, udf, granted, master_key=key))
        rotated = tuple(dict.fromkeys(vault for one in found for vault in one.rotated))
        return Changed(found[-1].device, found[-1].role, found[-1].grants, rotated)

    return rights(daemon, await daemon.write(write))


def rights(daemon: Daemon, changed: Changed) -> dict[str, Any]:
    """What a device may do now, and which vaults got new keys for that."""
    return {
        **wishes.called(daemon, changed.device),
        "role": str(changed.role),
        "grants": wishes.grant_views(daemon, changed.grants.items()),
        "rotated": wishes.vault_views(daemon, changed.rotated),
    }


def _parsed(daemon: Daemon, texts: list[str] | tuple[()]) -> dict[str, str]:
    return roles.parse_grants(texts, daemon.unlocked())


def _containers(daemon: Daemon, text: str) -> list[str]:
    """The vaults that are to be revoked; a right that a person names beside it is a slip."""
    if text.endswith((":read", ":write")):
        raise BadRequest("To revoke, name the vault alone.", hint="to leave reading: --keep-read")
    return [ALL] if text == ALL else roles.find_vaults(text, daemon.unlocked())
