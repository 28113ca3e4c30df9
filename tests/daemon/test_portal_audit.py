"""`meshd portal log`: the own log is made again from what is stored, and the first difference is said."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from harness.portal_people import Person, tagged
from harness.portal_server import portal_server
from meshd.crypto.keys import SigningKey
from meshd.daemon.portal import audit, main
from meshd.portal import messages as m
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import tree
from meshd.tlog.frontier import Frontier
from meshd.tlog.leaf import Leaf
from meshd.tlog.note import Signer

ENTRIES = 7


@pytest.fixture
async def store(home):
    """A portal's store with an account and some items."""
    alice = Person("alice")
    async with portal_server(home) as running:
        client = running.client(alice.first)
        await client.ask("CreateAccount", m.CreateRequest(account="alice@example.net", profile=tagged(alice.root)))
        for one in [alice.container(), *(alice.item(f"secret {count}") for count in range(ENTRIES - 2))]:
            assert (await client.ask("Publish", m.PublishRequest(entry=tagged(one)))).status == 201
    return home / "portal.db"


def tamper(store, *statements: str) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        for one in statements:
            connection.execute(one)


def signed(store, size: int) -> str:
    """The checkpoint of this size, as the portal signs it."""
    with closing(sqlite3.connect(store)) as connection:
        ((root,),) = connection.execute("SELECT root FROM checkpoints WHERE size = ?", (size,))
        ((secret,),) = connection.execute("SELECT secret FROM log_keys WHERE role = 'log'")
    origin = "example.net/mmm-log"
    signer = Signer(origin, SigningKey.from_private(secret))
    return checkpoints.sign(checkpoints.Checkpoint(origin, size, root), [signer]).encode().decode()


async def test_an_untouched_log_is_what_it_says(store):
    steps = []
    found = audit.verify(store, lambda done, total: steps.append((done, total)))
    assert found.size == found.checkpoints == ENTRIES and found.erased == 0
    assert steps[-1] == (ENTRIES, ENTRIES)
    shown = audit.show(store)
    assert (shown["size"], shown["root"]) == (ENTRIES, found.root.hex())
    assert {one["role"] for one in shown["keys"]} == {"log", "witness", "peer"}
    assert "secret" not in json.dumps(shown)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE leaves SET leaf = (SELECT leaf FROM leaves WHERE place = 2) WHERE place = 4", "place 4: the leaf is"),
        ("UPDATE leaves SET leaf = x'80' WHERE place = 4", "place 4: the leaf can't be read"),
        ("UPDATE leaves SET salt = zeroblob(16) WHERE place = 5", "place 5: the leaf is not of the version"),
        ("UPDATE versions SET added = added + 1 WHERE seq = 3", "place 3: the leaf is not of the version"),
        ("DELETE FROM leaves WHERE place = 7", "place 7: the leaf is missing"),
        ("UPDATE nodes SET hash = zeroblob(32) WHERE level = 1 AND number = 1", "node 1 at level 1"),
        ("UPDATE checkpoints SET root = zeroblob(32) WHERE size = 6", "checkpoint of 6 entries has another root"),
        ("DELETE FROM checkpoints WHERE size = 7", "its last checkpoint 6"),
        ("INSERT INTO checkpoints VALUES (9, zeroblob(32), 1, NULL)", "a checkpoint of 9 entries"),
    ],
    ids=["other-leaf", "no-leaf", "other-salt", "other-time", "missing", "node", "root", "short", "long"],
)
async def test_the_first_difference_is_said(store, statement, said):
    tamper(store, statement)
    with pytest.raises(audit.NotTheLog, match=said):
        audit.verify(store)


async def test_the_note_of_another_tree_is_a_difference(store):
    note = signed(store, 3)
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE checkpoints SET note = ? WHERE size = 5", (note,))
    with pytest.raises(audit.NotTheLog, match="checkpoint of 5 entries has a note of another tree"):
        audit.verify(store)


async def test_what_no_key_of_the_log_signed_is_a_difference(store):
    note = signed(store, 3)
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE checkpoints SET note = ? WHERE size = 3", (note,))
    assert audit.verify(store).size == ENTRIES
    tamper(store, "UPDATE log_keys SET role = 'gone' WHERE role = 'log'")
    with pytest.raises(audit.NotTheLog, match="no known key of the log"):
        audit.verify(store)


async def test_exported_leaves_are_the_tree_and_notes_are_its_signatures(store, tmp_path):
    leaves, notes = tmp_path / "leaves", tmp_path / "notes"
    assert main.main(["log", "export", "leaves", str(leaves), "--data", str(store.parent)]) == 0
    assert main.main(["log", "export", "notes", str(notes), "--data", str(store.parent)]) == 0
    with closing(sqlite3.connect(store)) as connection:
        stored = [leaf for (leaf,) in connection.execute("SELECT leaf FROM leaves ORDER BY place")]
    assert leaves.read_bytes() == b"".join(stored)
    root = Frontier().extend(map(tree.leaf_hash, stored)).root()
    assert root == audit.verify(store).root and [Leaf.decode(one).tid for one in stored][-1] == "TID:7"
    kept = [one for one in notes.read_bytes().split(b"\n\nexample.net/mmm-log\n") if one]
    assert all(b"\n\n" in one for one in kept)
    assert main.main(["log", "export", "notes", str(notes), "--data", str(store.parent)]) != 0  # files stay


async def test_verify_ends_with_ten_where_the_log_is_another(store, capsys):
    data = ["--data", str(store.parent)]
    assert main.main(["log", "verify", "--json", *data]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True
    tamper(store, "UPDATE versions SET added = 5 WHERE seq = 3")
    assert main.main(["log", "verify", "--json", *data]) == 10
    told = capsys.readouterr()
    assert json.loads(told.out) == {
        "schema": 1, "verified": False, "difference": "place 3: the leaf is not of the version that is stored there",
    }  # fmt: skip
    assert "place 3" in told.err
