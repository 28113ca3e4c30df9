"""Real Unix sockets in temporary directories."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from meshd.errors import BadRequest, Denied, NetworkError, StoreBusy, StoreError
from meshd.net import http, systemd, unix

ME = os.geteuid()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run" / "meshd.sock"


async def test_the_socket_and_its_directory_are_private(path: Path) -> None:
    before = os.umask(0)
    try:
        async with unix.listen(path, ME):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert not path.exists()


async def test_the_kernel_says_who_calls(path: Path) -> None:
    async with (
        unix.listen(path, ME) as listener,
        await trio.open_unix_socket(path) as client,
        await listener.accept() as server,
    ):
        assert unix.peer_credentials(server) == unix.Credentials(os.getpid(), ME, os.getegid())
        assert unix.peer_of(server) == http.Peer("unix", pid=os.getpid(), uid=ME, gid=os.getegid())
        await client.send_all(b"hi")
        assert await server.receive_some() == b"hi"


async def test_only_a_unix_socket_has_credentials() -> None:
    with pytest.raises(NetworkError):
        unix.peer_credentials(trio.testing.memory_stream_pair()[0])


async def test_a_stale_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(os.fspath(path))
    assert path.exists()
    async with unix.listen(path, ME), await trio.open_unix_socket(path):
        pass


async def test_a_live_socket_is_not_taken_away(path: Path) -> None:
    async with unix.listen(path, ME) as first:
        with pytest.raises(StoreBusy, match="another meshd answers on"):
            unix.listen(path, ME)
        async with await trio.open_unix_socket(path), await first.accept():  # the probe, then the client
            pass


async def test_a_daemon_too_busy_to_answer_is_alive_all_the_same(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    clients = []
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(os.fspath(path))
        busy.listen(0)
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            client.connect_ex(os.fspath(path))
            clients.append(client)
        with pytest.raises(StoreBusy):
            unix.listen(path, ME)
    for client in clients:
        client.close()


async def test_a_socket_that_somebody_else_bound_meanwhile_is_left_alone(path: Path) -> None:
    listener = unix.listen(path, ME)
    path.unlink()
    async with unix.listen(path, ME):
        await listener.aclose()
        assert path.exists()


async def test_a_file_in_the_way_is_not_deleted(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    with pytest.raises(StoreError, match="not a socket"):
        unix.listen(path, ME)
    assert path.read_text() == "precious"


async def test_a_directory_that_others_can_enter_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o755)
    with pytest.raises(Denied) as refused:
        unix.listen(path, ME)
    assert refused.value.hint is not None
    assert "chmod 700" in refused.value.hint


async def test_a_directory_of_somebody_else_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with pytest.raises(Denied, match="another user"):
        unix.listen(path, ME + 1)


async def test_a_link_in_place_of_the_directory_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Denied, match="not a directory"):
        unix.listen(path, ME)


async def test_a_path_that_is_too_long_is_named_before_the_kernel_cuts_it(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="107 are possible"):
        unix.listen(tmp_path / ("x" * 108), ME)


async def test_http_over_the_socket_ends_the_work_when_the_client_dies(path: Path) -> None:
    stopped = trio.Event()

    async def work(request: http.Request) -> http.Response:
        assert request.peer.uid == ME
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()
        raise AssertionError("not reached")

    async def handle(stream: trio.SocketStream) -> None:
        await http.serve(stream, work, peer=unix.peer_of(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [unix.listen(path, ME)])
        client = await trio.open_unix_socket(path)
        await client.send_all(b"GET / HTTP/1.1\r\nHost: meshd\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.05)
        await client.aclose()
        with trio.fail_after(5):
            await stopped.wait()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(abstract: bool, tmp_path: Path) -> None:
    name = f"@meshd-test-{os.getpid()}" if abstract else os.fspath(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(5)
        assert systemd.sd_notify({"NOTIFY_SOCKET": name}, "READY=1", "STATUS=in step with 2 devices")
        assert manager.recv(100) == b"READY=1\nSTATUS=in step with 2 devices"


def test_without_systemd_nothing_is_told() -> None:
    assert not systemd.sd_notify({}, "READY=1")
    assert not systemd.sd_notify({"NOTIFY_SOCKET": "relative"}, "READY=1")
    assert not systemd.sd_notify({"NOTIFY_SOCKET": "/nonexistent/notify"}, "READY=1")


def test_the_watchdog_is_fed_twice_as_often_as_it_bites() -> None:
    assert systemd.watchdog_seconds({"WATCHDOG_USEC": "10000000"}) == 5.0
    assert systemd.watchdog_seconds({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}) == 5.0
    assert systemd.watchdog_seconds({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}) is None
    assert systemd.watchdog_seconds({"WATCHDOG_USEC": "soon"}) is None
    assert systemd.watchdog_seconds({}) is None
