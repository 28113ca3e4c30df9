"""What whoever runs a portal may do to it, while it runs or not: invitations, accounts, figures, backup, import.

A running portal does it on request of its socket (DIR/portal.sock, for its own user and root): one line of JSON there,
one back. Without a running portal the tool takes the directory's lock and does the same itself. What only reads —
`account list`, `stats`, `backup` — needs neither.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from meshd.daemon.config import Address, address
from meshd.daemon.logging import told
from meshd.daemon.portal import importing, log_admin, peers
from meshd.daemon.portal.config import Config
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.view import invite_digest
from meshd.errors import BadRequest, Exists, MeshError, NotFound, RemoteProtocolError, StoreError
from meshd.localapi.errors import error_body
from meshd.net import unix
from meshd.net.streams import STREAM_ERRORS
from meshd.portal import names
from meshd.portal.outcomes import Policy
from meshd.portal.view import CLOSED, OPEN, SUSPENDED
from meshd.store.portal_db import open_portal

MAX_LINE = 64 * 1024 * 1024
REQUEST_SECONDS = 600.0
Json = dict[str, Any]
Fetch = Callable[[Json], Awaitable[Json]]
_OF_MIRRORS = ("peer-add", "peer-remove")
_STATUS = {"suspend": SUSPENDED, "resume": OPEN, "close": CLOSED}
_log = logging.getLogger(__name__)


# --- what changes something -------------------------------------------------------------------------------------------


async def perform(sequencer: Sequencer, policy: Policy, asked: Json, fetch: Fetch | None = None) -> Json:
    """Do what is asked; MeshError says why not. `fetch` is of a portal that runs."""
    now = int(time.time())
    if sequencer.mirrors is not None and asked.get("command") not in _OF_MIRRORS:
        raise BadRequest(f"this is a mirror of {sequencer.mirrors}: that is done at the portal itself")
    match asked:
        case {"command": "invite", "seconds": int(seconds), "note": str(note)}:
            token = secrets.token_urlsafe(16)
            values = (invite_digest(token), now + seconds, note[:200])
            await sequencer.change(
                lambda connection: connection.execute("INSERT INTO invites VALUES (?, ?, ?)", values)
            )
            return {"invite": token, "expires": now + seconds}
        case {"command": "suspend" | "resume" | "close" as what, "account": str(name)}:
            account = str(names.normalise(name, policy.domain))
            await sequencer.change(lambda connection: _set_status(connection, account, _STATUS[what]))
            found = sequencer.view.account(account)
            if found is not None:
                sequencer.feeds.moved(found.mesh)  # who waits for news of it hears of this
            return {"account": account, "status": _STATUS[what]}
        case {"command": "import", "mesh": str(mesh), "accounts": str(accounts)}:
            return await importing.load(sequencer, policy, mesh, accounts, now)
        case {"command": "peer-add", "name": str(), "url": str(), "grant": str(), "keys": list()}:
            return await _changed(sequencer, asked, peers.add)
        case {"command": "peer-remove", "name": str()}:
            return await _changed(sequencer, asked, peers.remove)
        case {"command": "fetch", "source": str(), "address": str(), "plain": bool()}:
            if fetch is None:
                raise BadRequest(
                    "what is missing is known to a portal that runs", hint="start it: it asks its witnesses then"
                )
            return await fetch(asked)
        case {"command": "rotate-key" | "accept-loss" as what}:
            return await log_admin.perform(sequencer, what)
    raise BadRequest("an unknown command")


async def _changed(sequencer: Sequencer, asked: Json, work: Callable[[sqlite3.Connection, Json], Json]) -> Json:
    answer: Json = {}
    await sequencer.change(lambda connection: answer.update(work(connection, asked)))
    return answer


def _set_status(connection: sqlite3.Connection, account: str, status: str) -> None:
    row = connection.execute("SELECT status FROM accounts WHERE name = ?", (account,)).fetchone()
    if row is None:
        raise NotFound(f"there is no account {account}")
    if row[0] == CLOSED and status != CLOSED:
        raise Exists(f"{account} is closed, which is for ever")
    connection.execute("UPDATE accounts SET status = ? WHERE name = ?", (status, account))


# --- what only reads --------------------------------------------------------------------------------------------------


def accounts(store: Path) -> list[Json]:
    """All accounts and what they use."""
    with open_portal(store, readonly=True) as database:
        found = database.query(
            "SELECT a.name, m.udf, a.status, a.created, a.old, m.bytes, m.entries, m.quarantined"
            " FROM accounts a JOIN meshes m ON m.id = a.mesh ORDER BY a.name"
        )
    return [
        {
            "account": name, "mesh": mesh, "status": status, "created": created, "of_2016": bool(old), "bytes": size,
            "entries": entries, "quarantined": quarantined,
        }
        for name, mesh, status, created, old, size, entries, quarantined in found
    ]  # fmt: skip


def stats(store: Path) -> Json:
    """How much there is, and what the devices of some meshes should hear of."""
    with open_portal(store, readonly=True) as database:
        ((open_, suspended, closed),) = database.query(
            "SELECT count(*) FILTER (WHERE status = ?), count(*) FILTER (WHERE status = ?),"
            " count(*) FILTER (WHERE status = ?) FROM accounts",
            (OPEN, SUSPENDED, CLOSED),
        )
        ((size, entries, quarantined),) = database.query(
            "SELECT coalesce(sum(bytes), 0), coalesce(sum(entries), 0), coalesce(sum(quarantined), 0) FROM meshes"
        )
        ((last,),) = database.query("SELECT coalesce(max(seq), 0) FROM versions")
        added = database.query("SELECT added FROM versions WHERE seq = ?", (last,))
        ((waiting,),) = database.query("SELECT count(*) FROM pending")
        ((invites,),) = database.query("SELECT count(*) FROM invites")
        notices = database.query("SELECT time, mesh, what FROM notices ORDER BY id DESC LIMIT 20")
    return {
        "accounts": {"open": open_, "suspended": suspended, "closed": closed},
        "bytes": size,
        "entries": entries,
        "quarantined": quarantined,
        "last_place": last,
        "last_added": added[0][0] if added else None,
        "pending_connections": waiting,
        "invites": invites,
        "store_bytes": store.stat().st_size,
        "notices": [{"time": when, "mesh": mesh, "what": what} for when, mesh, what in notices],
    }


def backup(store: Path, target: Path) -> Json:
    """A whole copy of the store, taken while it is in use."""
    with open_portal(store, readonly=True) as database:
        database.backup(target)
    with open_portal(target, readonly=True) as copy:
        problems = copy.quick_check()
    if problems:
        raise StoreError(f"the copy is damaged: {problems[0]}")
    return {"backup": str(target), "bytes": target.stat().st_size}


# --- the socket -------------------------------------------------------------------------------------------------------


async def serve(
    path: Path,
    sequencer: Sequencer,
    policy: Policy,
    fetch: Fetch | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on the administrator's socket until cancelled."""
    listener = unix.listen(path, os.geteuid())
    task_status.started()

    async def talk(stream: trio.SocketStream) -> None:
        try:
            if unix.peer_credentials(stream).uid not in (0, os.geteuid()):
                return
            with trio.move_on_after(REQUEST_SECONDS):
                answer = await _answered(sequencer, policy, await _line(stream), fetch)
                await stream.send_all(json.dumps(answer).encode() + b"\n")
        except (MeshError, *STREAM_ERRORS) as exc:
            _log.info("the administrator's request was cut short: %s", told(exc))
        finally:
            await trio.aclose_forcefully(stream)

    await trio.serve_listeners(talk, [listener])


