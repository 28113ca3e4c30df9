"""Who gets in at the local socket, with what, and how every route answers while something it needs is missing."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from harness.local_api import Device, item_path, running
from meshctl.client import Client
from meshd.daemon import api
from meshd.daemon.config import Config, Limits
from meshd.errors import MeshError
from meshd.localapi import routes
from meshd.localapi.http import request
from meshd.localapi.routes import CONNECTED, ROUTES, RUNNING, UNLOCKED, Route

ITEM = "M" * 5 + "/item"
# A body that fits, for the routes that need one.
BODIES: dict[str, object] = {
    "init": {"name": "laptop", "passphrase": "p", "master_passphrase": "m"},
    "lock": {},
    "unlock": {"passphrase": "p"},
    "passphrase": {"old": "p", "new": "q"},
    "phrase": {},
    "invite": {},
    "answer-invitation": {"accept": True},
    "connect": {"name": "desktop", "code": "7-orbit-walnut"},
    "change-device": {"name": "other"},
    "add-item": {"application": "password", "sites": ["a.example"], "password": "p"},
    "lookup": {"application": "password", "site": "a.example"},
    "change-item": {"title": "new"},
    "import": {"application": "password", "format": "chrome-csv", "text": "url,username,password\n"},
    "generate": {},
    "plan-removal": {"devices": ["phone"]},
    "remove": {"devices": ["phone"]},
    "set-role": {"role": "relay"},
    "change-rights": {"revoke": ["ssh"]},
    "add-vault": {"application": "password", "name": "work"},
    "change-vault": {"name": "work"},
    "rotate": {},
    "import-quarantine": {"ids": ["unknown"]},
    "confirm-fallen": {"names": ["unknown"]},
    "renew": {},
    "master-passphrase": {"master_passphrase": "m", "new": "n"},
    "master-file": {"master_passphrase": "m"},
    "master-offline": {"master_passphrase": "m", "text": "{}"},
    "master-online": {"master_passphrase": "m", "text": "{}"},
    "undo": {},
    "wipe": {},
    "add-portal": {"account": "alice@example.net"},
    "prepare-recovery": {},
    "commit-recovery": {"token": "t"},
    "revoke-recovery": {},
    "check-share": {"words": "academic"},
    "drill-share": {"words": "academic"},
    "drill": {},
    "open-recovery-2016": {"shares": ["EBUZV"]},
    "restore": {"shares": ["academic"], "master_passphrase": "m"},
    "restore-share": {"words": "academic"},
    "close-portal": {},
    "verify-portal": {},
    "trust-portal": {},
    "accept-pending": {},
    "reject-pending": {},
    "invite-remote": {},
    "connect-remote": {"name": "desktop", "account": "alice@example.net", "no_passphrase": True},
    "answer-remote-connection": {"accept": True},
}


def target_of(route: Route) -> str:
    path = route.path
    for name in ("invitation", "connection", "device", "item", "vault", "version", "change", "account"):
        path = path.replace("{" + name + "}", "unknown")
    return path


async def asked(device: Device, route: Route) -> tuple[int, str]:
    """The status of a request to `route`, and the error's code or ""."""
    query = {"timeout": 0} if route.name == "wait" else {}
    answer = await device.ask(route.method, target_of(route), BODIES.get(route.name), query=query)
    return answer.status, answer.code if answer.status >= 400 else ""


def test_every_route_has_a_handler_and_every_handler_a_route():
    assert set(api.HANDLERS) | set(api.STREAMS) == {route.name for route in ROUTES}
    assert set(api.STREAMS) == {route.name for route in ROUTES if route.stream}


async def test_what_needs_a_mesh_says_so_until_there_is_one(home: Path, rng) -> None:
    async with running(home, rng) as device:
        for route in ROUTES:
            if route.needs in (CONNECTED, UNLOCKED):
                assert await asked(device, route) == (409, "not-connected"), route.name


