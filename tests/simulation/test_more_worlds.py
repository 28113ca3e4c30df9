"""The other half of the worlds of `test_worlds.py`."""

from __future__ import annotations

import os

from harness.simulation_share import play


def test_what_was_promised_of_removal_holds_in_the_other_half_of_the_worlds() -> None:
    assert play(1, 2) or "MESHD_SIM_FROM" in os.environ
