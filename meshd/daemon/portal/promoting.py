"""`meshd portal admin promote`: a mirror becomes the portal, where that one is lost.

It goes on from everything that it holds, as a log of another name and key, for it never could sign as the old one. The
first entry of its own is the old log's last checkpoint. What a log does not say, which accounts there are, comes from a
list that `account list --json` of the old portal made; without one, administrators' devices open their accounts anew.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from meshd.daemon.portal import mirrored
from meshd.daemon.portal.crosslogging import put
from meshd.daemon.portal.log import next_origin, set_origin
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.writes import Applied, Writing
from meshd.errors import BadRequest, FormatError
from meshd.portal import crosslog, names
from meshd.portal.view import CLOSED, OPEN, SUSPENDED
from meshd.store import portal_log_rows as log_rows
from meshd.store import portal_rows as rows
from meshd.store.files import read_file
from meshd.tlog.note import Note, Verifier

MAX_FILE = 256 * 1024 * 1024
Json = dict[str, Any]


async def promote(store: Path, accounts: Path | None) -> Json:
    """Make the mirror's store a portal's. The caller holds the directory's lock. BadRequest: it is no mirror, or holds
    nothing yet; FormatError for a list that is none."""
    sequencer = Sequencer(store, create=False)
    try:
        origin = sequencer.mirrors
        peer = log_rows.peer(sequencer.view.connection, origin) if origin is not None else None
        if origin is None:
            raise BadRequest(f"{store.parent} is no mirror")
        if peer is None or peer.note is None:
            raise BadRequest(f"nothing of {origin} is here")
        domain = origin.partition("/")[0]
        listed = _read(accounts, domain) if accounts is not None else []
        note = crosslog.own(Note.parse(peer.note.encode()), [Verifier.parse(key) for key in peer.log_keys])
        now = max(peer.seen, rows.last_added(sequencer.view.connection))

        def work(connection: sqlite3.Connection, writing: Writing) -> Applied:
            mirrored.forget(connection)
            set_origin(connection, next_origin(origin))
            for name, mesh, created, status, old in listed:
                connection.execute(
                    "INSERT INTO accounts (name, mesh, created, status, old, compat) VALUES (?, ?, ?, ?, ?, ?)",
                    (name, rows.make_mesh(connection, mesh), created, status, int(old), int(old)),
                )
            return put(writing, [(origin, note)], now)

        await sequencer.write(work)
        return {
            "domain": domain, "origin": next_origin(origin), "entries": sequencer.edge.size, "accounts": len(listed),
            "missing": max(peer.size + 1 - sequencer.edge.size, 0),
        }  # fmt: skip
    finally:
        sequencer.close()


def words(answer: Json) -> str:
    """The same for people."""
    lines = [f"This is the portal of {answer['domain']} now, and its log is {answer['origin']}: start meshd portal."]
    if answer["missing"]:
        lines.append(
            f"{answer['missing']} entries that the old log had signed are not here; devices bring what they have."
        )
    if not answer["accounts"]:
        lines.append("There are no accounts: administrators' devices open theirs anew.")
    return "\n".join(lines)


def _read(file: Path, domain: str) -> list[tuple[str, str, int, str, bool]]:
    """(name, mesh, created, status, is it of 2016) of what `account list --json` wrote."""
    found = []
    try:
        for one in json.loads(read_file(file, MAX_FILE))["accounts"]:
            name = names.normalise(str(one["account"]), domain)
            if name.portal != domain or one["status"] not in (OPEN, SUSPENDED, CLOSED):
                raise FormatError(f"{name} is no account of {domain}")
            found.append((str(name), str(one["mesh"]), int(one["created"]), str(one["status"]), bool(one["of_2016"])))
    except (ValueError, KeyError, TypeError) as exc:
        raise FormatError(f"{file} is not what `account list --json` writes") from exc
    return found
