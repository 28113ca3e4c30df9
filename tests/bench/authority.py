"""What judging costs: long histories of profiles, and verdicts on items."""

from __future__ import annotations

from bench.figures import Figure, Section
from bench.lab import Lab
from harness import authority_perf


def run(lab: Lab, quick: bool) -> Section:
    found = authority_perf.measure(1_000, 10_000) if quick else authority_perf.measure()
    figures = [Figure(what, value, "" if what.startswith("verdicts") else "s") for what, value in found.items()]
    return Section("authority", "Python over sets and dictionaries, on one core", figures)
