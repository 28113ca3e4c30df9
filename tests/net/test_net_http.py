from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.errors import Locked, NotFound
from meshd.net.http import Handler, Limits, Peer, Request, Response, error_response, serve

Clock = trio.testing.MockClock
Stream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
PEER = Peer("unix", pid=1, uid=1000, gid=1000)
SMALL = Limits(header=1024, body=100, target=200, query_fields=4)


async def mirror(request: Request) -> Response:
    told = [request.method, request.path, request.query, request.body.decode(), request.peer.uid]
    return Response(200, json.dumps(told).encode(), [("content-type", "application/json")])


async def talk(data: bytes, handler: Handler = mirror, limits: Limits = SMALL, *, end: bool = False) -> bytes:
    """Send `data` and return all that comes back until the server closes."""
    server, client = trio.testing.memory_stream_pair()
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(server, handler, peer=PEER, limits=limits))
        await client.send_all(data)
        if end:
            await trio.testing.wait_all_tasks_blocked()
            await client.send_eof()
        async for piece in client:
            received += piece
    return bytes(received)


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:]), body


def refused(answer: bytes, status: int) -> None:
    got, headers, body = parts(answer)
    assert got == status
    assert headers["connection"] == "close"
    error = json.loads(body)
    assert error["schema"] == 1
    assert error["error"]["code"] == "usage"
    assert error["error"]["message"]


CLOSE = b"Host: meshd\r\nConnection: close\r\n"


async def test_a_request_reaches_the_handler_whole() -> None:
    answer = await talk(b"POST /v1/items?site=a%20b&all HTTP/1.1\r\n" + CLOSE + b"Content-Length: 5\r\n\r\nhello")
    assert parts(answer)[0] == 400  # a query field without a value is no field
    answer = await talk(b"POST /v1/it%2Fems?site=a%20b&all= HTTP/1.1\r\n" + CLOSE + b"Content-Length: 5\r\n\r\nhello")
    status, headers, body = parts(answer)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == ["POST", "/v1/it%2Fems", {"site": "a b", "all": ""}, "hello", 1000]


def test_a_segment_may_hold_a_slash() -> None:
    request = Request("GET", "/v1/items/a%2Fb?x", "/v1/items/a%2Fb", {}, [("host", "meshd")], b"", PEER)
    assert request.segments == ("v1", "items", "a/b")
    assert request.header("host") == "meshd"
    assert request.header("origin") is None
    assert Request("GET", "/", "/", {}, [], b"", PEER).segments == ()


async def test_a_connection_serves_many_requests_pipelined_too() -> None:
    one = b"GET /1 HTTP/1.1\r\nHost: meshd\r\n\r\n"
    last = b"GET /2 HTTP/1.1\r\n" + CLOSE + b"\r\n"
    answer = await talk(one * 40 + last)
    assert answer.count(b"HTTP/1.1 200") == 41
    assert answer.index(b"/1") < answer.index(b"/2")


