"""The device daemon: which tasks run, in which order they start, and how they stop.

services    network (interfaces, mDNS) · siblings · invitations · connections · local API · index keeper · auto-lock ·
            announcements · repair
start       everything that listens is started before READY is told
stop        SIGTERM or SIGINT: no new work, a few seconds for what runs, then cancel; the store closes last
"""

from __future__ import annotations

import gc
import os
import secrets
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from meshd.daemon import announce, api, checking, locking, names, repair, wiping
from meshd.daemon.config import Config
from meshd.daemon.connecting import Connections
from meshd.daemon.context import Daemon, open_daemon, wait
from meshd.daemon.index import save
from meshd.daemon.inviting import Invitations
from meshd.daemon.paths import Paths
from meshd.daemon.portals.online import online
from meshd.daemon.siblings import Siblings
from meshd.errors import MeshError
from meshd.net import systemd
from meshd.net.lan import Lan, Network

STOP_SECONDS = 5.0
GARBAGE = 50_000  # objects more than before; then the collector looks for cycles among the young ones
FIRST_PAUSE, LAST_PAUSE = 1.0, 300.0  # before what failed begins anew
ANSWER_SECONDS = 0.3  # for the answer that says that the device was wiped, which is on its way
SETTLE_SECONDS = 1.0  # what changes within so long is read again together
POURING = 500  # so many items in that time are a first sync, or an import


def now_ms() -> int:
    """Wall-clock milliseconds; shown to people and in versions, never decides."""
    return time.time_ns() // 1_000_000


async def run_device(config: Config, paths: Paths, *, told: Callable[[str], None] = lambda line: None) -> None:
    """Be this home's daemon until a signal says stop. The caller holds the home's lock. MeshError: it could not
    start.

    A wiped device goes on as one that belongs to no mesh.
    """
    try:
        while await _run_once(config, paths, told):
            pass
    finally:
        systemd.sd_notify(os.environ, "STOPPING=1")


def _collect_less() -> None:
    """What is here after the start stays, so the collector need not look at it over and over. What comes and goes in a
    first sync are no cycles, but a fifteenth of its time went into looking for some."""
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 50)


async def _run_once(config: Config, paths: Paths, told: Callable[[str], None]) -> bool:
    """One life of the device; True when it was wiped and another one is to follow."""
    await trio.to_thread.run_sync(wiping.finish, paths)
    daemon = open_daemon(config, paths, rng=secrets.token_bytes, now_ms=now_ms)
    again = False
    try:
        network = Lan(config.lan.interfaces, secrets.token_bytes) if config.lan.enabled else None
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signal, nursery.cancel_scope)
            app = await serve(daemon, network, nursery)
            _collect_less()
            systemd.sd_notify(os.environ, "READY=1", "STATUS=listening")
            told(f"listening on {paths.socket}")
            await app.wiped.wait()
            daemon.log.info("wiped: starting anew without a mesh")
            await trio.sleep(ANSWER_SECONDS)
            again = True
            nursery.cancel_scope.cancel()
        return again
    finally:
        daemon.close()


async def serve(daemon: Daemon, network: Network | None, nursery: trio.Nursery) -> api.App:
    """Start the services of a device in `nursery`; returns once all of them listen."""
    siblings = Siblings(daemon, network) if network is not None else None
    invitations = Invitations(daemon, network, lambda: siblings.port if siblings else 0) if network else None
    connections = Connections(daemon, network, lambda: siblings.connections if siblings else {}) if network else None
    portals = online(daemon)
    app = api.App(daemon, siblings, network, invitations, connections, portals)
    await open_without_a_person(daemon)
    if network is not None and siblings is not None and invitations is not None and connections is not None:
        await nursery.start(network.run)
        if daemon.snapshot.connected:
            await nursery.start(siblings.run)
        else:
            nursery.start_soon(when_connected, daemon, siblings)
        await nursery.start(invitations.run)
        await nursery.start(connections.run)
    await nursery.start(portals.run)
    for task in (keep_index, locking.auto_lock, announce.announcements, repair.repair, checking.keep_checking):
        nursery.start_soon(keep_up, daemon, task)
    await nursery.start(api.serve, app, str(daemon.paths.socket))
    return app


async def open_without_a_person(daemon: Daemon) -> None:
    """A device whose keystore needs no passphrase is never locked by a restart."""
    if daemon.keystore is None or daemon.keystore.needs_passphrase:
        return
    try:
        await daemon.unlock(None)
    except MeshError as exc:
        daemon.log.error("could not open the keystore: %s", exc)


async def when_connected(daemon: Daemon, siblings: Siblings) -> None:
    """Start looking for the other devices as soon as this one belongs to a mesh."""
    while not daemon.snapshot.connected or daemon.tier1 is None:
        seen = daemon.changed.count
        if not daemon.snapshot.connected or daemon.tier1 is None:
            await daemon.changed.after(seen)
    await siblings.run()


async def keep_up(daemon: Daemon, task: Callable[[Daemon], Awaitable[None]]) -> None:
    """Run something that the device does by itself. A fault in it is told, and it begins anew: what people and siblings
    ask for goes on."""
    pause = FIRST_PAUSE
    while True:
        begun, ended = trio.current_time(), False
        try:
            await task(daemon)
            ended = True
        except* sqlite3.Error as group:
            for one in group.exceptions:
                daemon.log.error("%s: the store can't be read or written: %s", task.__name__, one)
        except* Exception as group:
            daemon.log.error("a fault in %s", task.__name__, exc_info=group)
        if ended:
            return
        pause = FIRST_PAUSE if trio.current_time() - begun > LAST_PAUSE else min(pause * 2, LAST_PAUSE)
        await trio.sleep(pause)


async def keep_index(daemon: Daemon) -> None:
    """Read again what moved, remember it sealed, and follow the names of devices; when nobody waits for it."""
    while True:
        seen, version = daemon.moved.count, daemon.changed.count
        if daemon.keyring is not None:
            try:
                index = await daemon.fresh_index()
                while (keyring := daemon.keyring) is not None and (rows := index.take_unsaved()):
                    await wait(daemon.writer.submit(partial(save, keyring=keyring, rows=rows, rng=daemon.rng)))
            except MeshError as exc:  # locked meanwhile, or the disk is full: the index is rebuilt when it is needed
                daemon.log.info("the index was not saved: %s", exc)
        await trio.sleep(SETTLE_SECONDS)
        await names.moved_past(daemon, seen, version)
        await _calm(daemon)


async def _calm(daemon: Daemon) -> None:
    """Until items do not pour in any more: a first sync goes before the index, unless somebody asks for that."""
    while (index := daemon.index) is not None:
        before = index.stale
        await trio.sleep(SETTLE_SECONDS)
        if index.stale - before < POURING:
            return


async def stop_on_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """SIGTERM and SIGINT end the daemon; a second one at once."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            if scope.cancel_called:
                os._exit(130)
            scope.deadline = trio.current_time() + STOP_SECONDS
            scope.cancel()
