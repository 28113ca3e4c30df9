"""The Unix socket of the local API: nobody but its owner can open it, and no live daemon loses it to another.

Listening means to *connect* first; only a socket on which nobody answers is replaced (formats.md F12).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from meshd.errors import BadRequest, Denied, NetworkError, StoreBusy, StoreError
from meshd.net.http import Peer

MAX_PATH = 107  # bytes; sockaddr_un has 108 with the final zero (unix(7))
_BACKLOG = 64
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who opened a connection, by the kernel's word."""

    pid: int
    uid: int
    gid: int


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts connections; on closing it takes its socket file away, if that is still its own."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        self._path: Path | None = path  # until it is removed
        self._inode = os.stat(path).st_ino

    async def accept(self) -> trio.SocketStream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        if self._path is not None:
            try:
                if os.lstat(self._path).st_ino == self._inode:
                    os.unlink(self._path)
            except OSError:
                pass  # gone, or a directory that went away: there is nothing left to clean up
            self._path = None
        await self._listener.aclose()


def listen(path: Path, owner_uid: int) -> UnixListener:
    """Listen on `path`: 0600 in a directory that is 0700 and the owner's, made if it is missing.

    StoreBusy if another meshd answers there, Denied if others could reach it, BadRequest for a path that is too long,
    StoreError for what the file system refuses.
    """
    size = len(os.fsencode(path))
    if size > MAX_PATH:
        raise BadRequest(
            f"the socket path {path} has {size} bytes, {MAX_PATH} are possible",
            hint="choose a shorter --home or socket",
        )
    try:
        private_directory(path.parent, owner_uid)
        # Between "nobody answers" and "bound", a second daemon must not come to the same conclusion.
        with _locked(path.parent):
            _remove_stale(path)
            sock = _bind(path)
        return UnixListener(sock, path)
    except OSError as exc:
        raise StoreError(f"can't listen on {path}: {exc.strerror or exc}") from exc


def private_directory(path: Path, owner_uid: int) -> None:
    """Make `path` 0700, or verify that it is the owner's directory and nobody else can enter it. Denied, OSError."""
    try:
        os.makedirs(path, mode=0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise Denied(f"{path} is not a directory")
    if found.st_uid != owner_uid:
        raise Denied(f"{path} belongs to another user (uid {found.st_uid})")
    if found.st_mode & 0o077:
        raise Denied(f"other users can enter {path}", hint=f"run: chmod 700 {path}")


def peer_credentials(stream: trio.abc.Stream) -> Credentials:
    """Process, user and group at the other end of a Unix socket. NetworkError if it is none."""
    sock = stream.socket if isinstance(stream, trio.SocketStream) else None
    if sock is None or sock.family != socket.AF_UNIX:
        raise NetworkError("not a connection on a Unix socket")
    return Credentials(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)))


def peer_of(stream: trio.abc.Stream) -> Peer:
    """The same as an HTTP `Peer`."""
    found = peer_credentials(stream)
    return Peer("unix", pid=found.pid, uid=found.uid, gid=found.gid)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # held for a few system calls
        yield
    finally:
        os.close(fd)


def _remove_stale(path: Path) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise StoreError(f"{path} is in the way: it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)  # a daemon whose backlog is full must not hold us here: EAGAIN means that it lives
        refused = probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED
    if not refused:
        raise StoreBusy(f"another meshd answers on {path}", hint="stop it first, or use another --home")
    os.unlink(path)


def _bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # The file takes its mode from the unbound socket and the umask: there is no moment at which it is wider, and
        # the umask, which all threads share, stays as it is.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(os.fspath(path))
        if os.lstat(path).st_mode & 0o077:
            os.unlink(path)
            raise Denied(f"the file system of {path} does not keep the mode of a socket")
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
