"""`meshd portal admin peer`: a key says by its form what it is for, and what is not clear is refused."""

from __future__ import annotations

import json

import pytest
import trio

from harness.log_world import key
from harness.portal_engine import engine
from meshd.daemon.portal import admin, main, peers
from meshd.errors import BadRequest, FormatError, NotFound
from meshd.portal.outcomes import Policy
from meshd.tlog.cosignature import Cosigner
from meshd.tlog.note import Signer

LOG = Signer("other.example/mmm-log", key("log")).vkey
WITNESS = Cosigner("other.example/mmm-witness", key("witness")).vkey
TRANSFER = Signer("other.example/mmm-peer", key("peer")).vkey


def asking(*keys: str, grant: str = "", url: str = "", name: str = "other.example"):
    return {"command": "peer-add", "name": name, "url": url, "grant": grant, "keys": list(keys)}


async def test_a_peer_is_known_by_its_keys_until_it_is_removed(home):
    with engine(home / "portal.db") as portal:
        policy = Policy("example.net")
        await admin.perform(
            portal.sequencer, policy, asking(LOG, WITNESS, TRANSFER, grant="full", url="https://other.example/w/")
        )
        (found,) = peers.listed(home / "portal.db")
        assert (found["peer"], found["grant"], found["url"]) == (
            "other.example/mmm-log", "full", "https://other.example/w",
        )  # fmt: skip
        assert (found["log_keys"], found["witness_keys"]) == ([LOG], [WITNESS])
        assert portal.sequencer.view.peer_grant(key("peer").udf) == "full"
        await admin.perform(portal.sequencer, policy, asking(TRANSFER, grant="leaves"))
        assert portal.sequencer.view.peer_grant(key("peer").udf) == "leaves"
        await admin.perform(portal.sequencer, policy, {"command": "peer-remove", "name": "other.example"})
        assert peers.listed(home / "portal.db") == []
        assert portal.sequencer.view.peer_grant(key("peer").udf) is None
        with pytest.raises(NotFound):
            await admin.perform(portal.sequencer, policy, {"command": "peer-remove", "name": "other.example"})


@pytest.mark.parametrize(
    "asked",
    [
        asking(),
        asking(Signer("third.example/mmm-log", key("log")).vkey),
        asking(TRANSFER),
        asking(LOG, grant="full"),
        asking(LOG, url="other.example"),
        asking(TRANSFER, grant="all"),
        asking(LOG[:-4]),
        asking(LOG, name="not a domain"),
    ],
    ids=["no-key", "other-name", "no-grant", "no-transfer-key", "no-url", "other-grant", "no-vkey", "no-domain"],
)
async def test_what_is_not_clear_is_refused(home, asked):
    with engine(home / "portal.db") as portal, pytest.raises((BadRequest, FormatError)):
        await admin.perform(portal.sequencer, Policy("example.net"), asked)
    assert peers.listed(home / "portal.db") == []


def test_the_commands_work_without_a_running_portal(home, capsys):
    async def make() -> None:
        with engine(home / "portal.db"):
            pass

    trio.run(make)
    data = ["--data", str(home)]
    assert main.main(["admin", "peer", "add", "other.example", "--key", LOG, *data]) == 0
    assert main.main(["admin", "peer", "list", "--json", *data]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["peers"][0]["peer"] == "other.example/mmm-log"
    assert main.main(["admin", "peer", "remove", "other.example", *data]) == 0
    assert main.main(["admin", "peer", "list", *data]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "There are no peers."
