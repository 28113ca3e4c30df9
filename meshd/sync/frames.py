"""Frames of the sync conversation: u32 big-endian length, then deterministic CBOR `[type, map]` (formats.md F4).

The length is judged as soon as its four bytes are here, before any of the body is kept, so a peer cannot make us buffer
more than one frame of the size that its turn allows. Bytes are stored once and handed on once, whatever pieces they
come in.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshd.crypto import cbor
from meshd.errors import FormatError, LocalProtocolError, RemoteProtocolError

HEADER = 4  # bytes of the length
MAX_FRAME = 4 * 1024 * 1024  # longest body that this release takes once it knows who speaks
FIRST_FRAME = 64 * 1024  # longest body before the peer's hello; every release takes frames of this size
MAX_DEPTH = 16
_COMPACT = 64 * 1024  # used-up bytes that may stand at the front of the buffer before they are dropped


def encode(kind: int, fields: Mapping[object, object]) -> bytes:
    """A whole frame, length included."""
    body = cbor.encode([kind, fields])
    return len(body).to_bytes(HEADER, "big") + body


def decode(body: bytes) -> tuple[int, dict[object, object]]:
    """The type and the map in a frame's body; FormatError if it is anything else."""
    value = cbor.decode(body, MAX_DEPTH)
    if not isinstance(value, list) or len(value) != 2:
        raise FormatError("a frame that is not [type, map]")
    kind, fields = value
    if type(kind) is not int or kind < 0 or not isinstance(fields, dict):
        raise FormatError("a frame that is not [type, map]")
    return kind, fields


class FrameReader:
    """Cuts what arrives into frame bodies. `limit` is the longest body taken; raise it once the peer has said hello."""

    def __init__(self, limit: int = FIRST_FRAME) -> None:
        self.limit = limit
        self.ended = False
        self._buffer = bytearray()
        self._start = 0

    def receive_data(self, data: bytes) -> None:
        """Store what arrived; b"" is the peer's end of the stream."""
        if self.ended and data:
            raise LocalProtocolError("data after the end of the stream")
        if data:
            self._buffer += data
        else:
            self.ended = True

    def next_body(self) -> bytes | None:
        """The next whole body; None: more bytes are needed. RemoteProtocolError for a length that is not allowed."""
        start = self._start
        waiting = len(self._buffer) - start
        if waiting < HEADER:
            return None
        length = int.from_bytes(self._buffer[start : start + HEADER], "big")
        if length > self.limit:
            raise RemoteProtocolError(f"a frame of {length} bytes where at most {self.limit} are allowed")
        if length == 0:
            raise RemoteProtocolError("an empty frame")
        start += HEADER
        end = start + length
        if waiting < HEADER + length:
            return None
        body = bytes(self._buffer[start:end])
        self._start = end
        if end == len(self._buffer):
            self._buffer.clear()
            self._start = 0
        elif end > _COMPACT:
            del self._buffer[:end]
            self._start = 0
        return body

    def discard(self) -> None:
        """Forget what is buffered: the conversation is over."""
        self._buffer.clear()
        self._start = 0

    @property
    def buffered(self) -> int:
        """Bytes that came and are not part of a frame handed on yet."""
        return len(self._buffer) - self._start
