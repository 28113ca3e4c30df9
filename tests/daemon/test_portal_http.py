"""A portal's HTTP: strict, bounded, and of one mind with h11 about what a request is."""

from __future__ import annotations

import h11
import hypothesis
import pytest
import trio
import trio.testing
from hypothesis import strategies as st

from harness.portal_server import Answer, read_answer
from meshd.daemon.portal import http
from meshd.daemon.portal.http import Limits, Request, Response, Server

SMALL = Limits(head=2048, fields=16, body=4096, idle_seconds=20, request_seconds=10, linger_seconds=0.1)


class Echo:
    """Answers with what it was asked, and remembers it."""

    def __init__(self) -> None:
        self.seen: list[Request] = []

    async def __call__(self, request: Request) -> Response:
        self.seen.append(request)
        return Response(200, request.body)


async def told(data: bytes, limits: Limits = SMALL, pieces: int = 0) -> tuple[list[Answer], list[Request], bool]:
    """What comes back for bytes: answers, the requests that were seen, and whether the connection was closed."""
    echo = Echo()
    server = Server(echo, limits)
    ours, theirs = trio.testing.memory_stream_pair()
    answers: list[Answer] = []
    buffer = bytearray()
    closed = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, theirs, "192.0.2.1", "127.0.0.1")
        for at in range(0, len(data), pieces or len(data) or 1):
            await ours.send_all(data[at : at + (pieces or len(data))])
            if pieces:
                await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(5):
            try:
                while True:
                    answers.append(await read_answer(ours, buffer))
            except (EOFError, trio.BrokenResourceError):
                closed = True
        nursery.cancel_scope.cancel()
    return answers, echo.seen, closed


def post(body: bytes = b"", *more: bytes, length: bytes | None = None) -> bytes:
    size = b"%d" % len(body) if length is None else length
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + size + b"\r\n" + b"".join(more) + b"\r\n" + body


@pytest.mark.parametrize("pieces", [0, 1, 3, 50])
async def test_requests_come_whole_however_they_arrive(autojump_clock, pieces):
    answers, seen, closed = await told(post(b"one") + post(b"two") + post(), pieces=pieces)
    assert [one.body for one in answers] == [b"one", b"two", b""] and not closed
    assert [one.headers["host"] for one in seen] == ["x"] * 3


async def test_a_chunked_body_is_one_body(autojump_clock):
    data = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4;a=b\r\ntwo!\r\n0\r\n\r\n"
    answers, _, closed = await told(data + post(b"next"))
    assert [one.body for one in answers] == [b"onetwo!", b"next"] and not closed


SMUGGLED = {
    "two lengths": post(b"abc", b"Content-Length: 4\r\n"),
    "the same length twice": post(b"abc", b"Content-Length: 3\r\n"),
    "a length and chunks": post(b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n"),
    "a signed length": post(b"abc", length=b"+3"),
    "a list of lengths": post(b"abc", length=b"3, 3"),
    "a hexadecimal length": post(b"abc", length=b"0x3"),
    "a negative length": post(b"abc", length=b"-1"),
    "an unknown coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding twice": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
    "chunks in 1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc",
    "a folded line": b"POST / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a bare line feed": b"POST / HTTP/1.1\nHost: x\n\n" + b"\r\n\r\n",
    "a bare line feed in a header": b"POST / HTTP/1.1\r\nHost: x\r\nA: b\nContent-Length: 3\r\n\r\n",
    "a zero byte": b"POST / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "no host": b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "two hosts": b"POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a chunk of another size": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "a chunk without size": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n",
    "trailers": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: y\r\n\r\n",
    "an absolute target": b"POST http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the target": b"POST /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "another version": b"POST / HTTP/2.0\r\nHost: x\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\r\n\r\n",
    "too many headers": b"POST / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20 + b"\r\n",
    "headers that are too long": b"POST / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 3000 + b"\r\n\r\n",
    "headers without an end": b"POST / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 3000,
    "a body that is too long": post(length=b"5000"),
    "chunks that are too long": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n",
    "an odd expectation": post(b"abc", b"Expect: cake\r\n"),
}


@pytest.mark.parametrize("what", SMUGGLED)
async def test_what_could_be_read_in_two_ways_is_refused_and_ends_the_connection(autojump_clock, what):
    answers, seen, closed = await told(SMUGGLED[what] + post(b"smuggled"))
    assert len(answers) == 1 and 400 <= answers[0].status < 600 and closed and not seen
    assert answers[0].headers["connection"] == "close"


async def test_who_speaks_tls_where_there_is_none_is_not_left_waiting(autojump_clock):
    began = trio.current_time()
    answers, seen, closed = await told(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert [one.status for one in answers] == [400] and closed and not seen
    assert trio.current_time() - began < 1


async def test_a_client_that_expects_it_is_told_to_go_on(autojump_clock):
    echo = Echo()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server(echo, SMALL).serve, theirs, "192.0.2.1", "127.0.0.1")
        await ours.send_all(post(b"", b"Expect: 100-continue\r\n", length=b"3"))
        assert await ours.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await ours.send_all(b"abc")
        assert (await read_answer(ours, bytearray())).body == b"abc"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("data", [b"", b"POST / HT", post(length=b"3") + b"ab", b"\r\n"])
async def test_who_is_slow_is_cut_off(autojump_clock, data):
    began = trio.current_time()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server(Echo(), SMALL).serve, theirs, "192.0.2.1", "127.0.0.1")
        if data:
            await ours.send_all(data)
        assert await ours.receive_some() == b""
    assert trio.current_time() - began <= 21


