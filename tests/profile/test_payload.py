"""Payloads: what is written is read back, and what F2 rules out is not read."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.errors import FormatError
from meshd.profile import payload

PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | PLAIN,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(PLAIN, inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(PLAIN, VALUES, max_size=5))
def test_what_is_written_is_compact_raw_utf8_and_reads_back(body: dict[str, Any]) -> None:
    data = payload.encode_tagged("PasswordProfile", body)
    assert payload.decode_tagged(data) == ("PasswordProfile", body)
    assert data.decode() == json.dumps({"PasswordProfile": body}, ensure_ascii=False, separators=(",", ":"))


@given(st.binary(max_size=60))
def test_garbage_raises_only_a_format_error(data: bytes) -> None:
    for read in (payload.decode, payload.decode_private, payload.decode_tagged):
        try:
            read(data)
        except FormatError:
            pass


@given(st.text(st.sampled_from('{}[]":,\\u0012eE+-.tfn \n\ttrue'), max_size=40))
def test_text_that_looks_like_json_raises_only_a_format_error(text: str) -> None:
    try:
        value = payload.decode(text.encode())
    except FormatError:
        return
    assert value == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        '{"a":1}x',
        '{"a":1,}',
        "{'a':1}",
        '{"a":1,"a":1}',
        '{"a":1,"\\u0061":2}',
        '{"a":{"b":[{"c":1,"c":2}]}}',
        "NaN",
        "Infinity",
        "-Infinity",
        "1.0",
        "1e2",
        "-0.0",
        "1e400",
        "01",
        "9007199254740992",
        "-9007199254740992",
        "123456789012345678901234567890",
        "9" * 5000,
        "[1.5]",
        '{"a":1.5}',
        '"\\u0000"',
        '"a\\nb"',
        '"a\nb"',
        '"\x7f"',
        '{"a\\tb":1}',
        '["\\u001f"]',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        "\ufeff{}",
    ],
)
def test_what_the_rules_leave_out_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        payload.decode(text.encode())


@pytest.mark.parametrize(
    "data", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', '"é"'.encode("latin-1"), b'"\xf4\x90\x80\x80"']
)
def test_what_is_not_utf8_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        payload.decode(data)


@pytest.mark.parametrize(
    ("number", "text"), [(2**53 - 1, "9007199254740991"), (1 - 2**53, "-9007199254740991"), (0, "0")]
)
def test_the_largest_integers_are_read(number: int, text: str) -> None:
    assert payload.decode(text.encode()) == number


def test_sixteen_levels_are_read_and_no_more() -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = opening * 16 + "1" + closing * 16
        assert payload.encode(payload.decode(text.encode())).decode() == text
        for deep in (17, 500, 5000, 400_000):
            with pytest.raises(FormatError):
                payload.decode((opening * deep + "1" + closing * deep).encode()[: payload.MAX_PAYLOAD])


def test_two_mebibytes_are_the_limit() -> None:
    text = '"' + "x" * (payload.MAX_PAYLOAD - 2) + '"'
    assert len(payload.decode(text.encode())) == payload.MAX_PAYLOAD - 2
    with pytest.raises(FormatError):
        payload.decode(b" " + text.encode())
    with pytest.raises(FormatError):
        payload.encode_tagged("Tag", {"a": "x" * payload.MAX_PAYLOAD})


def test_a_payload_of_nothing_but_brackets_costs_no_more_than_its_size() -> None:
    begin = time.perf_counter()
    payload.decode(b"[" + b"[]," * 600_000 + b"[]]")
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(
    "text", ["[]", '"A"', "{}", '{"Aa":{},"Bb":{}}', '{"Aa":[]}', '{"aa":{}}', '{"A":{}}', '{"A-b":{}}']
)
def test_a_payload_is_one_tagged_object(text: str) -> None:
    with pytest.raises(FormatError):
        payload.decode_tagged(text.encode())


@pytest.mark.parametrize(
    "value",
    [
        "\ud800",
        "a\x00b",
        "\n",
        1.5,
        float("nan"),
        float("inf"),
        2**53,
        2**70,
        -(2**53),
        {1: 2},
        {"a": {"b": {3}}},
        b"x",
        pytest.param(object(), id="an object"),
    ],
    ids=repr,
)
def test_what_a_reader_would_refuse_is_not_written(value: Any) -> None:
    for body in ({"a": value}, {"a": [{"b": value}]}):
        with pytest.raises(FormatError):
            payload.encode_tagged("Tag", body)
    with pytest.raises(FormatError):
        payload.encode_tagged("Tag", {"\n": 1})
    with pytest.raises(FormatError):
        payload.encode_tagged("tag", {})


def test_what_is_nested_without_end_is_not_written() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(FormatError):
        payload.encode_tagged("Tag", {"a": loop})
    with pytest.raises(FormatError):
        payload.encode_private(loop)
    with pytest.raises(FormatError):
        payload.encode(loop)


def test_what_is_encrypted_may_have_lines_and_nothing_else_that_a_payload_may_not() -> None:
    note = {"Note": "a\nb\tc\x00\x1b[2J\x7f"}
    assert payload.decode_private(payload.encode_private(note)) == note
    assert payload.decode_private(b' {"a":1}  ') == {"a": 1}
    for value in (1.5, "\ud800", 2**53, {1: 2}):
        with pytest.raises(FormatError):
            payload.encode_private([value])
    for text in ('{"a":1,"a":2}', "[1.5]", "[" * 17 + "]" * 17, '"\\ud800"', '"a\nb"'):
        with pytest.raises(FormatError):
            payload.decode_private(text.encode())


@pytest.mark.parametrize(
    "text", ['{"hunter2":1,"hunter2":1}', '{"a":"hunter2","b":1.5}', '["hunter2', '["hunter2","\\u0000"]']
)
def test_no_error_repeats_what_was_read(text: str) -> None:
    for read in (payload.decode, payload.decode_private):
        try:
            read(text.encode())
        except FormatError as exc:
            assert "hunter2" not in str(exc)


def test_members_are_asked_for_by_type() -> None:
    body = {"text": "x", "list": [1], "object": {"a": 1}, "number": 1, "none": None}
    assert payload.text_member(body, "text") == "x"
    assert payload.list_member(body, "list") == [1]
    assert payload.list_member(body, "absent") == []
    assert payload.object_member(body, "object") == {"a": 1}
    for name in ("number", "none", "list", "object", "absent"):
        with pytest.raises(FormatError):
            payload.text_member(body, name)
    for name in ("number", "none", "text", "list", "absent"):
        with pytest.raises(FormatError):
            payload.object_member(body, name)
    for name in ("number", "none", "text", "object"):
        with pytest.raises(FormatError):
            payload.list_member(body, name)
    with pytest.raises(FormatError):
        payload.text_member({"a": "xxx"}, "a", 2)
    with pytest.raises(FormatError):
        payload.list_member({"a": [1, 2, 3]}, "a", 2)


@given(st.integers(0, 253402300799))
def test_dates_go_both_ways(seconds: int) -> None:
    assert payload.read_date(payload.write_date(seconds)) == seconds


def test_dates_out_of_bounds_are_bounded() -> None:
    assert payload.write_date(-1) == "1970-01-01T00:00:00Z"
    assert payload.write_date(10**15) == "9999-12-31T23:59:59Z"
    assert payload.read_date("1601-01-01T00:00:00Z") == 0  # numbers of seconds are never negative on the wire


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023-11-14",
        "2023-11-14T22:13:20",
        "2023-11-14T22:13:20+00:00",
        "2023-11-14T22:13:20.5Z",
        "2023-11-14t22:13:20z",
        "2023-11-14T22:13:20Z\n",
        "2023-13-14T22:13:20Z",
        "2023-02-29T22:13:20Z",
        "2023-11-14T24:00:00Z",
        "2023-11-14T22:13:60Z",
        "0000-11-14T22:13:20Z",
        "٢٠٢٣-11-14T22:13:20Z",
        "12023-11-14T22:13:20Z",
    ],
)
def test_other_forms_of_dates_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        payload.read_date(text)
