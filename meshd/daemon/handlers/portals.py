"""Accounts at portals, devices that ask through them, and joining through one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshd.crypto.keys import SigningKey
from meshd.daemon import roles
from meshd.daemon.handlers import wishes
from meshd.daemon.pairing_wire import Followed
from meshd.daemon.portals import verify as verifying
from meshd.errors import BadRequest, Exists, NetworkError
from meshd.profile.claim import Role

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call
    from meshd.daemon.portals.online import Online


async def every(app: App, call: Call) -> dict[str, Any]:
    return {"portals": _online(app).portals.views()}


async def add(app: App, call: Call) -> dict[str, Any]:
    body = call.body
    plain = body.get("plain") is True
    return await _online(app).portals.add(body["account"], body.get("address", ""), body.get("invite"), plain=plain)


async def remove(app: App, call: Call) -> dict[str, Any]:
    return await _online(app).portals.remove(call.params["account"])


async def close(app: App, call: Call) -> dict[str, Any]:
    return await _online(app).portals.close(call.params["account"])


async def verify(app: App, call: Call) -> dict[str, Any]:
    portal = _online(app).portals.get(call.params["account"])
    wanted = verifying.wanted(portal, call.body.get("item")) if call.body.get("proof") is True else []
    return await verifying.verify(portal, wanted)


async def trust(app: App, call: Call) -> dict[str, Any]:
    return await verifying.trust_anew(_online(app).portals.get(call.params["account"]))


# --- devices that ask -------------------------------------------------------------------------------------------------


async def pending(app: App, call: Call) -> dict[str, Any]:
    return await _online(app).requests.pending()


async def accept(app: App, call: Call) -> dict[str, Any]:
    role, grants, master_key = await _terms(app, call)
    name: str | None = call.body.get("name")
    requests, force = _online(app).requests, call.body.get("force") is True
    return await requests.accept(call.params["device"], role, name, grants, master_key, force=force)


async def reject(app: App, call: Call) -> dict[str, Any]:
    return await _online(app).requests.reject(call.params["device"])


async def invite(app: App, call: Call) -> dict[str, object]:
    role, grants, master_key = await _terms(app, call)
    account: str | None = call.body.get("account")
    ttl = float(call.body.get("ttl", 900))
    requests, force = _online(app).requests, call.body.get("force") is True
    return (await requests.invite(account, role, ttl, grants, master_key, force=force)).to_json()


async def invitation(app: App, call: Call) -> dict[str, object]:
    found = _online(app).requests.invitation(call.params["invitation"])
    await _held(found, call)
    return found.to_json()


async def cancel_invitation(app: App, call: Call) -> dict[str, object]:
    return (await _online(app).requests.cancel(call.params["invitation"])).to_json()


async def _terms(app: App, call: Call) -> tuple[Role, dict[str, str] | None, SigningKey | None]:
    """Role, rights and, for an admin, the master key. BadRequest, NotFound, WrongPassphrase, Denied."""
    role = Role(call.body.get("role", Role.MEMBER))
    grants: list[str] | None = call.body.get("grant")
    if grants and role is not Role.MEMBER:
        raise BadRequest("Only a member's rights can be narrowed: admins read everything, relays nothing.")
    master_key = await wishes.master_key(app, call.body) if role is Role.ADMIN else None
    if role is Role.ADMIN and master_key is None:
        raise wishes.master_needed("Making an admin takes the master passphrase.")
    return role, roles.parse_grants(grants, app.daemon.unlocked()) if grants else None, master_key


# --- joining ----------------------------------------------------------------------------------------------------------


async def connect(app: App, call: Call) -> dict[str, object]:
    async with app.founding:
        if any(not one.ended for one in app.joining):
            raise Exists("This device is joining a mesh already.", hint="wait, or stop the other meshctl connect")
        begun = await _online(app).connections.create(call.body)
        app.joining[:] = [begun]
        return begun.to_json()


async def connection(app: App, call: Call) -> dict[str, object]:
    found = _online(app).connections.get(call.params["connection"])
    await _held(found, call)
    return found.to_json()


async def answer_connection(app: App, call: Call) -> dict[str, object]:
    return (await _online(app).connections.answer(call.params["connection"], call.body["accept"])).to_json()


async def cancel_connection(app: App, call: Call) -> dict[str, object]:
    return (await _online(app).connections.cancel(call.params["connection"])).to_json()


async def _held(found: Followed, call: Call) -> None:
    """Hold the answer while the state is the one that the client knows."""
    if "wait" in call.query:
        await found.past(call.query.get("state"), call.query["wait"])


def _online(app: App) -> Online:
    if app.online is None:
        raise NetworkError("This device does not take part in the network now.")
    return app.online
