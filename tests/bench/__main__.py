"""`make bench`: what the two programs can do, beside what the machine can do and what comparable programs do.

Everything is measured in this one run, for the speed of a machine changes from hour to hour; so ratios count, and
nothing here passes or fails. ARGS="--quick" takes about a minute, ARGS="--only first-sync" one bench alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import (
    authority,
    change,
    commands,
    figures,
    first_sync,
    idle,
    log,
    log_mirror,
    log_portal,
    machine,
    pairing,
    portal,
    portal_catch_up,
    portal_flat,
    removal,
)
from bench.figures import Section
from bench.lab import Lab
from harness.daemons import Household

BENCHES: dict[str, Callable[[Lab, bool], Section]] = {
    "first-sync": first_sync.run,
    "change": change.run,
    "vault-size": change.sizes,
    "commands": commands.run,
    "idle": idle.run,
    "pairing": pairing.run,
    "authority": authority.run,
    "removal": removal.run,
    "portal": portal.run,
    "portal-flat": portal_flat.run,
    "portal-catch-up": portal_catch_up.run,
    "log": log.run,
    "log-portal": log_portal.run,
    "log-mirror": log_mirror.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Speed, as figures and ratios measured in one run.")
    parser.add_argument("--quick", action="store_true", help="small counts: does it run, in about a minute")
    parser.add_argument("--only", metavar="NAME", action="append", choices=BENCHES, help=f"one of {', '.join(BENCHES)}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything as JSON too")
    parser.add_argument("--nice", metavar="N", type=int, default=0, help="as root on a shared machine: -10 goes first")
    args = parser.parse_args()
    machine.favour(os.getpid(), args.nice)  # and whatever it starts
    about, floors = machine.describe(), machine.floors()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print("at best, ms: " + ", ".join(f"{name} {value:.3f}" for name, value in floors.items()))
    sections = []
    with Household() as house:
        lab = Lab(house, args.nice)
        for name in args.only or BENCHES:
            start = time.monotonic()
            with machine.Foreign() as foreign:
                section = BENCHES[name](lab, args.quick)
            section = replace(section, foreign_cores=foreign.cores, seconds=round(time.monotonic() - start, 1))
            sections.append(section)
            print(figures.table(section), flush=True)
    if args.json:
        args.json.write_text(figures.document(about, floors, sections))
    return 0


if __name__ == "__main__":
    sys.exit(main())
