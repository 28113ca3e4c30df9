"""What two devices of a mesh say to each other, one class a frame type; every bound is checked here, once.

The frames are those of docs/specs/sync.md (formats.md F4). Map keys from 64 on are free for extensions and skipped; a
smaller key that is not listed refuses the frame. A type that this release does not know is skipped if it is odd and
ends the conversation if it is even, so that a sender chooses which of the two it needs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import ClassVar, Protocol, Self, TypeAlias

from meshd.crypto import cbor
from meshd.errors import FormatError, VersionMismatch
from meshd.sync import checks, frames

Fields: TypeAlias = Mapping[object, object]

RECON = 14  # reserved for set reconciliation


class CloseCode(enum.IntEnum):
    """Why a conversation ends. Codes that this release does not know are kept as numbers."""

    DONE = 0
    PROTOCOL = 1  # the other side broke the rules
    UNSUPPORTED = 2  # the other side asks for a newer release
    DENIED = 3  # not, or no longer, a device of this mesh
    DUPLICATE = 4  # another connection of the same two devices is kept
    STOPPING = 5
    BUSY = 6
    FAULT = 7  # a fault of the side that closes, such as a full disk


class Message(Protocol):
    """A frame as a value: `TYPE`, the map to write, and the checked way back."""

    TYPE: ClassVar[int]

    def fields(self) -> Fields: ...

    @classmethod
    def read(cls, fields: Fields) -> Self: ...


@dataclass(frozen=True, slots=True)
class HelloInfo:
    """Who speaks. `clock_ms` shows skew and decides nothing; `heads` are the vids of the PersonalProfile's heads."""

    TYPE: ClassVar[int] = 0
    store_id: bytes  # 8 bytes, random for each database that is created or restored
    udf: str
    features: tuple[int, ...] = ()
    clock_ms: int = 0
    heads: tuple[bytes, ...] = ()
    versions: tuple[int, ...] = (1,)
    max_frame: int = frames.MAX_FRAME  # longest body that the speaker takes
    run: bytes = b""  # 8 bytes, random each time the store is opened; cursors told now are good while it is known

    def __post_init__(self) -> None:
        checks.blob(self.store_id, checks.STORE_ID_SIZE, "store-id")
        if self.run:
            checks.blob(self.run, checks.RUN_SIZE, "run")
        if not checks.text(self.udf, checks.MAX_UDF, "device fingerprint"):
            raise FormatError("no device fingerprint")
        for numbers, what in ((self.versions, "versions"), (self.features, "features")):
            if len(numbers) > checks.MAX_LIST:
                raise FormatError(f"{len(numbers)} {what}: at most {checks.MAX_LIST} are allowed")
            for number in numbers:
                checks.uint(number, what)
        if not self.versions:
            raise FormatError("no versions")
        checks.uint(self.clock_ms, "clock")
        checks.uint(self.max_frame, "frame limit")
        if self.max_frame < frames.FIRST_FRAME:
            raise FormatError(f"a frame limit of {self.max_frame} bytes, below {frames.FIRST_FRAME}")
        checks.vids(self.heads, checks.MAX_LIST, "heads")

    def fields(self) -> Fields:
        fields: dict[object, object] = {
            0: self.versions,
            1: self.store_id,
            2: self.udf,
            3: self.features,
            4: self.max_frame,
            5: self.clock_ms,
            6: self.heads,
        }
        return fields | {7: self.run} if self.run else fields

    @classmethod
    def read(cls, fields: Fields) -> HelloInfo:
        checks.keys(fields, range(7), (7,), what="hello")
        versions, features = (
            checks.array(fields[0], checks.MAX_LIST, "versions"),
            checks.array(fields[3], checks.MAX_LIST, "features"),
        )
        return cls(
            store_id=checks.blob(fields[1], checks.STORE_ID_SIZE, "store-id"),
            udf=checks.text(fields[2], checks.MAX_UDF, "device fingerprint"),
            features=tuple(checks.uint(number, "features") for number in features),
            clock_ms=checks.uint(fields[5], "clock"),
            heads=checks.vids(checks.array(fields[6], checks.MAX_LIST, "heads"), checks.MAX_LIST, "heads"),
            versions=tuple(checks.uint(number, "versions") for number in versions),
            max_frame=checks.uint(fields[4], "frame limit"),
            run=checks.blob(fields[7], checks.RUN_SIZE, "run") if 7 in fields else b"",
        )


@dataclass(frozen=True, slots=True)
class Profiles:
    """Signed profiles that the other side lacks, oldest first; always before anything else."""

    TYPE: ClassVar[int] = 2
    raws: tuple[bytes, ...] = field(repr=False)

    def fields(self) -> Fields:
        return {0: self.raws}

    @classmethod
    def read(cls, fields: Fields) -> Profiles:
        checks.keys(fields, (0,), what="profile")
        raws = checks.array(fields[0], checks.MAX_LIST, "profiles")
        if not raws:
            raise FormatError("a profile frame without profiles")
        return cls(tuple(checks.data(raw, checks.MAX_ITEM, "profile") for raw in raws))


