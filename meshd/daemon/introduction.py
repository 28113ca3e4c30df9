"""The introduction: newer profiles shown between devices of which one does not know the other's certificate.

A device that was admitted while the other was away shows a profile chain that extends the other's, and is a sibling
from then on; a device that was removed is shown the chain that says so, whichever of the two called (formats.md F10,
mode 2; docs/adr/0021). Profiles are all that is served and taken, and what is taken is judged like everything.

    server → client   hello          heads of the server's PersonalProfile
    client → server   hello          heads of the client's
    client → server   profile *      what the server's heads lack, oldest first
    client → server   close
    server → client   profile *      after the commit: what the client's heads lack
    server → client   close
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from meshd.daemon.context import Daemon
from meshd.daemon.verifying import verify
from meshd.errors import NetworkError, RemoteProtocolError
from meshd.net import streams
from meshd.profile.claim import Kind
from meshd.store import versions
from meshd.sync import codec
from meshd.sync.frames import MAX_FRAME, FrameReader
from meshd.sync.messages import Close, CloseCode, HelloInfo, Message, Profiles

MAX_BYTES = 16 * 1024 * 1024  # of profiles in one introduction
SECONDS = 60.0


@dataclass(slots=True)
class Room:
    """How many bytes may still come, over one stream or several."""

    left: int


class Frames:
    """Whole frames from a stream, of any length that a profile may have."""

    def __init__(self, stream: trio.abc.Stream, room: Room | None = None) -> None:
        self._stream = stream
        self._room = room or Room(MAX_BYTES)
        self._reader = FrameReader(MAX_FRAME)

    async def next(self) -> Message | None:
        while True:
            body = self._reader.next_body()
            if body is not None:
                return codec.decode(body)
            if self._reader.ended:
                return None
            try:
                data = bytes(await self._stream.receive_some(65536))
            except streams.STREAM_ERRORS as exc:
                raise streams.stream_error(exc) from exc
            self._room.left -= len(data)
            if self._room.left < 0:
                raise RemoteProtocolError("the other device gives profiles without end")
            self._reader.receive_data(data)


async def receive(daemon: Daemon, stream: trio.abc.Stream) -> None:
    """The server's side: take profiles that extend ours, then show what the caller lacks."""
    with _in_time():
        await streams.send(stream, codec.encode(_hello(daemon)))
        frames = Frames(stream)
        caller = await frames.next()
        if not isinstance(caller, HelloInfo):
            raise RemoteProtocolError("the other device did not say which profiles it holds")
        await _take(daemon, frames)
        for raw in daemon.profiles_beyond(caller.heads):
            await streams.send(stream, codec.encode(Profiles((raw,))))
        await streams.send(stream, codec.encode(Close(CloseCode.DONE, "")))


async def hand_over(daemon: Daemon, stream: trio.abc.Stream) -> int:
    """The client's side: show what the server lacks, and take what it shows; returns how many profiles were shown."""
    with _in_time():
        frames = Frames(stream)
        server = await frames.next()
        if not isinstance(server, HelloInfo):
            raise RemoteProtocolError("the other device did not say which profiles it holds")
        raws = daemon.profiles_beyond(server.heads) + _renewed(daemon)
        await streams.send(stream, codec.encode(_hello(daemon)))
        for raw in raws:
            await streams.send(stream, codec.encode(Profiles((raw,))))
        await streams.send(stream, codec.encode(Close(CloseCode.DONE, "")))
        await _take(daemon, frames)
    return len(raws)


def _hello(daemon: Daemon) -> HelloInfo:
    snapshot = daemon.snapshot
    return HelloInfo(daemon.store_id(), snapshot.own, clock_ms=daemon.now_ms(), heads=snapshot.heads)


async def _take(daemon: Daemon, frames: Frames) -> None:
    """Profiles up to the other side's close, in one transaction."""
    raws: list[bytes] = []
    while isinstance(message := await frames.next(), Profiles):
        raws += message.raws
    if message is not None and not isinstance(message, Close):
        raise RemoteProtocolError("something else than profiles in an introduction")
    verified = await verify(raws, [None] * len(raws), daemon.replica.directory)
    if verified.refused:
        raise RemoteProtocolError(f"a profile that can't be believed: {verified.refused[0]}")
    if any(one.kind not in (Kind.MASTER, Kind.PERSONAL, Kind.DEVICE) for one in verified.versions):
        raise RemoteProtocolError("something else than profiles in an introduction")
    if verified.versions:
        await daemon.transact(
            lambda connection, outcome: daemon.replica.accept(connection, verified.versions, daemon.now_ms(), outcome)
        )


def _renewed(daemon: Daemon) -> list[bytes]:
    """This device's own profile where it has renewed its keys: no personal profile need embed it yet."""
    connection = daemon.reader.connection
    rows = [row for row in versions.of_entry(connection, Kind.DEVICE, daemon.snapshot.own) if row.gen > 1]
    return [raw for row in rows if (raw := versions.raw(connection, row.vid)) is not None]


class _in_time:  # noqa: N801  (used as a statement, like the scopes it wraps)
    """`trio.fail_after` in our words."""

    def __enter__(self) -> None:
        self._scope = trio.move_on_after(SECONDS)
        self._scope.__enter__()

    def __exit__(self, kind: object, exc: object, trace: object) -> bool:
        swallowed = self._scope.__exit__(kind, exc, trace)  # type: ignore[arg-type]
        if self._scope.cancelled_caught:
            raise NetworkError("the introduction took too long")
        return bool(swallowed)
