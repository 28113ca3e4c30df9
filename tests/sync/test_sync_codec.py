"""Frames and messages: there and back, byte by byte, and as docs/specs/sync.cddl has them."""

from __future__ import annotations

from pathlib import Path

import pycddl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.sync_wire import DESKTOP, DESKTOP_STORE, Pair, change, hello, vid
from meshd.crypto import cbor
from meshd.errors import FormatError, MeshError, RemoteProtocolError
from meshd.sync import checks, codec, frames
from meshd.sync.events import PeerChanges, PeerProfiles
from meshd.sync.frames import FrameReader
from meshd.sync.messages import (
    Ack,
    Chain,
    Change,
    Changes,
    Close,
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

SPEC = Path(__file__).parents[2] / "docs" / "specs" / "sync.cddl"

UINTS = st.integers(0, checks.MAX_INT)
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=checks.MAX_UDF)
UDFS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=checks.MAX_UDF)
VIDS = st.binary(min_size=32, max_size=32)
STORE_IDS = st.binary(min_size=8, max_size=8)
KINDS = st.integers(0, checks.MAX_KIND)


def tuples(elements: st.SearchStrategy[object], least: int = 0) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(elements, min_size=least, max_size=5).map(tuple)


HELLOS = st.builds(
    HelloInfo,
    STORE_IDS,
    UDFS,
    tuples(UINTS),
    UINTS,
    tuples(VIDS),
    versions=tuples(UINTS, 1),
    max_frame=st.integers(65_536, checks.MAX_INT),
)
ROWS = st.lists(
    st.builds(Change, st.integers(1, checks.MAX_INT), KINDS, NAMES, VIDS, UINTS, UINTS, st.integers(0, 2**22), NAMES),
    max_size=5,
    unique_by=lambda row: row.seq,
).map(lambda rows: tuple(sorted(rows, key=lambda row: row.seq)))
WHOLE = st.builds(lambda v, kind, data: Item(v, kind, data, 0, len(data)), VIDS, KINDS, st.binary(max_size=400))
PIECES = st.builds(
    lambda v, kind, data, before, after: Item(v, kind, data, before, before + len(data) + after),
    VIDS,
    KINDS,
    st.binary(min_size=1, max_size=400),
    st.integers(0, 1000),
    st.integers(1, 1000),
)
# Deterministic CBOR sorts by encoding: shorter names first.
STABILITIES = st.dictionaries(NAMES, UINTS, max_size=5).map(
    lambda acked: Stability(tuple(sorted(acked.items(), key=lambda pair: (len(pair[0]), pair[0]))))
)
PRINTABLE = st.text(st.characters(categories=["L", "N", "P"]), max_size=100)

MESSAGES: st.SearchStrategy[Message] = st.one_of(
    HELLOS,
    st.builds(Profiles, tuples(st.binary(max_size=50), 1)),
    st.builds(Feed, STORE_IDS, UINTS),
    st.builds(Feed, STORE_IDS, UINTS, st.binary(min_size=8, max_size=8), VIDS),
    st.builds(Changes, ROWS, st.booleans(), st.booleans()),
    st.builds(Want, st.lists(VIDS, min_size=1, max_size=5, unique=True).map(tuple), UINTS, st.integers(0, 2**22)),
    WHOLE,
    PIECES,
    st.builds(Ack, UINTS),
    st.builds(Close, UINTS, PRINTABLE),
    st.builds(Note, st.text(max_size=100)),
    st.builds(Evidence, st.text(max_size=100), st.text(max_size=100)),
    STABILITIES,
    st.builds(Trace, UDFS, st.lists(VIDS, min_size=1, max_size=5).map(tuple)),
    st.builds(Chain, tuples(st.tuples(NAMES, VIDS))),
    st.just(Ping()),
    st.just(Pong()),
)


@settings(max_examples=300, deadline=None)
@given(MESSAGES)
def test_every_message_comes_back_as_it_was_and_matches_the_specification(message: Message) -> None:
    frame = codec.encode(message)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert codec.decode(frame[4:]) == message
    pycddl.Schema(SPEC.read_text()).validate_cbor(frame[4:])


@pytest.mark.parametrize(
    "frame",
    [
        [99, {}],
        [12, {0: -1}],
        [12, {}],
        [0, {0: [1], 1: b"short", 2: "M", 3: [], 4: 65_536, 5: 0, 6: []}],
        [8, {0: [], 1: 0}],
        [10, {0: b"short", 1: 8, 2: b""}],
        [6, {0: [[1, 8, "id"]], 1: True}],
        [16, {0: "code"}],
        [27, {0: "signer", 1: []}],
        [29, {0: [["token"]]}],
        [29, {0: [["token", b"short"]]}],
    ],
)
def test_the_specification_refuses_what_the_reader_refuses(frame: list[object]) -> None:
    with pytest.raises(pycddl.ValidationError):
        pycddl.Schema(SPEC.read_text()).validate_cbor(cbor.encode(frame))
    if frame[0] in codec.MESSAGES:
        with pytest.raises(FormatError):
            codec.decode(cbor.encode(frame))