@dataclass(frozen=True, slots=True)
class Feed:
    """Asks for what follows `after` in the sequence of the receiver's store. `run` and `vid`: when the receiver told of
    the version there, and which it was. Where the receiver says otherwise, this asks for all."""

    TYPE: ClassVar[int] = 4
    store_id: bytes
    after: int
    run: bytes = b""
    vid: bytes = b""

    def fields(self) -> Fields:
        if not self.run:
            return {0: self.store_id, 1: self.after}
        return {0: self.store_id, 1: self.after, 2: self.run, 3: self.vid}

    @classmethod
    def read(cls, fields: Fields) -> Feed:
        checks.keys(fields, (0, 1), (2, 3), what="feed")
        store_id, after = checks.blob(fields[0], checks.STORE_ID_SIZE, "store-id"), checks.uint(fields[1], "cursor")
        if (2 in fields) != (3 in fields):
            raise FormatError("a feed with a run or a vid alone")
        if 2 not in fields:
            return cls(store_id, after)
        run, vid = checks.blob(fields[2], checks.RUN_SIZE, "run"), checks.blob(fields[3], checks.VID_SIZE, "vid")
        return cls(store_id, after, run, vid)


@dataclass(frozen=True, slots=True)
class Change:
    """One version that the sender holds, as it announces it. `size`: bytes of the item that a `want` would bring."""

    seq: int  # in the sender's store, from 1
    kind: int
    identifier: str
    vid: bytes
    gen: int
    updated: int  # seconds, UTC; decides nothing
    size: int
    signer: str  # UDF; "" for what nobody signs


@dataclass(frozen=True, slots=True)
class Changes:
    """Announces versions in ascending `seq`. `caught_up`: nothing more is waiting, from here on the feed is live.
    `anew`: the cursor did not hold, and these are the first of all."""

    TYPE: ClassVar[int] = 6
    changes: tuple[Change, ...]
    caught_up: bool
    anew: bool = False

    def fields(self) -> Fields:
        rows = [(c.seq, c.kind, c.identifier, c.vid, c.gen, c.updated, c.size, c.signer) for c in self.changes]
        return {0: rows, 1: self.caught_up, 2: True} if self.anew else {0: rows, 1: self.caught_up}

    @classmethod
    def read(cls, fields: Fields) -> Changes:
        checks.keys(fields, (0, 1), (2,), what="changes")
        caught_up, anew = fields[1], fields.get(2, False)
        if not isinstance(caught_up, bool):
            raise FormatError("changes: caught up is neither true nor false")
        if 2 in fields and anew is not True:
            raise FormatError("changes: anew is said, or left out")
        return cls(_changes(fields[0]), caught_up, anew is True)


@dataclass(frozen=True, slots=True)
class Want:
    """Asks for items. `budget`: bytes that the asker reckons with for all; `offset`: where the first resumes."""

    TYPE: ClassVar[int] = 8
    vids: tuple[bytes, ...]
    budget: int
    offset: int = 0

    def fields(self) -> Fields:
        fields: dict[object, object] = {0: self.vids, 1: self.budget}
        if self.offset:
            fields[2] = self.offset
        return fields

    @classmethod
    def read(cls, fields: Fields) -> Want:
        checks.keys(fields, (0, 1), (2,), what="want")
        vids = checks.vids(checks.array(fields[0], checks.MAX_VIDS, "wanted vids"), checks.MAX_VIDS, "wanted vids")
        if not vids or len(set(vids)) != len(vids):
            raise FormatError("a want that names no version, or one twice")
        return cls(vids, checks.uint(fields[1], "budget"), checks.uint(fields.get(2, 0), "offset", checks.MAX_ITEM))


@dataclass(frozen=True, slots=True)
class Item:
    """A wanted version, whole (`offset` 0, `total` = length) or a piece. Whole and empty: it is no longer there."""

    TYPE: ClassVar[int] = 10
    vid: bytes
    kind: int
    data: bytes = field(repr=False)
    offset: int = 0
    total: int = 0

    def fields(self) -> Fields:
        fields: dict[object, object] = {0: self.vid, 1: self.kind, 2: self.data}
        if self.total != len(self.data):
            fields |= {3: self.offset, 4: self.total}
        return fields

    @classmethod
    def read(cls, fields: Fields) -> Item:
        checks.keys(fields, (0, 1, 2), (3, 4), what="item")
        vid, kind = checks.blob(fields[0], checks.VID_SIZE, "vid"), checks.uint(fields[1], "kind", checks.MAX_KIND)
        data = checks.data(fields[2], checks.MAX_ITEM, "item")
        if (3 in fields) != (4 in fields):
            raise FormatError("an item with an offset or a total alone")
        if 3 not in fields:
            return cls(vid, kind, data, 0, len(data))
        offset, total = (
            checks.uint(fields[3], "offset", checks.MAX_ITEM),
            checks.uint(fields[4], "total", checks.MAX_ITEM),
        )
        if not data or offset + len(data) > total:
            raise FormatError("a piece of an item that is empty or reaches over its end")
        return cls(vid, kind, data, offset, total)


