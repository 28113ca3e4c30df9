"""Work that nobody asked for: with a pen as a person's commands have it, but without counting as use of the device.

A device locks an hour after the last secret was read; what it does by itself must not put that off.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from meshd.daemon.context import Daemon
from meshd.daemon.pen import Pen
from meshd.errors import Denied, Locked, NotConnected
from meshd.store.replica import Outcome

T = TypeVar("T")


async def with_pen(daemon: Daemon, fn: Callable[[Pen], T]) -> T:
    """Run `fn` in the writer's thread, in one transaction. Locked, NotConnected, Denied on a device that was
    removed."""
    if not daemon.snapshot.connected:
        raise NotConnected
    keyring = daemon.keyring
    if keyring is None:
        raise Locked
    if not daemon.snapshot.is_member:
        raise Denied("This device was removed from its mesh.", hint="run: meshctl wipe, then connect it anew")

    def run(connection: sqlite3.Connection, outcome: Outcome) -> T:
        return fn(Pen(connection, daemon.replica, keyring, outcome, daemon.now_ms(), daemon.rng))

    return await daemon.transact(run)
