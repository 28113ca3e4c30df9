"""A portal is held to its log by who has nothing but shares; a portal and the network are asked in one run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from harness import devices as harness
from harness.devices import Device
from harness.lan import MemoryLan
from harness.local_api import Device as Api
from harness.local_api import good, serving
from harness.portal_http import HttpPortal
from harness.portal_logged import LoggedPortal, logged
from meshd.crypto import base64url
from meshd.daemon import drilling, masterkeys, recovering, restoring, searching
from meshd.daemon.portals import proving
from meshd.daemon.portals.proving import NO_LOG, PROVED, UNPROVED, Contradiction
from meshd.daemon.portals.roster import Portals, where_of
from meshd.errors import TrustError
from meshd.net.srv import Found, Services
from meshd.portal.view import LogState
from meshd.profile import shares
from meshd.profile.recovery import Escrowed
from meshd.profile.shares import Scheme, Share
from meshd.store import portal_pins, portals_client
from meshd.tlog import evidence

pytestmark = pytest.mark.draft("Master profile recovery")

ACCOUNT, MASTER = "alice@example.net", "master passphrase"


async def no_dns(name: str) -> Found:
    return Found()


@dataclass
class World:
    """A mesh at a portal, its shares, and a new device."""

    lan: MemoryLan
    laptop: Device
    new: Device
    portal: HttpPortal
    portals: Portals  # of the laptop
    there: Portals  # of the new device
    nursery: trio.Nursery
    told: list[Share]
    key: bytes = b""

    @property
    def log(self) -> LoggedPortal:
        assert isinstance(self.portal.memory, LoggedPortal)
        return self.portal.memory

    async def shares(self, *, replaces: bool = False) -> None:
        """As `recovery create` makes them, with what is believed of the portal's log."""
        master = await masterkeys.unseal(self.laptop.daemon, MASTER)
        pins = portal_pins.every(self.laptop.daemon.reader.connection)
        keys, notes = proving.to_remember(pins)
        wish = recovering.Wish(
            Scheme.simple(2, 2), replaces=replaces, accounts=(ACCOUNT,), origin_keys=keys, checkpoints=notes
        )
        prepared, self.told, letters = await recovering.prepare(self.laptop.daemon, master, wish)
        await self.laptop.daemon.write(lambda pen: recovering.commit(pen, master, prepared))
        self.key = await drilling.combine(self.told, "", letters)
        await self.in_step()

    async def in_step(self) -> None:
        for one in self.portals.running.values():
            await self.laptop.until(lambda one=one: one.in_step)

    def escrowed(self) -> Escrowed:
        held = searching.held(self.laptop.daemon, self.key)
        assert held is not None
        return held.escrowed

    async def search(self, *, unproved: bool = False) -> searching.Found:
        return await searching.from_portal(self.there, where_of(ACCOUNT, plain=True), self.key, unproved=unproved)


@contextlib.asynccontextmanager
async def world(home: Path, *, keeps_log: bool = True) -> AsyncIterator[World]:
    lan = MemoryLan()
    laptop, new = harness.blank(home, lan, "laptop"), harness.blank(home, lan, "new")
    portal = HttpPortal(now=lambda: int(time.time()))
    if keeps_log:
        logged(portal)
    try:
        await harness.found(laptop)
        async with trio.open_nursery() as nursery:
            await nursery.start(portal.run)
            portals, there = (Portals(one.daemon, portal.client(), Services(no_dns)) for one in (laptop, new))
            await nursery.start(portals.run)
            await portals.add(ACCOUNT, "", None, plain=True)
            made = World(lan, laptop, new, portal, portals, there, nursery, [])
            await laptop.until(lambda: ACCOUNT in portals.running)
            await made.in_step()
            await made.shares()
            yield made
            nursery.cancel_scope.cancel()
    finally:
        laptop.daemon.close()
        new.daemon.close()


async def test_what_a_portal_gives_is_proved_by_the_log_that_the_entry_names(home: Path) -> None:
    async with world(home) as made:
        info = made.escrowed().info
        assert info.origin_keys == tuple(one.vkey for one in made.log.entries.keys)
        assert len(info.checkpoints) == 1
        await made.laptop.add("github.com", "alice", "first")  # the log goes on
        await made.in_step()
        found = await made.search()
        assert found.proof is not None and found.proof.state == PROVED
        assert found.proof.records == len(found.raws) + 1
        assert found.proof.pin is not None and found.proof.pin.size == made.log.entries.tree.size
        assert found.mesh == made.laptop.daemon.snapshot.mesh


