"""Whole meshes, one seed each: everything that `harness.simulation_checks` says holds in all of them.

A failure prints its seed, and how that world is played again. The other half is in `test_more_worlds.py`, for files are
what runs side by side.
"""

from __future__ import annotations

import os

from harness.simulation import World
from harness.simulation_share import play


def test_what_was_promised_of_removal_holds_in_every_world() -> None:
    assert play(0, 2) or "MESHD_SIM_SEEDS" in os.environ


def test_one_seed_is_one_world() -> None:
    one, other = World(4), World(4)
    for world in (one, other):
        world.play()
    assert one.trace == other.trace and one.raws.keys() == other.raws.keys()
