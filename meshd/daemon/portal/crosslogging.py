"""Which checkpoints of other logs become entries of a portal's own, and when (protocol D1.5).

Once a day for each log that has grown: portals that note one another then write one entry a day each, and no more.
"""

from __future__ import annotations

import logging
import sqlite3

from meshd.daemon.portal.log import LogBehind
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.writes import Applied, Writing
from meshd.errors import MeshError
from meshd.portal import crosslog
from meshd.store import portal_log_rows as log_rows
from meshd.store import portal_rows as rows
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.note import Note, Verifier

SECONDS = 24 * 3600  # between two entries of one log
_log = logging.getLogger(__name__)


def due(connection: sqlite3.Connection, now: int) -> list[tuple[str, bytes]]:
    """(origin, note) of each log that was cosigned here and has grown since it was noted last."""
    found = []
    for peer in log_rows.peers(connection):
        if peer.note is None or not peer.size or peer.evidence is not None:
            continue
        last = rows.head(connection, int(crosslog.KIND), crosslog.identifier(peer.origin))
        if last is not None and (last.added + SECONDS > now or _size(last.raw or b"") >= peer.size):
            continue
        try:
            keys = [Verifier.parse(key) for key in peer.log_keys]
            found.append((peer.origin, crosslog.own(Note.parse(peer.note.encode()), keys)))
        except MeshError as exc:
            _log.info("the checkpoint of %s is not noted: %s", peer.origin, exc)
    return found


async def note_others(sequencer: Sequencer, now: int) -> None:
    """Make entries of the own log of those that are due. LogBehind."""
    log = sequencer.own_log
    if log is None or not due(sequencer.view.connection, now):
        return
    if log.ahead is not None:
        raise LogBehind(log.ahead)
    await sequencer.write(lambda connection, writing: put(writing, due(connection, now), now))


async def begin_anew(sequencer: Sequencer) -> str:
    """Go on as a log of another name, whose first entry of its own is the last checkpoint of the old one: as far as a
    witness has seen that, if it is more than is here. Returns the new origin."""
    log = sequencer.own_log
    assert log is not None
    note, old = log.signed.note, log.origin
    if log.lost is not None and Checkpoint.parse(log.lost.text).size > log.signed.size:
        note = log.lost
    last = old, crosslog.own(note, log.verifiers)

    def work(connection: sqlite3.Connection, writing: Writing) -> Applied:
        log.begin_anew(connection)
        return put(writing, [last], log.now)

    await sequencer.write(work)
    return log.origin


def put(writing: Writing, found: list[tuple[str, bytes]], now: int) -> Applied:
    """An entry for each (origin, note). Within a transaction."""
    applied = Applied()
    for origin, note in found:
        writing.put_checkpoint(crosslog.identifier(origin), note, now, applied)
    return applied


def _size(note: bytes) -> int:
    return Checkpoint.parse(Note.parse(note).text).size
