"""What we wanted of a peer and how it arrives: the window, and the one item that comes in pieces.

So what a peer can make us hold is bounded here: an item that was not wanted, is longer than announced, or comes out of
order, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshd.errors import LocalProtocolError, RemoteProtocolError
from meshd.sync.events import Partial, PeerItem
from meshd.sync.messages import Item

WINDOW_ITEMS = 256  # wanted items that may be on their way
WINDOW_BYTES = 1024 * 1024  # and their bytes; one item larger than this may come alone
UNKNOWN_SIZE = WINDOW_BYTES // WINDOW_ITEMS  # reserved for an item whose size nobody announced


class Arrivals:
    """The items that are on their way to us."""

    def __init__(self) -> None:
        self._wanted: dict[bytes, int] = {}  # what we wanted → announced size; 0: nobody announced one
        self._wanted_bytes = 0
        self._resume: Partial | None = None
        self._item: Item | None = None  # the first piece that came, for its vid, kind and total
        self._pieces = bytearray()

    @property
    def outstanding(self) -> int:
        """Items that have not come yet."""
        return len(self._wanted)

    @property
    def room(self) -> int:
        """How many more items may be wanted now."""
        return WINDOW_ITEMS - len(self._wanted) if self._wanted_bytes < WINDOW_BYTES else 0

    @property
    def partial(self) -> Partial | None:
        """What has come of the item that is arriving in pieces."""
        if self._item is None:
            return None
        return Partial(self._item.vid, self._item.kind, self._item.total, bytes(self._pieces))

    def expect(self, vids: Sequence[bytes], sizes: Sequence[int], resume: Partial | None) -> tuple[list[bytes], int]:
        """Take as many of these, from the first on, as the window has room for; (those taken, bytes reserved)."""
        if resume is not None:
            if self._resume is not None or self._item is not None:
                raise LocalProtocolError("one item at a time comes in pieces")
            if vids and resume.vid != vids[0]:
                raise LocalProtocolError("what is resumed is wanted first")
        taken: list[bytes] = []
        budget = 0
        for place, vid in enumerate(vids):
            size = sizes[place] if sizes else 0
            reserved = size or UNKNOWN_SIZE
            if len(self._wanted) == WINDOW_ITEMS or (self._wanted and self._wanted_bytes + reserved > WINDOW_BYTES):
                break
            if vid in self._wanted:
                raise LocalProtocolError("a version wanted twice")
            self._wanted[vid] = size
            self._wanted_bytes += reserved
            budget += reserved
            taken.append(vid)
        if taken and resume is not None:
            self._resume = resume
        return taken, budget

    def receive(self, item: Item) -> PeerItem | None:
        """A whole item, or its last piece; None for any other piece. RemoteProtocolError."""
        announced = self._wanted.get(item.vid)
        if announced is None:
            raise RemoteProtocolError("an item that was not wanted")
        if announced and item.total > announced:
            raise RemoteProtocolError("an item that is longer than announced")
        if self._item is None and item.offset == 0 and item.total == len(item.data):
            return self._arrived(item, item.data)
        if self._item is None:
            self._item = self._first_piece(item)
        if (item.vid, item.kind, item.total, item.offset) != (
            self._item.vid,
            self._item.kind,
            self._item.total,
            len(self._pieces),
        ):
            raise RemoteProtocolError("a piece of an item out of order")
        self._pieces += item.data
        if len(self._pieces) < item.total:
            return None
        raw = bytes(self._pieces)
        self._item = None
        self._pieces.clear()
        return self._arrived(item, raw)

    def _first_piece(self, item: Item) -> Item:
        resume = self._resume
        if item.offset and resume is not None and resume.vid == item.vid:
            self._pieces += resume.data
            return Item(resume.vid, resume.kind, b"", 0, resume.total)
        return Item(item.vid, item.kind, b"", 0, item.total)

    def _arrived(self, item: Item, raw: bytes) -> PeerItem:
        self._wanted_bytes -= self._wanted.pop(item.vid) or UNKNOWN_SIZE
        if self._resume is not None and self._resume.vid == item.vid:
            self._resume = None
        return PeerItem(item.vid, item.kind, raw)