@dataclass(frozen=True, slots=True)
class Ack:
    """Everything up to `seq` of the receiver's store is committed by the sender of this frame."""

    TYPE: ClassVar[int] = 12
    seq: int

    def fields(self) -> Fields:
        return {0: self.seq}

    @classmethod
    def read(cls, fields: Fields) -> Ack:
        checks.keys(fields, (0,), what="ack")
        return cls(checks.uint(fields[0], "seq"))


@dataclass(frozen=True, slots=True)
class Close:
    """The last frame of its sender. The text is for a person."""

    TYPE: ClassVar[int] = 16
    code: int
    text: str = ""

    def fields(self) -> Fields:
        return {0: int(self.code), 1: self.text} if self.text else {0: int(self.code)}

    @classmethod
    def read(cls, fields: Fields) -> Close:
        checks.keys(fields, (0,), (1,), what="close")
        text = fields.get(1, "")
        if not isinstance(text, str) or len(text) > checks.MAX_REASON:
            raise FormatError("close: its text")
        # It ends up in a log and on a terminal.
        return cls(checks.uint(fields[0], "code"), "".join(c if c.isprintable() else "?" for c in text))


@dataclass(frozen=True, slots=True)
class Note:
    """The newest checkpoint of a portal's log that the sender has verified, as signed note text."""

    TYPE: ClassVar[int] = 17
    text: str

    def fields(self) -> Fields:
        return {0: self.text}

    @classmethod
    def read(cls, fields: Fields) -> Note:
        checks.keys(fields, (0,), what="note")
        return cls(checks.long_text(fields[0], "note"))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two notes of one log that contradict each other."""

    TYPE: ClassVar[int] = 19
    first: str
    second: str

    def fields(self) -> Fields:
        return {0: self.first, 1: self.second}

    @classmethod
    def read(cls, fields: Fields) -> Evidence:
        checks.keys(fields, (0, 1), what="evidence")
        return cls(checks.long_text(fields[0], "evidence"), checks.long_text(fields[1], "evidence"))


@dataclass(frozen=True, slots=True)
class Stability:
    """How far each device, by UDF, has acknowledged the sender's sequence."""

    TYPE: ClassVar[int] = 21
    acked: tuple[tuple[str, int], ...]

    def fields(self) -> Fields:
        return dict(self.acked)

    @classmethod
    def read(cls, fields: Fields) -> Stability:
        devices = {key: seq for key, seq in fields.items() if isinstance(key, str)}
        checks.keys({key: None for key in fields if key not in devices}, (), what="stability")
        if len(devices) > checks.MAX_LIST:
            raise FormatError(f"stability of {len(devices)} devices: at most {checks.MAX_LIST} are allowed")
        return cls(
            tuple(
                (checks.text(udf, checks.MAX_UDF, "fingerprint"), checks.uint(seq, "seq"))
                for udf, seq in devices.items()
            )
        )


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a pong: is somebody there?"""

    TYPE: ClassVar[int] = 23

    def fields(self) -> Fields:
        return {}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        checks.keys(fields, (), what="ping or pong")
        return cls()


@dataclass(frozen=True, slots=True)
class Pong(Ping):
    """The answer to a ping."""

    TYPE: ClassVar[int] = 25


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


def _changes(rows: object) -> tuple[Change, ...]:
    changes = tuple([_change(row) for row in checks.array(rows, checks.MAX_ROWS, "changes")])
    last = 0
    for change in changes:
        if change.seq <= last:
            raise FormatError("changes out of order")
        last = change.seq
    return changes


def _change(row: object) -> Change:
    if not isinstance(row, list) or len(row) != 8:
        raise FormatError("a change that does not have eight members")
    seq, kind, identifier, vid, gen, updated, size, signer = row
    if not (
        type(seq) is type(kind) is type(gen) is type(updated) is type(size) is int
        and 0 < seq <= checks.MAX_INT
        and 0 <= kind <= checks.MAX_KIND
        and 0 <= gen <= checks.MAX_INT
        and 0 <= updated <= checks.MAX_INT
        and 0 <= size <= checks.MAX_ITEM
    ):
        raise FormatError("a change with a number out of range")
    checks.text(identifier, checks.MAX_IDENTIFIER, "identifier")
    checks.text(signer, checks.MAX_UDF, "signer")
    return Change(seq, kind, identifier, checks.blob(vid, checks.VID_SIZE, "vid"), gen, updated, size, signer)


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
    return Changes(_changes(cbor.decode(body[len(_CHANGES_START) : -2], frames.MAX_DEPTH - 2)), caught_up)
