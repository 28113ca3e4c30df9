"""Announcing what this store has to one peer, as it grows: from the peer's cursor on, and never far ahead of its acks.

What the peer itself brought is left out, but for the last row of a run: rows also say how far this store has come.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio

from meshd.daemon.context import Daemon
from meshd.daemon.progress import Progress
from meshd.errors import NetworkError
from meshd.store import versions
from meshd.sync.messages import Change
from meshd.sync.session import Session

AHEAD = 8000  # rows announced and not acknowledged, at most
PAGE = 1000  # rows that are looked up together


class Pusher:
    """One peer's change feed. `run` is a task of its own; `flush` writes out, and waits for the peer to read."""

    def __init__(
        self,
        daemon: Daemon,
        session: Session,
        progress: Progress,
        numbering: bytes,
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self.anew = False  # the peer's cursor did not hold, and it has not been told yet
        self._daemon, self._session, self._progress, self._flush = daemon, session, progress, flush
        self._numbering = numbering  # what our seqs in this conversation mean
        self._begun = trio.Event()
        self._progressed = trio.Event()
        self._said_caught_up = False
        self._echo: set[int] = set()  # seqs of what this peer brought

    def begin(self, after: int) -> None:
        """Announce what follows our seq `after`, which the peer holds; again, when it asks anew."""
        self._progress.announced = self._progress.acked = after
        self._said_caught_up = False
        self._begun.set()

    def brought(self, seqs: Iterable[int]) -> None:
        """The peer brought the versions that are these rows here."""
        self._echo.update(seqs)

    def go_on(self) -> None:
        """The peer acknowledged something."""
        self._progressed.set()
        self._progressed = trio.Event()

    def check_numbering(self) -> None:
        """NetworkError when this store turned out to be restored from a backup, in whichever conversation. What a peer
        acknowledged under the old store-id may have been other versions, so every conversation begins anew."""
        if self._daemon.store_id() != self._numbering:
            self._progress.connected = False  # at once: nobody may take the old numbers for being in step
            raise NetworkError("this store was restored from a backup; connecting anew")

    async def run(self) -> None:
        """Announce for ever."""
        await self._begun.wait()
        while True:
            seen = self._daemon.moved.count
            await self._announce()
            await self._daemon.moved.after(seen)

    async def _announce(self) -> None:
        progress = self._progress
        while True:
            while progress.announced - progress.acked > AHEAD:
                await self._progressed.wait()
            self.check_numbering()
            rows = versions.changes(self._daemon.reader.connection, self._skip_echo(), PAGE)
            caught_up = len(rows) < PAGE
            if self._session.closed:
                return
            if rows or not self._said_caught_up:
                anew, self.anew = self.anew, False
                self._session.changes([_announcement(row) for row in self._news(rows)], caught_up, anew=anew)
                self._said_caught_up = caught_up
                if rows:
                    progress.announced = rows[-1].seq
                await self._flush()
            if caught_up:
                return

    def _skip_echo(self) -> int:
        """Our seq up to which nothing needs announcing: the peer brought it. The last such row is not skipped."""
        at = self._progress.announced
        while at + 1 in self._echo and at + 2 in self._echo:
            at += 1
            self._echo.discard(at)
        return at

    def _news(self, rows: list[versions.Change]) -> list[versions.Change]:
        """Rows without those that the peer brought, the last one kept."""
        kept = [row for row in rows[:-1] if row.seq not in self._echo] + rows[-1:]
        self._echo.difference_update([row.seq for row in rows])
        return kept


def _announcement(row: versions.Change) -> Change:
    return Change(row.seq, row.kind, row.identifier, row.vid, row.gen, row.updated, row.size, row.signer)
