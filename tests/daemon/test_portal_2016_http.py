"""The captured sessions of 2016 clients, byte for byte over a real connection: the right answers come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import reader2016
from harness.portal_server import portal_server
from meshd.daemon.portal import admin

pytestmark = pytest.mark.draft(
    "Hello",
    "ValidateAccount",
    "CreateAccount",
    "Publish",
    "Get",
    "ConnectStart",
    "ConnectStatus",
    "ConnectPending",
    "ConnectComplete",
)

CAPTURES = Path(__file__).parent.parent / "vectors" / "mesh2016" / "captures"
VERSIONS = {"J": "reference-jan2016.json", "M": "reference-mar2016.json"}
# What we answer where the reference of 2016 was wrong (protocol-2016.md §8 [R]).
TAKEN = {
    "Status": 201,
    "Valid": False,
    "Minimum": 1,
    "InvalidCharacters": ".,:;{}()[]<>?|\\@#",
    "Reason": "That name is not available",
}
WRONG = {"J": {4: TAKEN, 24: {"Status": 401}, 27: {"Status": 409}}, "M": {4: TAKEN, 26: {"Status": 409}}}
DIED = {"J": 28}


def capture(version: str) -> dict[str, Any]:
    return json.loads((CAPTURES / VERSIONS[version]).read_text())


def flat(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: flat(value) for name, value in tree.items() if name != "StatusDescription"}
    if isinstance(tree, list):
        return [flat(value) for value in tree]
    return tree.replace("\n", "") if isinstance(tree, str) else tree


async def replay(running: Any, version: str) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    """(our members, theirs) of every exchange, each sent with the very head that the client sent."""
    found = {}
    client = running.client()
    for one in capture(version)["vectors"]:
        answer = await client.send(one["request_head"].encode() + one["request_body"].encode())
        assert answer.status == 200, one["n"]
        reader2016.read_response(one["transaction"], answer.body, http_status=200, version=version)
        ((_, ours),) = json.loads(answer.body).items()
        theirs = json.loads(one["response_body"], strict=False) if one["response_body"] else {"": {}}
        found[one["n"]] = flat(ours), flat(next(iter(theirs.values())))
    return found


@pytest.mark.parametrize("version", "JM")
async def test_captured_sessions_get_the_right_answers_over_http(home, version):
    async with portal_server(home, domain="localhost", compat="full") as running:
        for n, (ours, theirs) in (await replay(running, version)).items():
            if n == DIED.get(version):
                assert [*ours["Entries"][0]] == ["OfflineEscrowEntry"]
            else:
                for name in ("LastWriteTime", "LastCheckpointTime", "NextCheckpointTime", "CheckpointValue"):
                    ours.pop(name, None)  # of Status, which 2016 left empty
                assert ours == WRONG[version].get(n, theirs), n
    # And again, by a portal that has just started on what the first one kept.
    async with portal_server(home, domain="localhost", compat="full") as running:
        answers = await replay(running, version)
        hello = next(ours for ours, _ in answers.values())
        assert hello["Status"] == 201
        published = [one for one in capture(version)["vectors"] if one["transaction"] == "Publish"]
        assert {answers[one["n"]][0]["Status"] for one in published} <= {201, 401, 409}


async def test_without_compat_a_2016_client_changes_nothing(home):
    async with portal_server(home, domain="localhost") as running:
        await replay(running, "M")
        assert running.portal.sequencer.view.last_index() == 0


@pytest.mark.parametrize("version", "JM")
async def test_the_logs_of_a_2016_portal_are_taken_over(home, version):
    logs = capture(version)
    asked = {"command": "import", "mesh": logs["mesh_jlog"], "accounts": logs["portal_jlog"]}
    async with portal_server(home) as running:
        sequencer, policy = running.portal.sequencer, running.portal.service.policy
        answer = await admin.perform(sequencer, policy, asked)
        assert answer["imported"] > 0 and sequencer.view.account("alice@example.net") is not None
        kept = sequencer.view.last_index()
        assert kept > 0
        await admin.perform(sequencer, policy, asked)
        assert sequencer.view.last_index() == kept
        alice = sequencer.view.account("alice@example.net")
        assert alice is not None and alice.old and sequencer.view.profile_2016(alice.mesh) is not None
