"""The demo runs to its end, says what it should to whom it should, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

DEMO = Path(__file__).parents[1] / "demo" / "demo.py"


def test_the_demo_ends_well_says_what_to_do_next_and_leaves_nothing(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO)],
        env={**os.environ, "TMPDIR": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout, "colours where there is no terminal"
    for said in (
        "laptop$ meshctl init --name laptop",
        "desktop joined as member",
        "phone$ meshctl connect",
        "version 1 of 2, this one counts",
        "kill -9 %meshd",
        "meshctl connect CODE --name desktop",
    ):
        assert said in done.stdout, said
    assert "✗" not in done.stdout
    assert list(home.iterdir()) == [], "files were left"
    assert str(home) not in _command_lines(), "a process was left"


def test_a_demo_that_is_broken_off_stops_its_daemons(home: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, str(DEMO)], env={**os.environ, "TMPDIR": str(home)}, stdout=subprocess.PIPE, text=True
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("made mesh"):
            break
    demo.terminate()
    demo.communicate(timeout=60)
    assert demo.returncode == 143
    assert list(home.iterdir()) == []
    assert str(home) not in _command_lines()


def _command_lines() -> str:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                pass  # it ended meanwhile, or is somebody else's
    return "\n".join(found)
