"""Our client and a portal of 2016: it is sent nothing that stopped the reference, and what it gives is read as it wrote
it. What can't work there is refused before anything is sent."""

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
import trio.testing

from harness import devices as harness
from harness.devices import Device
from harness.lan import MemoryLan
from harness.portal_2016 import Portal2016
from meshd.crypto.sealing import LEAST_KDF
from meshd.daemon.portals import verify as verifying
from meshd.daemon.portals.link import Link
from meshd.daemon.portals.online import Online, online
from meshd.daemon.portals.roster import where_of
from meshd.errors import Denied, Exists, Refused
from meshd.net.srv import Found, Services
from meshd.portal.codec import Dialect
from meshd.portal.messages import (
    ConnectCompleteRequest,
    ConnectCompleteResponse,
    ConnectPendingRequest,
    ConnectPendingResponse,
    ConnectStartRequest,
    ConnectStartResponse,
    ConnectStatusRequest,
    ConnectStatusResponse,
)
from meshd.profile import version
from meshd.profile.claim import Role

ACCOUNT = "alice@example.net"
CAPTURES = Path(__file__).parent.parent / "vectors" / "mesh2016" / "captures"
FILES = {"J": "reference-jan2016.json", "M": "reference-mar2016.json"}


async def no_dns(name: str) -> Found:
    return Found()


@contextlib.asynccontextmanager
async def world(home: Path, kind: str) -> AsyncIterator[tuple[Portal2016, Device, Online]]:
    """An admin and a portal of that version; whatever was said must not have stopped it."""
    portal = Portal2016(version=kind)
    laptop = harness.blank(home, MemoryLan(), "laptop")
    try:
        await harness.found(laptop)
        async with trio.open_nursery() as nursery:
            await nursery.start(portal.run)
            here = online(laptop.daemon, portal.client(), Services(no_dns), kdf=LEAST_KDF)
            await nursery.start(here.run)
            yield portal, laptop, here
            nursery.cancel_scope.cancel()
        assert portal.broken == []
        later = [head for transaction, head in portal.heads if transaction != "Hello"]  # which asks what it speaks
        assert not any(name.startswith(("mesh-", "signature")) for head in later for name in head)
    finally:
        laptop.daemon.close()


def kept(portal: Portal2016, mesh: str) -> bytes:
    return version.from_json(portal.entries[mesh]).claim.vid


@pytest.mark.draft("Hello", "Validate account", "Create account", "Publish", "Get")
@pytest.mark.parametrize("kind", "JM")
async def test_an_account_is_opened_and_its_profile_kept_new_at_a_portal_of_2016(home: Path, kind: str) -> None:
    async with world(home, kind) as (portal, laptop, here):
        await laptop.add("example.net", "alice", "secret")
        await here.portals.add(ACCOUNT, "", None, plain=True)
        one, mesh = here.portals.running[ACCOUNT], laptop.daemon.snapshot.mesh
        await laptop.until(lambda: one.state == "plain" and not one.behind())
        phone = harness.blank(home, MemoryLan(), "phone")
        try:
            await harness.admit(laptop, phone)
            await laptop.until(lambda: kept(portal, mesh) in laptop.daemon.snapshot.heads)
        finally:
            phone.daemon.close()
        portal.said.clear()
        one.rouse()  # it is looked at now and then: what it shows is read, with its line feeds
        with trio.fail_after(20):
            while "Get" not in portal.said:
                await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (one.state, one.error) == ("plain", None)
        assert (portal.created, len(portal.entries)) == (1, 1)  # profiles go there, and no items


@pytest.mark.draft("Create account", "Get")
@pytest.mark.parametrize("kind", "JM")
async def test_an_account_of_others_at_a_portal_of_2016_is_not_replaced(home: Path, kind: str) -> None:
    """That portal says that every name is free, and takes the second as it took the first."""
    found = captured("CreateAccount", kind)["CreateRequest"]
    async with world(home, kind) as (portal, _, here):
        portal._createaccount({"Account": ACCOUNT, "Profile": found["Profile"]})
        with pytest.raises(Exists):
            await here.portals.add(ACCOUNT, "", None, plain=True)
        assert portal.created == 1


