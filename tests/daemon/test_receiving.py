"""The account of what a peer announced, and devices that send what can't be believed."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from harness.devices import mesh
from meshd.daemon.receiving import Announced
from meshd.daemon.syncing import STRIKES
from meshd.sync.messages import Change


def row(seq: int, name: str) -> Change:
    return Change(seq, 8, name, name.encode().ljust(32, b"."), 1, 1, 100, "signer")


def test_the_cursor_is_the_last_row_of_which_everything_is_held_and_says_which_it_was() -> None:
    announced = Announced(3)
    rows = [row(5, "held"), row(6, "a"), row(8, "b")]
    announced.add(rows, {rows[0].vid})
    assert announced.reach([]) == (5, rows[0].vid)
    assert announced.reach([rows[1].vid]) == (6, rows[1].vid)
    assert announced.advance() and (announced.durable, announced.last) == (5, rows[0].vid)
    announced.settle([row.vid for row in rows])
    assert announced.advance() and (announced.durable, announced.last) == (8, rows[2].vid)


def test_a_version_that_was_not_taken_is_remembered_by_where_it_stands() -> None:
    announced = Announced(0)
    rows = [row(1, "a"), row(2, "b"), row(3, "c")]
    announced.add(rows, set())
    assert announced.skipped is None
    announced.skip({rows[1].vid})
    announced.skip({rows[0].vid})
    assert announced.skipped == 2, "the first that was found; the cursor is not moved once there is one"
    announced.settle([one.vid for one in rows])
    assert announced.advance() and announced.durable == 3, "it goes on all the same"


@pytest.mark.parametrize("caller", ["laptop", "desktop"])
async def test_a_device_that_lied_too_often_is_left_alone_also_when_it_calls_again(home: Path, caller: str) -> None:
    async with mesh(home, "laptop", "desktop") as (_, (laptop, desktop)):
        await laptop.until_connected(desktop)
        assert laptop.siblings is not None and desktop.siblings is not None
        liar, judge = (laptop, desktop) if caller == "laptop" else (desktop, laptop)
        assert judge.siblings is not None and liar.siblings is not None
        judge.siblings.lies[liar.udf] = STRIKES, trio.current_time()
        judge.siblings.connections[liar.udf].scope.cancel()
        await judge.until(lambda: liar.udf not in judge.siblings.connections)  # type: ignore[union-attr]
        liar.siblings.known[judge.udf].nudge()
        made = await liar.add("more.example", "alice", "x")
        with trio.move_on_after(3):
            await judge.until(lambda: made.vid in judge.holds())
        assert made.vid not in judge.holds()
