"""The index keeps count of its entries as they come, change and go."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from harness.devices import Device, mesh
from meshd.daemon.index import Tally


async def tally(device: Device) -> dict[Tally, int]:
    """What the index says, which must be what counting its entries says."""
    index = await device.daemon.fresh_index()
    counted = Counter(Tally(one.container, one.tag, one.deleted, one.heads > 1) for one in index.entries.values())
    found = {sort: count for sort, count in index.tally.items() if count}
    assert found == counted
    return found


def passwords(found: dict[Tally, int]) -> dict[tuple[bool, bool], int]:
    """(deleted, in conflict) → how many logins."""
    return {(s.deleted, s.in_conflict): count for s, count in found.items() if s.tag.startswith("Password")}


async def test_entries_are_counted_as_they_come_change_and_go(home: Path) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        assert passwords(await tally(laptop)) == {}
        made = [await laptop.add(f"{place}.example", "alice", "secret") for place in range(3)]
        assert passwords(await tally(laptop)) == {(False, False): 3}
        await laptop.delete(made[0].identifier)
        await laptop.edit(made[1].identifier, "another")
        assert passwords(await tally(laptop)) == {(False, False): 2, (True, False): 1}
        await desktop.until_same(laptop)
        desktop.host.cut()
        await desktop.edit(made[2].identifier, "from the desktop")
        await laptop.edit(made[2].identifier, "from the laptop")
        desktop.host.heal()
        for one in (laptop, desktop):
            await one.until(lambda one=one: len(one.heads(made[2].identifier)) == 2)
            assert passwords(await tally(one)) == {(False, False): 1, (False, True): 1, (True, False): 1}
        await laptop.edit(made[2].identifier, "settled")
        assert passwords(await tally(laptop)) == {(False, False): 2, (True, False): 1}
