from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.errors import FormatError
from meshd.store import peers
from meshd.store.db import Database, open_database

DESKTOP = "MCKCV-4F5LK-ZIFIF-ALHAG-2MEYN-LQKLV-WDKOX-ZIXFQ"
OLD, NEW = b"store-01", b"store-02"


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    with open_database(home / "store.db", create=True) as opened:
        yield opened


def test_a_sibling_never_met_has_nothing_in_it(database: Database) -> None:
    assert peers.get(database.connection, DESKTOP) == peers.Peer(DESKTOP)
    assert peers.cursor_for(database.connection, DESKTOP, OLD) == 0
    assert peers.every(database.connection) == []


def test_a_cursor_goes_forward_and_counts_only_for_its_store_id(database: Database) -> None:
    with database.transaction() as connection:
        peers.set_cursor(connection, DESKTOP, OLD, 40)
        peers.set_cursor(connection, DESKTOP, OLD, 30)
        assert peers.cursor_for(connection, DESKTOP, OLD) == 40
        assert peers.cursor_for(connection, DESKTOP, NEW) == 0
        peers.set_cursor(connection, DESKTOP, NEW, 3)
        assert peers.cursor_for(connection, DESKTOP, NEW) == 3
        assert peers.cursor_for(connection, DESKTOP, OLD) == 0


def test_acknowledgements_go_forward_until_our_store_id_changes(database: Database) -> None:
    with database.transaction() as connection:
        peers.set_ack(connection, DESKTOP, 9)
        peers.set_ack(connection, DESKTOP, 5)
        assert peers.get(connection, DESKTOP).their_ack == 9
        peers.forget_acks(connection)
        assert peers.get(connection, DESKTOP).their_ack == 0


def test_the_address_that_worked_last_is_tried_first_and_few_are_kept(database: Database) -> None:
    with database.transaction() as connection:
        for number in range(12):
            peers.seen(connection, DESKTOP, 1000 + number, f"192.0.2.{number}:7001")
        peers.seen(connection, DESKTOP, 1005, "192.0.2.9:7001")
        peers.seen(connection, DESKTOP, 1004)
        peer = peers.get(connection, DESKTOP)
    assert peer.addresses[:3] == ("192.0.2.9:7001", "192.0.2.11:7001", "192.0.2.10:7001")
    assert len(peer.addresses) == peers.MAX_ADDRESSES
    assert peer.last_seen == 1011


@pytest.mark.parametrize("wrong", ["", "x" * 301, "host\n:1", "\x00"])
def test_what_cannot_be_an_address_is_refused(database: Database, wrong: str) -> None:
    with pytest.raises(FormatError), database.transaction() as connection:
        peers.set_addresses(connection, DESKTOP, [wrong])
    assert peers.every(database.connection) == []


def test_too_many_addresses_are_refused_and_repeated_ones_count_once(database: Database) -> None:
    with database.transaction() as connection:
        peers.set_addresses(connection, DESKTOP, ["b:1", "a:1", "b:1"])
        assert peers.get(connection, DESKTOP).addresses == ("b:1", "a:1")
    with pytest.raises(FormatError), database.transaction() as connection:
        peers.set_addresses(connection, DESKTOP, [f"host:{number}" for number in range(9)])


def test_a_sibling_is_remembered_over_a_restart_and_forgotten_when_removed(home: Path) -> None:
    path = home / "store.db"
    with open_database(path, create=True) as opened, opened.transaction() as connection:
        peers.set_name(connection, DESKTOP, "desktop")
        peers.set_cursor(connection, DESKTOP, OLD, 7)
        peers.seen(connection, DESKTOP, 1234, "[fe80::1%eth0]:7001")
    with open_database(path) as opened:
        kept = peers.Peer(DESKTOP, OLD, 7, 0, ("[fe80::1%eth0]:7001",), 1234, "desktop")
        assert peers.every(opened.connection) == [kept]
        with opened.transaction() as connection:
            peers.forget(connection, DESKTOP)
        assert peers.every(opened.connection) == []