@pytest.mark.parametrize("kind", [0, 8, 23, 24, 300])
@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 1000, 65_535, 65_536, checks.CHUNK, checks.CHUNK + 1])
def test_item_frames_written_by_hand_are_those_of_the_encoder(kind: int, size: int) -> None:
    raw = bytes(size)
    written = b"".join(codec.item_frames(vid(1), kind, raw))
    if size <= checks.CHUNK:
        assert written == frames.encode(10, {0: vid(1), 1: kind, 2: raw})
        assert codec.decode(written[4:]) == Item(vid(1), kind, raw, 0, size)
    reader = FrameReader(limit=frames.MAX_FRAME)
    reader.receive_data(written)
    collected = b""
    while (body := reader.next_body()) is not None:
        pycddl.Schema(SPEC.read_text()).validate_cbor(body)
        piece = codec.decode(body)
        assert isinstance(piece, Item)
        assert piece.offset == len(collected)
        collected += piece.data
    assert collected == raw


@pytest.mark.parametrize("place", range(44))
def test_a_damaged_head_of_an_item_is_read_as_the_decoder_reads_it(place: int) -> None:
    """The reading by hand takes no byte string that the general reader would not take."""
    body = bytearray(codec.encode(Item(vid(1), 8, b"x" * 300, 0, 300))[4:])
    for value in range(256):
        body[place] = value
        try:
            general: object = frames.decode(bytes(body))
        except FormatError:
            general = None
        try:
            item: object = codec.decode(bytes(body))
        except MeshError:
            item = None
        if isinstance(item, Item):
            assert general == (10, item.fields())


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8), st.integers(1, 70))
def test_frames_come_out_as_they_went_in_whatever_the_pieces(bodies: list[bytes], chunk: int) -> None:
    wire = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    reader, found = FrameReader(), []
    for start in range(0, len(wire), chunk):
        reader.receive_data(wire[start : start + chunk])
        while (body := reader.next_body()) is not None:
            found.append(body)
    assert found == bodies
    assert reader.buffered == 0


def test_a_long_stream_does_not_stay_in_the_buffer() -> None:
    reader = FrameReader()
    body = (1000).to_bytes(4, "big") + bytes(1000)
    stream = body * 500 + body[:-1]
    for start in range(0, len(stream), 90_000):
        reader.receive_data(stream[start : start + 90_000])
        while reader.next_body() is not None:
            pass
        assert len(reader._buffer) < 200_000
    assert reader.buffered == 1003


def test_a_length_above_the_limit_is_refused_at_once() -> None:
    reader = FrameReader(limit=100)
    reader.receive_data((101).to_bytes(4, "big"))
    with pytest.raises(RemoteProtocolError):
        reader.next_body()


def test_every_frame_of_a_full_conversation_matches_the_specification() -> None:
    schema = pycddl.Schema(SPEC.read_text())
    wire = Pair().greet()
    wire.laptop.profiles([bytes(300)] * 300)
    said = [event for event in wire.to_desktop() if isinstance(event, PeerProfiles)]
    assert [len(event.raws) for event in said] == [256, 44]
    wire = Pair().open()
    wire.laptop.changes([change(number) for number in range(1, 1500)], True)
    wire.laptop.ping()
    wire.laptop.ack(0)
    wire.desktop.want([vid(1), vid(2)], [10, 400_000])
    wire.to_laptop()
    wire.laptop.item(vid(1), 8, b"")
    wire.laptop.item(vid(2), 3, bytes(400_000))
    wire.laptop.close(3, "removed")
    reader = FrameReader(limit=frames.MAX_FRAME)
    reader.receive_data(wire.laptop.data_to_send())
    count = 0
    while (body := reader.next_body()) is not None:
        schema.validate_cbor(body)
        count += 1
    assert count == 8


def test_no_secret_and_no_bulk_shows_in_a_repr() -> None:
    wire = Pair().greet()
    wire.laptop.profiles([b"profile bytes"])
    (event,) = wire.to_desktop()
    assert "bytes" not in repr(event)
    assert "bulk" not in repr(Item(vid(1), 8, b"bulk", 0, 4))
    assert "caught_up" in repr(PeerChanges((), True))
    with pytest.raises(FormatError):
        hello(DESKTOP, DESKTOP_STORE, versions=())
