"""Links before versions: what a removal leaves standing is asked for before it comes (docs/specs/sync.md).

When versions by somebody who was cut are announced, the peer is asked for the links of his chain, from the ends that
the cuts name backwards, and nothing is wanted until they are here. So each of his versions is judged once, when it
comes, although the end that decides it comes last.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Collection, Sequence

from meshd.daemon.context import Daemon
from meshd.store import lineage
from meshd.store.lineage import Link
from meshd.store.replica import Outcome
from meshd.sync.events import PeerTrace
from meshd.sync.messages import Change
from meshd.sync.session import Session


class Tracer:
    """The questions about chains in one conversation, ours and the peer's. Belongs to the task that reads, but for
    `answer`."""

    def __init__(self, daemon: Daemon, session: Session) -> None:
        self._daemon, self._session = daemon, session
        self._heads: tuple[bytes, ...] = ()  # the profiles under which `_asked` was asked
        self._asked: set[str] = set()
        self._todo: deque[str] = deque()
        self._signer = ""  # whose chain is being asked for
        self._missing: frozenset[bytes] = frozenset()  # what was asked for last
        self._owed: PeerTrace | None = None

    @property
    def busy(self) -> bool:
        """An answer is on its way, and what it says decides over what is announced."""
        return bool(self._signer)

    async def announced(self, changes: Sequence[Change], held: Collection[bytes]) -> None:
        """The peer announced these, and the store holds those."""
        cut = self._daemon.snapshot.cut
        if not cut or not self._session.answers_traces:
            return
        if self._heads != self._daemon.snapshot.heads:
            self._heads, self._asked = self._daemon.snapshot.heads, set()
        signers = {change.signer for change in changes if change.signer in cut and change.vid not in held} - self._asked
        self._asked |= signers
        self._todo += sorted(signers)
        if not self.busy:
            await self._ask()

    async def heard(self, told: Sequence[tuple[str, bytes]]) -> None:
        """The peer answered."""
        await self._take([Link(token, digest) for token, digest in told])
        if not self.busy:
            await self._ask()

    async def _ask(self) -> None:
        """About the next one of whose chain something is missing."""
        while self._todo and not self.busy:
            self._signer, self._missing = self._todo.popleft(), frozenset()
            await self._take([])

    async def _take(self, told: list[Link]) -> None:
        """Keep what is proven, and ask for what that leads back to, as long as the peer knows more."""
        signer, replica = self._signer, self._daemon.replica

        def take(connection: sqlite3.Connection, outcome: Outcome) -> frozenset[bytes]:
            return replica.accept_links(connection, signer, told, outcome)

        missing = await self._daemon.transact(take)
        if missing and missing != self._missing and not self._session.closed:
            self._missing = missing
            self._session.trace(signer, sorted(missing))
        else:
            self._signer = ""

    async def end(self) -> None:
        """All that the peer has is here. A version that somebody told of and that is not among it may not exist."""
        if not self.busy and lineage.waits(self._daemon.reader.connection):
            await self._daemon.transact(self._daemon.replica.end_links)

    def asked(self, event: PeerTrace) -> None:
        """The peer asks; the session lets it have one question at a time."""
        self._owed = event

    def answer(self) -> None:
        """Say what is known, if anything was asked."""
        owed, self._owed = self._owed, None
        if owed is not None and not self._session.closed:
            room = self._session.link_room
            self._session.chain(lineage.told(self._daemon.reader.connection, owed.signer, owed.vids, room))