async def test_who_sends_a_byte_at_a_time_is_cut_off_all_the_same(autojump_clock):
    ours, theirs = trio.testing.memory_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server(Echo(), SMALL).serve, theirs, "192.0.2.1", "127.0.0.1")
        with pytest.raises(trio.BrokenResourceError):
            for byte in post(b"abc"):
                await ours.send_all(bytes([byte]))
                await trio.sleep(1)
    assert trio.current_time() - began < 15


async def test_large_bodies_share_a_bound(autojump_clock):
    server = Server(Echo(), Limits(bodies=100_000, linger_seconds=0.1))
    ends = []
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve, theirs, "192.0.2.1", "127.0.0.1")
            await ours.send_all(post(length=b"40000"))
            await trio.testing.wait_all_tasks_blocked()
            ends.append(ours)
        assert (await read_answer(ends[2], bytearray())).status == 503
        assert server.bodies == 80_000
        await ends[0].send_all(b"x" * 40_000)
        assert len((await read_answer(ends[0], bytearray())).body) == 40_000
        assert server.bodies == 40_000
        nursery.cancel_scope.cancel()


async def test_the_longest_idle_connection_makes_room_and_one_address_has_its_share(autojump_clock):
    server = Server(Echo(), Limits(connections=2, connections_each=2, idle_seconds=1000, linger_seconds=0.1))
    async with trio.open_nursery() as nursery:
        ends = []
        for number in range(3):
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve, theirs, f"192.0.2.{number}", "127.0.0.1")
            await trio.testing.wait_all_tasks_blocked()
            ends.append(ours)
        assert await ends[0].receive_some() == b"" and server.connections == 2
        await ends[2].send_all(post(b"abc"))
        assert (await read_answer(ends[2], bytearray())).body == b"abc"
        for number in range(2):
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve, theirs, "192.0.2.2", "127.0.0.1")
            await trio.testing.wait_all_tasks_blocked()
            if number == 1:
                assert await ours.receive_some() == b"" and server.refused == 1
        nursery.cancel_scope.cancel()


async def test_a_handler_that_fails_says_nothing_of_what_it_was_asked(autojump_clock, caplog):
    async def fails(request: Request) -> Response:
        raise ValueError(request.body)

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server(fails, SMALL).serve, theirs, "192.0.2.1", "127.0.0.1")
        await ours.send_all(post(b"hunter2"))
        answer = await read_answer(ours, bytearray())
        assert answer.status == 500 and b"hunter2" not in answer.body
        nursery.cancel_scope.cancel()
    assert "hunter2" not in caplog.messages[0]


TOKEN = st.sampled_from(
    [b"A", b"Host", b"host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"X-y", b"A b"]
)
VALUE = st.sampled_from([b"x", b"0", b"3", b"chunked", b"close", b"a, b", b" x\t", b"\xff", b"a\x01", b"", b"03"])
LINE = st.builds(lambda name, gap, value, end: name + gap + value + end, TOKEN, st.sampled_from([b":", b": ", b" :"]),
                 VALUE, st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\n "]))  # fmt: skip
HEAD = st.builds(
    lambda method, target, version, lines: method + b" " + target + b" " + version + b"\r\n" + b"".join(lines),
    st.sampled_from([b"GET", b"POST", b"get", b"P OST"]),
    st.sampled_from([b"/", b"/a?b", b"*", b"http://x/", b"/\x7f"]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"http/1.1"]),
    st.lists(LINE, max_size=5),
)


@hypothesis.given(HEAD)
def test_what_is_taken_h11_takes_too_and_reads_the_same(head):
    try:
        method, target, minor, headers = http._parse(head, 64)
        length, chunked = http._framing(headers, minor)
    except http._Refusal:
        return
    oracle = h11.Connection(h11.SERVER)
    oracle.receive_data(head + b"\r\n")
    event = oracle.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method.decode(), event.target.decode(), event.http_version) == (method, target, b"1.%d" % minor)
    found: dict[str, str] = {}
    for name, value in event.headers:
        text = value.decode("latin-1")
        key = name.decode()
        found[key] = f"{found[key]}, {text}" if key in found else text
    assert found == headers
    body = b"x" * length if not chunked else b"1\r\nx\r\n0\r\n\r\n"
    oracle.receive_data(body)
    data = b""
    while isinstance(event := oracle.next_event(), h11.Data):
        data += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage) and data == b"x" * (1 if chunked else length)
