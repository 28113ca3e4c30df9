"""Versions under this mesh's own names that none of its devices wrote: a standing alarm, or none if there are none."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sqlite3
from pathlib import Path

import pytest
import trio

from harness import devices as harness
from harness.devices import Device
from harness.portal_liar import ACCOUNT, Den, One, lying
from meshd.daemon.portals import state, verify, watch
from meshd.portal.messages import PublishRequest, PublishResponse
from meshd.profile import escrow, version
from meshd.store import chains, events


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TRY_PAUSE", 0.05)
    monkeypatch.setattr(state, "FIRST_PAUSE", 0.05)


def told(one: One) -> list[str]:
    """The states of health that were told as events."""
    found = events.since(one.device.daemon.reader.connection, 0, 10_000)
    return [str(event.data["state"]) for event in found if event.type == "health"]


async def alarmed(one: One, many: str) -> None:
    run = await one.meshctl("portal", "verify")
    assert run.code == 10 and f"intrusion: it holds {many} under names of this mesh" in run.out, run
    status = (await one.meshctl("status")).out
    assert f"! {ACCOUNT}: it holds {many} under names of this mesh that no device here knows" in status
    assert ", since 20" in status
    assert (await one.meshctl("status", "--check")).code == 10
    assert told(one).count("intrusion") == 1


async def plant(one: One) -> None:
    """What somebody can publish who has a device's authentication key: a recovery entry that nobody lists."""
    owner = one.device.keys.dek.recipient
    made = escrow.entry(b"a master key of somebody else's", [owner], secrets.token_bytes)
    await one.portal.link.ask("Publish", PublishRequest(entry=version.to_json(made)), PublishResponse)


async def test_a_recovery_entry_that_no_device_wrote_is_an_intrusion(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        await plant(one)
        await alarmed(one, "a version")
        await one.in_step()  # what the portal has need not go there
        await plant(one)
        run = await one.meshctl("portal", "verify")
        assert "2 versions" in run.out and told(one).count("intrusion") == 1  # told once


async def test_a_record_that_the_portal_made_up_is_an_intrusion(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        await one.device.add("a.example", "alice", "secret")
        await one.in_step()
        await den.close(den.honest)
        with contextlib.closing(sqlite3.connect(den.honest.store)) as connection, connection:
            connection.execute("CREATE TEMP TABLE made AS SELECT * FROM versions ORDER BY seq DESC LIMIT 1")
            connection.execute("UPDATE made SET seq = seq + 1, vid = ?, n = n + 1", (secrets.token_bytes(32),))
            (raw,) = connection.execute("SELECT raw FROM made").fetchone()
            connection.execute("UPDATE made SET raw = ?", (raw[:-1] + bytes([raw[-1] ^ 1]),))
            connection.execute("INSERT INTO versions SELECT * FROM made")
        await den.restart(den.honest)
        await one.contact()
        await alarmed(one, "a version")
        assert one.portal.lies  # none of it was taken


async def test_an_intrusion_is_noticed_while_nobody_looks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "AUDIT_FIRST", 0.0)
    monkeypatch.setattr(verify, "AUDIT_SECONDS", 0.2)
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        await plant(one)
        await one.until(lambda: "intrusion" in told(one))
        assert (await one.meshctl("status", "--check")).code == 10


async def test_an_alarm_ends_where_the_portal_was_given_up(home: Path) -> None:
    async with lying(home, "laptop") as den:
        await den.joined()
        one = den["laptop"]
        await plant(one)
        await alarmed(one, "a version")
        assert (await one.meshctl("portal", "remove", ACCOUNT, "--yes")).code == 0
        assert "under names of this mesh" not in (await one.meshctl("status")).out


async def test_somebody_who_writes_with_this_devices_keys_is_noticed_through_the_portal(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        await den.joined()
        one = den["phone"]
        thief = await copied(den, one)
        try:
            await den.nursery.start(thief.online.run)
            await thief.in_step()
            await thief.device.add("thief0.example", "alice", "x")  # it goes on where the device stands: no fork
            await thief.in_step()
            await one.until(lambda: "restored" in told(one))  # that may be what a backup had lost
            status = (await one.meshctl("status")).out
            assert "if it was not, its keys were stolen" in status
            await one.in_step()
            await one.device.add("mine.example", "alice", "x")
            await one.in_step()
            await thief.until(lambda: thief.device.holds() >= one.device.holds())
            await thief.device.add("thief1.example", "alice", "x")  # and this can't
            await one.until(lambda: one.device.daemon.cloned)
            assert "Something else writes with this device's keys" in (await one.meshctl("status")).out
            assert (await one.meshctl("status", "--check")).code == 10
            assert told(one).count("cloned") == 1
            connection = one.device.daemon.reader.connection
            assert chains.second_writer(connection, one.device.udf)  # after a restart too
        finally:
            thief.device.daemon.close()


async def copied(den: Den, one: One) -> One:
    """A thief with a copy of the device's home, at the portal."""
    device, where = one.device, den.home / "stolen"
    where.mkdir(mode=0o700)
    device.daemon.database.backup(where / device.daemon.paths.store.name)
    for file in (device.daemon.paths.keystore, device.daemon.paths.keystore.with_name("host.key")):
        shutil.copy(file, where / file.name)
    stolen = Device("thief", where, device.host, None, device.keys, device.cache_key)  # type: ignore[arg-type]
    stolen.daemon = harness._open(stolen)
    await stolen.daemon.unlock(None)
    made = One(den, stolen)
    made.past = den.honest
    return made


async def test_what_is_written_while_verify_reads_is_neither_withheld_nor_foreign(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        await den.joined()
        one, other = den["laptop"], den["phone"]

        async def write(who: One) -> None:
            for place in range(12):
                await who.device.add(f"{who.device.name}{place}.example", "alice", "secret")
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, one)
            nursery.start_soon(write, other)
            for _ in range(4):
                run = await one.meshctl("portal", "verify")
                assert run.code == 0, run
        assert "intrusion" not in told(one) and one.state == "verified"


async def test_recovery_shares_made_and_made_anew_are_no_intrusion(home: Path) -> None:
    async with lying(home, "laptop", "phone") as den:
        await den.joined()
        one, other = den["laptop"], den["phone"]
        (home / "master").write_text("master passphrase\n")
        (home / "master").chmod(0o600)
        for command in ("create", "refresh"):
            given = ("--out", str(home / command), "--yes", "--master-passphrase-file", str(home / "master"))
            run = await one.meshctl("recovery", command, *given)
            assert run.code == 0, run
            await one.in_step()
            await other.in_step()
            for each in (one, other):
                assert (await each.meshctl("portal", "verify")).code == 0
