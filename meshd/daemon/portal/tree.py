"""The tree over a portal's log as it grows: leaves within the transaction that stores versions, sealed by its commit.

    place      a leaf's row, for each new place of the log
    seal       last in the transaction: hash what is new, compare-and-swap on the last checkpoint, write the next
    sealed     the COMMIT returned: only now may the checkpoint be signed

Memory holds the right edge alone. Whoever else writes to the store has moved the last checkpoint away from it, and
`seal` refuses: one log never gets two roots of one size. Protocol D1.3.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable

from meshd.daemon.portal.view import stored_of
from meshd.errors import StoreError
from meshd.portal.logleaf import leaf_of
from meshd.store import portal_log_rows as log_rows
from meshd.store import portal_rows as rows
from meshd.tlog import tree
from meshd.tlog.frontier import Frontier
from meshd.tlog.tree import Read

SALT_BYTES = 16
_AT_ONCE = 1000  # leaves made in one go for what a store without a tree holds


class LogForked(StoreError):
    """Something else than this process has written to the log."""


class Tree:
    """Beside the writer of one store. Every method belongs to the writer's thread, or to the time before it runs."""

    def __init__(self, connection: sqlite3.Connection, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._salt = secrets.token_bytes
        self.edge = self._read(connection)
        self._next: Frontier | None = None

    def place(self, connection: sqlite3.Connection, place: int) -> None:
        """Make the leaf of a version that was stored just now."""
        (row,) = rows.log(connection, place - 1, 1)
        salt = self._salt(SALT_BYTES)
        log_rows.put_leaf(connection, place, salt, leaf_of(stored_of(row), salt).encode())

    def seal(self, connection: sqlite3.Connection) -> None:
        """Take the new leaves into the tree, and write the checkpoint that will be signed. LogForked: all is undone."""
        self._next = None
        found = log_rows.leaves_after(connection, self.edge.size)
        if not found:
            return
        last = log_rows.last_checkpoint(connection)
        if (last.size, last.root) != (self.edge.size, self.edge.root()) if last is not None else self.edge.size:
            raise LogForked("another process has written to this portal's log", hint="let one portal run on a store")
        if found[-1][0] - self.edge.size != len(found):
            raise LogForked("the portal's log has a gap", hint="keep the files, and restore a backup")
        nodes, edge = _grow(self.edge, [tree.leaf_hash(leaf) for _, leaf in found])
        log_rows.put_nodes(connection, nodes)
        log_rows.put_checkpoint(connection, edge.size, edge.root(), int(self._clock()))
        self._next = edge

    @property
    def growing(self) -> bool:
        """Has the transaction at hand added leaves?"""
        return self._next is not None

    def sealed(self) -> bool:
        """What was sealed is durable. False: there was nothing."""
        if self._next is None:
            return False
        self.edge, self._next = self._next, None
        return True

    def reset(self, connection: sqlite3.Connection) -> None:
        """Something was rolled back. After a COMMIT of ours that failed, only the store knows how far it is."""
        if self._next is not None and not connection.in_transaction:
            self._next = None
            self.edge = self._read(connection)

    def catch_up(self, connection: sqlite3.Connection) -> None:
        """Make the leaves of what was stored before there was a tree. Its own transactions."""
        while (have := log_rows.last_leaf(connection)) < rows.last_place(connection):
            connection.execute("BEGIN IMMEDIATE")
            try:
                for row in rows.log(connection, have, _AT_ONCE):
                    salt = self._salt(SALT_BYTES)
                    log_rows.put_leaf(connection, row.seq, salt, leaf_of(stored_of(row), salt).encode())
                self.seal(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            self.sealed()

    def _read(self, connection: sqlite3.Connection) -> Frontier:
        """The right edge as the store has it; LogForked if that is not what its last checkpoint says."""
        last = log_rows.last_checkpoint(connection)
        if last is None:
            return Frontier()
        read = reader(connection)
        edge, at = [], 0
        for level in range(last.size.bit_length() - 1, -1, -1):
            if last.size >> level & 1:
                edge.append(read(level, at >> level))
                at += 1 << level
        found = Frontier(last.size, tuple(edge))
        if found.root() != last.root:
            raise LogForked("the portal's log is not what its checkpoint says", hint="restore a backup")
        return found


def reader(connection: sqlite3.Connection, memo: dict[tuple[int, int], bytes] | None = None) -> Read:
    """The nodes of the stored tree, each read once while the reader lives. StoreError for one that is not there."""
    known = {} if memo is None else memo

    def read(level: int, number: int) -> bytes:
        found = known.get((level, number))
        if found is None:
            if level:
                found = log_rows.node(connection, level, number)
            else:
                leaf = log_rows.leaf(connection, number + 1)
                found = None if leaf is None else tree.leaf_hash(leaf.leaf)
            if found is None:
                raise StoreError(f"the portal's log has no node {number} at level {level}")
            known[level, number] = found
        return found

    return read


def _grow(edge: Frontier, leaf_hashes: list[bytes]) -> tuple[list[tuple[int, int, bytes]], Frontier]:
    """The nodes above the leaves that these complete, and the edge after them."""
    size, peaks = edge.size, list(edge.hashes)
    nodes = []
    for found in leaf_hashes:
        level, number = 0, size
        while number & 1:
            level, number = level + 1, number >> 1
            found = tree.node_hash(peaks.pop(), found)
            nodes.append((level, number, found))
        peaks.append(found)
        size += 1
    return nodes, Frontier(size, tuple(peaks))
