"""A sync conversation between two real sessions."""

from __future__ import annotations

import pytest

from harness.sync_wire import DESKTOP, DESKTOP_STORE, LAPTOP, LAPTOP_STORE, Pair, change, drain, hello, vid
from meshd.errors import LocalProtocolError, RemoteProtocolError, VersionMismatch
from meshd.sync import checks
from meshd.sync.arrivals import WINDOW_BYTES, WINDOW_ITEMS
from meshd.sync.codec import encode
from meshd.sync.events import (
    Partial,
    PeerAck,
    PeerChain,
    PeerChanges,
    PeerClosed,
    PeerEvidence,
    PeerFeed,
    PeerGone,
    PeerHello,
    PeerItem,
    PeerNote,
    PeerProfiles,
    PeerStability,
    PeerTrace,
    PeerWant,
)
from meshd.sync.messages import TRACES, CloseCode, Want
from meshd.sync.session import Session


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_a_change_reaches_a_device_that_lacks_it(chunk: int) -> None:
    wire = Pair(chunk=chunk)
    wire.laptop.start()
    wire.desktop.start()
    assert wire.to_desktop() == [PeerHello(hello())]
    assert wire.to_laptop() == [PeerHello(hello(DESKTOP, DESKTOP_STORE))]
    assert wire.laptop.version == 1

    wire.laptop.profiles([b"newer profile", b"newest profile"])
    wire.laptop.feed(DESKTOP_STORE, 7)
    wire.desktop.feed(LAPTOP_STORE, 0)
    assert wire.to_desktop() == [PeerProfiles((b"newer profile", b"newest profile")), PeerFeed(DESKTOP_STORE, 7)]
    assert wire.to_laptop() == [PeerFeed(LAPTOP_STORE, 0)]

    rows = [change(1, size=3), change(2, size=900), change(5, size=70_000)]
    wire.laptop.changes(rows, True)
    assert wire.to_desktop() == [PeerChanges(tuple(rows), True)]

    assert wire.desktop.want([row.vid for row in rows], [row.size for row in rows]) == 3
    assert wire.to_laptop() == [PeerWant(tuple(row.vid for row in rows), 70_903)]

    for row in rows:
        wire.laptop.item(row.vid, row.kind, b"x" * row.size)
    assert wire.to_desktop() == [PeerItem(row.vid, row.kind, b"x" * row.size) for row in rows]
    assert wire.desktop.outstanding == 0

    wire.desktop.ack(5)
    assert wire.to_laptop() == [PeerAck(5)]


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_everything_else_that_can_be_said_arrives(chunk: int) -> None:
    wire = Pair(chunk=chunk).open()
    wire.laptop.note("portal.example/mmm-log\n5\nroot\n")
    wire.laptop.evidence("one", "another")
    wire.laptop.stability({DESKTOP: 5, LAPTOP: 9})
    wire.laptop.ping()
    wire.laptop.close(CloseCode.STOPPING, "good night")
    assert wire.to_desktop() == [
        PeerNote("portal.example/mmm-log\n5\nroot\n"),
        PeerEvidence("one", "another"),
        PeerStability(((LAPTOP, 9), (DESKTOP, 5))),  # deterministic CBOR orders the keys
        PeerClosed(CloseCode.STOPPING, "good night"),
    ]
    assert wire.desktop.closed


def test_a_ping_is_answered_once_however_often_it_is_asked() -> None:
    wire = Pair().open()
    for _ in range(10_000):
        wire.laptop.ping()
    assert wire.to_desktop() == []
    assert len(wire.desktop.data_to_send()) < 20
    wire.laptop.ping()
    wire.to_desktop()
    assert wire.to_laptop() == []
    assert wire.laptop.data_to_send() == b""


def test_devices_without_a_common_version_say_which_one_is_too_old() -> None:
    wire = Pair(laptop=hello(versions=(2, 3)))
    wire.laptop.start()
    wire.desktop.start()
    with pytest.raises(VersionMismatch, match="this device needs a newer release"):
        wire.to_desktop()
    with pytest.raises(VersionMismatch, match="the other device needs a newer release"):
        wire.to_laptop()
    assert wire.desktop.closed
    assert wire.laptop.closed


def test_the_highest_common_version_is_spoken() -> None:
    wire = Pair(laptop=hello(versions=(1, 2, 3)), desktop=hello(DESKTOP, DESKTOP_STORE, versions=(1, 2))).greet()
    assert wire.laptop.version == wire.desktop.version == 2