async def test_a_chunked_body_is_put_together() -> None:
    head = b"POST / HTTP/1.1\r\n" + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = await talk(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert json.loads(parts(answer)[2])[3] == "abcde"


async def test_expect_continue_is_answered_before_the_body() -> None:
    server, client = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(server, mirror, peer=PEER))
        await client.send_all(b"PUT / HTTP/1.1\r\n" + CLOSE + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert bytes(await client.receive_some()).startswith(b"HTTP/1.1 100 ")
        await client.send_all(b"ok")
        assert parts(bytes(await client.receive_some()))[0] == 200


async def test_a_head_request_gets_no_body() -> None:
    status, headers, body = parts(await talk(b"HEAD / HTTP/1.1\r\n" + CLOSE + b"\r\n"))
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


async def test_no_content_has_neither_body_nor_length() -> None:
    async def nothing(request: Request) -> Response:
        return Response(204)

    status, headers, body = parts(await talk(b"DELETE /x HTTP/1.1\r\n" + CLOSE + b"\r\n", nothing))
    assert (status, body) == (204, b"")
    assert "content-length" not in headers


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413, id="declared body too long"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + b"x" * 64 + b"\r\n40\r\n"
            b"" + b"x" * 64 + b"\r\n",
            413,
            id="chunked body too long",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n",
            413,
            id="too long a body is not asked for",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2000 + b"\r\n\r\n", 431, id="header too long"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000, 431, id="header without end"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1000 + b"\r\n\r\n", 431, id="header just too long"),
        pytest.param(b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, id="target too long"),
        pytest.param(b"GET /?a=1&b=1&c=1&d=1&e=1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="query of too many fields"),
        pytest.param(b"GET /?a=1&a=2 HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="query field twice"),
        pytest.param(b"GET /?a=%ff HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="query not UTF-8"),
        pytest.param(b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="absolute target"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            id="length and chunks",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, id="two lengths"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n", 400, id="negative length"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, id="unknown encoding"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, id="space before the colon"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, id="TLS"),
        pytest.param(b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, id="unknown version"),
    ],
)
async def test_what_is_malformed_or_too_big_is_refused(data: bytes, status: int, autojump_clock: Clock) -> None:
    refused(await talk(data), status)


async def test_a_client_that_still_sends_reads_why_it_was_refused(autojump_clock: Clock) -> None:
    async def broken_off(stream: Stream) -> bytes:
        for _ in range(20):
            await stream.send_all(b"x" * 60_000)
        return bytes(await stream.receive_some())

    server, client = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(server, mirror, peer=PEER, limits=SMALL))
        await client.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1200000\r\n\r\n")
        refused(await broken_off(client), 413)
        await client.send_eof()


async def test_a_slow_request_is_given_up(autojump_clock: Clock) -> None:
    started = trio.current_time()
    refused(await talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"), 408)
    assert trio.current_time() - started < 40
    refused(await talk(b"GET / HT"), 408)


async def test_bytes_that_drip_do_not_prolong_the_request(autojump_clock: Clock) -> None:
    server, client = trio.testing.memory_stream_pair()

    async def drip() -> None:
        try:
            for byte in b"GET /" + b"a" * 150:
                await client.send_all(bytes([byte]))
                await trio.sleep(1)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        started = trio.current_time()
        await serve(server, mirror, peer=PEER, limits=SMALL)
        assert trio.current_time() - started < 40
        nursery.cancel_scope.cancel()


async def test_an_idle_connection_is_closed_without_a_word(autojump_clock: Clock) -> None:
    started = trio.current_time()
    assert await talk(b"") == b""
    assert trio.current_time() - started == pytest.approx(75)
    answer = await talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert parts(answer)[0] == 200


async def test_a_client_that_does_not_read_is_given_up(autojump_clock: Clock) -> None:
    server, client = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        started = trio.current_time()
        await serve(server, mirror, peer=PEER)
        assert trio.current_time() - started < 40


async def test_a_body_cut_short_reaches_no_handler() -> None:
    async def never(request: Request) -> Response:
        raise AssertionError("half a request was handled")

    data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"
    refused(await talk(data, never, end=True), 400)


async def test_events_stream_as_they_happen() -> None:
    more, events = trio.open_memory_channel[bytes](10)

    async def watch(request: Request) -> Response:
        return Response(200, headers=[("content-type", "application/x-ndjson")], stream=events)

    server, client = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(server, watch, peer=PEER))
        await client.send_all(b"GET /v1/events HTTP/1.1\r\n" + CLOSE + b"\r\n")
        _, headers, rest = parts(bytes(await client.receive_some()))
        assert (headers["transfer-encoding"], rest) == ("chunked", b"")
        for line in (b'{"id":1}\n', b"", b'{"id":2}\n'):
            await more.send(line)
            if line:
                assert line in bytes(await client.receive_some())
        await more.aclose()
        assert bytes(await client.receive_some()) == b"0\r\n\r\n"
        assert bytes(await client.receive_some()) == b""


async def test_a_watcher_that_leaves_ends_its_stream() -> None:
    cleaned = trio.Event()

    async def forever() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await trio.sleep_forever()
        finally:
            cleaned.set()

    async def watch(request: Request) -> Response:
        return Response(stream=forever())

    server, client = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(server, watch, peer=PEER))
        await client.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while b"first" not in bytes(await client.receive_some()):
            pass
        await client.aclose()
    assert cleaned.is_set()