async def test_a_portal_without_a_log_is_said_to_prove_nothing(home: Path) -> None:
    async with world(home, keeps_log=False) as made:
        found = await made.search()
        assert found.proof is not None and found.proof.state == NO_LOG
        assert "keeps no log" in found.proof.why
        assert made.escrowed().info.origin_keys == ()


async def refused(made: World, why: str) -> None:
    """Nothing is taken, unless a person insists."""
    with pytest.raises(TrustError, match=why):
        await made.search()
    found = await made.search(unproved=True)
    assert found.proof is not None and (found.proof.state, found.proof.pin) == (UNPROVED, None)


async def test_a_portal_that_shows_no_log_any_more_is_not_believed(home: Path) -> None:
    async with world(home) as made:
        made.log.log_state = lambda old, peers, size=None: LogState()  # type: ignore[method-assign]
        made.log.receipts = False
        await refused(made, "had a log when the shares were made, and shows none now")


async def test_receipts_that_lack_or_prove_another_place_prove_nothing(home: Path) -> None:
    async with world(home) as made:
        made.log.receipts = False
        await refused(made, "does not prove that all of what it gave")
        made.log.receipts, made.log.spoil = True, True
        await refused(made, "not proved by its log")


async def test_a_log_under_another_key_or_of_another_name_is_not_the_one_that_the_entry_names(home: Path) -> None:
    async with world(home) as made:
        kept = list(made.log.entries.signers)
        made.log.entries.rotate()
        assert (await made.search()).proof is not None  # the old key signs too
        made.log.entries.signers = made.log.entries.signers[:1]
        await refused(made, "not proved by its log")
        made.log.entries.signers = kept


async def test_a_log_that_went_back_behind_the_shares_is_not_believed(home: Path) -> None:
    async with world(home) as made:
        made.log.entries = made.log.entries.fork(at=2, instead=[])
        made.log.receipts = False
        await refused(made, "shorter than it was")


async def test_a_log_with_another_past_contradicts_itself_and_that_is_evidence(home: Path) -> None:
    async with world(home) as made:
        leaves = list(made.log.leaves)
        other = [b"something else", *leaves[1:], *(b"more" for _ in range(9))]
        made.log.entries = made.log.entries.fork(at=0, instead=other)
        with pytest.raises(Contradiction) as caught:
            await made.search(unproved=True)  # whatever a person says
        shown = evidence.Evidence.decode(base64url.decode(caught.value.evidence))
        evidence.check(shown, made.log.entries.keys)


async def test_a_drill_says_where_the_entry_does_not_know_the_log_and_where_it_knows_another(home: Path) -> None:
    async with world(home) as made:

        async def said() -> tuple[str, str]:
            found = await drilling.drill(made.laptop.daemon, made.key, list(made.portals.running.values()), ())
            (one,) = [source for source in found.sources if source.kind == "portal"]
            return one.what, one.why

        assert await said() == ("found", "")
        connection = made.laptop.daemon.reader.connection
        (pin,) = portal_pins.every(connection)
        other = replace(pin, keys=("example.net/mmm-log+11111111+other",))
        await made.laptop.daemon.transact(lambda c, o: portal_pins.forget(c, ACCOUNT))
        await made.laptop.daemon.transact(lambda c, o: portal_pins.advance(c, other))
        what, why = await said()
        assert what == "wrong" and "another key" in why


# --- through the local API --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def asked(made: World, *, lan: bool = True) -> AsyncIterator[tuple[Api, dict[str, object]]]:
    """The new device's local API, and a request to restore that names no place yet."""
    if lan:
        await made.nursery.start(made.laptop.run)
    online = SimpleNamespace(portals=made.there)
    body: dict[str, object] = {
        "shares": [one.mnemonic for one in made.told],
        "name": "new",
        "no_passphrase": True,
        "force": True,
        "master_passphrase": "another",
    }
    async with serving(made.new, online=online) as here:
        yield here, body


async def restores(here: Api, body: dict[str, object]) -> dict[str, object]:
    return good(await here.ask("POST", "/v1/recovery/restore", body))


async def test_a_portal_and_the_network_are_asked_in_one_run_and_one_that_answers_is_enough(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "SYNC_SECONDS", 0.1)
    async with world(home) as made, asked(made) as (here, body):
        made.portal.down = True
        await made.there.http.aclose()
        where = {"account": ACCOUNT, "plain": True, "lan": True}
        failed = await here.ask("POST", "/v1/recovery/restore", body | {"account": ACCOUNT, "plain": True})
        assert failed.code == "network"
        back = await restores(here, body | where)
        assert (back["mesh"], back["proof"]) == (made.laptop.daemon.snapshot.mesh, None)
        assert (back["missing"], back["complete"]) == (0, False)  # nobody has said that this is all


