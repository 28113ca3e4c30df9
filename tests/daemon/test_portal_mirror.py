"""A mirror: whole and verified, wherever it is stopped; what a portal can do against it, and what it serves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.log_world import key
from harness.mirror_world import DOMAIN, NAME, ORIGIN, World, asked_by, world
from harness.portal_people import Person
from meshd.daemon.portal import admin, audit, mirrored
from meshd.daemon.portal.mirror import Contradicted
from meshd.errors import BadRequest, Denied, FormatError, MeshError, NetworkError, ProofError, StoreError
from meshd.portal import messages as m
from meshd.portal.outcomes import Policy
from meshd.portal.structures import Binary, Structure
from meshd.store import portal_log_rows as log_rows
from meshd.store.portal_db import open_portal
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import cosignature
from meshd.tlog.evidence import Evidence, check
from meshd.tlog.note import Signer

pytestmark = pytest.mark.draft("Transfer")
PAGE = 3


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr("meshd.daemon.portal.origin.MAX_ENTRIES", PAGE)


def rows_of(path: Path) -> list[tuple[object, ...]]:
    """What a log's store holds of it."""
    with open_portal(path, readonly=True) as database:
        return database.query(
            "SELECT v.seq, v.vid, v.kind, v.identifier, m.udf, v.signer, v.n, v.gen, v.added, v.state, v.head, v.old,"
            " v.prior, v.token, v.digest, v.raw, l.salt, l.leaf FROM versions v JOIN leaves l ON l.place = v.seq"
            " LEFT JOIN meshes m ON m.id = v.mesh ORDER BY v.seq"
        ) + database.query("SELECT * FROM nodes ORDER BY level, number")


def same(found: World) -> None:
    assert rows_of(found.store) == rows_of(found.home / "portal" / "portal.db")
    assert found.mirroring.edge == found.portal.edge
    log = found.mirroring.log
    assert log is not None and log.signed.size == found.portal.edge.size
    checkpoints.read(log.signed.note, found.portal.log.verifiers)
    cosignature.verify(log.signed.note, found.identity.cosigner.verifier)
    assert audit.verify(found.store).size == found.portal.edge.size


async def many(found: World) -> Person:
    """A log with profiles, devices that come and go, containers, items, replaced ones, and what is in quarantine."""
    alice = await found.write(5)
    phone = alice.device("phone")
    engine = found.engine
    for one in (
        alice.admit(phone), alice.item("one"), alice.item("by the phone", by=phone), first := alice.item("again"),
        alice.item("again, changed", first), alice.remove(phone), alice.item("too late", by=phone),
    ):  # fmt: skip
        assert (await engine.publish(alice, one)).status == 201
    await found.write(4, "bob")
    return alice


async def test_a_mirror_holds_the_same_and_cosigns_it(home):
    async with world(home) as found:
        await many(found)
        await found.mirror.once()
        same(found)
        await found.write(4)
        await found.mirror.once()
        same(found)
        asked = asked_by(found.served, "Transfer")
        await found.mirror.once()
        assert asked_by(found.served, "Transfer") == asked  # nothing is new