def captured(transaction: str, kind: str) -> dict[str, Any]:
    for one in json.loads((CAPTURES / FILES[kind]).read_text())["vectors"]:
        if one["transaction"] == transaction:
            found: dict[str, Any] = json.loads(one["request_body"], strict=False)[transaction]
            return found
    raise AssertionError(transaction)


@pytest.mark.draft("ConnectStart", "ConnectStatus", "ConnectPending", "ConnectComplete")
@pytest.mark.parametrize("kind", "JM")
async def test_the_four_transactions_of_connecting_go_to_a_portal_of_2016_in_its_words(home: Path, kind: str) -> None:
    request = captured("ConnectStart", kind)["ConnectStartRequest"]["SignedRequest"]
    result = captured("ConnectComplete", kind)["ConnectCompleteRequest"]["Result"]
    device = str(request["Identifier"])
    assert result["Identifier"] == device
    async with world(home, kind) as (portal, laptop, here):
        await here.portals.add(ACCOUNT, "", None, plain=True)
        link = Link(
            portal.client(),
            Services(no_dns),
            where_of(ACCOUNT, plain=True),
            key=lambda: laptop.keys.dak,
            now=lambda: int(time.time()),
            rng=secrets.token_bytes,
        )
        await link.hello()
        assert link.dialect is Dialect.PLAIN
        pending = ConnectPendingRequest(account_id=ACCOUNT)
        status = ConnectStatusRequest(account_id=ACCOUNT, device_id=device)
        assert (await link.ask("ConnectPending", pending, ConnectPendingResponse)).pending is None
        start = ConnectStartRequest(account_id=ACCOUNT, signed_request=request)
        await link.ask("ConnectStart", start, ConnectStartResponse)
        (shown,) = (await link.ask("ConnectPending", pending, ConnectPendingResponse)).pending or []
        assert shown["Identifier"] == device
        assert (await link.ask("ConnectStatus", status, ConnectStatusResponse)).result is None
        complete = ConnectCompleteRequest(account_id=ACCOUNT, result=result)
        await link.ask("ConnectComplete", complete, ConnectCompleteResponse)
        assert (await link.ask("ConnectPending", pending, ConnectPendingResponse)).pending == []
        told = (await link.ask("ConnectStatus", status, ConnectStatusResponse)).result
        assert told is not None and told["Identifier"] == device
        # A device of 2016 that asks is none that a mesh of ours could take in.
        portal.waiting[laptop.daemon.snapshot.mesh].append(request)
        assert (await here.requests.pending())["pending"] == []


@pytest.mark.draft("Connect device")
@pytest.mark.parametrize("kind", "JM")
async def test_what_would_stop_a_portal_of_2016_is_refused_before_it_is_sent(home: Path, kind: str) -> None:
    async with world(home, kind) as (portal, laptop, here):
        await here.portals.add(ACCOUNT, "", None, plain=True)
        one, mesh = here.portals.running[ACCOUNT], laptop.daemon.snapshot.mesh
        await laptop.until(lambda: one.state == "plain" and not one.behind())
        phone = harness.blank(home, MemoryLan(), "phone")
        try:
            async with trio.open_nursery() as nursery:
                there = online(phone.daemon, portal.client(), Services(no_dns), kdf=LEAST_KDF)
                await nursery.start(there.run)
                wishes = {"account": ACCOUNT, "plain": True, "name": "phone", "no_passphrase": True}
                joining = await there.connections.create({**wishes, "fingerprint": mesh})
                while not joining.ended:
                    await joining.moved.after(joining.moved.count)
                assert joining.to_json()["error"]["code"] == "refused"  # type: ignore[index]
                nursery.cancel_scope.cancel()
        finally:
            phone.daemon.close()
        with pytest.raises(Refused, match="2016"):
            await here.requests.invite(None, Role.MEMBER, 300, None, None)
        with pytest.raises(Denied, match="2016"):
            await here.portals.close(ACCOUNT)
        assert (await verifying.verify(one))["verdict"] == "unverifiable"
        assert "ConnectStart" not in portal.said
        assert {"Hello", "ValidateAccount", "CreateAccount", "Get", "Status"} >= set(portal.said) - {
            "Publish",
            "ConnectPending",
        }