async def test_what_needs_keys_says_so_while_the_device_is_locked(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        await device.post("/v1/lock", {})
        for route in ROUTES:
            if route.needs == UNLOCKED:
                assert await asked(device, route) == (423, "locked"), route.name
            elif route.name in ("restore", "restore-given", "restore-share"):  # where there is a mesh, its keys
                assert await asked(device, route) == (423, "locked")
            elif route.needs == RUNNING and not route.stream:
                assert "locked" not in await asked(device, route), route.name


async def test_without_a_lan_pairing_says_why_it_is_not_there(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        for name in ("invite", "invitation", "cancel-invitation", "answer-invitation", "connect", "connection"):
            assert await asked(device, routes.by_name(name)) == (502, "network")


@pytest.mark.parametrize("host", ["localhost", "meshd:80", "MESHD", "meshd.evil.example", ""])
async def test_another_host_is_refused(home: Path, rng, host: str) -> None:
    async with running(home, rng) as device:
        raw = f"GET /v1/version HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        answer = await device.ask("GET", "/", raw=raw)
        assert (answer.status, answer.code) == (403, "denied")


async def test_no_host_and_two_hosts_are_refused(home: Path, rng) -> None:
    async with running(home, rng) as device:
        for head in ("", "Host: meshd\r\nHost: meshd\r\n"):
            answer = await device.ask("GET", "/", raw=f"GET /v1/version HTTP/1.1\r\n{head}\r\n".encode())
            assert answer.status in (400, 403)


@pytest.mark.parametrize(
    "header", ["Origin: https://evil.example", "Origin: null", "Referer: http://meshd/", "origin: x"]
)
async def test_web_pages_are_refused(home: Path, rng, header: str) -> None:
    async with running(home, rng) as device:
        await device.init()
        raw = f"POST /v1/lock HTTP/1.1\r\nHost: meshd\r\n{header}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        answer = await device.ask("POST", "/", raw=raw)
        assert (answer.status, answer.code) == (403, "denied")
        assert not device.daemon.locked


async def test_another_release_of_the_api_is_refused(home: Path, rng) -> None:
    async with running(home, rng) as device:
        raw = b"GET /v1/version HTTP/1.1\r\nHost: meshd\r\nMeshd-Api: 2\r\n\r\n"
        answer = await device.ask("GET", "/", raw=raw)
        assert (answer.status, answer.code) == (426, "version-mismatch")


async def test_every_answer_says_which_release_it_is_of(home: Path, rng) -> None:
    async with running(home, rng) as device:
        for target in ("/v1/version", "/v1/nothing", "/v1/items"):
            reader = await device.exchange(request("GET", target))
            assert (reader.api, bool(reader.version)) == (1, True)


async def test_unknown_paths_methods_and_parameters_are_refused(home: Path, rng) -> None:
    async with running(home, rng) as device:
        assert (await device.ask("GET", "/v1/nothing")).code == "not-found"
        assert (await device.ask("GET", "/")).code == "not-found"
        assert (await device.ask("GET", "/v2/status")).code == "not-found"
        assert (await device.ask("DELETE", "/v1/status")).code == "usage"
        assert (await device.ask("GET", "/v1/status", query={"verbose": 1})).code == "usage"
        assert (await device.ask("GET", "/v1/events", query={"since": "now"})).code == "usage"


@pytest.mark.parametrize(
    "body",
    [
        b'{"words": 6, "languages": 2}',
        b'{"words": "6"}',
        b'{"words": true}',
        b'{"words": 6, "words": 7}',
        b'{"words": NaN}',
        b'{"words": 1e400}',
        b'{"schema": 2}',
        b"[]",
        b"6",
        b"{",
        b"\xff\xfe",
        b"[" * 10000,
    ],
)
async def test_a_body_of_another_shape_is_refused(home: Path, rng, body: bytes) -> None:
    async with running(home, rng) as device:
        head = f"POST /v1/phrase HTTP/1.1\r\nHost: meshd\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        answer = await device.ask("POST", "/", raw=head + body)
        assert (answer.status, answer.code) == (400, "usage")


async def test_a_refused_body_is_not_repeated(home: Path, rng) -> None:
    async with running(home, rng) as device:
        answer = await device.ask("POST", "/v1/unlock", {"passphrase": 5, "sesame": "open sesame"})
        assert "sesame" not in answer.body["error"]["message"].replace("'sesame'", "")


async def test_a_body_that_is_too_long_is_refused_before_it_is_sent(home: Path, rng) -> None:
    async with running(home, rng) as device:
        size = routes.MAX_BODY + 1
        raw = f"POST /v1/phrase HTTP/1.1\r\nHost: meshd\r\nContent-Length: {size}\r\n\r\n".encode()
        answer = await device.ask("POST", "/", raw=raw)
        assert (answer.status, answer.code) == (413, "usage")
        raw = f"POST /v1/imports HTTP/1.1\r\nHost: meshd\r\nContent-Length: {routes.MAX_IMPORT + 1}\r\n\r\n".encode()
        assert (await device.ask("POST", "/", raw=raw)).status == 413


async def test_headers_without_end_are_refused(home: Path, rng) -> None:
    async with running(home, rng) as device:
        raw = b"GET /v1/version HTTP/1.1\r\nHost: meshd\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"
        assert (await device.exchange(raw)).status == 431


async def test_more_connections_than_allowed_are_told_so(home: Path, rng) -> None:
    async with running(home, rng, config=Config(limits=Limits(local_connections=4))) as device:
        async with contextlib.AsyncExitStack() as stack:
            watchers = [await trio.open_unix_socket(device.socket) for _ in range(4)]
            for watcher in watchers:
                await stack.enter_async_context(watcher)
                await watcher.send_all(request("GET", "/v1/events"))
                assert b"200" in await watcher.receive_some(1000)
            assert (await device.ask("GET", "/v1/version", raw=request("GET", "/v1/version"))).status == 503
        with trio.fail_after(5):
            while (await device.exchange(request("GET", "/v1/version"))).status != 200:
                await trio.lowlevel.checkpoint()


async def test_a_client_that_goes_away_ends_its_waiting_but_not_its_writing(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        stream = await trio.open_unix_socket(device.socket)
        body = {"application": "password", "sites": ["a.example"], "password": "kept"}
        await stream.send_all(request("POST", "/v1/items", body))
        await stream.aclose()
        with trio.fail_after(5):
            while (await device.lookup("a.example")).status != 200:
                await trio.lowlevel.checkpoint()
        assert device.daemon.index is not None
        assert (await device.get("/v1/status"))["items"] == {"password": 1}


async def test_a_bug_is_told_without_its_details(home: Path, rng, caplog) -> None:
    class Broken:
        def get(self, id: str) -> object:
            raise ValueError("the very secret")

    async with running(home, rng, connections=Broken()) as device:
        answer = await device.ask("GET", "/v1/connections/one")
        assert (answer.status, answer.code) == (500, "error")
        assert "the very secret" not in str(answer.body)
        assert "the request connection failed" in caplog.text
        assert (await device.ask("GET", "/v1/version")).status == 200


async def test_a_broken_store_is_an_error_and_not_the_end(home: Path, rng) -> None:
    class Broken:
        def get(self, id: str) -> object:
            import sqlite3

            raise sqlite3.DatabaseError("database disk image is malformed")

    async with running(home, rng, connections=Broken()) as device:
        answer = await device.ask("GET", "/v1/connections/one")
        assert (answer.status, answer.code) == (500, "store")


async def test_the_client_of_meshctl_is_understood(home: Path, rng) -> None:
    async with running(home, rng) as device:
        await device.init()
        identifier = await device.add("github.com", "alice", "s3cret")
        client = Client(str(device.socket), warn=lambda sentence: None)

        def ask() -> None:
            assert client.get(item_path(identifier))["password"] == "s3cret"
            with pytest.raises(MeshError):
                client.get("/v1/items/none")

        await trio.to_thread.run_sync(ask)


STRANGER = """
import os, socket, sys
os.setgid(65534), os.setuid(65534)
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
link.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: meshd\\r\\n\\r\\n")
print(link.recv(65536).decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused_even_where_the_file_system_lets_it_in(home: Path, rng) -> None:
    async with running(home, rng) as device:
        home.chmod(0o755)
        device.socket.chmod(0o666)
        command = [sys.executable, "-c", STRANGER, str(device.socket)]
        done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.DEVNULL)
        said = done.stdout.decode()
        assert said.startswith("HTTP/1.1 403")
        assert '"denied"' in said and '"mesh"' not in said
        assert (await device.ask("GET", "/v1/version")).status == 200


async def test_the_socket_is_the_owners_alone_and_goes_with_the_daemon(home: Path, rng) -> None:
    async with running(home, rng) as device:
        path = device.socket
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as link, pytest.raises(FileNotFoundError):
        link.connect(str(path))
