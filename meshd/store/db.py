"""The database file: open, check, migrate, back up; and the one place where SQLite's errors become ours.

The idea: a store is never made, emptied or replaced by opening it. A missing file is an error unless `create` is said,
a new file appears under its name only when it is complete, and a file that SQLite can't read is reported as it is.
Durability is WAL with synchronous=FULL: when COMMIT returns, the bytes are on disk (formats.md F8).
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from meshd.errors import DiskFull, StoreBusy, StoreDamaged, StoreError, StoreTooNew
from meshd.store.files import sync_directory

APPLICATION_ID = int.from_bytes(b"mshd", "big")
PAGE_SIZE = 4096
MODE = 0o600
MAX_PROBLEMS = 20  # what a check lists at most
_BUSY_MS = 5000
_MEND = "keep the files, and restore a backup or sync into a new home"
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql\Z")

Migration = tuple[int, str]  # (number, SQL)


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of store: the mark in its files, whose it is, where its migrations are, and pragmas of its own."""

    application_id: int
    owner: str
    folder: str
    pragmas: tuple[str, ...] = ()


DEVICE = Kind(APPLICATION_ID, "meshd", "migrations")

# Each connection. cell_size_check finds a damaged page when it is read, before it is believed. secure_delete: what is
# pruned or replaced is gone from the file as well (sealed rows outlive the removal of the key that sealed them only if
# we let them); deletions are rare here, and the pages are being written anyway. mmap stays off: a failing disk must
# raise an error, not a signal. Foreign keys stay off: an edge may name a version that has not come yet.
_PRAGMAS = (
    "PRAGMA foreign_keys = OFF",
    "PRAGMA synchronous = FULL",
    "PRAGMA cell_size_check = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16384",
    "PRAGMA journal_size_limit = 67108864",
)
# 64 MiB of log: a first sync rewrites the same index pages in every batch, and each checkpoint writes them once more.
_CHECKPOINT_PAGES = 16384


class Database:
    """One SQLite connection with our pragmas. Any thread may use it, one at a time; a Writer keeps its own."""

    def __init__(self, path: Path, connection: sqlite3.Connection, *, readonly: bool) -> None:
        self.path = path
        self.connection = connection
        self.readonly = readonly

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE … COMMIT; anything raised inside rolls back. SQLite's errors come out as StoreErrors."""
        with store_errors():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                rollback(self.connection)
                raise

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        with store_errors():
            return self.connection.execute(sql, parameters).fetchall()

    def quick_check(self) -> list[str]:
        """What is wrong with the file's pages; empty = nothing. Reads the whole file once, leaves indexes out."""
        return self._check("quick_check")

    def check(self) -> list[str]:
        """As `quick_check`, and every index against its table."""
        return self._check("integrity_check")

    def _check(self, pragma: str) -> list[str]:
        try:
            rows = self.query(f"PRAGMA {pragma}({MAX_PROBLEMS})")
        except StoreDamaged as exc:
            return [str(exc)]
        return [str(row[0]) for row in rows if row[0] != "ok"]

    def backup(self, path: Path) -> None:
        """Write a whole, consistent copy to `path` while others go on reading and writing; `path` must not exist."""
        if path.exists():
            raise StoreError(f"{path} exists already")
        fresh = _fresh(path)
        with (
            store_errors(),
            contextlib.closing(_connect(self.path, "ro")) as source,
            contextlib.closing(_connect(fresh, "rw")) as target,
        ):
            source.backup(target)  # one step: a read transaction of its own, so writers are not held up
            target.execute("PRAGMA journal_mode = DELETE")  # closes the copy's log, so that it is one file
        _publish(fresh, path)

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the file and empty the log, as far as no reader needs it."""
        self.query("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        with store_errors():
            self.connection.close()


def open_database(
    path: Path,
    *,
    readonly: bool = False,
    create: bool = False,
    migrations: Sequence[Migration] | None = None,
    kind: Kind = DEVICE,
) -> Database:
    """Open the store at `path`, bring it to this release's schema, and return its Database.

    A missing file is a StoreError unless `create`. StoreDamaged: the file is empty, no database, or its first pages are
    broken; StoreTooNew: a newer release wrote it; StoreBusy: another program writes it; StoreError: it can't be opened
    or written. `migrations` are this release's own unless a test says otherwise.
    """
    steps = list(known_migrations(kind) if migrations is None else migrations)
    path = Path(path)
    if not path.exists():
        if readonly or not create:
            raise StoreError(f"there is no store at {path}")
        _create(path, steps, kind)
    if path.stat().st_size == 0:
        raise StoreDamaged(f"the store {path} is an empty file", hint=_MEND)
    if not readonly:
        if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):  # SQLite would say "unable to open"
            raise StoreError(f"the store {path} can't be written: the disk or its permissions do not allow it")
        _tighten(path)
    with store_errors():
        connection = _connect(path, _mode(path) if readonly else "rw")
        try:
            _identify(connection, path, steps[-1][0], kind)
            for pragma in kind.pragmas:
                connection.execute(pragma)
            if not readonly:
                _ready_to_write(connection)
                _migrate(connection, steps)
        except BaseException:
            connection.close()
            raise
    return Database(path, connection, readonly=readonly)


class Reader:
    """A read-only connection beside the writer's: it sees what is committed, and can change nothing.

    A point query takes microseconds and may run where it is needed; a long one belongs in a worker thread, with a
    Reader of its own (`interrupt` stops it).
    """

    def __init__(self, path: Path) -> None:
        self._database = open_database(path, readonly=True)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows; the read transaction is over when this returns, so the log can be checkpointed."""
        return self._database.query(sql, parameters)

    def one(self, sql: str, parameters: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""
        with store_errors():
            cursor = self._database.connection.execute(sql, parameters)
            try:
                row: tuple[Any, ...] | None = cursor.fetchone()
            finally:
                cursor.close()  # an open cursor would hold its read transaction
        return row

    @property
    def connection(self) -> sqlite3.Connection:
        """For functions that take a connection; it refuses to write."""
        return self._database.connection

    def interrupt(self) -> None:
        """Stop a running query from another thread."""
        self._database.connection.interrupt()

    def close(self) -> None:
        self._database.close()


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Turn what sqlite3 raises into StoreErrors; a StoreError passes through."""
    try:
        yield
    except sqlite3.Error as exc:
        raise mapped(exc) from exc


def mapped(exc: sqlite3.Error) -> StoreError:
    """The StoreError for an error of SQLite: what a person can do about it decides the class."""
    extended = getattr(exc, "sqlite_errorcode", 0)
    match extended & 0xFF:
        case sqlite3.SQLITE_FULL:
            return DiskFull(hint="free some space; nothing that was acknowledged is lost")
        case sqlite3.SQLITE_IOERR if extended == sqlite3.SQLITE_IOERR_SHMSIZE:
            return DiskFull("there is no space for the store's shared index", hint="free some space")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreDamaged(f"the store is damaged: {exc}", hint=_MEND)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(f"another program holds the store: {exc}")
        case sqlite3.SQLITE_READONLY:
            return StoreError(f"the store can't be written: {exc}")
        case _:
            return StoreError(f"the store can't be read or written: {exc}")


def rollback(connection: sqlite3.Connection) -> None:
    """Leave the transaction if there still is one; SQLite ends it by itself after some errors."""
    if connection.in_transaction:
        # A rollback that fails has nothing left to undo on disk: the log ends at the last commit.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def get_meta(connection: sqlite3.Connection, key: str) -> bytes | None:
    """A value of the `meta` table."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else bytes(row[0])


def set_meta(connection: sqlite3.Connection, key: str, value: bytes) -> None:
    """Write a value of the `meta` table, inside the caller's transaction."""
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
    )


