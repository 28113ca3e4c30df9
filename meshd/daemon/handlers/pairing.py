"""Invitations and connections: resources that go on by themselves and are looked at, waited for and given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshd.errors import Exists, NetworkError

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call, Connections, Invitations


async def invite(app: App, call: Call) -> dict[str, object]:
    return (await _invitations(app).create(call.body)).to_json()


async def invitation(app: App, call: Call) -> dict[str, object]:
    invitations, name = _invitations(app), call.params["invitation"]
    if "wait" in call.query:
        return (await invitations.wait(name, _known_state(call), call.query["wait"])).to_json()
    return invitations.get(name).to_json()


async def cancel_invitation(app: App, call: Call) -> dict[str, object]:
    return (await _invitations(app).cancel(call.params["invitation"])).to_json()


async def answer_invitation(app: App, call: Call) -> dict[str, object]:
    return (await _invitations(app).answer(call.params["invitation"], call.body["accept"])).to_json()


async def connect(app: App, call: Call) -> dict[str, object]:
    async with app.founding:
        if any(not one.ended for one in app.joining):
            raise Exists("This device is joining a mesh already.", hint="wait, or stop the other meshctl connect")
        begun = await _connections(app).create(call.body)
        app.joining[:] = [one for one in app.joining if not one.ended] + [begun]
        return begun.to_json()


async def connection(app: App, call: Call) -> dict[str, object]:
    connections, name = _connections(app), call.params["connection"]
    if "wait" in call.query:
        return (await connections.wait(name, _known_state(call), call.query["wait"])).to_json()
    return connections.get(name).to_json()


async def cancel_connection(app: App, call: Call) -> dict[str, object]:
    return (await _connections(app).cancel(call.params["connection"])).to_json()


def _known_state(call: Call) -> str | None:
    """The state that the client knows; None: any state is news."""
    state: str | None = call.query.get("state")
    return state


def _invitations(app: App) -> Invitations:
    if app.invitations is None:
        raise _no_lan()
    return app.invitations


def _connections(app: App) -> Connections:
    if app.connections is None:
        raise _no_lan()
    return app.connections


def _no_lan() -> NetworkError:
    return NetworkError("This device is set to keep off the LAN.", hint="see [lan] enabled in meshd.toml, and --no-lan")
