"""meshctl as a person meets it: whole processes, from start to exit, beside a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.figures import Figure, Section
from bench.lab import Lab, site

AIM = 3.0  # times an empty Python


def run(lab: Lab, quick: bool) -> Section:
    rounds = 8 if quick else 40
    size = 1_000 if quick else 100_000
    small, _ = lab.pair(100)
    large, _ = lab.pair(size)
    commands: dict[str, Sequence[str | Path]] = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "meshctl status": small.command("status"),
        "meshctl password get, 100 items": small.command("password", "get", site(7)),
        f"meshctl password get, {size:,} items": large.command("password", "get", site(size - 7)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for argv in commands.values():
        _run(argv)  # once, so that what they read is in memory
    for _ in range(rounds):
        for name, argv in commands.items():
            seconds[name].append(_run(argv))
    lab.stop(size)
    empty = machine.median(seconds["python -c pass"])
    figures = []
    for name, found in seconds.items():
        ratio = machine.median(found) / empty
        aimed = name != "python -c pass"
        figures.append(
            Figure(
                name,
                machine.median(found) * 1000,
                "ms",
                f"≤ {AIM:g} × an empty Python" if aimed else "",
                ratio <= AIM if aimed else None,
                {"an empty Python": ratio} if aimed else {},
                {"p95": machine.percentile(found, 95) * 1000},
            )
        )
    return Section(
        "whole commands", "the start of the interpreter, and its imports of argparse, json and socket", figures
    )


def _run(argv: Sequence[str | Path]) -> float:
    start = time.monotonic()
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - start
