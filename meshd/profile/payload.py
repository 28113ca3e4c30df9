"""What is signed: one tagged object as compact UTF-8 JSON, read strictly (formats.md F2).

    {"PasswordProfile": {"Identifier": …, "Updated": …, "NotaryToken": …, …}}

Raw non-ASCII, no control characters in strings, no duplicate members, depth ≤ 16, integers below 2⁵³, ≤ 2 MiB. The lenient
reading of 2016 documents is in `meshd.crypto.legacy`, and for RS512 documents alone.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

import msgspec

from meshd.errors import FormatError

MAX_PAYLOAD = 2 * 1024 * 1024
MAX_DEPTH = 16
MAX_INTEGER = 2**53
_TAG = re.compile(r"[A-Z][A-Za-z0-9]{1,63}\Z")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(obj: object) -> bytes:
    """Compact UTF-8 JSON, members in the order given."""
    return _encoder.encode(obj)


def encode_tagged(tag: str, body: dict[str, Any]) -> bytes:
    """The payload bytes of one tagged object; FormatError when it breaks the rules that a reader holds us to."""
    data = _encoder.encode({tag: body})
    if len(data) > MAX_PAYLOAD:
        raise FormatError(f"a payload of {len(data)} bytes: at most {MAX_PAYLOAD} are allowed")
    _check(body, 2)
    return data


def decode(data: bytes, limit: int = MAX_PAYLOAD) -> Any:
    """Any strict JSON value; FormatError names the rule that it breaks."""
    if len(data) > limit:
        raise FormatError(f"a payload of {len(data)} bytes")
    try:
        value = _decoder.decode(data)
        # What we write reads back to the same bytes; a duplicate member cannot. Only other writers' text takes the slow way.
        if _encoder.encode(value) != data:
            _refuse_duplicates(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError, OverflowError) as exc:
        raise FormatError(f"not JSON: {exc}") from exc
    _check(value, 1)
    return value


def decode_tagged(data: bytes) -> tuple[str, dict[str, Any]]:
    """(tag, body) of one tagged object."""
    value = decode(data)
    if type(value) is not dict or len(value) != 1:
        raise FormatError("a payload is one tagged object")
    ((tag, body),) = value.items()
    if not _TAG.match(tag) or type(body) is not dict:
        raise FormatError("a payload is one tagged object")
    return tag, body


def _refuse_duplicates(data: bytes) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise FormatError("a member appears twice")
        return found

    json.loads(data.decode("utf-8"), object_pairs_hook=unique)


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if _CONTROL.search(value):
            raise FormatError("a control character in a string")
    elif kind is dict:
        if depth > MAX_DEPTH:
            raise FormatError(f"nested deeper than {MAX_DEPTH}")
        for name, member in value.items():
            if _CONTROL.search(name):
                raise FormatError("a control character in a member name")
            _check(member, depth + 1)
    elif kind is list:
        if depth > MAX_DEPTH:
            raise FormatError(f"nested deeper than {MAX_DEPTH}")
        for member in value:
            _check(member, depth + 1)
    elif kind is int:
        if not -MAX_INTEGER < value < MAX_INTEGER:
            raise FormatError("an integer of 2^53 or more")
    elif kind is not bool and value is not None:
        raise FormatError("a number that is no integer")


def text_member(body: dict[str, Any], name: str, limit: int = 65536) -> str:
    """A required string member."""
    value = body.get(name)
    if type(value) is not str or len(value) > limit:
        raise FormatError(f"{name} is missing or is no text")
    return value


def object_member(body: dict[str, Any], name: str) -> dict[str, Any]:
    """A required object member."""
    value = body.get(name)
    if type(value) is not dict:
        raise FormatError(f"{name} is missing or is no object")
    return value


def list_member(body: dict[str, Any], name: str, limit: int = 4096) -> list[Any]:
    """A list member; absent means empty."""
    value = body.get(name, [])
    if type(value) is not list or len(value) > limit:
        raise FormatError(f"{name} is no list, or one of more than {limit}")
    return value


def write_date(seconds: int) -> str:
    """UTC seconds as the draft writes a DateTime: no fraction, `Z`."""
    bounded = min(max(seconds, 0), 253402300799)
    return (_EPOCH + dt.timedelta(seconds=bounded)).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_date(text: str) -> int:
    """UTC seconds of a DateTime; FormatError. It is shown to people and never decides anything."""
    if not _DATE.match(text):
        raise FormatError("not a date and time in UTC")
    try:  # by hand: strptime costs ten times as much, and every version that arrives is read
        year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
        moment = dt.datetime(year, month, day, int(text[11:13]), int(text[14:16]), int(text[17:19]), tzinfo=dt.UTC)
        return int(moment.timestamp())
    except ValueError as exc:
        raise FormatError("not a date and time in UTC") from exc