def known_migrations(kind: Kind = DEVICE) -> list[Migration]:
    """This release's migrations in order: the files NNNN_name.sql, numbered from 1 without a gap."""
    found = []
    for file in resources.files("meshd.store").joinpath(kind.folder).iterdir():
        if match := _MIGRATION.match(file.name):
            found.append((int(match.group(1)), file.read_text("utf-8")))
    found.sort()
    if [number for number, _ in found] != list(range(1, len(found) + 1)) or not found:
        raise StoreError("this installation of meshd is not complete: migrations are missing")
    return found


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?{'mode=ro&immutable=1' if mode == 'immutable' else f'mode={mode}'}"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000, cached_statements=256
    )
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    return connection


def _mode(path: Path) -> str:
    """How to open for reading. On a read-only disk no shared index can be made; without a log none is needed."""
    wal = path.with_name(path.name + "-wal")
    return "ro" if os.access(path.parent, os.W_OK) or wal.exists() else "immutable"


def _identify(connection: sqlite3.Connection, path: Path, newest: int, kind: Kind) -> None:
    """Is it ours, and of a release that we know?"""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != kind.application_id:
        raise StoreDamaged(f"{path} is a database, but not a store of {kind.owner} (application id {application:#x})")
    if version > newest:
        raise StoreTooNew(
            f"the store {path} has format {version}, and this release of meshd knows formats up to {newest}",
            hint="install the newer release again",
        )
    if version < 1:
        raise StoreDamaged(f"the store {path} has format {version}")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # the schema pages must read


def _ready_to_write(connection: sqlite3.Connection) -> None:
    """WAL, and a proof that writing works: on a read-only disk SQLite opens without a word."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")


def _migrate(connection: sqlite3.Connection, steps: Sequence[Migration]) -> None:
    """Every step that the file has not seen, each in its own transaction: a crash between two leaves an older store."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, sql in steps:
        if number <= version:
            continue
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\n;PRAGMA user_version = {number};\nCOMMIT;")
        except BaseException:
            rollback(connection)
            raise


def _create(path: Path, steps: Sequence[Migration], kind: Kind) -> None:
    """A new store under its name only when it is complete, so that a half-made one is never taken for a damaged one."""
    wal = path.with_name(path.name + "-wal")
    if wal.exists():  # SQLite would replay it into the new file
        raise StoreDamaged(f"the store {path} is gone, but its log {wal.name} is there", hint=_MEND)
    fresh = _fresh(path)
    with store_errors(), contextlib.closing(_connect(fresh, "rw")) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute(f"PRAGMA application_id = {kind.application_id}")
        _migrate(connection, steps)
    _publish(fresh, path)


def _fresh(path: Path) -> Path:
    """An empty file of ours beside `path`, readable by nobody else from the first moment."""
    fresh = path.with_name(path.name + ".new")
    try:
        for leftover in (fresh, fresh.with_name(fresh.name + "-journal"), fresh.with_name(fresh.name + "-wal")):
            leftover.unlink(missing_ok=True)  # of a creation that a crash ended
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, MODE))
    except OSError as exc:
        raise StoreError(f"{fresh} can't be made: {exc.strerror}") from exc
    return fresh


def _publish(fresh: Path, path: Path) -> None:
    try:
        os.replace(fresh, path)
        sync_directory(path.parent)
    except OSError as exc:
        raise StoreError(f"{path} can't be made: {exc.strerror}") from exc


def _tighten(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        try:
            os.chmod(path, MODE)
        except OSError as exc:
            raise StoreError(f"{path} is readable by others, and that can't be changed: {exc.strerror}") from exc
