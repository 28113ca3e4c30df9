"""The log of a portal: leaves, checkpoints, receipts, Status and Transfer, and what happens when it dies midway."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.portal_engine import DOMAIN, Engine, engine
from harness.portal_people import NOW, Person, tagged
from meshd.daemon.portal.tree import LogForked, Tree
from meshd.errors import ProofError, StoreError
from meshd.portal import messages as m
from meshd.portal.outcomes import Anonymous, SignedBy
from meshd.portal.structures import KeyValue, TransferEntry
from meshd.profile import payload
from meshd.store import portal_log_rows as log_rows
from meshd.store.portal_db import open_portal
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import cosignature, tree
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.frontier import Frontier, verify_page
from meshd.tlog.leaf import Leaf, blind_terms, content_digest
from meshd.tlog.note import Note, Verifier, verified
from meshd.tlog.proof import Proof


def checkpoint_of(text: str | None, portal: Engine) -> Checkpoint:
    assert text is not None
    found, _ = checkpoints.read(Note.parse(text.encode()), portal.logs)
    return found


def proven(receipt: str | None, portal: Engine) -> Leaf:
    """The leaf of a receipt that verifies."""
    assert receipt is not None
    proof = Proof.parse(receipt.encode())
    found = Leaf.decode(proof.extra[16:])
    proof.verify(found.hash(), portal.logs)
    assert found.tid == f"TID:{proof.index + 1}"
    return found


async def written(portal: Engine, count: int, name: str = "alice") -> Person:
    """A person with an account and `count` places in the log."""
    person = Person(name)
    await portal.open(person)
    if count > 1:
        await portal.publish(person, person.container())
    for number in range(count - 2):
        assert (await portal.publish(person, person.item(f"password {number}"))).status == 201
    return person


async def test_each_publish_is_answered_with_a_receipt_that_verifies(home):
    with engine(home / "portal.db") as portal:
        alice = Person("alice")
        created = await portal.open(alice)
        assert proven(created.receipt, portal).vid == alice.root.vid
        one = alice.container()
        found = proven((await portal.publish(alice, one)).receipt, portal)
        assert (found.vid, found.pkey, found.action, found.added) == (one.vid, one.identifier, "New", NOW)
        assert found.content == content_digest(one.raw)
        items = [alice.item(f"password {number}") for number in range(5)]
        batch = await portal.publish(alice, *items)
        assert [proven(outcome.receipt, portal).vid for outcome in batch.outcomes or []] == [one.vid for one in items]
        changed = alice.item("another", items[0])
        found = proven((await portal.publish(alice, changed)).receipt, portal)
        assert (found.action, found.prior) == ("Update", batch.outcomes[0].transaction_id)


async def test_a_receipt_holds_for_no_other_leaf(home):
    with engine(home / "portal.db") as portal:
        alice = await written(portal, 2)
        receipt = (await portal.publish(alice, alice.item("one"))).receipt
        assert receipt is not None
        proof = Proof.parse(receipt.encode())
        with pytest.raises(ProofError):
            proof.verify(tree.leaf_hash(b"another"), portal.logs)


async def test_who_does_not_ask_for_receipts_gets_none(home):
    with engine(home / "portal.db") as portal:
        alice = await written(portal, 2)
        message = m.PublishRequest(entry=tagged(alice.item("one")))
        reply = await portal.ask("Publish", message, SignedBy(alice.first.dak), frozenset({"batch"}))
        assert isinstance(reply, m.PublishResponse) and reply.transaction_id == "TID:3" and reply.receipt is None


async def test_records_come_with_their_receipts(home):
    with engine(home / "portal.db") as portal:
        alice = await written(portal, 9)
        terms = [KeyValue(key="UserProfile", value=alice.mesh)]
        reply = await portal.ask("GetRecords", m.GetRequest(key_values=terms), SignedBy(alice.first.dak))
        assert isinstance(reply, m.GetRecordsResponse) and len(reply.data_items or []) == 9
        for item, receipt in zip(reply.data_items or [], reply.receipts or [], strict=True):
            found = proven(receipt, portal)
            assert (found.tid, found.pkey, found.action) == (item.transaction_id, item.primary_key, item.action)
            assert found.content == content_digest(item.data or b"")


async def test_status_shows_the_signed_note_and_proves_that_it_extends_an_older_one(home):
    with engine(home / "portal.db") as portal:
        nothing = checkpoint_of((await portal.status()).checkpoint_value, portal)
        assert (nothing.size, nothing.root) == (0, tree.EMPTY_ROOT)
        alice = await written(portal, 5)
        before = checkpoint_of((await portal.status()).checkpoint_value, portal)
        for number in range(6):
            await portal.publish(alice, alice.item(f"more {number}"))
        shown = await portal.status(old_size=before.size)
        now = checkpoint_of(shown.checkpoint_value, portal)
        proof = shown.consistency_proof
        assert proof is not None and (proof.old_size, proof.new_size) == (5, 11) == (before.size, now.size)
        tree.verify_consistency(before.size, now.size, before.root, now.root, proof.hashes)
        assert (await portal.status(old_size=12)).consistency_proof is None
        *log, witness, asking = [Verifier.parse(key) for key in shown.log_keys or []]
        assert [one.name for one in log] == [f"{DOMAIN}/mmm-log"] and asking.name == f"{DOMAIN}/mmm-peer"
        assert cosignature.verify(Note.parse((shown.checkpoint_value or "").encode()), witness) > 0


async def test_status_proves_up_to_an_earlier_checkpoint_that_nobody_cosigns_again(home):
    with engine(home / "portal.db") as portal:
        alice = await written(portal, 3)
        first = checkpoint_of((await portal.status()).checkpoint_value, portal)
        await portal.publish(alice, alice.item("one"))
        second = checkpoint_of((await portal.status()).checkpoint_value, portal)
        await portal.publish(alice, alice.item("another"))
        shown = await portal.status(old_size=first.size, tree_size=second.size)
        assert checkpoint_of(shown.checkpoint_value, portal) == second
        proof, witness = shown.consistency_proof, Verifier.parse((shown.log_keys or [])[1])
        assert proof is not None and (proof.old_size, proof.new_size) == (first.size, second.size)
        tree.verify_consistency(first.size, second.size, first.root, second.root, proof.hashes)
        assert not verified(Note.parse((shown.checkpoint_value or "").encode()), [witness])  # a larger tree was seen
        newest = checkpoint_of((await portal.status(tree_size=99)).checkpoint_value, portal)
        assert newest.size == second.size + 1


def leaf_from(entry: TransferEntry) -> Leaf:
    """Made anew from a record and its salt, as a mirror does."""
    item = entry.data_item
    assert entry.leaf is not None and entry.salt is not None and item.data is not None
    stated = Leaf.decode(entry.leaf)
    terms = [(one["IndexTerm"].type, one["IndexTerm"].term) for one in item.keys or []]
    made = Leaf(
        item.transaction_id or "", item.prior_transaction_id, item.action or "", item.primary_key or "",
        stated.added, stated.vid, content_digest(item.data), blind_terms(entry.salt, terms),  # type: ignore[arg-type]
    )  # fmt: skip
    assert made.encode() == entry.leaf
    return made


@pytest.mark.parametrize("step", [1, 3, 7, 100])
async def test_pages_of_transfer_prove_each_entry_up_to_the_checkpoint_they_began_with(home, step):
    with engine(home / "portal.db") as portal:
        alice = await written(portal, 13)
        await portal.grant()
        pinned = checkpoint_of((await portal.status()).checkpoint_value, portal)
        frontier, after = Frontier(), None
        while True:
            page = await portal.transfer(after=after, max_entries=step, tree_size=pinned.size)
            shown = checkpoint_of(page.checkpoint, portal)
            assert (shown, page.first) == (pinned, frontier.size)
            hashes = [leaf_from(one).hash() for one in page.entries or []]
            frontier = verify_page(frontier, hashes, pinned.size, pinned.root, page.page_proof or [])
            await portal.publish(alice, alice.item(f"meanwhile {frontier.size}"))
            after = page.next
            if after is None:
                break
        assert (frontier.size, frontier.root()) == (13, pinned.root)


async def test_the_grant_of_leaves_gives_neither_content_nor_terms(home):
    with engine(home / "portal.db") as portal:
        await written(portal, 4)
        await portal.grant("leaves")
        page = await portal.transfer()
        pinned = checkpoint_of(page.checkpoint, portal)
        hashes = []
        for entry in page.entries or []:
            item = entry.data_item
            assert entry.salt is None and (item.data, item.text, item.keys, item.row) == (None,) * 4
            hashes.append(Leaf.decode(entry.leaf or b"").hash())
        assert verify_page(Frontier(), hashes, pinned.size, pinned.root, page.page_proof or []).size == 4


async def test_erased_content_keeps_its_leaf(home):
    with engine(home / "portal.db") as portal:
        await written(portal, 4)
        await portal.grant()
        await portal.sequencer.change(
            lambda connection: connection.execute("UPDATE versions SET raw = NULL WHERE seq = 3")
        )
        page = await portal.transfer()
        pinned = checkpoint_of(page.checkpoint, portal)
        assert [entry.erased for entry in page.entries or []] == [None, None, True, None]
        hashes = [Leaf.decode(entry.leaf or b"").hash() for entry in page.entries or []]
        verify_page(Frontier(), hashes, pinned.size, pinned.root, page.page_proof or [])


@pytest.mark.parametrize(
    "wrong",
    [{"after": "TID:99"}, {"after": "x"}, {"origin": "other.example/mmm-log"}, {"tree_size": 99}],
    ids=["beyond", "no-cursor", "origin", "size"],
)
async def test_a_page_that_there_is_not_is_not_found(home, wrong):
    with engine(home / "portal.db") as portal:
        await written(portal, 3)
        await portal.grant()
        assert (await portal.transfer(**wrong)).status == 404


async def test_nobody_without_a_grant_gets_the_log(home):
    with engine(home / "portal.db") as portal:
        alice = await written(portal, 3)
        assert (await portal.transfer()).status == 401
        for caller in (Anonymous(), SignedBy(alice.first.dak)):
            reply = await portal.ask("Transfer", m.TransferRequest(), caller)
            assert isinstance(reply, m.TransferResponse) and reply.status == 401


async def test_a_page_has_one_entry_at_least_and_a_time_range_is_one_of_places(home):
    with engine(home / "portal.db") as portal:
        alice = await written(portal, 3)
        portal.now += 100
        for number in range(3):
            await portal.publish(alice, alice.item(f"later {number}"))
        await portal.grant()
        page = await portal.transfer(max_bytes=1)
        assert (len(page.entries or []), page.first, page.next) == (1, 0, "TID:1")
        later = await portal.transfer(not_before=payload.write_date(NOW + 100))
        assert (later.first, len(later.entries or [])) == (3, 3)
        earlier = await portal.transfer(until=payload.write_date(NOW + 100))
        assert (earlier.first, len(earlier.entries or [])) == (0, 3)


async def test_times_in_the_log_never_go_back(home):
    with engine(home / "portal.db") as portal:
        alice = await written(portal, 2)
        portal.now -= 1000
        assert proven((await portal.publish(alice, alice.item("one"))).receipt, portal).added == NOW


async def test_a_store_of_before_gets_leaves_for_all_that_it_has(home):
    path = home / "portal.db"
    with engine(path) as portal:
        await written(portal, 7)
    with open_portal(path) as database:
        for table in ("leaves", "nodes", "checkpoints", "log_keys"):
            database.connection.execute(f"DELETE FROM {table}")
    with engine(path) as portal:
        assert checkpoint_of((await portal.status()).checkpoint_value, portal).size == 7
        await written(portal, 3, "bob")
    with engine(path) as portal:
        assert checkpoint_of((await portal.status()).checkpoint_value, portal).size == 10


class Crash(Exception):
    """The process ends here."""


@pytest.mark.parametrize("point", ["before-fn", "before-commit", "after-commit"])
async def test_wherever_it_dies_no_size_has_two_roots_and_nothing_signed_is_lost(home, point):
    path, armed = home / "portal.db", []

    def fault(where: str) -> None:
        if armed and where == point:
            raise Crash(point)

    signed: dict[int, bytes] = {}
    alice = Person("alice")
    with engine(path, fault=fault) as portal:
        await portal.open(alice)
        await portal.publish(alice, alice.container())
        for number in range(5):
            armed.append(1)
            with pytest.raises(Crash):
                await portal.publish(alice, alice.item(f"lost or not {number}"))
            armed.clear()
            await portal.publish(alice, alice.item(f"stays {number}"))
            found = checkpoint_of((await portal.status()).checkpoint_value, portal)
            assert signed.setdefault(found.size, found.root) == found.root
    with engine(path) as portal:
        found = checkpoint_of((await portal.status()).checkpoint_value, portal)
        assert signed[found.size] == found.root
        with open_portal(path, readonly=True) as database:
            for size, root in database.query("SELECT size, root FROM checkpoints"):
                assert signed.setdefault(size, bytes(root)) == bytes(root)


async def test_a_checkpoint_that_a_crash_left_unsigned_is_signed_the_same_at_the_start(home):
    path = home / "portal.db"
    with engine(path) as portal:
        await written(portal, 4)
        before = Note.parse(((await portal.status()).checkpoint_value or "").encode())
        with open_portal(path, readonly=True) as database:
            assert database.query("SELECT note FROM checkpoints WHERE size = 4") == [(None,)]
    with engine(path) as portal:
        again = Note.parse(((await portal.status()).checkpoint_value or "").encode())
        assert again.text == before.text and again.signatures[0] == before.signatures[0]


async def test_a_second_process_on_the_store_is_refused_whichever_comes_second(home):
    path = home / "portal.db"
    with engine(path) as one, engine(path) as other:
        alice = await written(one, 3)
        with pytest.raises(LogForked):
            await other.open(Person("bob"))
        await one.publish(alice, alice.item("goes on"))
        with pytest.raises(LogForked):
            await other.open(Person("bob"))
        with open_portal(path, readonly=True) as database:
            assert database.query("SELECT max(seq), (SELECT max(size) FROM checkpoints) FROM versions") == [(4, 4)]


SECOND = """
import sys, trio
from pathlib import Path
from harness.portal_engine import engine
from harness.portal_people import Person

