"""The local API: a Unix socket on which the owner's programs ask and change things (formats.md F12).

One request is one call of one handler, found in the table of routes, which also says what must be true first and what a
body may hold. A handler takes values and returns the body of its answer, or raises a MeshError; HTTP, errors and limits
are here alone.

A client that goes away ends what it asked for, as far as that only reads or waits. What changes something runs to its
end: half of it would be a store that moved on and a memory that did not.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trio

from meshd import __version__
from meshd.crypto.sealing import DEVICE_KDF, MASTER_KDF, KdfParameters
from meshd.daemon import names
from meshd.daemon.context import Daemon
from meshd.daemon.handlers import (
    containers,
    devices,
    events,
    imports,
    items,
    items_write,
    keys,
    master,
    mesh,
    pairing,
    portals,
    quarantines,
    recovery,
    recovery2016,
    removals,
    restore,
    rights,
    state,
    undoing,
)
from meshd.daemon.locking import Guard
from meshd.daemon.portals.online import Online
from meshd.daemon.progress import Progress
from meshd.daemon.recovering import Recovering
from meshd.daemon.siblings import Sibling
from meshd.errors import Denied, Locked, MeshError, NotConnected, VersionMismatch
from meshd.localapi import API, HOST, routes
from meshd.localapi.errors import error_body
from meshd.localapi.http import decode_body, envelope, response, response_headers
from meshd.localapi.routes import CONNECTED, UNLOCKED, Match
from meshd.net import http, unix
from meshd.net.http import Request, Response
from meshd.net.lan import Network
from meshd.store.db import mapped

LARGE = 256 * 1024  # bytes of JSON that are decoded in a thread
_STRANGER = http.Limits(body=64 * 1024, request_seconds=5.0, idle_seconds=5.0)
_log = logging.getLogger(__name__)


class Resource(Protocol):
    """Something long that a client started and looks at again: an invitation, a connection."""

    @property
    def ended(self) -> bool: ...

    def to_json(self) -> dict[str, object]:
        """It, as the local API shows it."""
        ...


class Invitations(Protocol):
    """The pairing windows that are or were open here."""

    async def create(self, request: Mapping[str, Any]) -> Resource: ...
    def get(self, id: str) -> Resource: ...
    async def cancel(self, id: str) -> Resource: ...
    async def answer(self, id: str, accept: bool) -> Resource: ...
    async def wait(self, id: str, state: str | None, seconds: float) -> Resource: ...


class Connections(Protocol):
    """The attempts of this device to join a mesh."""

    async def create(self, request: Mapping[str, Any]) -> Resource: ...
    def get(self, id: str) -> Resource: ...
    async def cancel(self, id: str) -> Resource: ...
    async def wait(self, id: str, state: str | None, seconds: float) -> Resource: ...


class SiblingsView(Protocol):
    """What the API looks at of `siblings.Siblings`."""

    port: int
    connections: dict[str, Progress]
    known: dict[str, Sibling]
    lies: dict[str, tuple[int, float]]

    def addresses(self, udf: str) -> list[str]:
        """Where a device may be reached."""
        ...


@dataclass(frozen=True, slots=True)
class App:
    """What handlers work with. Without a LAN the middle three are None."""

    daemon: Daemon
    siblings: SiblingsView | None = None
    network: Network | None = None
    invitations: Invitations | None = None
    connections: Connections | None = None
    online: Online | None = None  # portals
    kdf: KdfParameters = DEVICE_KDF
    master_kdf: KdfParameters = MASTER_KDF
    guard: Guard = field(default_factory=Guard)  # over passphrases
    recovering: Recovering = field(default_factory=Recovering)  # shares that wait to count, or for a drill
    founding: trio.Lock = field(default_factory=trio.Lock)  # over the ways into a mesh: init and connect
    joining: list[Resource] = field(default_factory=list)  # connections that were begun and have not ended
    importing: trio.Lock = field(default_factory=trio.Lock)  # one import at a time: each looks first, then writes
    wiped: trio.Event = field(default_factory=trio.Event)  # the keys are gone: whoever runs the daemon starts it anew


@dataclass(frozen=True, slots=True)
class Call:
    """A checked request: path parameters, query and body, in the shapes of its route."""

    params: dict[str, str]
    query: dict[str, Any]
    body: dict[str, Any] = field(repr=False)


Handler = Callable[[App, Call], Awaitable[Mapping[str, object]]]

HANDLERS: dict[str, Handler] = {
    "version": state.version,
    "status": state.status,
    "whoami": state.whoami,
    "wait": state.wait,
    "init": mesh.init,
    "applications": mesh.applications,
    "lock": keys.lock,
    "unlock": keys.unlock,
    "passphrase": keys.passphrase,
    "phrase": keys.phrase,
    "generate": keys.generate,
    "invite": pairing.invite,
    "invitation": pairing.invitation,
    "cancel-invitation": pairing.cancel_invitation,
    "answer-invitation": pairing.answer_invitation,
    "connect": pairing.connect,
    "connection": pairing.connection,
    "cancel-connection": pairing.cancel_connection,
    "devices": devices.every,
    "device": devices.one,
    "change-device": devices.change,
    "items": items.every,
    "add-item": items_write.add,
    "lookup": items.lookup,
    "item": items.one,
    "change-item": items_write.change,
    "delete-item": items_write.delete,
    "conflicts": items.conflicts,
    "import": imports.run,
    "plan-removal": removals.plan,
    "remove": removals.remove,
    "removals": removals.every,
    "exposure": removals.exposure,
    "set-role": rights.set_role,
    "change-rights": rights.change,
    "add-vault": containers.add,
    "change-vault": containers.change,
    "delete-vault": containers.delete,
    "rotate": containers.rotate,
    "quarantine": quarantines.every,
    "quarantined": quarantines.one,
    "import-quarantine": quarantines.take_over,
    "confirm-fallen": quarantines.confirm,
    "renew": master.renew,
    "master-passphrase": master.passphrase,
    "master-file": master.file,
    "master-offline": master.offline,
    "master-online": master.online,
    "undoables": undoing.every,
    "undo": undoing.one,
    "wipe": master.wipe,
    "recovery": recovery.state,
    "prepare-recovery": recovery.prepare,
    "commit-recovery": recovery.commit,
    "revoke-recovery": recovery.revoke,
    "check-share": recovery.check,
    "drill-share": recovery.give,
    "forget-drill": recovery.forget,
    "drill": recovery.drill,
    "open-recovery-2016": recovery2016.open_shares,
    "restore": restore.restore,
    "restore-given": restore.given,
    "restore-share": restore.give,
    "forget-restore": restore.forget,
    "portals": portals.every,
    "add-portal": portals.add,
    "remove-portal": portals.remove,
    "verify-portal": portals.verify,
    "close-portal": portals.close,
    "trust-portal": portals.trust,
    "pending": portals.pending,
    "accept-pending": portals.accept,
    "reject-pending": portals.reject,
    "invite-remote": portals.invite,
    "remote-invitation": portals.invitation,
    "cancel-remote-invitation": portals.cancel_invitation,
    "connect-remote": portals.connect,
    "remote-connection": portals.connection,
    "answer-remote-connection": portals.answer_connection,
    "cancel-remote-connection": portals.cancel_connection,
}
STREAMS = {"events": events.stream}


async def serve(app: App, path: str | Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Answer on the socket `path` until cancelled; `started` when it listens. StoreBusy, Denied, BadRequest."""
    listener = unix.listen(Path(path), os.geteuid())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(events.tell_peers, app)
        nursery.start_soon(names.keep, app.daemon)
        task_status.started()
        await trio.serve_listeners(_Gate(app).take, [listener])


