"""Inviting and joining by the local API: two devices, one code, one password."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from harness.lan import MemoryLan
from harness.local_api import MASTER, Device, good, running
from meshd.crypto.sealing import LEAST_KDF
from meshd.daemon.connecting import Connections
from meshd.daemon.context import Daemon
from meshd.daemon.inviting import Invitations
from meshd.daemon.siblings import Siblings


@contextlib.asynccontextmanager
async def device(home: Path, rng, lan: MemoryLan, name: str) -> AsyncIterator[Device]:
    """A whole device on a LAN in memory: everything that the local API reaches."""
    host = lan.host(name)
    async with contextlib.AsyncExitStack() as stack:
        made = await stack.enter_async_context(running(home / name, rng, network=host))
        daemon = made.daemon
        siblings = Siblings(daemon, host)
        parts = {
            "siblings": siblings,
            "invitations": Invitations(daemon, host, lambda: siblings.port),
            "connections": Connections(daemon, host, lambda: siblings.connections, kdf=LEAST_KDF),
        }
        for part, value in parts.items():
            object.__setattr__(made.app, part, value)
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(host.run)
        for part in ("invitations", "connections"):
            await nursery.start(parts[part].run)  # type: ignore[attr-defined]
        nursery.start_soon(when_connected, daemon, siblings)
        yield made
        nursery.cancel_scope.cancel()


async def when_connected(daemon: Daemon, siblings: Siblings) -> None:
    while not daemon.snapshot.connected or daemon.tier1 is None:
        await daemon.changed.after(daemon.changed.count)
    await siblings.run()


async def ended(device: Device, path: str, ends: tuple[str, ...]) -> dict:
    """Long-poll a resource until one of these states."""
    now = await device.get(path)
    while now["state"] not in ends:
        now = await device.get(path, wait=10, state=now["state"])
    return now


async def test_two_devices_one_code_one_password(home: Path, rng) -> None:
    lan = MemoryLan()
    async with device(home, rng, lan, "laptop") as laptop, device(home, rng, lan, "desktop") as desktop:
        with trio.fail_after(30):
            await laptop.init("laptop")
            identifier = await laptop.add("github.com", "alice", "s3cret")
            invitation = await laptop.post("/v1/invitations", {})
            body = {"name": "desktop", "code": invitation["code"], "passphrase": "desktop secret"}
            connection = await desktop.post("/v1/connections", body)
            end = await ended(desktop, f"/v1/connections/{connection['id']}", ("done", "failed"))
            assert end["state"] == "done", end
            here = await ended(laptop, f"/v1/invitations/{invitation['id']}", ("admitted", "failed"))
            assert here["device"]["name"] == "desktop"
            await desktop.get("/v1/wait", peer="laptop", timeout=20)
            assert good(await desktop.lookup("github.com"))["password"] == "s3cret"
            await desktop.ask("PATCH", f"/v1/items/{identifier.replace('/', '%2F')}", {"password": "changed"})
            await laptop.get("/v1/wait", peer="desktop", timeout=20)
            await desktop.get("/v1/wait", synced=True, timeout=20)
            assert good(await laptop.lookup("github.com"))["password"] == "changed"
            names = [(one["name"], one["role"]) for one in (await laptop.get("/v1/devices"))["devices"]]
            assert names == [("laptop", "admin"), ("desktop", "member")]
            await desktop.post("/v1/lock", {})
            await desktop.post("/v1/unlock", {"passphrase": "desktop secret"})


async def test_an_invitation_is_looked_at_and_cancelled(home: Path, rng) -> None:
    async with device(home, rng, MemoryLan(), "laptop") as laptop:
        await laptop.init()
        made = await laptop.post("/v1/invitations", {"role": "relay", "words": 3})
        path = f"/v1/invitations/{made['id']}"
        assert (await laptop.get(path))["state"] == "open"
        assert (await laptop.get(path, wait=0, state="open"))["state"] == "open"
        assert (await laptop.ask("POST", path + "/answer", {"accept": True})).code == "usage"
        await laptop.post("/v1/lock", {})
        assert good(await laptop.ask("DELETE", path))["state"] == "cancelled"
        assert (await laptop.ask("GET", "/v1/invitations/none")).code == "not-found"
        assert (await laptop.ask("GET", "/v1/connections/none")).code == "not-found"


async def test_who_waits_for_a_resource_hears_of_its_next_state(home: Path, rng) -> None:
    async with device(home, rng, MemoryLan(), "laptop") as laptop:
        await laptop.init()
        made = await laptop.post("/v1/invitations", {})
        path = f"/v1/invitations/{made['id']}"
        heard: list[str] = []

        async def wait() -> None:
            heard.append((await laptop.get(path, wait=55, state="open"))["state"])

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await laptop.ask("DELETE", path)
        assert heard == ["cancelled"]


async def test_while_a_device_joins_no_mesh_is_made_under_it(home: Path, rng) -> None:
    lan = MemoryLan()
    async with device(home, rng, lan, "desktop") as desktop:
        body = {"name": "desktop", "code": "7-orbit-walnut", "passphrase": "desktop secret"}
        begun = await desktop.post("/v1/connections", body)
        request = {"name": "desktop", "passphrase": "p", "master_passphrase": MASTER}
        answer = await desktop.ask("POST", "/v1/mesh", request)
        assert (answer.status, answer.code) == (409, "exists")
        assert good(await desktop.ask("DELETE", f"/v1/connections/{begun['id']}"))["state"] == "cancelled"
        await desktop.init()
        await desktop.add("github.com")
        assert (await desktop.ask("POST", "/v1/connections", body)).code == "exists"
