"""Two sync sessions and the wire between them: whole, in small pieces, or cut off."""

from __future__ import annotations

from meshd.sync.events import Event, PeerFeed, PeerHello
from meshd.sync.messages import Change, HelloInfo
from meshd.sync.session import Session

LAPTOP = "MCHU3-LAPTO-PAAAA-BBBBB-CCCCC-DDDDD-EEEEE-FFFFF"
DESKTOP = "MDXC2-DESKT-OPAAA-BBBBB-CCCCC-DDDDD-EEEEE-FFFFF"
LAPTOP_STORE, DESKTOP_STORE = b"laptop00", b"desktop0"


def hello(udf: str = LAPTOP, store_id: bytes = LAPTOP_STORE, **more: object) -> HelloInfo:
    stated = {"features": (1, 3), "run": b"this run", **more}
    return HelloInfo(store_id, udf, clock_ms=1_790_000_000_000, heads=(vid("profile"),), **stated)  # type: ignore[arg-type]


def vid(name: object) -> bytes:
    return str(name).encode().ljust(32, b".")


def change(seq: int, name: object = None, *, size: int = 1000, kind: int = 8) -> Change:
    name = seq if name is None else name
    return Change(seq, kind, f"{LAPTOP}/{name}", vid(name), 1, 1_790_000_000, size, LAPTOP)


def drain(session: Session) -> list[Event]:
    events: list[Event] = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


class Pair:
    """`laptop` has dialled `desktop`. `carry` moves what one side has to send and returns what the other then says."""

    def __init__(
        self, *, chunk: int = 1 << 20, laptop: HelloInfo | None = None, desktop: HelloInfo | None = None
    ) -> None:
        self.chunk = chunk
        self.laptop = Session(laptop or hello(), outgoing=True)
        self.desktop = Session(desktop or hello(DESKTOP, DESKTOP_STORE), outgoing=False)

    def carry(self, source: Session, target: Session) -> list[Event]:
        data = source.data_to_send()
        events: list[Event] = []
        for start in range(0, len(data), self.chunk):
            target.receive_data(data[start : start + self.chunk])
            events += drain(target)
        return events

    def to_desktop(self) -> list[Event]:
        return self.carry(self.laptop, self.desktop)

    def to_laptop(self) -> list[Event]:
        return self.carry(self.desktop, self.laptop)

    def greet(self) -> Pair:
        """Both have said hello."""
        self.laptop.start()
        self.desktop.start()
        assert [type(event) for event in self.to_desktop() + self.to_laptop()] == [PeerHello, PeerHello]
        return self

    def open(self) -> Pair:
        """Both have asked for each other's changes."""
        self.greet()
        self.laptop.feed(DESKTOP_STORE, 0)
        self.desktop.feed(LAPTOP_STORE, 0)
        assert [type(event) for event in self.to_desktop() + self.to_laptop()] == [PeerFeed, PeerFeed]
        return self
