"""One item with more heads than anybody makes by accident, and one caller with more connections."""

from __future__ import annotations

from pathlib import Path

import trio

from harness.devices import mesh
from harness.mesh_world import found
from meshd.daemon import vaults
from meshd.daemon.siblings import UNPROVEN_EACH
from meshd.profile.apps import password
from meshd.store import versions
from meshd.sync import knock


def test_an_edit_stands_over_any_number_of_heads() -> None:
    laptop = found()
    item = laptop.add("github.com", secret="first")
    apart = [laptop.copy() for _ in range(40)]
    for number, one in enumerate(apart):
        one.edit(item, f"apart {number % 30}")
        laptop.pull(one)
    assert versions.count_heads(laptop.connection, 8, item) == 40
    heads = laptop.heads(item)
    assert len(heads) == 40 and len(vaults.distinct(heads)) == 30
    laptop.edit(item, "settled")
    assert [password.view(head.item)["password"] for head in laptop.heads(item)] == ["settled"]


async def test_a_stranger_with_many_connections_takes_nobody_elses_place(home: Path) -> None:
    async with mesh(home, "laptop", run=True) as (lan, (laptop,)):
        assert laptop.siblings is not None
        where = f"{laptop.host.ip}:{laptop.siblings.port}"
        stranger, other = lan.host("stranger"), lan.host("other")
        held = [await stranger.dial(where) for _ in range(UNPROVEN_EACH)]
        for stream in held:
            assert await stream.receive_some(64)
        assert await (await stranger.dial(where)).receive_some(64) == b""
        assert len(await (await other.dial(where)).receive_some(64)) == knock.CHALLENGE_SIZE
        for stream in held:
            await stream.aclose()
        with trio.fail_after(20):
            while not await (await stranger.dial(where)).receive_some(64):
                await trio.sleep(0.05)
