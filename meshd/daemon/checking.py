"""Is the store whole? Its pages are read once after a start and then daily, in a thread of their own that steps aside.

SQLite finds a damaged page when it reads it, which may be years after the disk lost it. What is found is told in
`health` and the log; nothing is changed or emptied.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future

import trio

from meshd.daemon.context import Daemon, wait
from meshd.errors import StoreDamaged, StoreError
from meshd.store.db import Database, open_database

AFTER_START = 20.0  # seconds: whatever a start has to do goes first
EVERY = 24 * 3600.0
LEAST_PRIORITY = 19


async def keep_checking(daemon: Daemon, *, after: float = AFTER_START) -> None:
    """Check the store now and then until cancelled."""
    await trio.sleep(after)
    while True:
        await check(daemon)
        await trio.sleep(EVERY)


async def check(daemon: Daemon) -> None:
    """Read every page of the store; `daemon.damage` has what is wrong."""
    try:
        database = await trio.to_thread.run_sync(lambda: open_database(daemon.paths.store, readonly=True))
    except StoreDamaged as exc:
        daemon.found_damage([str(exc)])
        return
    except StoreError as exc:
        daemon.log.warning("the store could not be checked: %s", exc)
        return
    found: Future[list[str]] = Future()
    threading.Thread(target=_read_all, args=(database, found), name="store-check", daemon=True).start()
    try:
        daemon.found_damage(await wait(found))
    except trio.Cancelled:
        database.connection.interrupt()  # the thread closes it
        raise
    except StoreError as exc:
        daemon.log.warning("the store could not be checked: %s", exc)


def _read_all(database: Database, found: Future[list[str]]) -> None:
    """In a thread of its own, for it can't have its priority back."""
    try:
        if sys.platform == "linux":  # elsewhere it would be the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)
        found.set_result(database.quick_check())
    except BaseException as exc:
        found.set_exception(exc)
    finally:
        database.close()
