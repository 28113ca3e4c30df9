"""Files that are whole or absent: write beside, sync, rename, sync the directory.

A crash at any step leaves the old file or the new one under the name, never a mixture (protocol D8.3).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from meshd.errors import DiskFull, StoreError

SUFFIX = ".new"
# The points at which a fault hook is called, in this order.
POINTS = ("before-create", "before-write", "before-sync", "before-rename", "after-rename")


def durable_write(path: Path, data: bytes, mode: int = 0o600, *, fault: Callable[[str], None] | None = None) -> None:
    """Replace `path` by `data`; returns when it would survive a power cut. DiskFull or StoreError: the old file stands.

    `fault` is called with the names of POINTS in turn (crash tests raise there).
    """
    hook = fault or (lambda point: None)
    fresh = path.with_name(path.name + SUFFIX)
    try:
        hook("before-create")
        fresh.unlink(missing_ok=True)  # left by a crash; its content was never acknowledged
        descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with contextlib.closing(os.fdopen(descriptor, "wb", closefd=True)) as file:
            hook("before-write")
            file.write(data)
            file.flush()
            hook("before-sync")
            os.fsync(file.fileno())
        hook("before-rename")
        os.replace(fresh, path)
        hook("after-rename")
        sync_directory(path.parent)
    except OSError as exc:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise file_error(exc, path, "written") from exc


def read_file(path: Path, limit: int) -> bytes:
    """The whole file, at most `limit` bytes; StoreError when it is missing, unreadable or longer."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as exc:
        raise file_error(exc, path, "read") from exc
    if len(data) > limit:
        raise StoreError(f"{path} is longer than {limit} bytes")
    return data


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; OSError as the system gives it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_error(exc: OSError, path: Path, verb: str) -> StoreError:
    """The StoreError for a failed file operation."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(hint="free some space; the old file still stands")
    return StoreError(f"{path} can't be {verb}: {exc.strerror}")
