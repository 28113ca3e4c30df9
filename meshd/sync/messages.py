"""What two devices of a mesh say to each other, one class a frame type; every bound is checked here, once.

The frames are those of docs/specs/sync.md (formats.md F4). Map keys from 64 on are free for extensions and skipped; a
smaller key that is not listed refuses the frame. A type that this release does not know is skipped if it is odd and
ends the conversation if it is even, so that a sender chooses which of the two it needs.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self, TypeAlias

from meshd.errors import FormatError
from meshd.sync import checks, frames

Fields: TypeAlias = Mapping[object, object]

RECON = 14  # reserved for set reconciliation
TRACES = 1  # the feature of who answers a trace; others skip it


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
        return cls(changes_of(fields[0]), caught_up, anew is True)


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
class Trace:
    """Asks for the links of a signer's chain from these versions backwards."""

    TYPE: ClassVar[int] = 27
    signer: str
    vids: tuple[bytes, ...]

    def fields(self) -> Fields:
        return {0: self.signer, 1: self.vids}

    @classmethod
    def read(cls, fields: Fields) -> Trace:
        checks.keys(fields, (0, 1), what="trace")
        vids = checks.vids(checks.array(fields[1], checks.MAX_VIDS, "traced vids"), checks.MAX_VIDS, "traced vids")
        if not vids:
            raise FormatError("a trace that names no version")
        return cls(checks.text(fields[0], checks.MAX_UDF, "signer"), vids)


@dataclass(frozen=True, slots=True)
class Chain:
    """Answers a trace: (NotaryToken, digest) of versions by the signer that was asked for, which hash to their vids."""

    TYPE: ClassVar[int] = 29
    links: tuple[tuple[str, bytes], ...]

    def fields(self) -> Fields:
        return {0: self.links}

    @classmethod
    def read(cls, fields: Fields) -> Chain:
        checks.keys(fields, (0,), what="chain")
        return cls(tuple([_link(row) for row in checks.array(fields[0], checks.MAX_ROWS, "links")]))


def _link(row: object) -> tuple[str, bytes]:
    if not isinstance(row, list) or len(row) != 2:
        raise FormatError("a link that does not have two members")
    token = checks.text(row[0], checks.MAX_TOKEN, "token")
    return token, checks.blob(row[1], checks.DIGEST_SIZE, "digest")


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


def changes_of(rows: object) -> tuple[Change, ...]:
    """The rows of a frame of changes, in order; FormatError."""
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
