"""How fast a mirror follows a log, beside a plain copy of the same rows, and how much memory that takes.

The mirror is a process of its own that asks a portal over loopback, verifies every page and every signature, and is
durable after each page. The copy moves the same rows between two stores with SQLite alone, a commit for as many.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import trio

from bench import peers
from bench.figures import Figure, Section
from bench.lab import Lab
from harness.portal_engine import DOMAIN, Engine
from harness.portal_people import Person
from harness.portal_process import PortalProcess
from meshd.daemon.portal import mirrored
from meshd.daemon.portal import peers as portal_peers
from meshd.daemon.portal.sequencer import Sequencer
from meshd.store.portal_db import open_portal

ORIGIN, NAME = f"{DOMAIN}/mmm-log", "mirror.example"
AT_ONCE = 200  # entries of a Publish
PAGE = 1000  # rows of the copy's transaction, as a page of Transfer has


def run(lab: Lab, quick: bool) -> Section:
    sizes = (500, 2000) if quick else (10**4, 10**5)
    figures = []
    with peers.folder() as folder:
        for size in sizes:
            figures.append(_followed(folder / str(size), size))
    return Section("log-mirror", "Ed25519, JSON and Python's calls around them, on one core", figures)


def _followed(folder: Path, size: int) -> Figure:
    folder.mkdir()
    (folder / "portal").mkdir()
    (folder / "mirror").mkdir()
    store = folder / "portal" / "portal.db"
    trio.run(_fill, store, size, mirrored.prepare(folder / "mirror" / "portal.db", ORIGIN, NAME, int(time.time())))
    with PortalProcess(folder / "portal") as portal:
        assert portal.start() is None
        seconds, peak, busy = _mirror(folder / "mirror", portal.port)
        idle = _mirror(folder / "mirror", portal.port)  # nothing is new: what a start costs, in time and memory
    copied, moved = _copy(store, folder / "copy.db")
    return Figure(
        f"a mirror of {size} entries, its start included",
        size / seconds,
        "/s",
        beside={"a plain copy of the rows": copied / seconds},
        more={
            "MB/s": moved / seconds / 1e6,
            "CPU µs an entry": (busy - idle[2]) / size * 1e6,
            "s of a start": idle[0],
            "peak MB": peak,
            "peak MB with nothing to do": idle[1],
        },
    )


async def _fill(store: Path, size: int, identity: mirrored.Identity) -> None:
    """A log of so many entries, granted to the mirror."""
    sequencer = Sequencer(store, domain=DOMAIN)
    try:
        engine, person = Engine(sequencer), Person("alice")
        await engine.open(person)
        await engine.publish(person, person.container())
        for start in range(2, size, AT_ONCE):
            items = [person.item(f"secret {number}") for number in range(start, min(start + AT_ONCE, size))]
            await engine.publish(person, *items)
        asked = {"name": NAME, "url": "", "keys": [identity.peer.vkey], "grant": "full"}
        await sequencer.change(lambda connection: portal_peers.add(connection, asked))
    finally:
        sequencer.close()


def _mirror(data: Path, port: int) -> tuple[float, float, float]:
    """(seconds, peak MB, seconds of CPU) of a mirror that comes to where the log is."""
    argv = [sys.executable, "-m", "meshd", "portal", "mirror", "--of", DOMAIN, "--data", str(data), "--once"]
    argv += ["--address", f"127.0.0.1:{port}", "--insecure-http"]
    start = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"the mirror ended with {process.returncode}"
    return time.perf_counter() - start, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def _copy(store: Path, target: Path) -> tuple[float, int]:
    """(seconds, bytes) of the same rows, moved by SQLite from one store to the other."""
    with open_portal(target, create=True) as database:
        connection = database.connection
        connection.execute("ATTACH ? AS origin", (str(store),))
        start, place = time.perf_counter(), 0
        for table in ("meshes", "parts", "signers", "devices", "members"):
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM origin.{table}")
        while True:
            connection.execute("BEGIN IMMEDIATE")
            for table, column in (("versions", "seq"), ("leaves", "place")):
                moved = connection.execute(
                    f"INSERT INTO main.{table} SELECT * FROM origin.{table} WHERE {column} > ? AND {column} <= ?",
                    (place, place + PAGE),
                ).rowcount
            connection.execute("COMMIT")
            place += PAGE
            if moved < PAGE:
                break
        connection.execute("INSERT INTO main.nodes SELECT * FROM origin.nodes")
        seconds = time.perf_counter() - start
        ((size,),) = connection.execute(
            "SELECT sum(length(raw)) + (SELECT sum(length(leaf) + length(salt)) FROM leaves) FROM versions"
        )
    return seconds, int(size)