async def _answered(sequencer: Sequencer, policy: Policy, line: bytes, fetch: Fetch | None) -> Json:
    try:
        asked = json.loads(line)
        if not isinstance(asked, dict):
            raise BadRequest("a request is one object")
        return await perform(sequencer, policy, asked, fetch)
    except ValueError:
        return dict(error_body(BadRequest("not JSON")))
    except MeshError as exc:
        return dict(error_body(exc))
    except Exception:
        _log.exception("an administrator's request failed")
        return dict(error_body(MeshError("meshd made a mistake; its log says more")))


async def _line(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        piece = await stream.receive_some(1024 * 1024)
        if not piece or len(data) > MAX_LINE:
            raise RemoteProtocolError("no whole line came")
        data += piece
    return bytes(data)


async def ask_running(path: Path, asked: Json) -> Json | None:
    """What the running portal answers; None if none runs."""
    try:
        stream = await trio.open_unix_socket(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as exc:
        raise StoreError(
            f"{path} can't be opened: {exc.strerror}", hint="run this as root or as the portal's user"
        ) from exc
    async with stream:
        try:
            await stream.send_all(json.dumps(asked).encode() + b"\n")
            answer = json.loads(await _line(stream))
        except (*STREAM_ERRORS, ValueError) as exc:
            raise RemoteProtocolError("the running portal did not answer; its log says more") from exc
    return answer if isinstance(answer, dict) else {}


def metrics_address(config: Config) -> Address:
    return address(config.metrics.listen)