def test_a_close_is_the_last_word() -> None:
    wire = Pair().open()
    wire.laptop.ping()
    wire.laptop.close(CloseCode.DUPLICATE)
    wire.laptop.close(CloseCode.FAULT, "said twice")
    with pytest.raises(LocalProtocolError):
        wire.laptop.ack(1)
    assert wire.to_desktop() == [PeerClosed(CloseCode.DUPLICATE, "")]
    wire.desktop.receive_data(b"whatever still comes")
    wire.desktop.receive_data(b"")
    assert drain(wire.desktop) == [PeerGone(True)]


def test_a_server_may_refuse_before_it_says_hello() -> None:
    wire = Pair()
    wire.desktop.close(CloseCode.BUSY, "try later")
    assert wire.to_laptop() == [PeerClosed(CloseCode.BUSY, "try later")]


def test_the_reason_of_a_close_cannot_write_to_a_terminal() -> None:
    wire = Pair().open()
    wire.laptop.close(CloseCode.DONE, "\x1b[2Jgone\n")
    assert wire.to_desktop() == [PeerClosed(0, "?[2Jgone?")]


def test_the_end_of_the_stream_is_told_once() -> None:
    wire = Pair().open()
    wire.desktop.receive_data(b"")
    assert drain(wire.desktop) == [PeerGone(True)]
    assert drain(wire.desktop) == []
    with pytest.raises(LocalProtocolError):
        wire.desktop.ping()


def test_a_stream_that_ends_inside_a_frame_is_not_clean() -> None:
    wire = Pair().open()
    wire.laptop.ping()
    wire.desktop.receive_data(wire.laptop.data_to_send()[:-1])
    wire.desktop.receive_data(b"")
    assert drain(wire.desktop) == [PeerGone(False)]


def test_a_version_that_is_gone_is_answered_with_nothing() -> None:
    wire = Pair().open()
    wire.desktop.want([vid(1)], [1000])
    wire.to_laptop()
    wire.laptop.item(vid(1), 8, b"")
    assert wire.to_desktop() == [PeerItem(vid(1), 8, b"")]
    assert wire.desktop.outstanding == 0


def test_many_changes_travel_in_several_frames_and_only_the_last_is_caught_up() -> None:
    wire = Pair().open()
    rows = [change(number) for number in range(1, 2_502)]
    wire.laptop.changes(rows, True)
    events = wire.to_desktop()
    assert [
        (type(event), len(event.changes), event.caught_up) for event in events if isinstance(event, PeerChanges)
    ] == [
        (PeerChanges, 1000, False),
        (PeerChanges, 1000, False),
        (PeerChanges, 501, True),
    ]
    wire.laptop.changes([], True)
    assert wire.to_desktop() == [PeerChanges((), True)]


def test_a_device_that_takes_small_frames_gets_small_frames() -> None:
    small = hello(DESKTOP, DESKTOP_STORE, max_frame=65_536)
    wire = Pair(desktop=small).greet()
    profiles = [bytes([number]) * 20_000 for number in range(10)]
    with pytest.raises(LocalProtocolError):
        wire.laptop.profiles([b"x" * 70_000])
    wire.laptop.profiles(profiles)
    arrived = wire.to_desktop()
    assert len(arrived) == 4
    assert [raw for event in arrived if isinstance(event, PeerProfiles) for raw in event.raws] == profiles

    wire.laptop.feed(DESKTOP_STORE, 0)
    wire.desktop.feed(LAPTOP_STORE, 0)
    wire.to_desktop()
    wire.to_laptop()
    rows = tuple(change(number) for number in range(1, 1_001))
    wire.laptop.changes(rows, True)
    events = [event for event in wire.to_desktop() if isinstance(event, PeerChanges)]
    assert tuple(row for event in events for row in event.changes) == rows
    assert [event.caught_up for event in events] == [False] * (len(events) - 1) + [True]

    wire.desktop.want([vid("big")], [200_000])
    wire.to_laptop()
    wire.laptop.item(vid("big"), 8, b"b" * 200_000)
    assert wire.to_desktop() == [PeerItem(vid("big"), 8, b"b" * 200_000)]


# ── The window ──


