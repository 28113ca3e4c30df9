"""Whole meshes, one seed each: everything that `harness.simulation_checks` says holds in all of them.

MESHD_SIM_SEEDS and MESHD_SIM_FROM say how many worlds, and which first: a failure prints them for its world. Without
these as many are played as fit into the time, up to SEEDS, beginning with the same one each day.
"""

from __future__ import annotations

import os
import time

import pytest

from harness.simulation import World

SEEDS = 300
SECONDS = 50.0  # for all parts together
PARTS = 4
ASKED = "MESHD_SIM_SEEDS" in os.environ or "MESHD_SIM_FROM" in os.environ


@pytest.mark.parametrize("part", range(PARTS))
def test_what_was_promised_of_removal_holds_in_every_world(part: int) -> None:
    first = int(os.environ.get("MESHD_SIM_FROM", "0"))
    count = int(os.environ.get("MESHD_SIM_SEEDS", "1" if ASKED else str(SEEDS)))
    deadline = time.monotonic() + SECONDS / PARTS
    played = 0
    for seed in range(first + part, first + count, PARTS):
        World(seed).play()
        played += 1
        if not ASKED and time.monotonic() > deadline:
            break
    assert played or count < PARTS


def test_one_seed_is_one_world() -> None:
    one, other = World(4), World(4)
    for world in (one, other):
        world.play()
    assert one.trace == other.trace and one.raws.keys() == other.raws.keys()
