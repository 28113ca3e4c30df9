"""A second process that checks items while many arrive: the daemon's side of `checker`.

Parsing and verifying share the interpreter lock with the event loop and the writer thread, and threads that give it
away and take it back for every signature are slower together than one alone. So a first sync starts a helper, goes on
in threads until that is up, and lets it go when there is nothing to do. The helper vouches for what is in order. What
it does not vouch for, and everything when it fails, is checked here.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from meshd.daemon.checker import HEAD, READY, Lot
from meshd.daemon.verifying import Verified, combined, verify
from meshd.profile.version import Version
from meshd.profile.vouched import Vouched, restore
from meshd.store.directory import Directory

COMMAND = (sys.executable, "-P", "-m", "meshd.daemon.checker")
START_SECONDS = 30.0
ANSWER_SECONDS = 60.0
IDLE_SECONDS = 20.0
MAX_ANSWER = 16 * 1024 * 1024
_PIPE_BYTES = 1024 * 1024  # a lot and its answer fit, so neither side waits for the other to read
_FAULTS = (
    OSError,
    EOFError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    msgspec.MsgspecError,
)


@dataclass(slots=True)
class _Asked:
    count: int
    answer: list[Vouched | None] | None = None
    done: trio.Event = field(default_factory=trio.Event)


WORTH_HELP = 32  # entries of a lot that is given to the helper


class Helper:
    """One helper process. A task keeps it with `keep`, or `run`; while it is `ready`, any may `check`."""

    def __init__(self, directory: Directory, command: Sequence[str] = COMMAND) -> None:
        self.ready = False
        self._directory = directory
        self._command = command
        self._told: set[str] = set()  # signers whose keys it knows
        self._asking = trio.Lock()
        self._asked: deque[_Asked] = deque()  # in the order in which it answers
        self._called = trio.Event()  # something is asked
        self._wanted = trio.Event()
        self._process: trio.Process | None = None
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(list[Vouched | None])

    def expect_much(self) -> None:
        """So much is to come that a helper pays."""
        self._wanted.set()

    async def keep(self) -> None:
        """Run whenever much is expected; returns when it does not work here."""
        works = True
        while works:
            await self._wanted.wait()
            works = await self.run()
            self._wanted = trio.Event()

    async def verify(self, raws: Sequence[bytes], vids: Sequence[bytes | None]) -> Verified:
        """As `verifying.verify`, with the helper where it is up. What it does not vouch for may be a profile, by a
        signer new to it, or bad: that is looked at here."""
        if not self.ready or len(raws) < WORTH_HELP:
            return await verify(raws, vids, self._directory)
        found = await self.check(raws, [vid or b"" for vid in vids])
        good = Verified(tuple([one for one in found if one is not None]), (), ())
        rest = [place for place, one in enumerate(found) if one is None]
        if not rest:
            return good
        return combined([good, await verify([raws[at] for at in rest], [vids[at] for at in rest], self._directory)])

    async def run(self) -> bool:
        """Start the process and hear its answers, until nothing was asked for a while. False: it failed."""
        try:
            self._process = await trio.lowlevel.open_process(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
            )
            self._widen(self._process)
            with trio.fail_after(START_SECONDS):
                if await self._read(HEAD) != READY:
                    return False
            self.ready = True
            while self.ready:
                await self._hear()
            return True
        except _FAULTS:
            return False
        finally:
            self._give_up()
            with trio.CancelScope(shield=True):
                await self._end()

    async def check(self, raws: Sequence[bytes], vids: Sequence[bytes]) -> list[Version | None]:
        """Those entries that are verified items, and the ones announced (an empty vid: none was); None for others, and
        for all if it fails."""
        asked = _Asked(len(raws))
        async with self._asking:
            if self.ready:
                self._asked.append(asked)
                self._called.set()
                await self._ask(Lot(list(raws), list(vids), self._news()))
            else:
                asked.done.set()
        await asked.done.wait()
        if asked.answer is None:
            return [None] * len(raws)
        return [None if found is None else restore(found, raw) for found, raw in zip(asked.answer, raws, strict=True)]

    async def _ask(self, lot: Lot) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        body = self._encoder.encode(lot)
        try:
            with trio.fail_after(ANSWER_SECONDS):
                await self._process.stdin.send_all(len(body).to_bytes(HEAD, "big") + body)
        except _FAULTS:
            self._give_up()
        except BaseException:
            self._give_up()  # half a lot was said
            raise

    def _news(self) -> dict[str, bytes]:
        keys = {key.udf: key.public for key in self._directory.all() if key.udf not in self._told}
        self._told.update(keys)
        return keys

    async def _hear(self) -> None:
        with trio.move_on_after(IDLE_SECONDS):
            await self._called.wait()
        if not self._asked:
            self.ready = False
            return
        with trio.fail_after(ANSWER_SECONDS):
            size = int.from_bytes(await self._read(HEAD), "big")
            if size > MAX_ANSWER:
                raise EOFError
            answer = self._decoder.decode(await self._read(size))
        if len(answer) != self._asked[0].count:
            raise EOFError
        asked = self._asked.popleft()
        asked.answer = answer
        asked.done.set()
        if not self._asked:
            self._called = trio.Event()

    async def _read(self, size: int) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        data = bytearray()
        while len(data) < size:
            part = await self._process.stdout.receive_some(size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _give_up(self) -> None:
        self.ready = False
        for asked in self._asked:
            asked.done.set()
        self._asked.clear()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        await process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await trio.aclose_forcefully(stream)

    def _widen(self, process: trio.Process) -> None:
        for stream in (process.stdin, process.stdout):
            assert isinstance(stream, trio.lowlevel.FdStream)
            try:
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            except OSError:
                pass  # more than an ordinary user gets here: it goes in smaller pieces
