"""How a connection to a sibling stands: what others may know of it while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from meshd.store.peers import Peer


@dataclass(slots=True)
class Progress:
    """What others may know of a connection."""

    udf: str
    address: str
    outgoing: bool
    greeted: bool = False  # it came to a conversation
    connected: bool = False  # hello came: under TLS 1.3 a finished handshake says nothing yet
    announced: int = 0  # our seq up to which the peer was told
    acked: int = 0  # … up to which it has committed
    theirs: int = 0  # the peer's newest seq that it announced
    ours: int = 0  # … up to which we have committed
    caught_up: bool = False
    received: int = 0
    skipped: int = 0  # versions that were not taken, to be asked for again
    clock_skew_ms: int = 0
    strikes: int = 0
    called: float = 0.0  # when somebody else called in the peer's name for the first time
    scope: trio.CancelScope = field(default_factory=trio.CancelScope, repr=False)
    doubted: trio.Event = field(default_factory=trio.Event, repr=False)

    def doubt(self) -> None:
        """The network is another one, or the peer is seen elsewhere: let it show at once that it is there."""
        self.doubted.set()
        self.doubted = trio.Event()


def acked(remembered: Peer, progress: Progress | None) -> int:
    """Our seq up to which a sibling has committed everything, by its word of now or of when it was here last."""
    return max(remembered.their_ack, progress.acked if progress is not None and progress.connected else 0)