async def main():
    with engine(Path(sys.argv[1])) as portal:
        for number in range(40):
            try:
                await portal.open(Person(f"{sys.argv[2]}{number}"))
            except Exception as error:
                print(type(error).__name__)
                return
    print("done")

trio.run(main)
"""


async def test_two_processes_that_share_a_store_by_force_never_make_two_roots_of_one_size(home):
    path = home / "portal.db"
    with engine(path) as portal:
        await written(portal, 1)
    here = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(here)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SECOND, str(path), name], env=environment, stdout=subprocess.PIPE, text=True
        )
        for name in ("left", "right")
    ]
    said = [one.communicate(timeout=60)[0].strip() for one in running]
    assert set(said) <= {"done", "LogForked", "StoreBusy"} and "done" in said
    with open_portal(path) as database:
        connection = database.connection
        edge = Frontier().extend(tree.leaf_hash(leaf) for _, leaf in log_rows.leaves_after(connection, 0))
        last = log_rows.last_checkpoint(connection)
        assert last is not None and (last.size, last.root) == (edge.size, edge.root())
        assert Tree(connection).edge == edge


async def test_what_is_rolled_back_leaves_no_leaf(home):
    with engine(home / "portal.db") as portal:
        alice = await written(portal, 3)

        def fails(connection: object) -> None:
            raise StoreError("no")

        with pytest.raises(StoreError):
            await portal.sequencer.change(fails)
        assert proven((await portal.publish(alice, alice.item("one"))).receipt, portal).tid == "TID:4"


async def test_a_log_key_is_replaced_while_notes_carry_both(home):
    path = home / "portal.db"
    with engine(path) as portal:
        alice = await written(portal, 3)
        log = portal.sequencer.log
        assert log is not None
        (old,) = log.verifiers
        await portal.sequencer.change(log.rotate)
        new, still = log.verifiers
        assert still == old and new != old
        note = Note.parse(
            ((await portal.publish(alice, alice.item("one"))).receipt or "").encode().partition(b"\n\n")[2]
        )
        for key in (old, new):
            checkpoints.read(note, [key])
    with open_portal(path) as database:
        database.connection.execute("UPDATE log_keys SET until = 1 WHERE until IS NOT NULL")
    with engine(path) as portal:
        assert portal.logs == [new]


async def test_keys_are_in_no_text_of_the_log(home):
    with engine(home / "portal.db") as portal:
        with open_portal(home / "portal.db", readonly=True) as database:
            (key, *_) = log_rows.keys(database.connection, "log", NOW)
        assert len(key.secret) == 32 and repr(key.secret) not in repr(key)
        assert key.secret.hex() not in repr(portal.sequencer.log.__dict__)  # type: ignore[union-attr]
