"""Session: one sync conversation with one peer, bytes in and events out (docs/specs/sync.md; formats.md F4).

The one idea is the pull: a side announces what it has, and sends only what the other side then wants. So what a peer
can make us hold is bounded by what we asked for, and what piles up here for a peer that does not read by what it may
ask for. The session knows frames, turns and limits; it has no store and no keys. A driver feeds it bytes, answers its
events and flushes `data_to_send`:

    start → PeerHello → profiles, feed → PeerFeed → changes → PeerWant → item
                                                    PeerChanges → want → PeerItem → (committed) → ack

When the peer breaks a rule, `next_event` raises once, a `close` frame with the reason is left in `data_to_send`, and
the session is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NoReturn

from meshd.errors import FormatError, LocalProtocolError, MeshError, RemoteProtocolError, VersionMismatch
from meshd.sync import checks, codec, messages
from meshd.sync.arrivals import WINDOW_ITEMS, Arrivals
from meshd.sync.events import (
    Event,
    Partial,
    PeerAck,
    PeerChain,
    PeerChanges,
    PeerClosed,
    PeerEvidence,
    PeerFeed,
    PeerGone,
    PeerHello,
    PeerNote,
    PeerProfiles,
    PeerStability,
    PeerTrace,
    PeerWant,
)
from meshd.sync.frames import MAX_FRAME, FrameReader
from meshd.sync.messages import (
    Ack,
    Chain,
    Change,
    Changes,
    Close,
    CloseCode,
    Evidence,
    Feed,
    HelloInfo,
    Item,
    Message,
    Note,
    Ping,
    Pong,
    Profiles,
    Stability,
    Trace,
    Want,
)
from meshd.sync.turns import TURNS, Turn

FRAME_MARGIN = 128  # room for what stands around the bytes in a frame


class Session:
    """One conversation. `outgoing`: we dialled; it changes nothing here and tells the driver which of two to keep."""

    def __init__(self, hello: HelloInfo, *, outgoing: bool) -> None:
        self.hello = hello
        self.outgoing = outgoing
        self.peer: HelloInfo | None = None
        self.version = 0  # of the protocol; known with the peer's hello
        self._ours = Turn.OPENING
        self._theirs = Turn.OPENING
        self._room = 0  # bytes of the longest frame that the peer takes and we send
        self._frames = FrameReader()
        self._gone = False
        self._fed = False  # we asked for the peer's changes
        self._arrivals = Arrivals()
        # Sending: what the peer wants → from which offset, and what is written but not taken by the driver yet.
        self._owed: dict[bytes, int] = {}
        self._announced = 0
        self._out: list[bytes] = []
        self._backlog = 0
        self._untaken = 0  # items in `_out`: to the peer they are still on their way
        self._pong_waits = False
        self._tracing = False  # we asked for links
        self._traced = False  # the peer did

    # ── bytes ──

    def receive_data(self, data: bytes) -> None:
        """Store what arrived; b"" is the end of the stream."""
        if self.closed and data:
            return
        self._frames.receive_data(data)

    def next_event(self) -> Event | None:
        """What the peer said next; None: more bytes are needed.

        RemoteProtocolError when the peer broke a rule, VersionMismatch when it needs a newer release here; flush what
        `data_to_send` has then, and close the stream.
        """
        while not self.closed:
            try:
                body = self._frames.next_body()
                if body is None:
                    break
                message = codec.decode(body)
                event = self._receive(message)
            except VersionMismatch as exc:
                self._end(CloseCode.UNSUPPORTED, exc)
            except FormatError as exc:
                self._end(CloseCode.PROTOCOL, RemoteProtocolError(str(exc)))
            except RemoteProtocolError as exc:
                self._end(CloseCode.PROTOCOL, exc)
            if event is not None:
                return event
        if self._frames.ended and not self._gone:
            self._gone = True
            clean = self._frames.buffered == 0 and self.partial is None
            self._ours = self._theirs = Turn.CLOSED
            return PeerGone(clean)
        return None

    def data_to_send(self) -> bytes:
        """What goes on the wire now; each byte is handed out once."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        self._backlog = self._untaken = 0
        self._pong_waits = False
        return data

    # ── what the driver may ask ──

    @property
    def closed(self) -> bool:
        """Neither side says anything any more."""
        return self._ours is Turn.CLOSED

    @property
    def backlog(self) -> int:
        """Bytes that `data_to_send` would return. Above WINDOW_BYTES, flush before answering more of a want."""
        return self._backlog

    @property
    def outstanding(self) -> int:
        """Items that we wanted and that have not come yet."""
        return self._arrivals.outstanding

    @property
    def partial(self) -> Partial | None:
        """What has come of the item that is arriving in pieces."""
        return self._arrivals.partial

    def want_room(self) -> int:
        """How many more items may be wanted now."""
        return self._arrivals.room

    # ── intents ──

    def start(self) -> None:
        """Say hello; both sides do so at once."""
        self._say(self.hello)

    def profiles(self, raws: Sequence[bytes]) -> None:
        """Hand over profiles that the peer lacks, oldest first, before `feed`; one must fit into a frame."""
        self._known_peer()
        room = self._room - FRAME_MARGIN
        batch: list[bytes] = []
        size = 0
        for raw in raws:
            cost = len(raw) + 8
            if cost > room:
                raise LocalProtocolError(f"a profile of {len(raw)} bytes does not fit into a frame of the other device")
            if size + cost > room or len(batch) == checks.MAX_LIST:
                self._say(Profiles(tuple(batch)))
                batch, size = [], 0
            batch.append(raw)
            size += cost
        if batch:
            self._say(Profiles(tuple(batch)))

    def feed(self, store_id: bytes, after: int, run: bytes = b"", vid: bytes = b"") -> None:
        """Ask for what follows `after` in the peer's store, where it told us of `vid` in its `run`. No profiles after
        this; repeat it to start anew."""
        self._known_peer()
        self._say(Feed(store_id, after, run, vid))
        self._fed = True

    def changes(self, rows: Sequence[Change], caught_up: bool, *, anew: bool = False) -> None:
        """Announce versions, ascending by `seq`, once the peer asked for them; split over frames as needed. `anew`: the
        peer's cursor did not hold, so these are the first of all."""
        if self._theirs is not Turn.OPEN:
            raise LocalProtocolError("changes that the other device has not asked for")
        if any(before.seq >= after.seq for before, after in pairwise(rows)):
            raise LocalProtocolError("changes out of order")
        step = checks.MAX_ROWS
        for start in range(0, len(rows), step) or (0,):
            last = start + step >= len(rows)
            self._say_changes(tuple(rows[start : start + step]), caught_up and last, anew and start == 0)
        if rows:
            self._announced = max(self._announced, rows[-1].seq)

    def want(self, vids: Sequence[bytes], sizes: Sequence[int] = (), *, resume: Partial | None = None) -> int:
        """Ask for versions; returns how many of them, from the first on, the window had room for.

        `sizes` are the announced ones, in the same order: longer items are refused then, and without them each counts
        as 4 KiB. `resume` carries what an earlier connection brought of the first vid.
        """
        self._known_peer()
        if self._theirs is not Turn.OPEN:  # until then the other side could not answer
            raise LocalProtocolError("a want before the other device's feed")
        taken, budget = self._arrivals.expect(vids, sizes, resume)
        if taken:
            self._say(Want(tuple(taken), budget, len(resume.data) if resume is not None else 0))
        return len(taken)

    def item(self, vid: bytes, kind: int, raw: bytes) -> None:
        """Answer one wanted version with all its bytes; b"" if it is no longer here. The session cuts and resumes."""
        self._known_peer()
        self._turn(Item)
        if vid not in self._owed:
            raise LocalProtocolError("an item that the other device does not want")
        if len(raw) > checks.MAX_ITEM:
            raise LocalProtocolError(f"an item of {len(raw)} bytes: at most {checks.MAX_ITEM} are allowed")
        offset = self._owed.pop(vid)
        if offset >= len(raw):
            offset = 0
        chunk = min(checks.CHUNK, self._room - FRAME_MARGIN)
        for part in codec.item_frames(vid, kind, raw, offset=offset, chunk=chunk):
            self._out.append(part)
            self._backlog += len(part)
        self._untaken += 1

    def ack(self, seq: int) -> None:
        """Say that everything up to `seq` of the peer's store is committed here."""
        self._known_peer()
        self._say(Ack(seq))

    def note(self, text: str) -> None:
        """Pass on the newest verified checkpoint of a portal."""
        self._known_peer()
        self._say(Note(text))

    def evidence(self, first: str, second: str) -> None:
        """Pass on two notes that contradict each other."""
        self._known_peer()
        self._say(Evidence(first, second))

    def stability(self, acked: Mapping[str, int]) -> None:
        """Tell how far each device has acknowledged our sequence."""
        self._known_peer()
        self._say(Stability(tuple(acked.items())))

    def trace(self, signer: str, vids: Sequence[bytes]) -> None:
        """Ask for the links of a signer's chain from these versions backwards; one question at a time, of a peer that
        says that it `answers_traces`, once it has asked for our changes."""
        self._known_peer()
        if self._theirs is not Turn.OPEN:  # until then the other side could not answer
            raise LocalProtocolError("a trace before the other device's feed")
        if self._tracing:
            raise LocalProtocolError("a trace before the answer to the last one")
        self._say(Trace(signer, tuple(vids[: checks.MAX_VIDS])))
        self._tracing = True

    @property
    def answers_traces(self) -> bool:
        """Does the peer know what a trace is?"""
        return self.peer is not None and messages.TRACES in self.peer.features

    @property
    def link_room(self) -> int:
        """About how many bytes of links fit in an answer."""
        return min(self._room, checks.MAX_SMALL) - checks.MAX_TOKEN - 2 * FRAME_MARGIN

    def chain(self, links: Sequence[tuple[str, bytes]]) -> None:
        """Answer the peer's trace; with nothing, if nothing of it is here."""
        self._known_peer()
        if not self._traced:
            raise LocalProtocolError("links that the other device has not asked for")
        self._say(Chain(tuple(links)))
        self._traced = False

    def ping(self) -> None:
        """Ask for a sign of life; any bytes from the peer are one."""
        self._known_peer()
        self._say(Ping())

    def close(self, code: int = CloseCode.DONE, text: str = "") -> None:
        """Say the last word, unless the conversation is over already. Flush, then close the stream."""
        if self.closed:
            return
        self._say(Close(code, text[: checks.MAX_REASON]))
        self._over()

    # ── inside ──

    def _known_peer(self) -> HelloInfo:
        if self.closed:
            raise LocalProtocolError("the conversation is over")
        if self.peer is None:
            raise LocalProtocolError("the other device has not said hello yet")
        return self.peer

    def _turn(self, kind: type[Message]) -> Turn:
        turn = TURNS[self._ours].get(kind)
        if turn is None:
            raise LocalProtocolError(f"{kind.__name__} while {self._ours.value}")
        return turn

    def _say(self, message: Message) -> None:
        turn = self._turn(type(message))
        self._write(codec.encode(message))
        self._ours = turn

    def _write(self, frame: bytes) -> None:
        self._out.append(frame)
        self._backlog += len(frame)

    def _say_changes(self, rows: tuple[Change, ...], caught_up: bool, anew: bool = False) -> None:
        frame = codec.encode(Changes(rows, caught_up, anew))
        if len(frame) > self._room and len(rows) > 1:
            middle = len(rows) // 2
            self._say_changes(rows[:middle], False, anew)
            self._say_changes(rows[middle:], caught_up)
            return
        self._ours = self._turn(Changes)
        self._write(frame)

    def _end(self, code: CloseCode, exc: MeshError) -> NoReturn:
        self.close(code, str(exc))
        raise exc

    def _over(self) -> None:
        self._ours = self._theirs = Turn.CLOSED
        self._frames.discard()
        self._owed.clear()

    def _receive(self, message: Message | None) -> Event | None:
        if message is None:
            if self._theirs is Turn.OPENING:
                raise RemoteProtocolError("something else before hello")
            return None
        turn = TURNS[self._theirs].get(type(message))
        if turn is None:
            raise RemoteProtocolError(f"{type(message).__name__} while {self._theirs.value}")
        self._theirs = turn
        match message:
            case Item():
                return self._arrivals.receive(message)
            case Changes():
                if not self._fed:
                    raise RemoteProtocolError("changes that nobody asked for")
                return PeerChanges(message.changes, message.caught_up, message.anew)
            case Want():
                return self._receive_want(message)
            case Ack():
                if message.seq > self._announced:
                    raise RemoteProtocolError("an ack of what was never announced")
                return PeerAck(message.seq)
            case Profiles():
                return PeerProfiles(message.raws)
            case Feed():
                if message.store_id == self.hello.store_id:
                    self._announced = max(self._announced, message.after)
                return PeerFeed(message.store_id, message.after, message.run, message.vid)
            case HelloInfo():
                return self._receive_hello(message)
            case Close():
                self._over()
                return PeerClosed(message.code, message.text)
            case Note():
                return PeerNote(message.text)
            case Evidence():
                return PeerEvidence(message.first, message.second)
            case Stability():
                return PeerStability(message.acked)
            case Trace():
                if self._ours is not Turn.OPEN:
                    raise RemoteProtocolError("a trace before this device's feed")
                if self._traced:
                    raise RemoteProtocolError("a trace before the answer to the last one")
                self._traced = True
                return PeerTrace(message.signer, message.vids)
            case Chain():
                if not self._tracing:
                    raise RemoteProtocolError("links that nobody asked for")
                self._tracing = False
                return PeerChain(message.links)
            case Pong():
                return None
            case Ping():
                # One answer is enough for any number of pings, or a peer that only asks would fill our memory.
                if not self._pong_waits and Pong in TURNS[self._ours]:
                    self._pong_waits = True
                    self._say(Pong())
                return None
        raise AssertionError(type(message))  # TURNS names nothing else

    def _receive_hello(self, info: HelloInfo) -> PeerHello:
        if info.udf == self.hello.udf:
            raise RemoteProtocolError("the other device says that it is this one")
        common = set(info.versions) & set(self.hello.versions)
        if not common:
            newer_there = max(info.versions) > max(self.hello.versions)
            raise VersionMismatch(
                "the two devices have no protocol version in common: "
                + ("this device needs a newer release" if newer_there else "the other device needs a newer release")
                + " of meshd"
            )
        self.peer = info
        self._room = min(info.max_frame, MAX_FRAME)
        self.version = max(common)
        self._frames.limit = self.hello.max_frame
        return PeerHello(info)

    def _receive_want(self, want: Want) -> PeerWant:
        if self._ours is not Turn.OPEN:
            raise RemoteProtocolError("a want before this device's feed")
        # Items that the driver has not taken yet cannot have arrived, so an honest peer still counts them.
        if len(self._owed) + self._untaken + len(want.vids) > WINDOW_ITEMS:
            raise RemoteProtocolError(f"more than {WINDOW_ITEMS} items wanted at once")
        for vid in want.vids:
            if vid in self._owed:
                raise RemoteProtocolError("a version wanted twice")
            self._owed[vid] = 0
        self._owed[want.vids[0]] = want.offset
        return PeerWant(want.vids, want.budget)