async def test_a_mistyped_account_is_put_right_by_the_entry_and_one_that_was_missing_is_followed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "SYNC_SECONDS", 0.1)
    async with world(home) as made, asked(made, lan=False) as (here, body):
        back = await restores(here, body | {"account": "alicia@example.net", "plain": True})
        assert back["proof"]["state"] == "proved"  # type: ignore[index]
        reader = made.new.daemon.reader.connection
        assert [row.account for row in portals_client.every(reader)] == [ACCOUNT]
        assert [pin.account for pin in portal_pins.every(reader)] == [ACCOUNT]
        # Whoever came back by the network, and asks a portal then, follows it from there on.
        await made.new.daemon.transact(lambda c, o: portals_client.forget(c, ACCOUNT))
        assert not portals_client.every(reader)
        await restores(here, body | {"account": ACCOUNT, "plain": True})
        assert [row.account for row in portals_client.every(reader)] == [ACCOUNT]


@pytest.mark.parametrize("what", ["garbage", "another"])
async def test_a_portal_that_gives_something_else_is_named_and_keeps_nobody_from_the_network(
    home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(restoring, "SYNC_SECONDS", 0.1)
    async with world(home) as made, asked(made) as (here, body):
        old = searching.held(made.laptop.daemon, made.key)
        assert old is not None
        await made.shares(replaces=True)
        body["shares"] = [one.mnemonic for one in made.told]
        given = b"garbage" if what == "garbage" else made.log.versions[old.entry.vid].raw
        monkeypatch.setattr(searching, "records", lambda answer: [(given, "")])
        where = {"account": ACCOUNT, "plain": True}
        failed = await here.ask("POST", "/v1/recovery/restore", body | where)
        assert failed.status >= 400
        assert "What example.net gave is not the recovery entry" in str(failed.body)
        assert not made.new.daemon.snapshot.connected
        back = await restores(here, body | where | {"lan": True})
        assert (back["mesh"], back["proof"]) == (made.laptop.daemon.snapshot.mesh, None)


async def test_which_of_several_shares_is_mistyped_is_said(home: Path) -> None:
    async with world(home) as made, asked(made, lan=False) as (here, body):
        wrong = " ".join([*made.told[1].mnemonic.split()[:-1], "zzz"])
        told = await here.ask(
            "POST", "/v1/recovery/restore", body | {"account": ACCOUNT, "shares": [made.told[0].mnemonic, wrong]}
        )
        assert told.code == "share"
        assert "Share 2: Not in the list of words: the word at 33 of 33." in str(told.body)


async def test_shares_that_are_made_remember_the_log_of_every_portal(home: Path) -> None:
    async with world(home) as made, serving(made.laptop, online=SimpleNamespace(portals=made.portals)) as here:
        proof = {"master_passphrase": MASTER}
        told = await here.post("/v1/recovery/shares", proof | {"threshold": 2, "shares": 2, "replace": True})
        await here.post("/v1/recovery/commit", proof | {"token": told["token"]})
        given = [shares.read(one["words"]) for one in told["shares"]]
        made.key = await drilling.combine(given, "", told["check"])
        info = made.escrowed().info
        assert info.origin_keys == tuple(one.vkey for one in made.log.entries.keys)
        assert (info.accounts, info.portals, len(info.checkpoints)) == ((ACCOUNT,), ("example.net",), 1)


async def test_the_pin_of_the_log_is_kept_and_a_portal_that_lies_spoils_what_the_network_gives(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "SYNC_SECONDS", 0.1)
    async with world(home) as made, asked(made) as (here, body):
        body |= {"account": ACCOUNT, "plain": True, "lan": True}
        honest, leaves = made.log.entries, list(made.log.leaves)
        made.log.entries = honest.fork(at=0, instead=[b"else", *leaves[1:], *(b"more" for _ in range(9))])
        lied = await here.ask("POST", "/v1/recovery/restore", body)
        assert lied.code == "possible-attack" and lied.body["error"]["evidence"]
        assert not made.new.daemon.snapshot.connected
        made.log.entries = honest
        back = await restores(here, body)
        assert back["proof"] == {
            "state": "proved",
            "why": "all that it gave is in its log, which only grew",
            "records": 3,
        }
        pin = portal_pins.get(made.new.daemon.reader.connection, ACCOUNT)
        assert pin is not None and pin.size == honest.tree.size
