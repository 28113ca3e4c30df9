"""A network for a simulated mesh: who hears of what, when, and in which order. No sockets, no threads, no real clock.

What travels is what sync carries (docs/specs/sync.md): hello with the profile heads, the profiles that the other lacks,
the feed from the other's cursor in batches, an acknowledgement for each commit; and introductions. On one line messages
keep their order; between lines nothing does. Lines break in the middle of a batch, stall while devices are apart, and
go half-open: one side speaks and nobody hears.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshd.profile import links
from meshd.profile.claim import Kind, State
from meshd.store import peers, versions

if TYPE_CHECKING:
    from harness.simulation import Node

SILENT_MS = 150_000.0  # a line that carries nothing for so long is given up
AHEAD = 400  # rows that are sent and not acknowledged, at most


class Events:
    """What is to happen, in the order of its time; ties go by chance, with one seed always the same."""

    def __init__(self, chance: random.Random) -> None:
        self.now = 0.0  # ms of true time, which no device knows
        self._chance = chance
        self._heap: list[tuple[float, float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(time, self.now), self._chance.random(), self._count, what))

    def run_until(self, time: float) -> None:
        while self._heap and self._heap[0][0] <= time:
            self.step()
        self.now = max(self.now, time)

    def step(self) -> bool:
        """Let the next thing happen; False when there is none."""
        if not self._heap:
            return False
        time, _, _, what = heapq.heappop(self._heap)
        self.now = time
        what()
        return True


@dataclass
class End:
    """One side of a line: what this device says, and how far the other has got with it."""

    node: Node
    other: Node
    numbering: bytes  # the store-id that our seqs mean
    feeding: bool = False
    sent: int = 0
    acked: int = 0
    greeted_at: tuple[bytes, ...] = ()
    their_run: bytes = b""
    anew: bool = False  # the other's cursor did not hold, and it has not been told yet
    skipped: bool = False  # something that the other told of could not be taken: it is to be told of again
    brought: set[bytes] = field(default_factory=set)


class Line:
    """A connection between two devices."""

    def __init__(self, net: Net, one: Node, other: Node) -> None:
        self.net = net
        self.ends = (End(one, other, one.store_id()), End(other, one, other.store_id()))
        self.closed = False
        self.mute: set[int] = set()  # places in `ends` that nobody hears any more
        self._queues: tuple[deque[tuple[object, ...]], ...] = (deque(), deque())
        self._last = [0.0, 0.0]
        self._stalled: float | None = None  # since when what was said is held back

    def start(self) -> None:
        for place, end in enumerate(self.ends):
            self.say(place, "hello", end.numbering, end.node.run, end.node.heads())

    def say(self, place: int, *message: object) -> None:
        """From `ends[place]` to the other."""
        if self.closed or place in self.mute:
            return
        events = self.net.events
        self._queues[place].append(message)
        self._last[place] = max(self._last[place], events.now + self.net.delay())
        events.at(self._last[place], lambda: self._arrive(place))

    def _arrive(self, place: int) -> None:
        if self.closed or place in self.mute or not self._queues[place]:
            return
        one, other = self.ends
        if not self.net.joined(one.node, other.node):
            if self._stalled is None:
                self._stalled = self.net.events.now
            if self.net.events.now - self._stalled > SILENT_MS:
                self.close()
            else:
                self.net.events.at(self.net.events.now + 20_000, lambda: self._arrive(place))
            return
        self._stalled = None
        message = self._queues[place].popleft()
        self._heard(1 - place, message)

    def _heard(self, place: int, message: tuple[object, ...]) -> None:
        """`ends[place]` takes what the other said."""
        end = self.ends[place]
        node = end.node
        match message:
            case ("hello", bytes(store_id), bytes(run), tuple(heads)):
                end.greeted_at, end.their_run = heads, run
                self.say(place, "profiles", node.profiles_beyond(heads))
                self.say(place, "feed", store_id, peers.place(node.connection, end.other.udf, store_id))
            case ("profiles", list(sent)):
                node.receive(sent)
            case ("feed", bytes(store_id), peers.Cursor() as cursor):
                self._feed(place, store_id, cursor)
            case ("batch", bytes(store_id), int(upto), bytes(last), list(sent)):
                self._take(place, sent, store_id, upto, last)
            case ("ack", int(upto)):
                end.acked = max(end.acked, upto)
                if self.net.chance.random() < 0.3:
                    self._save(end)
                self.push(place)
            case ("bye",):
                self.close()
            case _:
                raise AssertionError(message)

    def _feed(self, place: int, store_id: bytes, cursor: peers.Cursor) -> None:
        """From the other's cursor on; from the first version on where it says what this store never said."""
        end = self.ends[place]
        node, after = end.node, 0
        if store_id == end.numbering and cursor.seq:
            if peers.holds(node.connection, cursor):
                after = cursor.seq
            else:
                node.doubt(end.other.udf)
                end.anew = True
        end.sent = end.acked = after
        end.feeding = True
        self.push(place)

    def _take(self, place: int, sent: list[tuple[bytes, bytes]], store_id: bytes, upto: int, last: bytes) -> None:
        """A batch of the feed: one commit, with the cursor, and its acknowledgement."""
        end = self.ends[place]
        node, devices = end.node, end.node.snapshot.devices.keys()
        end.brought.update(vid for vid, _ in sent)
        if not node.asks_about(end.other, sent):
            return  # it died over it
        place_told = (end.other.udf, store_id, upto, end.their_run, last)
        taken = node.receive(sent, None if end.skipped else place_told)
        if taken is None:
            return  # it died over it
        end.skipped = end.skipped or not taken
        if end.skipped:
            if node.snapshot.devices.keys() - devices:
                self.close()  # a device was listed whose versions were not taken
            return
        self.say(place, "ack", upto)
        self.net.acknowledged(node, end.other, store_id, upto)

    def push(self, place: int) -> None:
        """Send what the store got since, as far as the window goes."""
        end = self.ends[place]
        if end.node.store_id() != end.numbering:
            self.close()
            return
        while end.feeding and not self.closed and end.sent - end.acked < AHEAD:
            rows = versions.changes(end.node.connection, end.sent, self.net.chance.randint(1, 40))
            if not rows:
                return
            end.sent = rows[-1].seq
            new = [row.vid for row in rows if row.vid not in end.brought]
            raws = versions.raws(end.node.connection, new)
            sent = [(vid, raws[vid][1]) for vid in new if vid in raws]
            self.say(place, "batch", end.numbering, end.sent, rows[-1].vid, sent)

    def moved(self, place: int) -> None:
        """This end's store has something new, or it thinks otherwise of the other."""
        end = self.ends[place]
        node = end.node
        if node.believes(end.other.udf):
            self.push(place)
        else:  # it is shown the profiles that say so
            end.feeding = False
            self.say(place, "profiles", node.profiles_beyond(end.greeted_at))
            self.say(place, "bye")

    def close(self) -> None:
        """Both sides find that it is gone. What was on its way is lost."""
        if self.closed:
            return
        self.closed = True
        self.net.forget(self)
        for end in self.ends:
            if end.node.up:
                self._save(end)

    def _save(self, end: End) -> None:
        if end.node.store_id() == end.numbering:
            peers.set_ack(end.node.connection, end.other.udf, end.acked)


