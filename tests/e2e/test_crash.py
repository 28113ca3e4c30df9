"""kill -9 in the middle of writing, on both sides: what was acknowledged is there, and the stores pass their check.

MESHD_KILL_ROUNDS and MESHD_KILL_SEED choose how often and which instants; a failure names its seed and round.
"""

from __future__ import annotations

import os

import pytest

from harness.kill_rounds import play

pytestmark = pytest.mark.e2e

ROUNDS = int(os.environ.get("MESHD_KILL_ROUNDS", "20"))
SEED = int(os.environ.get("MESHD_KILL_SEED", "1"))


def test_what_a_device_acknowledged_survives_kill_9_at_any_instant_on_both_devices() -> None:
    tally = play(ROUNDS, SEED)
    assert tally["rounds"] == ROUNDS
    assert tally["kills"] >= ROUNDS
    assert tally["writes"] > ROUNDS  # the kills did hit something
