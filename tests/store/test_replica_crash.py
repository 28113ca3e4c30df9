"""Whatever fails and wherever it stops: acknowledged work is there, the rest is whole or absent, memory equals the
rows."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.faulty import FaultAt, Faults, Injected, crash_image, every_fault
from harness.mesh_world import Device, device_keys, found, memory_store, seeded, verified
from meshd.crypto.keys import SigningKey
from meshd.daemon import membership, vaults
from meshd.daemon.pen import Pen
from meshd.errors import Denied, MeshError
from meshd.profile import device
from meshd.profile.apps import password
from meshd.profile.claim import Kind, Role, State
from meshd.profile.version import Version
from meshd.store import chains, versions
from meshd.store.db import open_database, set_meta
from meshd.store.replica import Outcome, Replica
from meshd.store.writer import Writer

Work = Callable[[Pen], Any]


class Home:
    """A store on disk with a writer: what a daemon holds of it."""

    def __init__(self, path: Path, name: str, fault: Callable[[str], None] | None = None) -> None:
        self.database = open_database(path, create=True)
        if self.database.query("SELECT count(*) FROM meta")[0][0] == 0:
            with self.database.transaction() as connection:
                set_meta(connection, "store_id", b"store-id")
        self.device = Device(name, device_keys(name), seeded(f"{name} {path}"), self.database.connection)
        self.device.refresh()
        self.writer = Writer(self.database, lambda: self.device.replica.rebuild(self.database.connection), fault=fault)
        self.acknowledged: list[int] = []

    def submit(self, number: int, work: Work) -> bool:
        """Let the writer do it; True when it said that it is durable."""

        def run(connection: sqlite3.Connection) -> None:
            self.device.now_ms += 1000
            work(self.device.pen(connection, Outcome()))

        try:
            self.writer.run(run)
        except (Injected, MeshError):
            return False
        self.acknowledged.append(number)
        return True

    def close(self) -> None:
        self.writer.close()
        self.database.close()


def sound(connection: sqlite3.Connection, own: str) -> None:
    """Rows that say one thing: heads as the states give them, edges and chains whole, nobody forked himself."""
    replica = Replica(connection, seeded("fresh"))
    again = Replica(connection, seeded("fresh"))
    assert replica.memory() == again.memory()
    heads = set(connection.execute("SELECT vid FROM versions WHERE head = 1").fetchall())
    connection.execute("SAVEPOINT check_heads")
    for kind, identifier in connection.execute(
        "SELECT DISTINCT kind, identifier FROM versions WHERE kind < 9"
    ).fetchall():
        if kind not in (5, 6, 7):
            versions.recompute_heads(connection, kind, identifier)
    assert heads == set(connection.execute("SELECT vid FROM versions WHERE head = 1").fetchall())
    connection.execute("ROLLBACK TO check_heads")
    connection.execute("RELEASE check_heads")
    for vid, kind, state in connection.execute("SELECT vid, kind, state FROM versions").fetchall():
        if kind in (Kind.MASTER, Kind.PERSONAL) and state != State.PENDING:
            assert replica.authority.state(vid) == state
    assert connection.execute("SELECT count(*) FROM forks").fetchone() == (0,)
    if own:
        assert len(chains.tips(connection, own)) <= 1
    followed = {
        before for signer in {row[0] for row in connection.execute("SELECT signer FROM versions")} if signer
        for _, q in versions.of_signer(connection, signer) for before in q
    }  # fmt: skip
    for signer, vid in connection.execute("SELECT signer, vid FROM tips").fetchall():
        assert vid not in followed, "an end that somebody follows"
        assert versions.get(connection, vid) is not None and signer
    for need, vid in connection.execute("SELECT need, vid FROM holes").fetchall():
        assert versions.get(connection, need) is None and versions.get(connection, vid) is not None


def same_memory(home: Home) -> None:
    fresh = Replica(home.database.connection, seeded("fresh"))
    assert home.device.replica.memory() == fresh.memory()


def rows(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM versions").fetchone()
    return int(count)


def founding(pen: Pen) -> None:
    membership.found(pen, SigningKey.generate(seeded("master")), b"sealed", "laptop")


def admitting(name: str) -> Work:
    profile = device.create(device_keys(name), 1, seeded(name))
    return lambda pen: membership.admit(pen, profile, Role.MEMBER, name)


def adding(site: str) -> Work:
    return lambda pen: vaults.add(
        pen, pen.keyring.find("password"), lambda t, made: password.new([site], "a", "b", time=t, made=made)
    )


def first_item(pen: Pen) -> str:
    return vaults.items_of(pen.connection, pen.keyring.find("password").application.identifier)[0]


def editing(pen: Pen) -> None:
    vaults.replace(pen, first_item(pen), lambda i, t, made: password.edit(i, {"password": "new"}, time=t, made=made))


def deleting(pen: Pen) -> None:
    vaults.replace(pen, first_item(pen), lambda i, t, made: password.deleted(i, time=t, made=made))


STEPS: tuple[Work, ...] = (founding, adding("a.example"), admitting("desktop"), editing, adding("b.example"), deleting)


def sizes(path: Path) -> list[int]:
    """How many versions there are after each of the steps, where none fails."""
    home = Home(path, "laptop")
    found_sizes = [rows(home.database.connection)]
    for number, step in enumerate(STEPS):
        assert home.submit(number, step)
        found_sizes.append(rows(home.database.connection))
    home.close()
    return found_sizes


def test_a_crash_at_any_point_of_what_a_device_writes(home: Path) -> None:
    whole = sizes(home / "whole.db")
    tries = iter(range(1000))

    def work(faults: Faults) -> None:
        number = next(tries)
        here = Home(home / f"{number}.db", "laptop", faults)
        for step_number, step in enumerate(STEPS):
            if not here.submit(step_number, step):
                break  # the process is gone
        image = crash_image(home / f"{number}.db", home / f"{number}-image.db")
        here.close()
        again = Home(image, "laptop")
        connection = again.database.connection
        assert again.database.check() == []
        acknowledged = len(here.acknowledged)
        # What was not acknowledged may have become durable (a crash just after the commit): whole, or not at all.
        assert rows(connection) in whole[acknowledged : acknowledged + 2], faults.struck
        sound(connection, again.device.udf)
        done = whole.index(rows(connection))
        for rest in range(done, len(STEPS)):
            assert again.submit(rest, STEPS[rest]), "it goes on where it stood"
        assert rows(connection) == whole[-1]
        sound(connection, again.device.udf)
        same_memory(again)
        again.close()
        for leftover in home.glob(f"{number}*"):
            leftover.unlink()

    points = [faults.struck for faults in every_fault(work)]
    assert {"before-fn", "before-commit", "after-commit"} <= set(points)


def test_one_failure_at_any_point_and_the_process_lives_on(home: Path) -> None:
    whole = sizes(home / "whole.db")
    tries = iter(range(1000))

    def work(faults: Faults) -> None:
        number = next(tries)
        here = Home(home / f"{number}.db", "laptop", faults)
        connection = here.database.connection
        for step_number, step in enumerate(STEPS):
            if not here.submit(step_number, step):
                same_memory(here)
                if rows(connection) == whole[step_number]:  # nothing of it is there: once more
                    assert here.submit(step_number, step)
                else:  # the commit stood, only the word was lost
                    here.device.refresh()
            same_memory(here)
        assert rows(connection) == whole[-1]
        sound(connection, here.device.udf)
        here.close()

    assert len(list(every_fault(work, once=True))) > 3 * len(STEPS)


@pytest.fixture(scope="module")
def incoming() -> tuple[str, list[Version]]:
    """A mesh with edits by two devices, a conflict, and a removal, as a third device gets it."""
    laptop = found()
    desktop = laptop.admit("desktop")
    items = [laptop.add(f"{number}.example") for number in range(4)]
    desktop.pull(laptop)
    for one in (laptop, desktop):
        one.edit(items[0], f"by {one.name}")
    laptop.meet(desktop)
    desktop.edit(items[0], "merged")
    laptop.admit("tablet")
    laptop.pull(desktop)
    good, bad = verified(laptop.feed(), laptop.replica.directory)
    assert not bad
    return laptop.mesh, good


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_crash_at_any_point_of_taking_in_what_others_wrote(
    home: Path, incoming: tuple[str, list[Version]], newest_first: bool
) -> None:
    mesh, everything = incoming
    order = list(reversed(everything)) if newest_first else everything
    batches = [order[start : start + 9] for start in range(0, len(order), 9)]
    empty = home / "empty.db"
    first = Home(empty, "tablet")
    first.device.join(mesh)
    first.close()
    tries = iter(range(1000))
    ends = set()

    def work(faults: Faults) -> None:
        path = home / f"{next(tries)}.db"
        shutil.copyfile(empty, path)
        here = Home(path, "tablet", faults)
        for number, batch in enumerate(batches):
            if not here.submit(number, taking(here, batch)):
                same_memory(here)
                break
        image = crash_image(path, path.with_suffix(".image"))
        here.close()
        again = Home(image, "tablet")
        connection = again.database.connection
        assert again.database.check() == []
        held = {row[0] for row in connection.execute("SELECT vid FROM versions")}
        for number in here.acknowledged:
            missing = [one for one in batches[number] if one.vid not in held and one.vid not in strangers(here)]
            assert not missing or newest_first, "acknowledged and not there"
        for number, batch in enumerate(batches):  # the sibling sends again what was not acknowledged, and more
            assert again.submit(number, taking(again, batch))
        if newest_first:  # what came before anybody listed its signer is asked for again
            assert again.submit(99, taking(again, order))
        sound(connection, "")
        same_memory(again)
        ends.add(tuple(connection.execute("SELECT vid, state, head FROM versions ORDER BY vid").fetchall()))
        again.close()

    for _ in every_fault(work):
        pass
    assert len(ends) == 1


def strangers(home: Home) -> list[bytes]:
    return home.device.replica._strangers.vids()


def taking(home: Home, batch: list[Version]) -> Work:
    return lambda pen: home.device.replica.accept(pen.connection, batch, 1, Outcome())


def test_functions_that_share_a_commit_fail_alone(home: Path) -> None:
    """Group commit: the second of three is denied; the others are there, and memory has nothing of it."""
    here = Home(home / "store.db", "laptop")
    assert here.submit(0, founding)
    connection = here.database.connection
    before = rows(connection)

    def run(work: Work) -> Callable[[sqlite3.Connection], Any]:
        return lambda connection: work(here.device.pen(connection, Outcome()))

    def denied(pen: Pen) -> None:
        adding("half.example")(pen)
        admitting("half")(pen)
        raise Denied

    gate = here.writer.submit(lambda connection: None)
    futures = [here.writer.submit(run(work)) for work in (adding("a.example"), denied, adding("b.example"))]
    gate.result()
    assert futures[1].exception() is not None
    assert all(futures[number].exception() is None for number in (0, 2))
    assert rows(connection) == before + 2
    sound(connection, here.device.udf)
    same_memory(here)
    here.close()


def test_a_commit_that_fails_leaves_memory_as_the_disk_says(home: Path) -> None:
    fault = FaultAt("before-commit", skip=2)
    here = Home(home / "store.db", "laptop", fault)
    assert here.submit(0, founding) and here.submit(1, adding("a.example"))
    assert not here.submit(2, admitting("desktop"))
    assert device_keys("desktop").udf not in here.device.replica.authority.devices()
    same_memory(here)
    assert here.submit(3, adding("b.example")) and here.submit(4, admitting("desktop"))
    same_memory(here)
    sound(here.database.connection, here.device.udf)
    here.close()


def test_a_store_without_a_mesh_holds_nothing_and_says_so() -> None:
    connection = memory_store()
    replica = Replica(connection, seeded("x"))
    assert (replica.mesh, replica.own) == ("", "")
    laptop = found()
    outcome = Outcome()
    good, _ = verified(laptop.feed(), laptop.replica.directory)
    replica.accept(connection, good, 0, outcome)
    assert rows(connection) == len(outcome.added)
