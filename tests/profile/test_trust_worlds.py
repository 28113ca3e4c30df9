"""Random worlds: whatever order versions arrive in, the verdicts are those of the definition.

MESHD_WORLDS sets how many worlds are played, MESHD_WORLDS_FROM the first seed; a failure names its seed.
"""

from __future__ import annotations

import os
from collections import Counter

from harness.authority_check import check
from harness.authority_worlds import World

FIRST = int(os.environ.get("MESHD_WORLDS_FROM", "0"))
COUNT = int(os.environ.get("MESHD_WORLDS", "300"))


def test_every_order_gives_the_verdicts_of_the_definition() -> None:
    seen: Counter[str] = Counter()
    for seed in range(FIRST, FIRST + COUNT):
        seen += check(seed)
    if COUNT >= 100:  # the worlds are worth playing
        for what in ("honest applied", "honest quarantined", "evil applied", "evil quarantined", "rogue quarantined"):
            assert seen[what] > COUNT // 10, seen


def test_a_seed_makes_the_same_world_again() -> None:
    assert [v.vid for v in World(7).all] == [v.vid for v in World(7).all]
