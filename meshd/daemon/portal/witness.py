"""This portal as a witness of other logs: /.well-known/mmm-witness/ exactly as c2sp.org/tlog-witness has it.

A checkpoint is judged, stored and only then cosigned, in one transaction: of two that come at once the slower never
takes the log back. A log that signed two histories is cosigned no more, and both notes are kept.
"""

from __future__ import annotations

import json
import logging
import sqlite3

from meshd.daemon.portal.http import Request, Response
from meshd.daemon.portal.log import Log
from meshd.daemon.portal.sequencer import Sequencer
from meshd.errors import FormatError
from meshd.store import portal_log_rows as log_rows
from meshd.tlog import cosignature, witness
from meshd.tlog.note import Note, Verifier

PREFIX = "/.well-known/mmm-witness/"
ADD = PREFIX + "add-checkpoint"
_GONE_WRONG = witness.Outcome(403, reason="this log has contradicted itself, and is cosigned no more")
_log = logging.getLogger(__name__)


async def answer(sequencer: Sequencer, request: Request) -> Response:
    """What a request below PREFIX is answered."""
    log = sequencer.own_log
    if log is None:
        return _said(404, "no witness is here")
    if request.target == ADD:
        if request.method != "POST":
            return Response(405, b"checkpoints are brought by POST\n", headers=(("Allow", "POST"),))
        return await _add(sequencer, log, request.body)
    if request.method not in ("GET", "HEAD"):
        return Response(405, b"checkpoints are read by GET\n", headers=(("Allow", "GET"),))
    name, _, rest = request.target.removeprefix(PREFIX).partition("/")
    note = _newest(sequencer.view.connection, log, name) if rest == "checkpoint" else None
    return _said(404, "no such log") if note is None else Response(200, note.encode())


def _newest(connection: sqlite3.Connection, log: Log, name: str) -> str | None:
    """The newest checkpoint that we cosigned, of the log whose origin has this hash; our own is one of them."""
    if name == witness.origin_hash(log.origin):
        return log.signed.note.encode().decode()
    return next((one.note for one in log_rows.peers(connection) if witness.origin_hash(one.origin) == name), None)


async def _add(sequencer: Sequencer, log: Log, body: bytes) -> Response:
    try:
        asked = witness.Request.parse(body)
    except FormatError as exc:
        return _said(400, str(exc))
    outcome, _ = _judge(sequencer.view.connection, asked)
    if outcome.status != 200 and outcome.evidence is None:  # strangers cause no writes
        return _shown(outcome)
    line = b""

    def work(connection: sqlite3.Connection) -> None:
        nonlocal outcome, line
        outcome, before = _judge(connection, asked)
        if outcome.evidence is not None:
            notes = [one.encode().decode() for one in (outcome.evidence.first, outcome.evidence.second)]
            log_rows.equivocated(connection, asked.origin, json.dumps(notes))
        if outcome.status == 200 and outcome.seen is not None:
            now, seen = log.now, outcome.seen
            line = cosignature.make(seen.note.text, log.witness, now).line.encode()
            note = cosignature.add(seen.note, log.witness, now).encode().decode()
            log_rows.saw(connection, asked.origin, seen.size, seen.root, note, now)
            if 0 < before < seen.size:
                log_rows.put_proof(connection, asked.origin, before, seen.size, asked.proof)

    await sequencer.change(work)
    if outcome.evidence is not None:
        _log.error("the log %s has signed two histories; it is cosigned no more", asked.origin)
    return Response(200, line) if line else _shown(outcome)


def _judge(connection: sqlite3.Connection, asked: witness.Request) -> tuple[witness.Outcome, int]:
    """What to do, and the size that was cosigned last."""
    peer = log_rows.peer(connection, asked.origin)
    if peer is None:
        return witness.decide((), None, asked), 0
    if peer.evidence is not None:
        return _GONE_WRONG, peer.size
    seen = None
    if peer.note is not None and peer.root is not None:
        seen = witness.Seen(peer.size, peer.root, Note.parse(peer.note.encode()))
    return witness.decide([Verifier.parse(key) for key in peer.log_keys], seen, asked), peer.size


def _shown(outcome: witness.Outcome) -> Response:
    if outcome.size is not None:
        return Response(outcome.status, outcome.body, witness.SIZE_TYPE)
    return _said(outcome.status, outcome.reason)


def _said(status: int, why: str) -> Response:
    return Response(status, f"{why}\n".encode())
