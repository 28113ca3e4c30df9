"""Deterministic CBOR (RFC 8949, 4.2.1) as formats.md F4 has it: one encoding for each value, and nothing else is read.

The values are arrays, maps with text, byte or integer keys, text, byte strings, integers of 64 bits, booleans and null;
no floats, no tags, no indefinite lengths. The reader checks the rules while it walks, so there is nothing to switch off
and nothing to re-encode: shortest heads, keys in ascending order of their encoding (which rules out duplicates), a
depth limit, no bytes left over. A map key is never a container: array keys could be chosen to collide in a hash table,
and the library's switch against that refuses integer keys as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from struct import Struct

from meshd.errors import FormatError

MAX_DEPTH = 16  # containers within containers

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_SIMPLE_VALUES = {0xF4: False, 0xF5: True, 0xF6: None}
# Additional information 24…27: the argument follows in so many bytes, and below `least` a shorter head must say it.
_LONG_HEADS = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}
_PACK = {24: Struct(">BB").pack, 25: Struct(">BH").pack, 26: Struct(">BI").pack, 27: Struct(">BQ").pack}
_SHORT_HEADS = tuple(tuple(bytes([major << 5 | number]) for number in range(24)) for major in range(6))
_first = itemgetter(0)


def encode(obj: object) -> bytes:
    """The one encoding of `obj`. FormatError for a type, an integer or a nesting that formats.md F4 does not have."""
    out: list[bytes] = []
    _write(obj, out, MAX_DEPTH)
    return b"".join(out)


def decode(data: bytes, max_depth: int = MAX_DEPTH) -> object:
    """The value that `data`, whole, encodes: dict, list, str, bytes, int, bool or None.

    The caller has limited the length; length claims allocate nothing. FormatError says what breaks the rules and where.
    """
    try:
        value, end = _read(data, 0, max_depth)
    except IndexError:
        raise FormatError("CBOR ends in the middle of a value") from None
    if end != len(data):
        raise FormatError(f"{len(data) - end} bytes follow the CBOR value")
    return value


def _write(obj: object, out: list[bytes], depth: int) -> None:
    """Append the encoding of `obj`; `depth` more containers may open."""
    if isinstance(obj, bytes):
        out += (_head(_BYTES, len(obj)), obj)
    elif isinstance(obj, str):
        raw = _utf8(obj)
        out += (_head(_TEXT, len(raw)), raw)
    elif isinstance(obj, bool):  # before int, which it is too
        out.append(b"\xf5" if obj else b"\xf4")
    elif isinstance(obj, int):
        out.append(_head(_UINT, obj) if obj >= 0 else _head(_NINT, -1 - obj))
    elif obj is None:
        out.append(b"\xf6")
    elif depth == 0:
        raise FormatError("CBOR nested too deeply")
    elif isinstance(obj, (list, tuple)):
        out.append(_head(_ARRAY, len(obj)))
        for item in obj:
            _write(item, out, depth - 1)
    elif isinstance(obj, Mapping):
        out.append(_head(_MAP, len(obj)))
        for key, value in sorted([(_key(key), value) for key, value in obj.items()], key=_first):
            out.append(key)
            _write(value, out, depth - 1)
    else:
        raise FormatError(f"{type(obj).__name__} is not encoded as CBOR")


def _key(key: object) -> bytes:
    if isinstance(key, bool) or not isinstance(key, (str, bytes, int)):
        raise FormatError(f"a map key of type {type(key).__name__}")
    out: list[bytes] = []
    _write(key, out, 0)
    return b"".join(out)


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return _SHORT_HEADS[major][number]
    info = 24 if number < 1 << 8 else 25 if number < 1 << 16 else 26 if number < 1 << 32 else 27
    if number >= 1 << 64:
        raise FormatError("an integer of more than 64 bits")
    return _PACK[info](major << 5 | info, number)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FormatError("text with a lone surrogate") from None


def _read(data: bytes, at: int, depth: int) -> tuple[object, int]:
    """The value at `at` and where it ends; `depth` more containers may open. IndexError where `data` ends too soon."""
    initial = data[at]
    major, number = initial >> 5, initial & 0x1F
    at += 1
    if major == _SIMPLE:
        if initial not in _SIMPLE_VALUES:
            raise FormatError(f"CBOR simple value or float 0x{initial:02x} at byte {at - 1}")
        return _SIMPLE_VALUES[initial], at
    if number > 23:
        number, at = _argument(data, at, number)
    if major <= _NINT:
        return (-1 - number if major else number), at
    if major <= _TEXT:
        end = at + number
        if end > len(data):
            raise IndexError
        raw = data[at:end]
        if major == _BYTES:
            return raw, end
        try:
            return raw.decode(), end
        except UnicodeDecodeError:
            raise FormatError(f"CBOR text that is not UTF-8 at byte {at}") from None
    if major == _TAG:
        raise FormatError(f"CBOR tag {number} at byte {at - 1}")
    if depth == 0:
        raise FormatError(f"CBOR nested too deeply at byte {at - 1}")
    if major == _ARRAY:
        items = []
        for _ in range(number):
            item, at = _read(data, at, depth - 1)
            items.append(item)
        return items, at
    return _read_map(data, at, number, depth - 1)


def _read_map(data: bytes, at: int, number: int, depth: int) -> tuple[dict[str | bytes | int, object], int]:
    found: dict[str | bytes | int, object] = {}
    last = b""
    for _ in range(number):
        key, end = _read(data, at, 0)
        if isinstance(key, bool) or not isinstance(key, (str, bytes, int)):
            raise FormatError(f"a CBOR map key of type {type(key).__name__} at byte {at}")
        encoded = data[at:end]
        if encoded <= last:
            raise FormatError(f"a CBOR map key {'twice' if encoded == last else 'out of order'} at byte {at}")
        last = encoded
        found[key], at = _read(data, end, depth)
    return found, at


def _argument(data: bytes, at: int, info: int) -> tuple[int, int]:
    """The argument that follows a head with additional information `info` > 23, and where it ends."""
    if info not in _LONG_HEADS:
        raise FormatError(f"CBOR of indefinite length or a reserved head at byte {at - 1}")
    size, least = _LONG_HEADS[info]
    end = at + size
    if end > len(data):
        raise IndexError
    number = int.from_bytes(data[at:end], "big")
    if number < least:
        raise FormatError(f"CBOR that is not in its shortest form at byte {at - 1}")
    return number, end
