"""A share of the simulated worlds for one file of tests: from seed on, in steps, as many as the time has room for.

MESHD_SIM_SEEDS and MESHD_SIM_FROM say how many worlds, and which first; then all of these are played, in whatever time.
"""

from __future__ import annotations

import os
import time

from harness.simulation import World

SEEDS = 300
SECONDS = 45.0  # for one file


def play(part: int, parts: int) -> int:
    """The worlds of one of several files; how many were played. Of few that are asked for each file plays all."""
    asked = "MESHD_SIM_SEEDS" in os.environ or "MESHD_SIM_FROM" in os.environ
    first = int(os.environ.get("MESHD_SIM_FROM", "0"))
    count = int(os.environ.get("MESHD_SIM_SEEDS", "1" if asked else str(SEEDS)))
    deadline = time.monotonic() + SECONDS
    played = 0
    for seed in range(first, first + count)[part::parts]:
        World(seed).play()
        played += 1
        if not asked and time.monotonic() > deadline:
            break
    return played
