"""Two cores and the wire between them: it carries bytes whole, in small pieces, or cut off, and keeps what passed.

wire = Pair(joiner, host)
wire.carry(joiner, host, chunk=1)      one way; returns the events that it made at the other end
wire.settle()                          both ways until nobody has anything more to say
"""

from __future__ import annotations

from typing import Any, Protocol


class Core(Protocol):
    """What every core of meshd offers."""

    def receive_data(self, data: bytes) -> None: ...
    def next_event(self) -> Any | None: ...
    def data_to_send(self) -> bytes: ...


class Pair:
    """A wire. `sent` holds everything that was carried, as (source, bytes), before it was cut into pieces."""

    def __init__(self, left: Core, right: Core) -> None:
        self.left = left
        self.right = right
        self.sent: list[tuple[Core, bytes]] = []

    def carry(self, source: Core, target: Core, *, chunk: int | None = None, cut: int | None = None) -> list[Any]:
        """Move what `source` has to send; return the events at `target`, read after each piece.

        `chunk` is the size of the pieces (None: whole); after `cut` bytes the wire breaks: the end of file follows.
        """
        data = source.data_to_send()
        if data:
            self.sent.append((source, data))
        if cut is not None:
            data = data[:cut]
        events: list[Any] = []
        step = chunk or max(1, len(data))
        for at in range(0, len(data), step):
            target.receive_data(data[at : at + step])
            events += drain(target)
        if cut is not None:
            target.receive_data(b"")
            events += drain(target)
        return events

    def settle(self, *, chunk: int | None = None) -> tuple[list[Any], list[Any]]:
        """Carry both ways until it is quiet; return the events at left and at right."""
        left: list[Any] = []
        right: list[Any] = []
        while True:
            before = len(self.sent)
            right += self.carry(self.left, self.right, chunk=chunk)
            left += self.carry(self.right, self.left, chunk=chunk)
            if len(self.sent) == before:
                return left, right

    def hang_up(self, target: Core) -> list[Any]:
        """The other side closes: `target` sees the end of file."""
        target.receive_data(b"")
        return drain(target)


def drain(core: Core) -> list[Any]:
    """All events that are ready."""
    events = []
    while (event := core.next_event()) is not None:
        events.append(event)
    return events


def frames(data: bytes) -> list[bytes]:
    """The bodies of whole length-prefixed frames (u32 big-endian)."""
    bodies = []
    while data:
        length = int.from_bytes(data[:4], "big")
        assert len(data) >= 4 + length, "a frame that is not whole"
        bodies.append(data[4 : 4 + length])
        data = data[4 + length :]
    return bodies
