"""Where the daemon keeps its files, and the making of those directories so that nobody else gets in.

One idea: a directory is opened once, without following a link, and everything is asked of what was opened — whose it
is, who may write there — so that nobody can swap it between the question and the use.

    --home DIR or MESHD_HOME    everything under DIR
    otherwise (XDG)             $XDG_CONFIG_HOME/meshd/meshd.toml, $XDG_STATE_HOME/meshd/,
                                $XDG_RUNTIME_DIR/meshd/meshd.sock
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from meshd.errors import Denied, StoreBusy, StoreError
from meshd.localapi.paths import HOME_VARIABLE, socket_path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Paths:
    """Every file of one home. `state` holds `store`, `keystore` and `lock`."""

    config: Path
    state: Path
    store: Path
    keystore: Path
    socket: Path
    lock: Path


def resolve(home: str | None, environ: Mapping[str, str] = os.environ) -> Paths:
    """The paths for `--home home`, for MESHD_HOME, or the XDG ones; nothing is made.

    BadRequest or Denied, where the place of the socket is impossible or somebody else's (localapi.paths.socket_path).
    """
    socket = Path(socket_path(home, environ))
    if chosen := home or environ.get(HOME_VARIABLE):
        directory = Path(os.path.abspath(os.path.expanduser(chosen)))  # not realpath: a link at its end must show
        return _paths(directory / "meshd.toml", directory, socket)
    import platformdirs

    xdg = platformdirs.PlatformDirs("meshd", appauthor=False)
    return _paths(xdg.user_config_path / "meshd.toml", xdg.user_state_path, socket)


def _paths(config: Path, state: Path, socket: Path) -> Paths:
    return Paths(
        config=config,
        state=state,
        store=state / "meshd.db",
        keystore=state / "keystore.cbor",
        socket=socket,
        lock=state / "meshd.lock",
    )


def prepare(paths: Paths) -> None:
    """Make the directories of `state` and `socket`, 0700, or check those that exist.

    Denied: one is a link, no directory, somebody else's, or writable by others. StoreError: it can't be made.
    """
    private_directory(paths.state)
    if paths.socket.parent != paths.state:
        # The runtime directory too: where it is one that anybody may make in /tmp, its owner could rename ours away.
        private_directory(paths.socket.parent.parent)
        private_directory(paths.socket.parent)


def private_directory(path: Path) -> None:
    """Make `path` and what is missing above it, 0700; or see to it that it is a directory of ours alone."""
    try:
        _make(path)
        # O_NOFOLLOW refuses a link in the last place, where a surprise hurts; O_PATH would not do for fchmod.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (NotADirectoryError, FileExistsError) as exc:
        kind = "a symbolic link" if path.is_symlink() else "not a directory"
        raise Denied(f"{path} is {kind}", hint="name the directory itself with --home") from exc
    except PermissionError as exc:
        raise Denied(f"{path} can't be opened: {exc.strerror}") from exc
    except OSError as exc:
        raise StoreError(f"{path} can't be made: {exc.strerror}") from exc
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise Denied(f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()}")
        if found.st_mode & _OTHERS_WRITE:
            # Closing it now would not help: what lies in it may be somebody else's already.
            raise Denied(f"{path} can be written by other users", hint=f"look into it, then: chmod 700 {path}")
        if found.st_mode & 0o077:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    """mkdir -p with 0700 from the first moment on: no chmod that comes a moment too late."""
    missing = []
    while not path.exists() and not path.is_symlink():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            pass  # somebody was faster; whoever it was is checked on the opened directory


class HomeLock:
    """Holds a home for one daemon; the kernel lets go when the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go. The file stays: removing it would let two daemons lock two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def hold(lock: Path, option: str = "--home") -> HomeLock:
    """Take the home that `lock` stands for and `option` chose, or StoreBusy naming the process that has it."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreError(f"{lock} can't be opened: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)  # for the message below, never for a decision
    except BlockingIOError as exc:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StoreBusy(
            f"another meshd is running on {lock.parent}" + (f" (process {holder})" if holder.isdigit() else ""),
            hint=f"use that one, stop it, or give this one its own {option}",
        ) from exc
    except OSError as exc:
        os.close(descriptor)
        raise StoreError(f"{lock} can't be locked: {exc.strerror}") from exc
    return HomeLock(descriptor)
