"""The HTTP of both ends: what is built is read again, however it is cut; what is malformed raises only our errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.errors import BadRequest, FormatError
from meshd.localapi import API, HOST
from meshd.localapi.http import (
    MAX_HEAD,
    AnswerReader,
    chunk,
    decode_body,
    envelope,
    quote,
    request,
    response,
    split_target,
    stream_head,
    target,
    unquote,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=8,
)


def feed(data: bytes, size: int) -> AnswerReader:
    reader = AnswerReader()
    for begin in range(0, len(data), size):
        reader.feed(data[begin : begin + size])
    return reader


@pytest.mark.parametrize("size", [1, 3, 65536])
@given(body=VALUES)
def test_an_answer_is_read_however_it_is_cut(size: int, body: object) -> None:
    reader = feed(response(200, body, version="1.2.3"), size)
    assert reader.done
    assert (reader.status, reader.api, reader.version) == (200, API, "1.2.3")
    assert reader.json() == body


@pytest.mark.parametrize("size", [1, 3, 65536])
@given(events=st.lists(VALUES, max_size=5), cut=st.integers(1, 40))
def test_a_stream_is_read_however_its_chunks_fall(size: int, events: list[object], cut: int) -> None:
    data = b"\n".join([json.dumps(event).encode() for event in events] + [b"", b""])  # an empty line is a sign of life
    parts = [chunk(data[begin : begin + cut]) for begin in range(0, len(data), cut)]
    whole = stream_head(version="1") + b"".join(parts) + chunk(b"")
    reader, found = AnswerReader(), []
    for begin in range(0, len(whole), size):
        reader.feed(whole[begin : begin + size])
        found += reader.lines()
    assert reader.done
    assert found == events


@given(data=st.binary(max_size=200))
def test_garbage_raises_only_our_error(data: bytes) -> None:
    for prefix in (
        b"",
        b"HTTP/1.1 200 OK\r\n",
        stream_head(version="1"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    ):
        reader = AnswerReader()
        try:
            reader.feed(prefix + data)
            reader.lines() if reader.chunked else reader.done and reader.json()
        except FormatError:
            pass


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 xx OK\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 100,
    ],
)
def test_an_answer_without_a_sound_frame_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        AnswerReader().feed(data)


def test_an_answer_that_breaks_off_is_refused() -> None:
    reader = AnswerReader()
    reader.feed(response(200, {"a": 1}, version="1")[:-1])
    assert not reader.done
    with pytest.raises(FormatError):
        reader.feed(b"")


def test_a_request_names_the_fixed_host_and_its_length() -> None:
    data = request("POST", "/v1/lock", {"ä": 1})
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/lock HTTP/1.1\r\n")
    assert f"Host: {HOST}".encode() in head
    assert b"Content-Length: %d" % len(body) in head
    assert json.loads(body) == {"ä": 1}
    assert request("GET", "/v1/status").endswith(b"\r\n\r\n")


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_what_is_quoted_comes_back(text: str) -> None:
    assert unquote(quote(text)) == text
    assert split_target(target("/v1/items", {"query": text, "after": None, "deleted": True})) == (
        "/v1/items",
        {"query": text, "deleted": "1"},
    )


@given(text=st.text())
def test_any_target_is_split_or_refused(text: str) -> None:
    try:
        split_target(text)
    except BadRequest:
        pass


@pytest.mark.parametrize("text", ["%", "%4", "%zz", "%ff", "%00", "%+1", "a%2", "%٣1"])
def test_a_broken_escape_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        unquote(text)


def test_a_parameter_named_twice_is_refused() -> None:
    with pytest.raises(BadRequest):
        split_target("/v1/items?limit=1&limit=2")


@pytest.mark.parametrize("data", [b"{", b'{"a":1,"a":2}', b'{"a":{"b":1,"b":1}}', b"NaN", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_strict_json_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_body(data)


def test_every_answer_says_its_schema_first() -> None:
    assert list(envelope({"locked": True})) == ["schema", "locked"]
    assert decode_body(b"") is None