def test_no_more_is_wanted_than_the_window_holds() -> None:
    wire = Pair().open()
    assert wire.desktop.want_room() == WINDOW_ITEMS
    assert wire.desktop.want([vid(number) for number in range(300)]) == WINDOW_ITEMS
    assert wire.desktop.want_room() == 0
    assert wire.desktop.want([vid("more")]) == 0
    wire.to_laptop()
    wire.laptop.item(vid(0), 8, b"here")
    wire.to_desktop()
    assert wire.desktop.want_room() == 1


def test_large_items_fill_the_window_by_their_bytes() -> None:
    wire = Pair().open()
    sizes = [300_000] * 10
    assert wire.desktop.want([vid(number) for number in range(10)], sizes) == 3
    assert wire.desktop.want([vid(3)], [300_000]) == 0
    assert wire.desktop.want([vid("small")], [1000]) == 1


def test_an_item_above_the_window_comes_alone() -> None:
    wire = Pair().open()
    assert wire.desktop.want([vid("huge"), vid("next")], [3 * WINDOW_BYTES, 10]) == 1
    assert wire.desktop.want_room() == 0


def test_a_version_is_not_wanted_twice() -> None:
    wire = Pair().open()
    wire.desktop.want([vid(1)])
    with pytest.raises(LocalProtocolError):
        wire.desktop.want([vid(1)])


def test_what_piles_up_for_a_device_that_never_reads_is_bounded_by_the_window() -> None:
    """The desktop wants on and on, but nothing of the answers is taken from the laptop."""
    wire = Pair().open()
    for number in range(WINDOW_ITEMS):
        wire.laptop.receive_data(encode(Want((vid(number),), 1000)))
        assert drain(wire.laptop) == [PeerWant((vid(number),), 1000)]
        wire.laptop.item(vid(number), 8, b"r" * 1000)
    assert wire.laptop.backlog < WINDOW_ITEMS * 1100
    wire.laptop.receive_data(encode(Want((vid("one more"),), 1000)))
    with pytest.raises(RemoteProtocolError, match="wanted at once"):
        wire.laptop.next_event()


def test_the_window_counts_what_the_driver_has_not_taken_yet() -> None:
    wire = Pair().open()
    for round_ in range(3):
        vids = [vid(f"{round_} {number}") for number in range(WINDOW_ITEMS)]
        assert wire.desktop.want(vids) == WINDOW_ITEMS
        (want,) = wire.to_laptop()
        assert isinstance(want, PeerWant)
        for wanted in want.vids:
            wire.laptop.item(wanted, 8, b"item")
        assert len(wire.to_desktop()) == WINDOW_ITEMS


# ── Items in pieces ──


def big(size: int) -> bytes:
    return bytes(number % 251 for number in range(size))


@pytest.mark.parametrize("size", [checks.CHUNK, checks.CHUNK + 1, 1_000_000, checks.MAX_ITEM])
def test_a_large_item_travels_in_pieces(size: int) -> None:
    wire = Pair(chunk=50_000).open()
    wire.desktop.want([vid("big")], [size])
    wire.to_laptop()
    wire.laptop.item(vid("big"), 1, big(size))
    assert wire.to_desktop() == [PeerItem(vid("big"), 1, big(size))]
    assert wire.desktop.partial is None


def test_other_frames_may_come_between_the_pieces() -> None:
    wire = Pair().open()
    wire.desktop.want([vid("big")])
    wire.to_laptop()
    wire.laptop.item(vid("big"), 8, big(600_000))
    pieces = wire.laptop.data_to_send()
    length = 4 + int.from_bytes(pieces[:4], "big")
    wire.laptop.changes([change(1)], True)
    between = wire.laptop.data_to_send()
    wire.desktop.receive_data(pieces[:length] + between + pieces[length:])
    assert [type(event) for event in drain(wire.desktop)] == [PeerChanges, PeerItem]


def test_an_item_cut_off_half_way_is_resumed_by_offset() -> None:
    raw = big(1_000_000)
    wire = Pair().open()
    wire.desktop.want([vid("big")], [len(raw)])
    wire.to_laptop()
    wire.laptop.item(vid("big"), 8, raw)
    wire.desktop.receive_data(wire.laptop.data_to_send()[:700_000])
    wire.desktop.receive_data(b"")
    assert drain(wire.desktop) == [PeerGone(False)]
    partial = wire.desktop.partial
    assert partial == Partial(vid("big"), 8, len(raw), raw[: 2 * checks.CHUNK])

    again = Pair().open()
    assert again.desktop.want([vid("big"), vid("small")], [len(raw), 10], resume=partial) == 2
    again.to_laptop()
    again.laptop.item(vid("small"), 8, b"0123456789")
    again.laptop.item(vid("big"), 8, raw)
    assert again.laptop.backlog < 500_000
    assert again.to_desktop() == [PeerItem(vid("small"), 8, b"0123456789"), PeerItem(vid("big"), 8, raw)]


