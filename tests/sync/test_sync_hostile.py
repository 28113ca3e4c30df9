"""What a peer may not do: each breach ends the conversation with a reason, and nothing else happens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.sync_wire import DESKTOP, DESKTOP_STORE, LAPTOP, LAPTOP_STORE, Pair, change, drain, hello, vid
from meshd.crypto import cbor
from meshd.errors import MeshError, RemoteProtocolError, VersionMismatch
from meshd.sync import checks, frames
from meshd.sync.codec import MESSAGES, encode
from meshd.sync.events import Event, PeerClosed, PeerFeed, PeerGone, PeerHello, PeerWant
from meshd.sync.messages import (
    Ack,
    Chain,
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
from meshd.sync.session import Session
from meshd.sync.turns import TURNS, Turn

ONE_OF_EACH: list[Message] = [
    hello(DESKTOP, DESKTOP_STORE),
    Profiles((b"p",)),
    Feed(LAPTOP_STORE, 0),
    Changes((change(1),), True),
    Want((vid(1),), 1000),
    Item(vid("wanted"), 8, b"x", 0, 1),
    Ack(0),
    Close(0),
    Note("n"),
    Evidence("a", "b"),
    Stability(((LAPTOP, 1),)),
    Ping(),
    Pong(),
    Trace(LAPTOP, (vid("end"),)),
    Chain((("mnt1;g=1", bytes(32)),)),
]


def frame(kind: int, fields: object) -> bytes:
    body = cbor.encode([kind, fields])
    return len(body).to_bytes(4, "big") + body


def raw_frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def at(turn: Turn) -> Session:
    """A laptop that has said all it may, and whose peer has come as far as `turn`."""
    if turn is Turn.OPENING:
        session = Session(hello(), outgoing=True)
        session.start()
        return session
    wire = Pair().greet()
    wire.laptop.feed(DESKTOP_STORE, 0)
    if turn is Turn.OPEN:
        wire.desktop.feed(LAPTOP_STORE, 0)
        wire.to_laptop()
        wire.laptop.want([vid("wanted")])
        wire.laptop.trace(DESKTOP, [vid("end")])
    if turn is Turn.CLOSED:
        wire.desktop.close()
        wire.to_laptop()
    wire.laptop.data_to_send()
    return wire.laptop


def refuse(
    session: Session, data: bytes, error: type[MeshError] = RemoteProtocolError, match: str | None = None
) -> PeerClosed:
    """The session refuses `data` once, says why, and is over; returns the close that its peer sees."""
    session.data_to_send()
    session.receive_data(data)
    with pytest.raises(error, match=match):
        drain(session)
    assert session.closed
    assert session.next_event() is None
    said = session.data_to_send()
    kind, fields = frames.decode(said[4:])
    assert kind == Close.TYPE
    session.receive_data(b"")
    assert [type(event) for event in drain(session)] == [PeerGone]
    closed = Close.read(fields)
    return PeerClosed(closed.code, closed.text)


# ── Turns ──


@pytest.mark.parametrize("turn", [Turn.OPENING, Turn.PROFILES, Turn.OPEN])
@pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda message: type(message).__name__)
def test_what_the_turn_does_not_list_ends_the_conversation(turn: Turn, message: Message) -> None:
    session = at(turn)
    if type(message) in TURNS[turn]:
        session.receive_data(encode(message))
        drain(session)
    else:
        assert refuse(session, encode(message), match=turn.value).code == CloseCode.PROTOCOL


def test_the_table_of_turns_knows_every_message() -> None:
    assert {type(message) for message in ONE_OF_EACH} == set(MESSAGES.values())
    assert {kind for turns in TURNS.values() for kind in turns} == set(MESSAGES.values())


def test_after_a_close_nothing_is_read() -> None:
    session = at(Turn.CLOSED)
    session.receive_data(b"\xff" * 100)
    assert drain(session) == []


@pytest.mark.parametrize("kind", [31, 33, 65_537])
def test_unknown_odd_types_are_skipped(kind: int) -> None:
    session = at(Turn.OPEN)
    session.receive_data(frame(kind, {0: [1, "x"], "any": b"thing"}) + encode(Ack(0)))
    assert len(drain(session)) == 1


@pytest.mark.parametrize("kind", [14, 18, 26, 65_536])
def test_unknown_even_types_and_reconciliation_ask_for_a_newer_release(kind: int) -> None:
    closed = refuse(at(Turn.OPEN), frame(kind, {0: b""}), VersionMismatch, "newer release")
    assert closed.code == CloseCode.UNSUPPORTED
    assert "newer release" in closed.text


def test_not_even_an_unknown_odd_type_comes_before_hello() -> None:
    refuse(at(Turn.OPENING), frame(27, {}))


# ── Frames ──


def test_a_frame_is_refused_by_its_length_before_its_body_is_here() -> None:
    refuse(at(Turn.OPENING), (64 * 1024 + 1).to_bytes(4, "big"), match="65537")
    refuse(at(Turn.OPEN), (frames.MAX_FRAME + 1).to_bytes(4, "big"))
    refuse(at(Turn.OPEN), b"\xff\xff\xff\xff")
    refuse(at(Turn.OPEN), b"\0\0\0\0")


def test_only_profiles_may_fill_a_large_frame() -> None:
    heavy = frame(Profiles.TYPE, {0: [b"p" * 2_000_000]})
    session = at(Turn.PROFILES)
    session.receive_data(heavy)
    assert len(drain(session)) == 1
    refuse(at(Turn.OPEN), raw_frame(cbor.encode([27, {0: b"x" * checks.MAX_SMALL}])))


@pytest.mark.parametrize(
    "body",
    [
        b"\x00",
        b"\x80",
        b"\x82\x17",  # cut off
        b"\x82\x17\xa0\x00",  # bytes behind
        b"\x83\x17\xa0\xa0",
        b"\x82\x17\x80",  # a list for a map
        b"\x82\x61\x31\xa0",  # a text for a type
        b"\x82\xf5\xa0",
        b"\x82\x20\xa0",  # type -1
        b"\x82\x18\x17\xa0",  # not in the shortest form
        b"\x9f\x17\xa0\xff",  # indefinite
        b"\x82\x0c\xa2\x00\x01\x00\x01",  # a key twice
        b"\x82\x0c\xa2\x18\x40\x01\x00\x01",  # keys out of order
        b"\x82\x0c\xa1\x00\xc1\x01",  # a tag
        b"\x82\x0c\xa1\x00\xf9\x3c\x00",  # a float
        b"\x82\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x82\x1b\xff\xff\xff\xff\xff\xff\xff\xff" + b"\x81" * 100_000,
        b"\x82\x17\xa1\x18\x40" + b"\x81" * 1000 + b"\x00",  # deep
        b"\x82\x17\xbb\xff\xff\xff\xff\xff\xff\xff\xff",  # a map that claims 2^64 members
        b"\xff" * 500,
    ],
    ids=lambda body: body[:12].hex(),
)
def test_bytes_that_are_no_frame_are_refused(body: bytes) -> None:
    assert refuse(at(Turn.OPEN), raw_frame(body)).code == CloseCode.PROTOCOL


# ── Fields ──

GOOD_ROW: list[object] = [1, 8, "id", vid(1), 1, 1, 1000, LAPTOP]


def row(place: int, value: object) -> dict[int, object]:
    return {0: [[*GOOD_ROW[:place], value, *GOOD_ROW[place + 1 :]]], 1: True}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (4, {0: LAPTOP_STORE}),
        (4, {0: LAPTOP_STORE, 1: -1}),
        (4, {0: LAPTOP_STORE, 1: True}),
        (4, {0: LAPTOP_STORE, 1: 2**63}),
        (4, {0: b"short", 1: 0}),
        (4, {0: LAPTOP_STORE, 1: 0, 2: 0}),
        (4, {0: LAPTOP_STORE, 1: 0, "x": 0}),
        (4, {0: LAPTOP_STORE, 1: 0, -1: 0}),
        (6, {0: [], 1: 1}),
        (6, {0: {}, 1: True}),
        (6, {0: [GOOD_ROW[:-1]], 1: True}),
        (6, {0: [[*GOOD_ROW, 1]], 1: True}),
        (6, {0: [GOOD_ROW, GOOD_ROW], 1: True}),
        (6, {0: [GOOD_ROW] * 1001, 1: True}),
        (6, row(0, 0)),
        (6, row(0, 2**63)),
        (6, row(1, -1)),
        (6, row(1, 65_536)),
        (6, row(2, b"id")),
        (6, row(2, "i" * 129)),
        (6, row(2, "id\n")),
        (6, row(2, "ïd")),
        (6, row(3, b"short")),
        (6, row(4, None)),
        (6, row(5, "now")),
        (6, row(6, checks.MAX_ITEM + 1)),
        (6, row(7, 1)),
        (6, row(7, "M" * 65)),
        (8, {0: [], 1: 0}),
        (8, {0: [vid(1), vid(1)], 1: 0}),
        (8, {0: [vid(number) for number in range(257)], 1: 0}),
        (8, {0: [b"short"], 1: 0}),
        (8, {0: [vid(1)], 1: 0, 2: checks.MAX_ITEM + 1}),
        (10, {0: vid("wanted"), 1: 8}),
        (10, {0: vid("wanted"), 1: 8, 2: "text"}),
        (10, {0: vid("wanted"), 1: 8, 2: b"x", 3: 0}),
        (10, {0: vid("wanted"), 1: 8, 2: b"x", 4: 1}),
        (10, {0: vid("wanted"), 1: 8, 2: b"", 3: 0, 4: 1}),
        (10, {0: vid("wanted"), 1: 8, 2: b"xx", 3: 1, 4: 2}),
        (10, {0: vid("wanted"), 1: 8, 2: b"x", 3: 0, 4: checks.MAX_ITEM + 1}),
        (12, {}),
        (16, {0: "code"}),
        (16, {0: 0, 1: b"text"}),
        (16, {0: 0, 1: "t" * 501}),
        (17, {0: "n" * (checks.MAX_NOTE + 1)}),
        (17, {0: 1}),
        (19, {0: "a"}),
        (21, {LAPTOP: "1"}),
        (21, {LAPTOP: 1, 3: 1}),
        (21, {f"M{number}": 1 for number in range(257)}),
        (23, {0: 0}),
        (25, {b"": 0}),
    ],
)
def test_a_field_of_the_wrong_form_is_refused(kind: int, fields: dict[object, object]) -> None:
    refuse(at(Turn.OPEN), frame(kind, fields))


@pytest.mark.parametrize(
    "change_",
    [
        {0: []},
        {0: [1] * 257},
        {0: ["1"]},
        {1: b"short"},
        {2: ""},
        {2: "x" * 65},
        {2: "a\x00b"},
        {3: 1},
        {3: [-1]},
        {4: 65_535},
        {5: -1},
        {6: [b"short"]},
        {6: [vid(number) for number in range(257)]},
        {7: 0},
        {2: LAPTOP},  # claims to be the very device that it speaks to
    ],
)
def test_a_hello_of_the_wrong_form_is_refused(change_: dict[int, object]) -> None:
    refuse(at(Turn.OPENING), frame(0, {**hello(DESKTOP, DESKTOP_STORE).fields(), **change_}))


def test_extensions_are_skipped_in_every_map() -> None:
    wire = Pair()
    wire.laptop.start()
    for message in (hello(DESKTOP, DESKTOP_STORE), Feed(LAPTOP_STORE, 0), Stability(((LAPTOP, 3),)), Ping(), Close(0)):
        wire.laptop.receive_data(frame(message.TYPE, {**message.fields(), 64: [None], 99_999: "new"}))
    assert [type(event).__name__ for event in drain(wire.laptop)] == [
        "PeerHello",
        "PeerFeed",
        "PeerStability",
        "PeerClosed",
    ]


# ── The pull ──


def test_an_item_that_nobody_wanted_is_refused() -> None:
    refuse(at(Turn.OPEN), encode(Item(vid("unasked"), 8, b"x", 0, 1)), match="not wanted")


def test_an_item_comes_only_once() -> None:
    refuse(at(Turn.OPEN), encode(Item(vid("wanted"), 8, b"x", 0, 1)) * 2, match="not wanted")


def test_an_item_longer_than_announced_is_refused() -> None:
    wire = Pair().open()
    wire.desktop.want([vid(1)], [1000])
    refuse(wire.desktop, encode(Item(vid(1), 8, bytes(1001), 0, 1001)), match="longer")
    wire = Pair().open()
    wire.desktop.want([vid(1)], [1000])
    refuse(wire.desktop, encode(Item(vid(1), 8, b"first", 0, 1001)), match="longer")


@pytest.mark.parametrize(
    "second",
    [
        Item(vid("other"), 8, b"xx", 0, 2),
        Item(vid("other"), 8, b"xx", 0, 9),
        Item(vid("wanted"), 8, b"xx", 1, 9),
        Item(vid("wanted"), 8, b"xx", 3, 9),
        Item(vid("wanted"), 8, b"xx", 0, 9),
        Item(vid("wanted"), 8, b"xx", 2, 8),
        Item(vid("wanted"), 1, b"xx", 2, 9),
        Item(vid("wanted"), 8, b"xx", 0, 2),
    ],
    ids=repr,
)
def test_pieces_out_of_order_are_refused(second: Item) -> None:
    session = at(Turn.OPEN)
    session.want([vid("other")])
    refuse(session, encode(Item(vid("wanted"), 8, b"xx", 0, 9)) + encode(second))


def test_a_piece_from_the_middle_is_refused_unless_it_was_asked_for() -> None:
    refuse(at(Turn.OPEN), encode(Item(vid("wanted"), 8, b"xx", 2, 9)), match="order")


def test_a_want_in_excess_of_the_window_is_refused() -> None:
    session = at(Turn.OPEN)
    session.receive_data(encode(Want(tuple(vid(number) for number in range(256)), 0)))
    assert len(drain(session)) == 1
    refuse(session, encode(Want((vid("more"),), 0)), match="256")


def test_a_want_of_what_is_on_its_way_already_is_refused() -> None:
    refuse(at(Turn.OPEN), encode(Want((vid(1),), 0)) * 2, match="twice")


def test_a_want_before_our_feed_is_refused() -> None:
    wire = Pair().greet()
    refuse(wire.laptop, encode(Feed(LAPTOP_STORE, 0)) + encode(Want((vid(1),), 0)), match="before")


def test_changes_that_nobody_asked_for_are_refused() -> None:
    wire = Pair().greet()
    refuse(wire.laptop, encode(Feed(LAPTOP_STORE, 0)) + encode(Changes((), True)), match="asked")


def test_an_ack_of_what_was_never_announced_is_refused() -> None:
    wire = Pair().open()
    wire.laptop.changes([change(5)], True)
    wire.laptop.receive_data(encode(Ack(5)))
    assert len(drain(wire.laptop)) == 1
    refuse(wire.laptop, encode(Ack(6)), match="never announced")


def test_a_cursor_of_another_store_allows_no_ack() -> None:
    wire = Pair().greet()
    wire.laptop.feed(DESKTOP_STORE, 0)
    wire.laptop.receive_data(encode(Feed(b"previous", 900)) + encode(Ack(900)))
    assert wire.laptop.next_event() == PeerFeed(b"previous", 900)
    with pytest.raises(RemoteProtocolError):
        wire.laptop.next_event()
    resumed = Pair().greet()
    resumed.laptop.receive_data(encode(Feed(LAPTOP_STORE, 900)) + encode(Ack(900)))
    assert len(drain(resumed.laptop)) == 2


# ── Anything at all ──

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 70) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def listen(session: Session, data: bytes, chunk: int) -> list[Event]:
    events: list[Event] = []
    try:
        for start in range(0, len(data), chunk):
            session.receive_data(data[start : start + chunk])
            events += drain(session)
    except MeshError:
        assert session.closed
    assert len(session.data_to_send()) < 1000
    return events


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300), turn=st.sampled_from([Turn.OPENING, Turn.PROFILES, Turn.OPEN]))
def test_garbage_raises_only_our_errors(data: bytes, turn: Turn) -> None:
    listen(at(turn), data, 7)
    listen(at(turn), raw_frame(data), 1 << 20)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.integers(0, 28) | st.just("type"),
    fields=st.dictionaries(st.integers(0, 7) | st.text(max_size=3), VALUES, max_size=5) | VALUES,
    turn=st.sampled_from([Turn.OPENING, Turn.PROFILES, Turn.OPEN]),
)
def test_well_formed_nonsense_raises_only_our_errors(kind: int, fields: object, turn: Turn) -> None:
    listen(at(turn), frame(kind, fields), 1 << 20)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_conversation_raises_only_our_errors(data: st.DataObject) -> None:
    said = b"".join(encode(message) for message in ONE_OF_EACH if not isinstance(message, (HelloInfo, Close, Profiles)))
    damaged = bytearray(said)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(said) - 1))] = data.draw(st.integers(0, 255))
    events = listen(at(Turn.OPEN), bytes(damaged), data.draw(st.sampled_from([1, 5, 1000])))
    assert not any(isinstance(event, PeerHello) for event in events)
    assert sum(isinstance(event, PeerWant) for event in events) <= 1
