"""Invitations and connections: resources that go on by themselves and are looked at, waited for and given up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshd.errors import NetworkError

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call, Connections, Invitations


async def invite(app: App, call: Call) -> dict[str, Any]:
    return (await _invitations(app).create(call.body)).view()


async def invitation(app: App, call: Call) -> dict[str, Any]:
    invitations, name = _invitations(app), call.params["invitation"]
    if "wait" in call.query:
        return (await invitations.wait(name, _known_state(call), call.query["wait"])).view()
    return invitations.get(name).view()


async def cancel_invitation(app: App, call: Call) -> dict[str, Any]:
    return (await _invitations(app).cancel(call.params["invitation"])).view()


async def answer_invitation(app: App, call: Call) -> dict[str, Any]:
    return (await _invitations(app).answer(call.params["invitation"], call.body["accept"])).view()


async def connect(app: App, call: Call) -> dict[str, Any]:
    return (await _connections(app).create(call.body)).view()


async def connection(app: App, call: Call) -> dict[str, Any]:
    connections, name = _connections(app), call.params["connection"]
    if "wait" in call.query:
        return (await connections.wait(name, _known_state(call), call.query["wait"])).view()
    return connections.get(name).view()


async def cancel_connection(app: App, call: Call) -> dict[str, Any]:
    return (await _connections(app).cancel(call.params["connection"])).view()


def _known_state(call: Call) -> str:
    """The state that the client knows; none: any state is news."""
    state: str = call.query.get("state", "")
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
