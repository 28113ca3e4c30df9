"""Messages as the bytes of frames, and back: any of them the general way, items and changes by hand.

Frames and their bounds: docs/specs/sync.md (formats.md F4).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from meshd.crypto import cbor
from meshd.errors import FormatError, VersionMismatch
from meshd.sync import checks, frames
from meshd.sync.messages import (
    RECON,
    Ack,
    Chain,
    Changes,
    Close,
    Evidence,
    Feed,
    HelloInfo,
    Item,
    Message,
    Note,
    Ping,
    Pong,
    Profiles,
    Stability,
    Trace,
    Want,
    changes_of,
)

MESSAGES: dict[int, type[Message]] = {
    message.TYPE: message
    for message in (
        HelloInfo,
        Profiles,
        Feed,
        Changes,
        Want,
        Item,
        Ack,
        Close,
        Note,
        Evidence,
        Stability,
        Ping,
        Pong,
        Trace,
        Chain,
    )
}


def encode(message: Message) -> bytes:
    """A whole frame, length included."""
    return frames.encode(message.TYPE, message.fields())


def decode(body: bytes) -> Message | None:
    """The message in a frame's body; None for an odd type that this release does not know.

    FormatError for what breaks a rule of its type, VersionMismatch for an even type that this release does not know.
    """
    plain = _plain_item(body) or _plain_changes(body)
    if plain is not None:
        return plain
    if len(body) > checks.MAX_SMALL and not body.startswith(_PROFILE_START):
        raise FormatError(f"a frame of {len(body)} bytes: only profiles may be longer than {checks.MAX_SMALL}")
    kind, fields = frames.decode(body)
    message = MESSAGES.get(kind)
    if message is not None:
        return message.read(fields)
    if kind % 2:
        return None
    what = "set reconciliation" if kind == RECON else f"frames of type {kind}"
    raise VersionMismatch(f"the other device asks for {what}: that needs a newer release of meshd here")


# ── Items and changes, by hand ── nearly all of a first sync are items of 256 bytes to 64 KiB and the rows before them;
# their frames have one form: [10, {0: vid, 1: kind below 24, 2: bytes with a two-byte length}], [6, {0: rows, 1: bool}]
_PROFILE_START = b"\x82\x02"
_CHANGES_START = b"\x82\x06\xa2\x00"
_CHANGES_ENDS = {b"\x01\xf4": False, b"\x01\xf5": True}
_ITEM_START = b"\x82\x0a\xa3\x00\x58\x20"
_ITEM = Struct(">6s32sBBBBH")
_ITEM_FRAME = Struct(">I6s32sBBBBH")


def item_frames(vid: bytes, kind: int, raw: bytes, *, offset: int = 0, chunk: int = checks.CHUNK) -> Iterator[bytes]:
    """The bytes of the frames that carry `raw` from `offset` on, in pieces of at most `chunk` bytes.

    A frame's head and the item's own bytes come as separate strings, so that a large item is not copied.
    """
    total = len(raw)
    if offset == 0 and total <= chunk:
        if 256 <= total < 65_536 and kind < 24:
            yield _ITEM_FRAME.pack(_ITEM.size + total, _ITEM_START, vid, 1, kind, 2, 0x59, total)
            yield raw
        else:
            yield encode(Item(vid, kind, raw, 0, total))
        return
    for start in range(offset, total, chunk):
        yield encode(Item(vid, kind, raw[start : start + chunk], start, total))


def _plain_item(body: bytes) -> Item | None:
    """The item in a frame of the fixed form; None: read it the general way, which also finds what is wrong with it."""
    if not body.startswith(_ITEM_START) or len(body) < _ITEM.size:
        return None
    _, vid, one, kind, two, head, total = _ITEM.unpack_from(body)
    if one != 1 or kind > 23 or two != 2 or head != 0x59 or total < 256 or len(body) != _ITEM.size + total:
        return None
    return Item(vid, kind, body[_ITEM.size :], 0, total)


def _plain_changes(body: bytes) -> Changes | None:
    """As `_plain_item`: between the head and the end of the map stands one array, and it alone has to be read."""
    caught_up = _CHANGES_ENDS.get(body[-2:])
    if caught_up is None or not body.startswith(_CHANGES_START) or len(body) > checks.MAX_SMALL:
        return None
    return Changes(changes_of(cbor.decode(body[len(_CHANGES_START) : -2], frames.MAX_DEPTH - 2)), caught_up)
