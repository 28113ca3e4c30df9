"""What is signed: one tagged object as compact UTF-8 JSON, read strictly (formats.md F2).

    {"PasswordProfile": {"Identifier": …, "Updated": …, "NotaryToken": …, …}}

Raw non-ASCII, no control characters in strings, no duplicate members, depth ≤ 16, integers below 2⁵³, ≤ 2 MiB. The
lenient reading of 2016 documents is in `meshd.crypto.legacy`, and for RS512 documents alone.
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
# By hand what `datetime` reads differently from release to release (24:00:00), and digits of other scripts.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z\Z")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(obj: object) -> bytes:
    """Compact UTF-8 JSON, members in the order given; FormatError for what JSON can't say, such as a lone surrogate."""
    try:
        return _encoder.encode(obj)
    except (UnicodeError, TypeError, ValueError, OverflowError, RecursionError):
        raise FormatError("a value that can't be written as JSON") from None


def encode_private(obj: object) -> bytes:
    """JSON to be encrypted: held to the rules of a payload, but strings may have control characters (a note has
    lines)."""
    _check(obj, 1, search=False)
    return encode(obj)


def encode_tagged(tag: str, body: dict[str, Any]) -> bytes:
    """The payload bytes of one tagged object; FormatError when it breaks the rules that a reader holds us to."""
    if not _TAG.match(tag):
        raise FormatError("a tag is letters and digits, the first of them a capital")
    _check(body, 2, search=True)
    data = encode({tag: body})
    if len(data) > MAX_PAYLOAD:
        raise FormatError(f"a payload of {len(data)} bytes: at most {MAX_PAYLOAD} are allowed")
    return data


def decode(data: bytes, limit: int = MAX_PAYLOAD) -> Any:
    """Any strict JSON value; FormatError names the rule that it breaks."""
    value = _decode(data, limit)
    # The reader refuses raw control characters, so only an escape can make one, or DEL.
    _check(value, 1, search=b"\\" in data or b"\x7f" in data)
    return value


def decode_private(data: bytes, limit: int = MAX_PAYLOAD) -> Any:
    """What `encode_private` wrote; white space around it is ignored. FormatError repeats nothing of it."""
    value = _decode(data, limit)
    _check(value, 1, search=False)
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


def _decode(data: bytes, limit: int) -> Any:
    if len(data) > limit:
        raise FormatError(f"a payload of {len(data)} bytes")
    try:
        value = _decoder.decode(data)
        # What we write reads back to the same bytes; a duplicate member cannot. Only other writers' text takes the
        # slow way.
        if _encoder.encode(value) != data:
            json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        raise FormatError("not JSON in UTF-8, or a member appears twice") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _check(value: Any, depth: int, *, search: bool) -> None:
    """FormatError beyond the bounds of F2; `search`: also for control characters. `depth` counts this value."""
    kind = type(value)
    if kind is str:
        if search and _CONTROL.search(value):
            raise FormatError("a control character in a string")
    elif kind is dict:
        if depth > MAX_DEPTH:
            raise FormatError(f"nested deeper than {MAX_DEPTH}")
        for name, member in value.items():
            if type(name) is not str:
                raise FormatError("a member name that is no text")
            if search:
                _check(name, depth, search=True)
            if search or type(member) is not str:
                _check(member, depth + 1, search=search)
    elif kind is list:
        if depth > MAX_DEPTH:
            raise FormatError(f"nested deeper than {MAX_DEPTH}")
        for member in value:
            if search or type(member) is not str:
                _check(member, depth + 1, search=search)
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
    """UTC seconds of a DateTime, 0 for the years before 1970; FormatError. Shown to people, never deciding anything."""
    if not _DATE.match(text):
        raise FormatError("not a date and time in UTC")
    try:
        return max(0, int(dt.datetime.fromisoformat(text).timestamp()))
    except ValueError as exc:
        raise FormatError("not a date and time in UTC") from exc
