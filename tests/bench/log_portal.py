"""What the log costs a portal: durable Publishes in its engine with the tree and its signatures, and without."""

from __future__ import annotations

import time
from pathlib import Path
from unittest import mock

import trio

from bench import peers
from bench.figures import Figure, Section
from bench.lab import Lab
from harness.portal_engine import DOMAIN, Engine
from harness.portal_people import Person
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.tree import Tree

ROUNDS = 5
AT_ONCE = 16


def run(lab: Lab, quick: bool) -> Section:
    count = 50 if quick else 400
    figures = []
    with peers.folder() as folder:
        for clients, what in ((1, "one after another"), (AT_ONCE, f"{AT_ONCE} at once")):
            with_log, without = [], []
            for number in range(1 if quick else ROUNDS):  # in turns: the speed of a machine changes
                with_log.append(_publishes(folder / f"with-{clients}-{number}", count, clients))
                with mock.patch.object(Tree, "place"), mock.patch.object(Tree, "seal"):
                    without.append(_publishes(folder / f"without-{clients}-{number}", count, clients))
            best, bare = max(with_log), max(without)
            figures.append(Figure(f"Publish, {what}", best, "/s", "", None, {"without a log": best / bare}))
    return Section("log-portal", "SQLite's durable commit; then Python", figures)


def _publishes(path: Path, count: int, clients: int) -> float:
    """Publishes a second."""
    path.mkdir()
    return trio.run(_measure, path / "portal.db", count, clients)


async def _measure(path: Path, count: int, clients: int) -> float:
    sequencer = Sequencer(path, domain=DOMAIN)
    try:
        portal = Engine(sequencer)
        people = [Person(f"person-{number}") for number in range(clients)]
        work = []
        for person in people:
            await portal.open(person)
            await portal.publish(person, person.container())
            work.append([person.item(f"password {number}") for number in range(count // clients)])

        async def all_of(number: int) -> None:
            for one in work[number]:
                await portal.publish(people[number], one)

        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(all_of, number)
        return count // clients * clients / (time.perf_counter() - start)
    finally:
        sequencer.close()