async def test_whatever_page_it_is_killed_behind_it_goes_on_from_there(home):
    async with world(home) as found:
        await many(found)
        copies: list[Path] = []

        def copy(done: int, total: int) -> None:
            copies.append(shutil.copytree(found.store.parent, home / f"killed-{done}") / found.store.name)

        found.progress = copy
        await found.mirror.once()
        found.progress = lambda done, total: None
        assert len(copies) == -(-found.portal.edge.size // PAGE)
        await found.write(2)
        for place, store in enumerate(copies):
            found.served.said.clear()
            found.restart(store)
            assert found.mirror.size == min(PAGE * (place + 1), 16)
            await found.mirror.once()  # to the checkpoint that it had begun with, and then to the newest
            same(found)
            assert asked_by(found.served, "Transfer") == -(-(16 - min(PAGE * (place + 1), 16)) // PAGE) + 1


@pytest.mark.parametrize("point", ["before-fn", "before-commit", "after-commit"])
async def test_whatever_was_on_disk_when_it_was_killed_it_goes_on_from_there(home, point):
    async with world(home) as found:
        await many(found)
        copies: list[Path] = []

        def fault(where: str) -> None:
            if where == point:
                copies.append(shutil.copytree(found.store.parent, home / f"killed-{len(copies)}") / found.store.name)

        found.restart(fault=fault)
        await found.mirror.once()
        assert len(copies) > -(-found.portal.edge.size // PAGE)  # each page, and each checkpoint
        for store in copies:
            found.restart(store)
            assert found.mirror.size % PAGE == 0 or found.mirror.size == found.portal.edge.size
            await found.mirror.once()
            same(found)


@pytest.mark.parametrize("point", ["before-fn", "before-commit", "after-commit"])
async def test_wherever_a_write_fails_it_goes_on(home, point):
    async with world(home) as found:
        await many(found)
        count = 0

        def fault(where: str) -> None:
            nonlocal count
            if where == point:
                count += 1
                if count % 2:
                    raise StoreError("the disk is gone for a moment")

        found.restart(fault=fault)
        for _ in range(40):
            try:
                await found.mirror.once()
            except MeshError:
                found.restart(fault=fault)
            else:
                break
        found.restart()
        await found.mirror.once()
        same(found)


def change(page: m.TransferResponse, number: int, **members: object) -> m.TransferResponse:
    entries = list(page.entries or [])
    entries[number] = msgspec.structs.replace(entries[number], **members)
    return msgspec.structs.replace(page, entries=entries)


def item_of(page: m.TransferResponse, number: int, **members: object) -> m.TransferResponse:
    return change(page, number, data_item=msgspec.structs.replace((page.entries or [])[number].data_item, **members))


LIES: dict[str, Callable[[m.TransferResponse], m.TransferResponse]] = {
    "leaf": lambda page: change(page, 1, leaf=(page.entries or [])[0].leaf),
    "no leaf": lambda page: change(page, 1, leaf=None),
    "salt": lambda page: change(page, 1, salt=Binary(bytes(16))),
    "content": lambda page: item_of(page, 1, data=(page.entries or [])[2].data_item.data),
    "no content": lambda page: item_of(page, 1, data=None),
    "rubbish": lambda page: item_of(page, 1, data=Binary(b"\x80")),
    "other mesh": lambda page: item_of(page, 1, keys=[]),
    "erased": lambda page: change(page, 1, erased=True),
    "dropped": lambda page: msgspec.structs.replace(page, entries=(page.entries or [])[:-1]),
    "doubled": lambda page: msgspec.structs.replace(page, entries=[*(page.entries or [])[:2], (page.entries or [])[1]]),
    "swapped": lambda page: msgspec.structs.replace(page, entries=(page.entries or [])[::-1]),
    "none": lambda page: msgspec.structs.replace(page, entries=[]),
    "more": lambda page: msgspec.structs.replace(page, entries=[*(page.entries or []), *(page.entries or []) * 9]),
    "first": lambda page: msgspec.structs.replace(page, first=(page.first or 0) + 1),
    "proof": lambda page: msgspec.structs.replace(page, page_proof=[Binary(bytes(32))]),
    "no proof": lambda page: msgspec.structs.replace(page, page_proof=None),
    "no checkpoint": lambda page: msgspec.structs.replace(page, checkpoint=None),
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.replace(" ", "-"))
async def test_a_page_that_was_tampered_with_is_dropped_whole_and_asked_for_again(home, lie):
    async with world(home) as found:
        await found.write(8)

        def tamper(name: str, told: Structure) -> Structure:
            if isinstance(told, m.TransferResponse) and told.first == PAGE:
                return LIES[lie](told)
            return told

        found.served.tamper = tamper
        for _ in range(2):
            with pytest.raises(MeshError):
                await found.mirror.once()
            assert found.mirror.size == PAGE and found.mirroring.log is None
            assert len(rows_of(found.store)) == PAGE + 1  # and one node over them
        found.served.tamper = None
        await found.mirror.once()
        same(found)


async def test_an_old_checkpoint_and_that_of_another_log_are_not_believed(home):
    async with world(home) as found:
        await found.write(4)
        old = (await found.engine.status()).checkpoint_value
        await found.write(3)
        await found.mirror.once()
        other = Signer("other.example/mmm-log", key("other"))
        foreign = checkpoints.sign(checkpoints.Checkpoint(other.name, 9, bytes(32)), [other]).encode().decode()
        await found.write(3)
        for value in (old, foreign):
            found.served.tamper = lambda name, told, value=value: (
                msgspec.structs.replace(told, checkpoint_value=value) if isinstance(told, m.StatusResponse) else told
            )
            with pytest.raises(ProofError):
                await found.mirror.once()
            assert found.mirror.size == found.mirror.target == 7 and found.mirror.evidence is None
        found.served.tamper = None
        await found.mirror.once()
        same(found)


async def test_a_page_under_an_old_checkpoint_is_dropped(home):
    async with world(home) as found:
        await found.write(4)
        old = (await found.engine.status()).checkpoint_value
        await found.write(4)
        found.served.tamper = lambda name, told: (
            msgspec.structs.replace(told, checkpoint=old) if isinstance(told, m.TransferResponse) else told
        )
        with pytest.raises(ProofError, match="another checkpoint"):
            await found.mirror.once()
        assert found.mirror.size == 0


async def test_a_portal_that_was_put_back_to_an_old_copy_is_not_followed_and_its_mirror_keeps_what_it_has(home):
    async with world(home) as found:
        await found.write(6)
        copied = home / "old.db"
        with open_portal(home / "portal" / "portal.db", readonly=True) as database:
            database.backup(copied)
        await found.write(5)
        await found.mirror.once()
        await found.replace_portal(copied)
        with pytest.raises(ProofError, match="old copy"):
            await found.mirror.once()
        assert found.mirror.size == 11 and found.mirroring.log.signed.size == 11
        assert found.mirror.evidence is None


async def test_a_portal_that_writes_another_history_is_followed_no_more_and_the_evidence_is_kept(home):
    async with world(home) as found:
        await found.write(6)
        copied = home / "old.db"
        with open_portal(home / "portal" / "portal.db", readonly=True) as database:
            database.backup(copied)
        await found.write(5)
        await found.mirror.once()
        verifiers = found.portal.log.verifiers
        await found.replace_portal(copied)
        await found.write(7, "mallory")
        with pytest.raises(Contradicted):
            await found.mirror.once()
        check(Evidence.decode(found.mirror.evidence), verifiers)
        found.restart()
        asked = len(found.served.said)
        with pytest.raises(Contradicted):
            await found.mirror.once()
        assert len(found.served.said) == asked
        assert found.mirroring.log.signed.size == 11  # what was verified is served
        peer = log_rows.peer(found.mirroring.view.connection, ORIGIN)
        assert peer.state == "Equivocated"


@pytest.mark.parametrize("writes", [0, 3, 9], ids=["less", "less-again", "more"])
async def test_a_portal_that_loses_its_checkpoint_while_it_is_mirrored_is_found_out(home, writes):
    async with world(home) as found:
        await found.write(6)
        copied = home / "old.db"
        with open_portal(home / "portal" / "portal.db", readonly=True) as database:
            database.backup(copied)
        await found.write(7)

        def stop(done: int, total: int) -> None:
            raise MeshError("killed")

        found.progress = stop
        with pytest.raises(MeshError, match="killed"):
            await found.mirror.once()
        await found.replace_portal(copied)
        if writes:
            await found.write(writes, "mallory")
        found.progress = lambda done, total: None
        found.restart()
        shown = writes == 9  # a smaller log may be an old copy, as far as anybody can prove
        with pytest.raises(Contradicted if shown else ProofError):
            await found.mirror.once()
        assert found.mirror.size == PAGE and (found.mirror.evidence is not None) is shown


async def test_without_a_grant_nothing_comes_and_half_of_it_is_not_enough(home):
    async with world(home, granted="") as found:
        await found.write(4)
        with pytest.raises(Denied) as told:
            await found.mirror.once()
        assert "--grant full" in (told.value.hint or "")
        await found.grant("leaves")
        with pytest.raises(FormatError):
            await found.mirror.once()
        await found.grant("full")
        await found.mirror.once()
        same(found)


async def test_a_key_that_was_given_is_believed_and_no_other(home):
    async with world(home) as found:
        await found.write(2)
        found.keys = (Signer(ORIGIN, key("another")).verifier,)
        found.restart()
        with pytest.raises(ProofError):
            await found.mirror.once()
        found.keys = tuple(found.portal.log.verifiers)
        found.restart()
        await found.mirror.once()
        same(found)


async def test_a_log_key_that_is_replaced_is_taken_over(home):
    async with world(home) as found:
        await found.write(3)
        await found.mirror.once()
        await found.portal.change(found.portal.log.rotate)
        await found.write(3)
        await found.mirror.once()
        same(found)
        peer = log_rows.peer(found.mirroring.view.connection, ORIGIN)
        assert peer.log_keys == tuple(one.vkey for one in found.portal.log.verifiers)


async def test_content_that_is_erased_keeps_its_leaf_in_the_mirror_too(home):
    async with world(home) as found:
        await found.write(5)
        await found.portal.change(
            lambda connection: connection.execute("UPDATE versions SET raw = x'', head = 0 WHERE seq = 4")
        )
        await found.mirror.once()
        with open_portal(found.store, readonly=True) as database:
            assert database.query("SELECT raw, head, identifier <> '' FROM versions WHERE seq = 4") == [(b"", 0, 1)]
        assert audit.verify(found.store).erased == 1
        assert audit.verify(home / "portal" / "portal.db").erased == 1


async def test_a_store_is_a_portal_or_a_mirror_and_a_mirror_signs_nothing_in_the_portals_name(home):
    async with world(home) as found:
        await found.write(3)
        await found.mirror.once()
        with open_portal(found.store, readonly=True) as database:
            assert {role for (role,) in database.query("SELECT role FROM log_keys")} == {"peer", "mirror"}
        with pytest.raises(BadRequest, match="a portal of its own"):
            await found.portal.change(
                lambda connection: connection.execute("INSERT INTO meta VALUES ('domain', x'78')")
            )
            mirrored.prepare(home / "portal" / "portal.db", ORIGIN, NAME, 1)
        with pytest.raises(BadRequest, match="mirrors"):
            mirrored.prepare(found.store, "other.example/mmm-log", NAME, 1)
        with pytest.raises(BadRequest, match="in that name"):
            mirrored.prepare(found.store, ORIGIN, "another.example", 1)


async def test_whoever_runs_a_mirror_grants_it_to_others_and_changes_nothing_of_the_log(home):
    async with world(home) as found:
        await found.write(3)
        await found.mirror.once()
        before, policy = rows_of(found.store), Policy(DOMAIN)
        for asked in (
            {"command": "import", "mesh": "{}", "accounts": ""},
            {"command": "invite", "seconds": 60, "note": ""},
            {"command": "rotate-key"},
            {"command": "accept-loss"},
            {"command": "close", "account": "alice"},
        ):
            with pytest.raises(BadRequest, match="mirror of"):
                await admin.perform(found.mirroring, policy, asked)
        peer, log = Signer(f"{DOMAIN}/mmm-peer", key("peer")), Signer(ORIGIN, key("log"))
        more = {"name": DOMAIN, "url": "", "grant": "full"}
        with pytest.raises(BadRequest, match="mirrored here"):
            await admin.perform(found.mirroring, policy, {"command": "peer-add", **more, "keys": [log.vkey, peer.vkey]})
        await admin.perform(found.mirroring, policy, {"command": "peer-add", **more, "keys": [peer.vkey]})
        assert found.mirroring.view.peer_grant(peer.key.udf) == "full"
        await admin.perform(found.mirroring, policy, {"command": "peer-remove", "name": DOMAIN})
        assert found.mirroring.view.peer_grant(peer.key.udf) is None
        assert rows_of(found.store) == before
        await found.write(2)
        await found.mirror.once()  # its pin is still there
        same(found)


async def test_a_portal_that_is_gone_is_told(home):
    async with world(home) as found:
        found.served.down = True
        with pytest.raises(NetworkError):
            await found.mirror.once()