def test_a_sender_whose_version_is_shorter_now_starts_again() -> None:
    partial = Partial(vid("big"), 8, 1_000_000, big(900_000))
    wire = Pair().open()
    wire.desktop.want([vid("big")], [1_000_000], resume=partial)
    wire.to_laptop()
    wire.laptop.item(vid("big"), 8, big(500_000))
    assert wire.to_desktop() == [PeerItem(vid("big"), 8, big(500_000))]


def test_what_is_resumed_is_wanted_first_and_alone() -> None:
    partial = Partial(vid("big"), 8, 1_000_000, big(900_000))
    wire = Pair().open()
    with pytest.raises(LocalProtocolError):
        wire.desktop.want([vid("other")], resume=partial)
    wire.desktop.want([vid("big")], resume=partial)
    with pytest.raises(LocalProtocolError):
        wire.desktop.want([vid("second")], resume=Partial(vid("second"), 8, 1_000_000, b"x"))


# ── What a driver may not do ──


def test_steps_out_of_turn_are_refused_locally() -> None:
    session = Session(hello(), outgoing=True)
    for step in (
        lambda: session.profiles([b"p"]),
        lambda: session.feed(DESKTOP_STORE, 0),
        lambda: session.changes([], True),
        lambda: session.want([vid(1)]),
        lambda: session.item(vid(1), 8, b"x"),
        lambda: session.ack(0),
        lambda: session.ping(),
    ):
        with pytest.raises(LocalProtocolError):
            step()
    assert session.data_to_send() == b""

    wire = Pair().greet()
    for step in (
        lambda: wire.laptop.start(),
        lambda: wire.laptop.changes([], True),
        lambda: wire.laptop.want([vid(1)]),
        lambda: wire.laptop.ack(0),
        lambda: wire.laptop.stability({}),
    ):
        with pytest.raises(LocalProtocolError):
            step()

    wire = Pair().open()
    for step in (
        lambda: wire.laptop.start(),
        lambda: wire.laptop.profiles([b"p"]),
        lambda: wire.laptop.item(vid(1), 8, b"x"),
        lambda: wire.laptop.changes([change(2), change(1)], True),
    ):
        with pytest.raises(LocalProtocolError):
            step()
    wire.desktop.want([vid(1)])
    wire.to_laptop()
    with pytest.raises(LocalProtocolError):
        wire.laptop.item(vid(1), 8, bytes(checks.MAX_ITEM + 1))
    wire.laptop.receive_data(b"")
    with pytest.raises(LocalProtocolError):
        wire.laptop.receive_data(b"more")


def test_links_of_a_chain_are_asked_for_one_question_at_a_time() -> None:
    wire = Pair(laptop=hello(features=(TRACES,)), desktop=hello(DESKTOP, DESKTOP_STORE, features=())).greet()
    assert wire.desktop.answers_traces and not wire.laptop.answers_traces
    with pytest.raises(LocalProtocolError):
        wire.desktop.trace(DESKTOP, [vid("end")])
    wire = Pair().open()
    wire.desktop.trace(DESKTOP, [vid("end")])
    with pytest.raises(LocalProtocolError):
        wire.desktop.trace(DESKTOP, [vid("end")])
    assert wire.to_laptop() == [PeerTrace(DESKTOP, (vid("end"),))]
    links = [("mnt1;g=1", bytes(32))]
    wire.laptop.chain(links)
    with pytest.raises(LocalProtocolError):
        wire.laptop.chain(links)
    assert wire.to_desktop() == [PeerChain(tuple(links))]
    wire.desktop.trace(DESKTOP, [vid("next")])
    assert len(wire.to_laptop()) == 1


def test_an_answer_with_as_many_links_as_there_may_be_fits_in_a_frame() -> None:
    wire = Pair().open()
    wire.desktop.trace(DESKTOP, [vid("end")])
    wire.to_laptop()
    wire.laptop.chain([("t" * 400, bytes(32))] * 1000)
    (event,) = wire.to_desktop()
    assert isinstance(event, PeerChain) and len(event.links) == 1000