class _Gate:
    """Who comes in: the owner and root, and not more at once than `[limits] local_connections`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._inside = 0

    async def take(self, stream: trio.SocketStream) -> None:
        if self._inside >= self._app.daemon.config.limits.local_connections:
            await _turn_away(stream)
            return
        self._inside += 1
        try:
            await self._talk(stream)
        finally:
            self._inside -= 1

    async def _talk(self, stream: trio.SocketStream) -> None:
        try:
            peer = unix.peer_of(stream)
        except MeshError:
            await trio.aclose_forcefully(stream)
            return
        if peer.uid not in (os.geteuid(), 0):
            _log.warning("user %s was refused on the local socket", peer.uid)
            await http.serve(stream, _refuse, peer=peer, limits=_STRANGER, error_headers=_headers())
            return

        async def handle(request: Request) -> Response:
            return await answer(self._app, request)

        await http.serve(stream, handle, peer=peer, body_limit=_most, error_headers=_headers())


def _most(method: str, target: str) -> int:
    """How long the body of a request may be; NotFound, BadRequest before it is sent."""
    return routes.find(method, target).route.most


async def _turn_away(stream: trio.SocketStream) -> None:
    body = error_body(MeshError("too many programs talk to meshd at once", hint="see [limits] local_connections"))
    with trio.move_on_after(1):
        try:
            await stream.send_all(response(503, body, version=__version__))
        except trio.BrokenResourceError:
            pass
    await trio.aclose_forcefully(stream)


async def _refuse(request: Request) -> Response:
    return failure(Denied("This socket belongs to another user.", hint="run meshctl as the user that runs meshd"))


async def answer(app: App, request: Request) -> Response:
    """The answer to one request of the owner."""
    name = "?"
    try:
        check_headers(request)
        match = routes.find(request.method, request.target)
        name = match.route.name
        call = Call(match.params, match.query, await _body(match, request.body))
        check_needs(app.daemon, match.route.needs)
        if match.route.stream:
            return Response(200, headers=_headers(stream=True), stream=STREAMS[name](app, call))
        with trio.CancelScope(shield=request.method != "GET"):
            found = await HANDLERS[name](app, call)
        return _json(match.route.status, envelope(dict(found)))
    except MeshError as exc:
        return failure(exc)
    except sqlite3.Error as exc:
        _log.warning("the store failed in %s: %s", name, exc)
        return failure(mapped(exc))
    except Exception:
        # A bug ends its request, not the daemon. The client learns no detail: it might hold somebody's secret.
        _log.exception("the request %s failed", name)
        return failure(MeshError("meshd made a mistake; its log says more"))


def check_headers(request: Request) -> None:
    """What keeps web pages out, should one ever reach the socket through a proxy: Denied. VersionMismatch."""
    if [value for name, value in request.headers if name == "host"] != [HOST]:
        raise Denied(f"The Host header must be {HOST}.")
    if any(name in ("origin", "referer") for name, _ in request.headers):
        raise Denied("Web pages may not talk to meshd.")
    spoken = request.header("meshd-api")
    if spoken is not None and spoken != str(API):
        raise VersionMismatch(f"this meshd speaks API {API}", hint="update both, then: systemctl --user restart meshd")


def check_needs(daemon: Daemon, needs: str) -> None:
    """NotConnected or Locked, where a route needs more than a running daemon."""
    if needs in (CONNECTED, UNLOCKED) and not daemon.snapshot.connected:
        raise NotConnected
    if needs == UNLOCKED and daemon.locked:
        raise Locked


def failure(exc: MeshError) -> Response:
    """The answer that tells of an error."""
    return http.error_response(exc, headers=_headers())


async def _body(match: Match, data: bytes) -> dict[str, Any]:
    if len(data) > LARGE:
        decoded = await trio.to_thread.run_sync(decode_body, data)
    else:
        decoded = decode_body(data)
    body = routes.check_body(match.route, decoded)
    return {name: value for name, value in body.items() if name != "schema"}


def _json(status: int, body: dict[str, object]) -> Response:
    data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return Response(status, data, _headers())


def _headers(*, stream: bool = False) -> list[tuple[str, str]]:
    return response_headers(__version__, stream=stream)
