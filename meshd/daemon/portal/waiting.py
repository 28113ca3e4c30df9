"""Who waits at a portal: for a turn to write, and for news of a mesh."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

import trio

from meshd.errors import StoreBusy


class Turns:
    """At most so many at work, and accounts in turn for what becomes free."""

    def __init__(self, places: int, waiting: int) -> None:
        self._free, self._most = places, waiting
        self._queues: OrderedDict[str, deque[trio.Event]] = OrderedDict()
        self._count = 0

    @property
    def waiting(self) -> int:
        return self._count

    @property
    def busy(self) -> bool:
        """Has whoever comes now to wait?"""
        return not self._free

    def turn(self, who: str) -> _Turn:
        """Hold a place within `async with`. StoreBusy when too many wait already."""
        return _Turn(self, who)

    async def take(self, who: str) -> None:
        if self._free:
            self._free -= 1
        else:
            await self._wait(who)

    async def _wait(self, who: str) -> None:
        if self._count >= self._most:
            raise StoreBusy("the portal has more to write than it can")
        event = trio.Event()
        self._queues.setdefault(who, deque()).append(event)
        self._count += 1
        try:
            await event.wait()
        except BaseException:
            if event.is_set():
                self.give()  # the place came when nobody wanted it any more
            else:
                self._remove(who, event)
            raise

    def _remove(self, who: str, event: trio.Event) -> None:
        queue = self._queues[who]
        queue.remove(event)
        self._count -= 1
        if not queue:
            del self._queues[who]

    def give(self) -> None:
        """Give a place back: to who is next."""
        if not self._queues:
            self._free += 1
            return
        who, queue = next(iter(self._queues.items()))
        event = queue.popleft()
        self._count -= 1
        if queue:
            self._queues.move_to_end(who)
        else:
            del self._queues[who]
        event.set()


class _Turn:
    __slots__ = ("_turns", "_who")

    def __init__(self, turns: Turns, who: str) -> None:
        self._turns, self._who = turns, who

    async def __aenter__(self) -> None:
        await self._turns.take(self._who)

    async def __aexit__(self, *_: object) -> None:
        self._turns.give()


@dataclass(slots=True)
class _Waiter:
    event: trio.Event
    watchers: int = 0


class Feeds:
    """Who waits for news of a mesh."""

    def __init__(self) -> None:
        self._waiters: dict[str, _Waiter] = {}

    @property
    def waiting(self) -> int:
        return sum(one.watchers for one in self._waiters.values())

    def moved(self, mesh: str) -> None:
        waiter = self._waiters.pop(mesh, None)
        if waiter is not None:
            waiter.event.set()

    def all(self) -> None:
        """Everybody: the portal stops."""
        for mesh in list(self._waiters):
            self.moved(mesh)

    def event(self, mesh: str) -> trio.Event:
        """An event that is set when something is added for this mesh. Take it before looking, wait for it after."""
        waiter = self._waiters.setdefault(mesh, _Waiter(trio.Event()))
        waiter.watchers += 1
        return waiter.event

    def leave(self, mesh: str, event: trio.Event) -> None:
        waiter = self._waiters.get(mesh)
        if waiter is not None and waiter.event is event:
            waiter.watchers -= 1
            if not waiter.watchers:
                del self._waiters[mesh]
