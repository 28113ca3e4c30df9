"""Meshes whose devices come and go at random end as they must, whatever happened before; a failure names its seed."""

from __future__ import annotations

import pytest

from harness.removal_worlds import World

STEPS = 60


def run(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    world.check()


@pytest.mark.parametrize("seed", range(40))
def test_everybody_who_is_left_agrees_reads_everything_and_no_removed_device_reads_what_came_after(seed: int) -> None:
    run(seed)


@pytest.mark.soak
def test_ten_thousand_meshes() -> None:
    for seed in range(1000, 11000):
        try:
            run(seed)
        except BaseException as exc:
            exc.add_note(f"seed {seed}")
            raise
