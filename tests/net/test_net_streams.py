from __future__ import annotations

import pytest
import trio
import trio.testing

from meshd.errors import NetworkError, RemoteProtocolError
from meshd.net.streams import MAX_READ, Link, receive_exactly, send


class Echo:
    """The smallest core: says back what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = False
        self._out = b""

    def receive_data(self, data: bytes) -> None:
        self.ended = self.ended or not data
        self.heard += data
        self._out += data

    def say(self, data: bytes) -> None:
        self._out += data

    def data_to_send(self) -> bytes:
        out, self._out = self._out, b""
        return out


async def test_a_link_moves_bytes_both_ways() -> None:
    here, there = trio.testing.memory_stream_pair()
    core = Echo()
    link = Link(core, here)
    await there.send_all(b"hello")
    await link.fill()
    await link.flush()
    assert core.heard == b"hello"
    assert await there.receive_some() == b"hello"


async def test_the_end_of_the_stream_reaches_the_core_as_an_empty_read() -> None:
    here, there = trio.testing.memory_stream_pair()
    core = Echo()
    await there.aclose()
    await Link(core, here).fill()
    assert core.ended


async def test_one_fill_reads_no_more_than_the_limit() -> None:
    here, there = trio.testing.memory_stream_pair()
    core = Echo()
    await there.send_all(b"x" * (MAX_READ + 1))
    await Link(core, here).fill()
    assert len(core.heard) == MAX_READ


async def test_two_tasks_may_flush_and_nothing_is_mixed_up() -> None:
    here, there = trio.testing.lockstep_stream_pair()
    core = Echo()
    link = Link(core, here)
    received = bytearray()

    async def speak(word: bytes) -> None:
        core.say(word)
        await link.flush()

    async def read() -> None:
        while len(received) < 6000:
            received.extend(await there.receive_some(7))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(speak, b"a" * 3000)
        nursery.start_soon(speak, b"b" * 3000)
    assert bytes(received) in (b"a" * 3000 + b"b" * 3000, b"b" * 3000 + b"a" * 3000)


async def test_a_cancelled_flush_closes_the_stream(autojump_clock: trio.testing.MockClock) -> None:
    here, there = trio.testing.lockstep_stream_pair()
    core = Echo()
    link = Link(core, here)
    core.say(b"never read")
    with trio.move_on_after(1) as waited:
        await link.flush()
    assert waited.cancelled_caught
    with pytest.raises(NetworkError, match="middle of a message"):
        await link.flush()
    with pytest.raises(NetworkError):
        await link.fill()
    while await there.receive_some():  # what was said up to there, and then the end
        pass


async def test_a_broken_stream_is_a_network_error() -> None:
    here, there = trio.testing.memory_stream_pair()
    core = Echo()
    link = Link(core, here)
    await there.aclose()
    core.say(b"too late")
    with pytest.raises(NetworkError):
        await link.flush()


async def test_closing_takes_at_most_two_seconds(autojump_clock: trio.testing.MockClock) -> None:
    class Stubborn(trio.abc.Stream):
        closed = 0

        async def send_all(self, data: object) -> None: ...
        async def wait_send_all_might_not_block(self) -> None: ...
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return b""

        async def aclose(self) -> None:
            self.closed += 1
            await trio.sleep_forever()

    stream = Stubborn()
    with trio.fail_after(3):
        await Link(Echo(), stream).aclose()
    assert stream.closed == 2


async def test_receive_exactly_leaves_the_rest_for_the_next_layer() -> None:
    here, there = trio.testing.memory_stream_pair()
    await there.send_all(b"knock")
    await there.send_all(b"TLS")
    assert await receive_exactly(here, 5) == b"knock"
    assert await here.receive_some() == b"TLS"


async def test_receive_exactly_tells_a_short_stream() -> None:
    here, there = trio.testing.memory_stream_pair()
    await there.send_all(b"kno")
    await there.aclose()
    with pytest.raises(RemoteProtocolError, match="3 of 5"):
        await receive_exactly(here, 5)
    with pytest.raises(NetworkError):
        await send(here, b"anybody?")
