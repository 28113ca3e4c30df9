"""A mirror becomes the portal: another name and key, the old checkpoint inside, and accounts as they are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from harness.mirror_world import DOMAIN, ORIGIN, World, world
from harness.portal_engine import Engine
from harness.portal_people import Person
from meshd.daemon.portal import audit, main, promoting
from meshd.daemon.portal.sequencer import Sequencer
from meshd.errors import BadRequest, FormatError
from meshd.portal import crosslog
from meshd.portal.view import SUSPENDED
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog.note import Note


async def taken_over(found: World, accounts: Path | None = None) -> Engine:
    """What the mirror became."""
    found.mirroring.close()
    await promoting.promote(found.store, accounts)
    found.mirroring = Sequencer(found.store, create=False, domain=DOMAIN)
    return Engine(found.mirroring, found.engine.now)


async def test_it_goes_on_under_another_name_and_holds_what_was_signed_before(home):
    async with world(home) as found:
        await found.write(6)
        await found.mirror.once()
        old, keys = found.portal.log.signed.note, found.portal.log.verifiers
        portal = await taken_over(found)
        log = found.mirroring.own_log
        assert log is not None and log.origin == f"{ORIGIN}/2" and log.signed.size == 7
        assert not {one.key.udf for one in log.verifiers} & {one.key.udf for one in keys}
        (raw,) = found.mirroring.view.connection.execute(
            "SELECT raw FROM versions WHERE identifier = ?", (crosslog.identifier(ORIGIN),)
        ).fetchone()
        assert checkpoints.read(Note.parse(raw), keys)[0] == checkpoints.Checkpoint.parse(old.text)
        assert found.mirroring.mirrors is None
        bob = Person("bob")
        await portal.open(bob)
        assert (await portal.publish(bob, bob.container())).status == 201
        alice = found.people["alice"]
        refused = await portal.publish(alice, alice.item("without an account"))
        assert refused.status == 401
        await portal.open(alice)  # as her devices do by themselves
        assert (await portal.publish(alice, alice.item("with one"))).status == 201
    assert audit.verify(found.store).size == 10


async def test_accounts_are_as_they_were_listed(home):
    async with world(home) as found:
        alice = await found.write(4)
        bob = await found.write(2, "bob")
        await found.mirror.once()
        listed = [
            {"account": f"{one.name}@{DOMAIN}", "mesh": one.mesh, "status": status, "created": 5, "of_2016": False}
            for one, status in ((alice, "Open"), (bob, SUSPENDED))
        ]
        file = home / "accounts.json"
        file.write_text(json.dumps({"schema": 1, "accounts": listed}))
        portal = await taken_over(found, file)
        assert (await portal.publish(alice, alice.item("goes on"))).status == 201
        assert (await portal.publish(bob, bob.item("suspended"))).status == 423


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"accounts": [{"account": "a@other.example", "status": "Open"}]}'],
    ids=["empty", "none", "other"],
)
async def test_a_list_that_is_none_changes_nothing(home, text):
    async with world(home) as found:
        await found.write(3)
        await found.mirror.once()
        file = home / "accounts.json"
        file.write_text(text)
        with pytest.raises(FormatError):
            await promoting.promote(found.store, file)
        found.restart()
        assert found.mirroring.mirrors == ORIGIN


async def test_what_is_no_mirror_or_holds_nothing_is_not_promoted(home):
    async with world(home) as found:
        with pytest.raises(BadRequest, match="nothing of"):
            await promoting.promote(found.store, None)
        with pytest.raises(BadRequest, match="no mirror"):
            await promoting.promote(home / "portal" / "portal.db", None)


def test_the_command_says_what_became_of_it(home, capsys):
    async def make() -> None:
        async with world(home) as found:
            await found.write(3)
            await found.mirror.once()

    trio.run(make)
    data = ["--data", str(home / "mirror")]
    assert main.main(["admin", "promote", "--json", *data]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "schema": 1, "domain": DOMAIN, "origin": f"{ORIGIN}/2", "entries": 4, "accounts": 0, "missing": 0,
    }  # fmt: skip
    assert main.main(["admin", "promote", *data]) == 2
    assert main.main(["log", "verify", *data]) == 0
