"""Is a portal as quick with a million versions as with a thousand? And how soon is it up, in how much memory?

The versions that are there already are rows written in bulk, half of them in the meshes of those who are measured; the
leaves of the log are made as the portal makes them. Versions that are published and read are real ones.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from bench import load, machine, peers
from bench.figures import Figure, Section
from bench.lab import Lab
from bench.portal import gets, open_accounts, publishes, served
from harness.portal_people import Person
from meshd.daemon.portal.app import STORE
from meshd.daemon.portal.tree import Tree
from meshd.profile.claim import Kind, State
from meshd.store import portal_rows as rows
from meshd.store.portal_db import open_portal

CLIENTS = 16
RAW = 300  # bytes of a row's content: what grows with the number is the indexes
FLAT = 1.25  # times the CPU over the fewest, at most: trees are deeper, and caches do not hold all of them any more


def run(lab: Lab, quick: bool) -> Section:
    sizes = (1_000, 10_000) if quick else (1_000, 10_000, 100_000, 1_000_000)
    each, seconds = (400, 1.0) if quick else (6_000, 4.0)
    people = [Person(f"flat {count}") for count in range(CLIENTS)]
    figures: list[Figure] = []
    base: dict[str, float] = {}
    with peers.folder() as folder:
        with served(folder) as (port, _):
            open_accounts(port, people)
        for size in sizes:
            _fill(folder / STORE, size, people)
            start = time.monotonic()
            with served(folder) as (port, process):
                up = time.monotonic() - start
                for what, make in (("Publish", publishes), ("Get", gets)):
                    queues = [make(one, each // CLIENTS) for one in people]
                    before = machine.cpu_seconds(process.pid)
                    found = load.drive(port, queues, seconds)
                    used = (machine.cpu_seconds(process.pid) - before) / found.answered * 1e6
                    times = used / base.setdefault(what, used)
                    figures.append(
                        Figure(
                            f"{what} over {size:,} versions", used, "µs CPU",
                            f"≤ {FLAT} × that of {sizes[0]:,}" if size > sizes[0] else "",
                            times <= FLAT if size > sizes[0] else None,
                            {f"that of {sizes[0]:,}": times},
                            {"/s": found.per_second, "p99 ms": found.p99, "failed": found.failures}
                            | ({"up after s": up} if what == "Publish" else {})
                            | ({"memory MiB": machine.memory(process.pid)} if what == "Get" else {}),
                        )
                    )  # fmt: skip
    return Section("portal flat", "one more level of an index for each factor of some hundred", figures)


def _fill(store: Path, size: int, people: list[Person]) -> None:
    """Rows and leaves until there are so many versions."""
    with open_portal(store) as database:
        connection = database.connection
        connection.execute("PRAGMA synchronous = OFF")
        with database.transaction():
            meshes = [rows.make_mesh(connection, one.mesh) for one in people]
            strangers = [rows.make_mesh(connection, Person(f"stranger {count}").mesh) for count in range(CLIENTS)]
            start = rows.last_place(connection)
            for place in range(start, size):
                _put(connection, place, [*meshes, *strangers][place % (2 * CLIENTS)], people[place % CLIENTS])
        Tree(connection).catch_up(connection)
        database.checkpoint()


def _put(connection: sqlite3.Connection, place: int, mesh: int, person: Person) -> None:
    vid = os.urandom(32)
    put = rows.Put(
        vid, int(Kind.ITEM), f"{person.vault}/{vid.hex()[:26]}", person.first.udf, 1_000_000 + place, 1,
        f"mnt1;n={1_000_000 + place};g=1", os.urandom(32), os.urandom(RAW),
    )  # fmt: skip
    rows.put(connection, mesh, put, State.APPLIED, 1_790_000_000)