@pytest.mark.parametrize("leave", ["aclose", "send_eof"])
async def test_a_client_that_leaves_cancels_the_work(leave: str) -> None:
    cancelled = trio.Event()

    async def work(request: Request) -> Response:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError("not reached")

    server, client = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(server, work, peer=PEER))
        await client.send_all(b"POST /v1/connections HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert not cancelled.is_set()
        depart: Callable[[], Awaitable[None]] = getattr(client, leave)
        await depart()
    assert cancelled.is_set()


async def test_what_is_pipelined_during_the_work_waits_and_does_not_cancel_it() -> None:
    go = trio.Event()

    async def work(request: Request) -> Response:
        await go.wait()
        return Response(200, request.path.encode())

    server, client = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(server, work, peer=PEER))
        await client.send_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(b"GET /2 HTTP/1.1\r\n" + CLOSE + b"\r\n")
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        answer = bytearray()
        async for piece in client:
            answer += piece
    assert answer.index(b"/1") < answer.index(b"/2")


async def test_an_error_of_ours_is_an_answer_and_a_bug_is_no_switch(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Request) -> Response:
        if request.path == "/missing":
            raise NotFound("there is no such device", hint="run: meshctl device list")
        raise RuntimeError("a bug")

    status, _, body = parts(await talk(b"GET /missing HTTP/1.1\r\n" + CLOSE + b"\r\n", fail))
    assert status == 404
    assert json.loads(body)["error"] == {
        "code": "not-found",
        "message": "there is no such device",
        "hint": "run: meshctl device list",
    }
    with caplog.at_level(logging.ERROR):
        answer = await talk(b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\nGET /missing HTTP/1.1\r\n" + CLOSE + b"\r\n", fail)
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"HTTP/1.1 404" in answer
    assert "a bug" in caplog.text
    assert "secret" not in caplog.text


async def test_a_stream_that_fails_ends_without_its_last_chunk(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> AsyncIterator[bytes]:
        yield b"one\n"
        raise RuntimeError("a bug")

    async def watch(request: Request) -> Response:
        return Response(stream=fails())

    answer = await talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", watch)
    assert b"one" in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_an_error_has_its_documented_form() -> None:
    answer = error_response(Locked("This device is locked."))
    assert json.loads(answer.body) == {
        "schema": 1,
        "error": {"code": "locked", "message": "This device is locked.", "hint": "run: meshctl unlock"},
    }
    assert error_response(NotFound(), 410).status == 410


async def test_each_route_has_its_own_limit_and_unknown_ones_get_no_body() -> None:
    def most(method: str, target: str) -> int:
        if target.startswith("/nowhere"):
            raise NotFound("there is no such route")
        return 200 if (method, target) == ("POST", "/import?dry=1") else 10

    async def ask(target: str, size: int) -> tuple[int, dict[str, str], bytes]:
        server, client = trio.testing.memory_stream_pair()
        head = f"POST {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        await client.send_all(head.encode() + b"x" * size)
        await client.send_eof()
        headers = [("content-type", "application/json"), ("meshd-version", "1")]
        await serve(server, mirror_length, peer=PEER, limits=SMALL, body_limit=most, error_headers=headers)
        return parts(bytes(await client.receive_some()))

    async def mirror_length(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(200, str(len(request.body)).encode())

    status, headers, body = await ask("/nowhere", 11)
    assert (status, headers["meshd-version"]) == (404, "1")
    assert json.loads(body)["error"]["code"] == "not-found"
    assert (await ask("/other", 11))[0] == 413
    server, client = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(server, mirror_length, peer=PEER, limits=SMALL, body_limit=most))
        await client.send_all(b"POST /import?dry=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 150\r\n\r\n" + b"x" * 150)
        assert parts(bytes(await client.receive_some()))[2] == b"150"
        await client.aclose()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n", b"Content-Length: 4\r\n", b"abcd", b"0\r\n"])
        | st.binary(max_size=20),
        max_size=8,
    )
)
async def test_no_bytes_whatever_make_the_server_raise(pieces: list[bytes]) -> None:
    server, client = trio.testing.memory_stream_pair()
    await client.send_all(b"".join(pieces))
    await client.send_eof()
    await serve(server, mirror, peer=PEER, limits=SMALL)
