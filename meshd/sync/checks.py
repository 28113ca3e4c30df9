"""The limits of the sync messages, and the checks that hold decoded CBOR to them.

Each check takes a value of any type and returns it as the type that it must have; FormatError names the field.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from meshd.errors import FormatError

STORE_ID_SIZE = 8
VID_SIZE = 32
RUN_SIZE = 8
MAX_INT = 2**63 - 1  # what the store can hold
MAX_UDF = 64  # characters; a 200-bit UDF has 47
MAX_IDENTIFIER = 128  # characters; an item's has 74
MAX_KIND = 65_535
MAX_LIST = 256  # versions, features, heads of a hello; profiles of a frame; devices of a stability report
MAX_ROWS = 1_000  # rows of one `changes`
MAX_VIDS = 256  # vids of one `want`
MAX_ITEM = 4 * 1024 * 1024  # bytes of one version
CHUNK = 256 * 1024  # longer items travel in pieces of this size
MAX_SMALL = 512 * 1024  # bytes of any frame but a `profile`: decoded, small values take a hundred times their room
MAX_TOKEN = 16 * 1024  # bytes of a NotaryToken
DIGEST_SIZE = 32
MAX_NOTE = 64 * 1024  # bytes of a checkpoint note
MAX_REASON = 500  # characters of the text in a `close`
FIRST_EXTENSION = 64  # map keys from here on are free


def keys(fields: Mapping[object, object], must: Collection[int], may: Collection[int] = (), *, what: str) -> None:
    for key in fields:
        if type(key) is not int or key < 0 or (key < FIRST_EXTENSION and key not in must and key not in may):
            raise FormatError(f"{what}: unknown member {str(key)[:20]!r}")
    for number in must:
        if number not in fields:
            raise FormatError(f"{what}: member {number} is missing")


def uint(value: object, what: str, most: int = MAX_INT) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise FormatError(f"{what}: not a number from 0 to {most}")
    return value


def blob(value: object, size: int, what: str) -> bytes:
    if not isinstance(value, bytes) or len(value) != size:
        raise FormatError(f"{what}: not {size} bytes")
    return value


def data(value: object, most: int, what: str) -> bytes:
    if not isinstance(value, bytes) or len(value) > most:
        raise FormatError(f"{what}: not a byte string of at most {most} bytes")
    return value


def text(value: object, most: int, what: str) -> str:
    """Names on the wire are printable ASCII: they go into logs and paths of the local API."""
    if not isinstance(value, str) or len(value) > most or not value.isascii() or not value.isprintable():
        raise FormatError(f"{what}: not a name of at most {most} characters")
    return value


def long_text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value.encode()) > MAX_NOTE:
        raise FormatError(f"{what}: not a text of at most {MAX_NOTE} bytes")
    return value


def array(value: object, most: int, what: str) -> list[object]:
    if not isinstance(value, list) or len(value) > most:
        raise FormatError(f"{what}: not a list of at most {most}")
    return value


def vids(values: Sequence[object], most: int, what: str) -> tuple[bytes, ...]:
    if len(values) > most:
        raise FormatError(f"{what}: not a list of at most {most}")
    return tuple([blob(value, VID_SIZE, what) for value in values])
