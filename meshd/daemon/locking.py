"""When keys are put away by themselves, and how fast passphrases can be tried.

A device locks some time after the last secret was read, and when the machine slept: whoever opens the lid should not
find the vaults open. Sleep shows in the difference between the clock that counts it and the one that does not.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from meshd.daemon import names
from meshd.daemon.context import Daemon
from meshd.errors import MeshError, StoreError, WrongPassphrase

T = TypeVar("T")

TICK = 10.0  # seconds between looks at the clocks, while unlocked: a few microseconds each
SLEPT = 2.0  # seconds of suspension that count as one
FIRST_DELAY, LAST_DELAY = 0.25, 8.0  # seconds that a wrong passphrase costs beyond its key derivation


def seconds_asleep() -> float:
    """How long this machine was suspended since it was started; 0 where the system does not tell."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return 0.0
    return time.clock_gettime(boottime) - time.monotonic()


async def auto_lock(daemon: Daemon, *, asleep: Callable[[], float] = seconds_asleep, tick: float = TICK) -> None:
    """Lock `[lock] timeout` seconds after the last secret was read, and after a suspension, for as long as it runs.

    A keystore that opens without a passphrase is left open: locking it would keep out nobody but its owner's scripts.
    """
    settings = daemon.config.lock
    while True:
        await _until_unlocked(daemon)
        if daemon.keystore is None or not daemon.keystore.needs_passphrase:
            await daemon.changed.after(daemon.changed.count)
            continue
        slept = asleep()
        while not daemon.locked:
            idle = daemon.secret_read + settings.timeout - trio.current_time() if settings.timeout else tick
            if settings.timeout and idle <= 0:
                await lock(daemon, "idle")
            elif settings.on_suspend and asleep() - slept > SLEPT:
                await lock(daemon, "suspend")
            elif not settings.timeout and not settings.on_suspend:
                await _until_locked(daemon)
            else:
                await trio.sleep(min(idle, tick) if settings.on_suspend else idle)


async def lock(daemon: Daemon, why: str) -> None:
    """Put the keys away and say so. They are away even where the saying fails."""
    if daemon.locked:
        return
    try:
        names.refresh(daemon)  # what came a moment ago is remembered; the event below waits behind it
    except MeshError as exc:
        daemon.log.info("the names of devices were not followed: %s", exc)
    daemon.lock()
    await tell(daemon, "locked")
    daemon.log.info("locked (%s)", why)


async def tell(daemon: Daemon, state: str) -> None:
    """The event; a store that can't be written keeps nobody from locking or unlocking."""
    try:
        await daemon.event("lock", {"state": state})
    except StoreError as exc:
        daemon.log.warning("an event was not recorded: %s", exc)


class Guard:
    """One passphrase at a time, each wrong one slower than the one before.

    Trying in parallel gains nothing, and never takes the memory of more than one key derivation.
    """

    def __init__(self) -> None:
        self._turn = trio.Lock()
        self._wrong = 0

    @property
    def forgotten(self) -> bool:
        """Was it wrong so often in a row that it may be forgotten?"""
        return self._wrong >= 3

    async def tried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The attempt's result; WrongPassphrase after a pause that grows with every wrong one in a row."""
        async with self._turn:
            try:
                found = await attempt()
            except WrongPassphrase:
                pause = FIRST_DELAY * 2**self._wrong
                if pause < LAST_DELAY:
                    self._wrong += 1
                await trio.sleep(pause)
                raise
            self._wrong = 0
            return found


async def _until_unlocked(daemon: Daemon) -> None:
    while daemon.locked:
        await daemon.changed.after(daemon.changed.count)


async def _until_locked(daemon: Daemon) -> None:
    while not daemon.locked:
        await daemon.changed.after(daemon.changed.count)
