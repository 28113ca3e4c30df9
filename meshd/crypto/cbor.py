"""Deterministic CBOR (RFC 8949, 4.2.1) as formats.md F4 has it: one encoding for each value, and nothing else is read.

The values are arrays, maps with text, byte or integer keys, text, byte strings, integers of 64 bits, booleans and null;
no floats, no tags, no indefinite lengths. The library (cbor2) does the work on bytes; the one idea here is that what
was read must be written again exactly as it came. That refuses long heads, keys out of order and bytes left over at
once. What the comparison must not meet is refused before: tags, which could name a value many times over, and
containers as map keys, which could be chosen to collide in a hash table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NoReturn

import cbor2

from meshd.errors import FormatError

MAX_DEPTH = 16  # containers within containers

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_LEAST_INTEGER, _MOST_INTEGER = -(1 << 64), (1 << 64) - 1
_LEAVES = frozenset({str, bytes, int, bool, type(None)})
_ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}


class _NoTags(dict[int, Callable[..., NoReturn]]):
    """Stands where the library looks up what to do with a tag: with every one of them, refuse."""

    def __missing__(self, tag: int) -> Callable[..., NoReturn]:
        return _refuse_tag


def _refuse_tag(*_: object) -> NoReturn:
    raise FormatError("a CBOR tag")


_NO_TAGS = _NoTags()


def encode(obj: object) -> bytes:
    """The one encoding of `obj`. FormatError for a type, an integer or a nesting that formats.md F4 does not have."""
    try:
        return cbor2.dumps(_plain(obj, MAX_DEPTH))
    except UnicodeEncodeError:
        raise FormatError("text with a lone surrogate") from None


def decode(data: bytes, max_depth: int = MAX_DEPTH) -> object:
    """The value that `data`, whole, encodes: dict, list, str, bytes, int, bool or None.

    The caller has limited the length; length claims allocate nothing. FormatError says what breaks the rules.
    """
    try:
        value = _load(data, max_depth, strict_keys=True)
    except cbor2.CBORDecodeError:  # wrong, or a map with integer keys: the library has no way to allow these alone
        _check_keys(data)
        try:
            value = _load(data, max_depth, strict_keys=False)
        except cbor2.CBORDecodeEOF:
            raise FormatError("CBOR ends in the middle of a value") from None
        except cbor2.CBORDecodeError as exc:
            raise FormatError(_reason(exc)) from None
    _check(value)
    again = cbor2.dumps(value)
    if again != data:
        if data.startswith(again):
            raise FormatError(f"{len(data) - len(again)} bytes follow the CBOR value")
        raise FormatError("CBOR that is not in its shortest form")
    return value


def _load(data: bytes, max_depth: int, *, strict_keys: bool) -> object:
    value: object = cbor2.loads(
        data,
        max_depth=max_depth,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=strict_keys,
        semantic_decoders=_NO_TAGS,
        tag_hook=_refuse_tag,
    )
    return value


def _check(value: object) -> None:
    """FormatError for a type that F4 has not or a map out of order. (Longer integers than 64 bits would be tags.)"""
    kind = type(value)
    if kind in _LEAVES:
        return
    if kind is list:
        if not _LEAVES.issuperset(map(type, value)):  # type: ignore[call-overload]
            for item in value:  # type: ignore[attr-defined]
                _check(item)
    elif kind is dict:
        places = [_order(key) for key in value]  # type: ignore[attr-defined]
        if any(a >= b for a, b in pairwise(places)):
            raise FormatError("CBOR map keys out of order")
        _check(list(value.values()))  # type: ignore[attr-defined]
    else:
        raise FormatError(f"a CBOR float or simple value ({kind.__name__})")


def _reason(exc: cbor2.CBORDecodeError) -> str:
    """What is wrong, without any of the data: the library's own messages quote keys."""
    said = str(exc)
    for words, reason in _REASONS.items():
        if words in said:
            return reason
    return "not CBOR"


_REASONS = {
    "indefinite length": "CBOR of indefinite length",
    "subtype": "CBOR of indefinite length or a reserved head",
    "nesting depth": "CBOR nested too deeply",
    "Duplicate": "a CBOR map key twice",
    "semantic tag": "a CBOR tag",
    "text string": "CBOR text that is not UTF-8",
    "break code": "a CBOR simple value that ends nothing",
    "special value": "a CBOR simple value or float",
}


def _plain(obj: object, depth: int) -> object:
    """`obj` in exact types that the library writes as F4 has it, maps in order; `depth` more containers may open."""
    kind = type(obj)
    if kind is int:
        if not _LEAST_INTEGER <= obj <= _MOST_INTEGER:  # type: ignore[operator]
            raise FormatError("an integer of more than 64 bits")
        return obj
    if kind in _LEAVES:
        return obj
    if isinstance(obj, (list, tuple)):
        if depth == 0:
            raise FormatError("CBOR nested too deeply")
        if _LEAVES.issuperset(map(type, obj)):  # nearly all that is written are flat rows
            for item in obj:
                if type(item) is int and not _LEAST_INTEGER <= item <= _MOST_INTEGER:
                    raise FormatError("an integer of more than 64 bits")
            return list(obj)
        return [_plain(item, depth - 1) for item in obj]
    if isinstance(obj, Mapping):
        if depth == 0:
            raise FormatError("CBOR nested too deeply")
        members = [(_plain(key, 0), value) for key, value in obj.items()]
        members.sort(key=lambda member: _order(member[0]))
        return {key: _plain(value, depth - 1) for key, value in members}
    if isinstance(obj, bytes):
        return bytes(obj)
    if isinstance(obj, str):  # a member of an enumeration, say
        return str(obj)
    if isinstance(obj, int):
        return _plain(int(obj), depth)
    raise FormatError(f"{kind.__name__} is not encoded as CBOR")


def _order(key: object) -> tuple[int, int, bytes]:
    """Where a map key stands: in the order of its encoding, which is that of major type, argument, content."""
    if type(key) is str:
        raw = key.encode()
        return _TEXT, len(raw), raw
    if type(key) is bytes:
        return _BYTES, len(key), key
    if type(key) is int:
        return (_UINT, key, b"") if key >= 0 else (_NINT, -1 - key, b"")
    raise FormatError(f"a map key of type {type(key).__name__}")


def _check_keys(data: bytes) -> None:
    """FormatError for a map key that is no text, bytes or integer, before anything computes its hash.

    It looks at heads only, and leaves to the reader what else is wrong, where it stops.
    """
    outer: list[tuple[int, bool]] = []
    left, in_map = 1, False  # of the innermost open container: values still to come, and whether every second is a key
    at, end = 0, len(data)
    while at < end:
        while left == 0:
            if not outer:
                return
            left, in_map = outer.pop()
        initial = data[at]
        at += 1
        major, number = initial >> 5, initial & 0x1F
        if in_map and major > _TEXT and left % 2 == 0:
            what = "CBOR nested too deeply: a container" if major in (_ARRAY, _MAP) else "a CBOR value of another type"
            raise FormatError(f"{what} as a map key")
        left -= 1
        if major < _BYTES and number < 24:
            continue
        if number > 23:
            size = _ARGUMENT_BYTES.get(number, 0)
            if not size:
                return
            number = int.from_bytes(data[at : at + size], "big")
            at += size
        if major in (_BYTES, _TEXT):
            at += number
        elif major in (_ARRAY, _MAP):
            if len(outer) > MAX_DEPTH:
                return
            outer.append((left, in_map))
            left, in_map = (number, False) if major == _ARRAY else (2 * number, True)
        elif major == _TAG:
            raise FormatError("a CBOR tag")
