"""A drill asks every portal by itself, and says which of them would not bring the mesh back."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from harness import devices as harness
from harness.devices import Device, mesh
from harness.lan import MemoryLan
from harness.portal_http import HttpPortal
from meshd.crypto.keys import DecryptKey, SigningKey
from meshd.daemon import drilling, exposure, masterkeys, recovering
from meshd.daemon.drilling import BUSY, FOUND, MISSING, UNREACHED, WRONG, Peer
from meshd.daemon.portals.roster import Portals
from meshd.daemon.recovering import Wish
from meshd.net.http import Response
from meshd.net.srv import Found, Services
from meshd.profile import recovery, version
from meshd.profile.claim import Kind
from meshd.profile.recovery import Escrowed, Info
from meshd.profile.shares import Scheme
from meshd.store import versions

pytestmark = pytest.mark.draft("Application profile recovery")

MASTER = "master passphrase"
SCHEME = Scheme.simple(2, 3)


async def no_dns(name: str) -> Found:
    return Found()


async def made(device: Device, *, replaces: bool = False) -> tuple[recovering.Prepared, bytes]:
    """New shares that count, and their key."""
    key = await masterkeys.unseal(device.daemon, MASTER)
    prepared, told, check = await recovering.prepare(device.daemon, key, Wish(SCHEME, replaces=replaces))
    await device.daemon.write(lambda pen: recovering.commit(pen, key, prepared))
    return prepared, await drilling.combine(told[:2], "", check)


@contextlib.asynccontextmanager
async def with_portal(home: Path) -> AsyncIterator[tuple[Device, HttpPortal, Portals]]:
    laptop = harness.blank(home, MemoryLan(), "laptop")
    portal = HttpPortal(now=lambda: int(time.time()))
    try:
        await harness.found(laptop)
        async with trio.open_nursery() as nursery:
            await nursery.start(portal.run)
            portals = Portals(laptop.daemon, portal.client(), Services(no_dns))
            await nursery.start(portals.run)
            await portals.add("alice@example.net", "", None, plain=True)
            yield laptop, portal, portals
            nursery.cancel_scope.cancel()
    finally:
        laptop.daemon.close()


async def in_step(device: Device, portals: Portals) -> None:
    for portal in portals.running.values():
        await device.until(lambda portal=portal: portal.in_step)


async def rehearsed(device: Device, key: bytes, portals: Portals) -> drilling.Found:
    return await drilling.drill(device.daemon, key, list(portals.running.values()), ())


def whats(found: drilling.Found) -> list[str]:
    return [source.what for source in found.sources]


async def test_a_drill_fetches_from_every_portal_and_names_what_is_wrong_with_one(home: Path) -> None:
    async with with_portal(home) as (laptop, portal, portals):
        prepared, key = await made(laptop)
        await in_step(laptop, portals)
        found = await rehearsed(laptop, key, portals)
        assert (found.success, whats(found)) == (True, [FOUND, FOUND])
        portal.down = True
        await portals.http.aclose()
        found = await rehearsed(laptop, key, portals)
        assert (found.success, whats(found)) == (True, [FOUND, UNREACHED])
        portal.down = False
        stranger = SigningKey.generate(secrets.token_bytes)
        another = recovery.entry(
            bytes(32),
            Escrowed(stranger, (DecryptKey.generate(secrets.token_bytes),), Info(stranger.udf, 0, SCHEME)),
            secrets.token_bytes,
        )
        portal.answers = gives(another)
        assert whats(await rehearsed(laptop, key, portals)) == [FOUND, WRONG]
        mine = await masterkeys.unseal(laptop.daemon, MASTER)
        again = recovery.entry(
            key,
            Escrowed(mine, (DecryptKey.generate(secrets.token_bytes),), Info(mine.udf, 0, SCHEME)),
            secrets.token_bytes,
        )
        portal.answers = gives(again)
        found = await rehearsed(laptop, key, portals)
        assert (found.success, whats(found)) == (False, [FOUND, WRONG])
        portal.answers = gives(None)
        found = await rehearsed(laptop, key, portals)
        assert (found.success, whats(found)) == (False, [FOUND, MISSING])
        assert prepared.entry.identifier == found.entry


async def test_a_drill_asks_every_other_device_through_its_recovery_door(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        await laptop.until_connected(desktop)
        prepared, key = await made(laptop)
        await desktop.until_same(laptop)
        assert laptop.siblings is not None
        peer = Peer("desktop", tuple(laptop.siblings.addresses(desktop.udf)), True, True)
        found = await drilling.drill(laptop.daemon, key, (), [peer], laptop.host)
        assert (found.success, whats(found)) == (True, [FOUND, FOUND])
        assert [one.kind for one in found.sources] == ["device", "peer"]
        vid = prepared.entry.vid
        await desktop.daemon.transact(lambda c, o: c.execute("UPDATE versions SET raw = NULL WHERE vid = ?", (vid,)))
        found = await drilling.drill(laptop.daemon, key, (), [peer], laptop.host)
        assert (found.success, whats(found)) == (False, [FOUND, MISSING])
        away = Peer("desktop", (), False, True)
        assert whats(await drilling.drill(laptop.daemon, key, (), [away], laptop.host)) == [FOUND, UNREACHED]


def gives(entry: Any) -> Any:
    """Get answered with this entry, or with none."""

    def answer(transaction: str) -> Response | None:
        if transaction != "Get":
            return None
        body = {"GetResponse": {"Status": 201, "Entries": [version.to_json(entry)] if entry else []}}
        return Response(200, json.dumps(body).encode(), [("Content-Type", "application/json;charset=UTF-8")])

    return answer


async def test_shares_that_were_replaced_are_refused_by_a_drill(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)):
        _, old = await made(laptop)
        _, new = await made(laptop, replaces=True)
        with pytest.raises(drilling.NotFound, match="replaced"):
            await drilling.drill(laptop.daemon, old, (), ())
        with pytest.raises(drilling.NotFound, match="not shares of this mesh"):
            await drilling.drill(laptop.daemon, bytes(32), (), ())
        assert (await drilling.drill(laptop.daemon, new, (), ())).success


async def test_a_portal_that_did_not_hear_of_new_shares_is_said_to_lack_their_entry(home: Path) -> None:
    async with with_portal(home) as (laptop, portal, portals):
        old, _ = await made(laptop)
        await in_step(laptop, portals)
        for running in portals.running.values():
            running.scope.cancel()  # it hears nothing from here on
        _, key = await made(laptop, replaces=True)
        found = await rehearsed(laptop, key, portals)
        assert (found.success, whats(found)) == (False, [FOUND, MISSING])
        assert portal.memory.heads(Kind.OFFLINE_ESCROW, old.entry.identifier)  # the one that counts no more


async def test_a_portal_that_is_asked_too_often_is_busy_and_does_not_fail_a_drill(home: Path) -> None:
    async with with_portal(home) as (laptop, portal, portals):
        _, key = await made(laptop)
        await in_step(laptop, portals)
        body = b'{"GetResponse":{"Status":503,"StatusDescription":"Too many requests"}}'
        portal.answers = lambda transaction: (
            Response(429, body, [("Content-Type", "application/json;charset=UTF-8")]) if transaction == "Get" else None
        )
        found = await rehearsed(laptop, key, portals)
        assert (found.success, whats(found)) == (True, [FOUND, BUSY])


async def test_a_vault_whose_items_are_under_keys_that_nobody_escrowed_does_not_open(home: Path) -> None:
    async with mesh(home, "laptop", run=False) as (_, (laptop,)):
        _, key = await made(laptop)
        item = await laptop.add("github.com", "alice", "secret")
        assert (await drilling.drill(laptop.daemon, key, (), ())).success
        raw = versions.raw(laptop.daemon.reader.connection, item.vid)
        assert raw is not None
        mark = exposure.read_mark(raw)
        assert mark
        other = raw.replace(mark, bytes(len(mark)))
        await laptop.daemon.transact(
            lambda c, o: c.execute("UPDATE versions SET raw = ? WHERE vid = ?", (other, item.vid))
        )
        found = await drilling.drill(laptop.daemon, key, (), ())
        assert not found.success
        assert [one.why for one in found.vaults if not one.opens] == [
            "1 of its items are under keys that it does not hold"
        ]
