"""What a peer announced and brought, until the store holds it: `Announced` keeps the account, `Intake` the items.

The idea of the intake is that work in progress gathers work: while a lot is checked, or a transaction is written,
whatever arrives waits together and is taken together next. A lone change is passed on at once, and a first sync goes by
hundreds, without a clock or a size that somebody must wait for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import trio

from meshd.daemon.helping import Helper
from meshd.daemon.verifying import Verified, combined
from meshd.errors import RemoteProtocolError
from meshd.profile.claim import Kind
from meshd.store.directory import Directory
from meshd.sync.events import PeerItem
from meshd.sync.messages import Change

QUEUE = 20_000  # announced rows that are not durable here; a peer that goes on beyond is cut off
MAX_ITEMS = 4096  # that are wanted, or here and not committed; beyond, nothing more is wanted
MAX_BYTES = 16 * 1024 * 1024
LOT = 256  # items that are checked together, at most
SIDE_BY_SIDE = 64  # a second lot is begun beside the first when so many wait
MANY = 2000  # rows that are still to come make it worth to start one
TOGETHER = 1024  # items of one transaction, or a lot more: a person's own change waits behind it


class Announced:
    """The peer's rows from the cursor on: which are wanted, which are on their way, and up to where all are durable."""

    def __init__(self, cursor: int) -> None:
        self.durable = cursor  # the peer's seq up to which the store holds everything
        self.skipped: int | None = None  # the first row that was not taken
        self.last = b""  # the version there; empty as long as it stands where it began
        self._rows: deque[tuple[int, bytes]] = deque()  # (seq, vid) in order
        self._open: set[bytes] = set()  # to be wanted, wanted, or here and not committed
        self._queue: deque[Change] = deque()  # not wanted yet

    def add(self, changes: Sequence[Change], held: Collection[bytes]) -> None:
        """Rows came; the store holds the vids `held`. RemoteProtocolError for more than a patient peer announces."""
        if len(self._rows) + len(changes) > QUEUE:
            raise RemoteProtocolError("the other device announces without waiting for acknowledgements")
        for change in changes:
            if change.vid in self._open:
                self._rows.append((change.seq, change.vid))
            elif change.vid in held or _refused_kind(change.kind):
                self._rows.append((change.seq, change.vid))  # nothing to wait for
            else:
                self._open.add(change.vid)
                self._rows.append((change.seq, change.vid))
                self._queue.append(change)

    @property
    def queued(self) -> int:
        """Rows that are not wanted yet."""
        return len(self._queue)

    @property
    def whole(self) -> bool:
        """Everything that was announced is durable, or dealt with."""
        return not self._rows

    def next(self, most: int) -> list[Change]:
        """The first rows to want, in the peer's order, in which they can be judged: profiles, containers, items."""
        return [self._queue[place] for place in range(min(most, len(self._queue)))]

    def wanted(self, count: int) -> None:
        """So many of them were wanted."""
        for _ in range(count):
            self._queue.popleft()

    def reach(self, vids: Sequence[bytes]) -> tuple[int, bytes]:
        """The peer's seq up to which the store will hold everything once these are committed, and the version there;
        0: no further."""
        coming, seq, last = set(vids), 0, b""
        for row_seq, vid in self._rows:
            if vid in self._open and vid not in coming:
                break
            seq, last = row_seq, vid
        return seq, last

    def settle(self, vids: Sequence[bytes]) -> None:
        """These are committed, or dealt with."""
        self._open.difference_update(vids)

    def skip(self, vids: Collection[bytes]) -> None:
        """These were not taken, for want of room or because no profile lists their signer: they are dealt with for now,
        and asked for again in the next conversation, for what is remembered of the peer stops before them."""
        if self.skipped is None:
            self.skipped = next((seq for seq, vid in self._rows if vid in vids), None)

    def advance(self) -> bool:
        """Move `durable` on; True if it moved."""
        before = self.durable
        while self._rows and self._rows[0][1] not in self._open:
            seq, vid = self._rows.popleft()
            if seq > self.durable:
                self.durable, self.last = seq, vid
        return self.durable > before


def _refused_kind(kind: int) -> bool:
    """Kinds that this release can't read are left where they are; odd ones will be carried once they exist."""
    return kind not in Kind._value2member_map_ or kind == Kind.RECEIPT


@dataclass(slots=True)
class _Lot:
    items: list[PeerItem]
    found: Verified | None = None
    done: trio.Event = field(default_factory=trio.Event)


class Intake:
    """Items in the order in which they came. One task calls `run`, one `next`; anybody `put`s."""

    def __init__(self, directory: Directory) -> None:
        self.items = 0  # here and not settled
        self.bytes = 0
        self._helper = Helper(directory)
        self._waiting: deque[PeerItem] = deque()
        self._lots: deque[_Lot] = deque()  # being checked, or checked and not taken
        self._checking = 0
        self._look = trio.Event()  # something may be begun
        self._begun = trio.Event()

    def put(self, item: PeerItem) -> None:
        """An item arrived."""
        self._waiting.append(item)
        self.items += 1
        self.bytes += len(item.raw)
        self._look.set()

    def expect(self, count: int) -> None:
        """So many more are announced."""
        if count >= MANY:
            self._helper.expect_much()

    @property
    def helped(self) -> bool:
        """A helper is up."""
        return self._helper.ready

    def settle(self, items: list[PeerItem]) -> None:
        """These are committed, or dealt with."""
        self.items -= len(items)
        self.bytes -= sum([len(item.raw) for item in items])

    async def run(self) -> None:
        """Check what arrives, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._helper.keep)
            while True:
                await self._look.wait()
                self._look = trio.Event()
                while self._may_begin():
                    lot = _Lot([self._waiting.popleft() for _ in range(min(LOT, len(self._waiting)))])
                    self._lots.append(lot)
                    self._begun.set()
                    self._checking += 1
                    nursery.start_soon(self._check, lot)

    def _may_begin(self) -> bool:
        waiting = len(self._waiting)
        return (waiting > 0 and self._checking == 0) or (waiting >= SIDE_BY_SIDE and self._checking == 1)

    async def _check(self, lot: _Lot) -> None:
        held = [item for item in lot.items if item.raw]
        raws, vids = [item.raw for item in held], [item.vid for item in held]
        lot.found = await self._helper.verify(raws, vids)
        self._checking -= 1
        lot.done.set()
        self._look.set()

    async def next(self) -> tuple[list[PeerItem], Verified]:
        """The oldest lot when it is checked, and what is in work behind it: larger transactions cost less."""
        while not self._lots:
            self._begun = trio.Event()
            await self._begun.wait()
        items: list[PeerItem] = []
        found: list[Verified] = []
        while self._lots and len(items) < TOGETHER:
            lot = self._lots[0]
            await lot.done.wait()
            assert lot.found is not None
            self._lots.popleft()
            items += lot.items
            found.append(lot.found)
        return items, combined(found)