class Net:
    """All lines, and who can reach whom."""

    def __init__(self, chance: random.Random, events: Events) -> None:
        self.chance = chance
        self.events = events
        self.lines: dict[frozenset[str], Line] = {}
        self.islands: dict[str, int] = {}  # name → island; everybody else is on island 0
        self.acks: dict[tuple[str, str, bytes], int] = {}  # (who, whose, store-id) → how far it has truly committed
        self.slow = 200.0  # ms that a message takes, at most, nearly always

    def delay(self) -> float:
        return self.chance.random() * self.slow * (20 if self.chance.random() < 0.02 else 1)

    def joined(self, one: Node, other: Node) -> bool:
        return one.up and other.up and self.islands.get(one.name, 0) == self.islands.get(other.name, 0)

    def acknowledged(self, node: Node, other: Node, store_id: bytes, upto: int) -> None:
        key = (node.udf, other.udf, store_id)
        self.acks[key] = max(self.acks.get(key, 0), upto)

    def meet(self, one: Node, other: Node) -> None:
        """They see each other: a line, or an introduction where one does not know the other."""
        key = frozenset((one.name, other.name))
        if one is other or key in self.lines or not self.joined(one, other):
            return
        if one.believes(other.udf) and other.believes(one.udf):
            line = self.lines[key] = Line(self, one, other)
            line.start()
            return
        for speaker, listener in ((one, other), (other, one)):
            if speaker.believes(listener.udf) or listener.udf in speaker.snapshot.gone:
                self._introduce(speaker, listener)

    def _introduce(self, speaker: Node, listener: Node) -> None:
        """Both show what the other lacks, and nothing else."""
        shown = speaker.profiles_beyond(listener.heads()) + speaker.own_profiles()

        def arrive() -> None:
            if self.joined(speaker, listener):
                answer = listener.profiles_beyond(speaker.heads())
                listener.receive(shown)
                speaker.receive(answer)

        self.events.at(self.events.now + self.delay(), arrive)

    def of(self, node: Node) -> list[tuple[Line, int]]:
        """The lines of a device, and which end of each is its own."""
        return [
            (line, place) for line in list(self.lines.values()) for place in (0, 1) if line.ends[place].node is node
        ]

    def forget(self, line: Line) -> None:
        one, other = line.ends
        self.lines.pop(frozenset((one.node.name, other.node.name)), None)

    def trouble(self, nodes: Sequence[Node]) -> None:
        """Something happens to the network: it splits or heals, a line breaks or goes half-open."""
        act = self.chance.random()
        lines = list(self.lines.values())
        if act < 0.35:
            self.islands = {node.name: self.chance.randrange(2) for node in nodes}
        elif act < 0.7:
            self.islands = {}
        elif lines and act < 0.85:
            self.chance.choice(lines).close()
        elif lines:
            line = self.chance.choice(lines)
            line.mute.add(self.chance.randrange(2))
            self.events.at(self.events.now + SILENT_MS, line.close)
        self.slow = self.chance.choice((20.0, 200.0, 2000.0))
        for line in lines:
            if not self.joined(line.ends[0].node, line.ends[1].node) and self.chance.random() < 0.5:
                line.close()


def profiles_beyond(node: Node, heads: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The personal profiles that somebody who holds these heads lacks, oldest first; as a daemon finds them."""
    connection = node.connection
    rows = {row.vid: row for row in versions.of_kind(connection, Kind.PERSONAL, tuple(State))}
    held: set[bytes] = set()
    todo = [vid for vid in heads if vid in rows]
    while todo:
        vid = todo.pop()
        if vid not in held:
            held.add(vid)
            todo += [parent for parent in links.parse(rows[vid].token).p if parent in rows]
    lacking = sorted((row for vid, row in rows.items() if vid not in held), key=lambda row: (row.gen, row.seq))
    return [(row.vid, raw) for row in lacking if (raw := versions.raw(connection, row.vid)) is not None]
