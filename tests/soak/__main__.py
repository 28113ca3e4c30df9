"""`make soak`: the long counts. kill -9 rounds on devices and on a portal, worlds of authority, simulated meshes,
portals' logs, every property at full count.

    make soak                              everything, for hours
    make soak ARGS="--minutes 30"          a share of everything
    make soak ARGS="--only kills --rounds 500 --seed 7"

Each part says how far it is and when it will be done. A failure prints the seed that makes it happen again, and the
command for it; the other parts still run, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from harness import authority_check, kill_rounds, log_world, portal_kills, simulation

ROOT = Path(__file__).parents[2]
ROUNDS, WORLDS = 500, 100_000
ROUNDS_EACH = 50  # rounds with one pair of devices or one portal, then new ones
WORLDS_EACH = 200  # worlds that one process plays at a time
LAST_FILE = 60.0  # seconds over time that a file of tests may take to end
MESHES = 10_000
LOGS = 10_000
LOGS_EACH = 50  # lives that one process plays at a time
MESHES_EACH = 10  # simulated meshes that one process plays at a time
PARTS = ("kills", "portal-kills", "worlds", "meshes", "logs", "properties")
# of --minutes
SHARES = {"kills": 0.25, "portal-kills": 0.1, "worlds": 0.2, "meshes": 0.2, "logs": 0.05, "properties": 0.2}


class Progress:
    """One line now and then: how much of how many, and how long it will still take."""

    def __init__(self, what: str, total: int, seconds: float | None) -> None:
        self._what, self.total = what, total
        self._began = time.monotonic()
        self._deadline = None if seconds is None else self._began + seconds
        self._told = self._began

    def goes_on(self, done: int) -> bool:
        """Tell where we are, every ten seconds; False when the time is over."""
        now = time.monotonic()
        if done and (now - self._told >= 10 or done == self.total):
            self._told = now
            left = (now - self._began) / done * (self.total - done)
            if self._deadline is not None:
                left = min(left, max(self._deadline - now, 0))
            print(f"  {self._what}: {done} of {self.total}, {_span(left)} to go", flush=True)
        return self._deadline is None or now < self._deadline


def kills(arguments: argparse.Namespace, seconds: float | None) -> bool:
    """Rounds of kill -9, each pair of devices with the next seed."""
    done = _rounds("kills", kill_rounds.play, arguments, seconds)
    if done is not None:
        print(f"  {done['rounds']} rounds, {done['writes']} writes, nothing lost", flush=True)
    return done is not None


def portal_rounds(arguments: argparse.Namespace, seconds: float | None) -> bool:
    """Rounds of kill -9 on a portal under load, each portal with the next seed."""

    def play(count: int, seed: int, *, told: Callable[[int], bool]) -> dict[str, int]:
        with tempfile.TemporaryDirectory(prefix="portal-kills-") as directory:
            return portal_kills.play(Path(directory) / "portal", count, seed, told)

    done = _rounds("portal-kills", play, arguments, seconds)
    if done is not None:
        print(f"  {done['rounds']} rounds, {done['versions']} versions answered, none lost or in half", flush=True)
    return done is not None


def _rounds(
    part: str, play: Callable[..., dict[str, int]], arguments: argparse.Namespace, seconds: float | None
) -> Counter[str] | None:
    """So many rounds in lots of ROUNDS_EACH; the sums of what they came to, None after a failure, which was told."""
    progress = Progress("rounds of kill -9", arguments.rounds, seconds)
    done: Counter[str] = Counter(rounds=0)
    seed = arguments.seed
    while done["rounds"] < arguments.rounds and progress.goes_on(done["rounds"]):
        before, count = done["rounds"], min(ROUNDS_EACH, arguments.rounds - done["rounds"])
        try:
            done += Counter(play(count, seed, told=lambda now, before=before: progress.goes_on(before + now)))  # type: ignore[misc]
        except Exception as exc:
            _report(exc)
            print(f'  again: make soak ARGS="--only {part} --rounds {count} --seed {seed}"', flush=True)
            return None
        seed += 1
    return done


def worlds(arguments: argparse.Namespace, seconds: float | None) -> bool:
    """Random worlds against the definition of authority, on all processors."""
    again = "  again: MESHD_WORLDS=1 MESHD_WORLDS_FROM=SEED pytest tests/profile/test_trust_worlds.py"
    starts = range(arguments.seed, arguments.seed + arguments.worlds, WORLDS_EACH)
    done = _on_all_processors(Progress("worlds", arguments.worlds, seconds), starts, 8, _play_worlds, again)
    if done is not None:
        print(f"  {done} worlds, all as the definition says", flush=True)
    return done is not None


def meshes(arguments: argparse.Namespace, seconds: float | None) -> bool:
    """Whole meshes, simulated in one seed each: partitions, crashes, backups, thieves. On all processors."""
    starts = range(arguments.seed, arguments.seed + arguments.meshes, MESHES_EACH)
    done = _on_all_processors(Progress("meshes", arguments.meshes, seconds), starts, 4, _play_meshes)
    if done is not None:
        print(f"  {done} meshes, every promise kept", flush=True)
    return done is not None


def logs(arguments: argparse.Namespace, seconds: float | None) -> bool:
    """Honest logs of portals, with crashes, restores and slow witnesses: nobody accuses one. On all processors."""
    starts = range(arguments.seed, arguments.seed + arguments.logs, LOGS_EACH)
    done = _on_all_processors(Progress("lives of logs", arguments.logs, seconds), starts, 4, _play_logs)
    if done is not None:
        print(f"  {done} lives of logs, none accused", flush=True)
    return done is not None


def _on_all_processors(
    progress: Progress, starts: range, wave: int, play: Callable[[int], int], again: str = ""
) -> int | None:
    """Play the lots that begin at these seeds, a wave at a time; how many were played, None if a promise was broken:
    the failure names its seed."""
    done = 0
    with ProcessPoolExecutor() as pool:
        for place in range(0, len(starts), wave):
            try:
                done += sum(pool.map(play, starts[place : place + wave]))
            except AssertionError as exc:
                _report(exc)
                if again:
                    print(again)
                return None
            if not progress.goes_on(min(done, progress.total)):
                break
    return done


def _play_worlds(first: int) -> int:
    for seed in range(first, first + WORLDS_EACH):
        authority_check.check(seed)
    return WORLDS_EACH


def _play_logs(first: int) -> int:
    for seed in range(first, first + LOGS_EACH):
        log_world.honest_life(seed)
    return LOGS_EACH


def _play_meshes(first: int) -> int:
    for seed in range(first, first + MESHES_EACH):
        try:
            simulation.World(seed).play()
        except Exception as exc:
            raise AssertionError(f"{type(exc).__name__}: {exc}; {simulation.again(seed)}") from exc
    return MESHES_EACH


def properties(arguments: argparse.Namespace, seconds: float | None) -> bool:
    """The test suite with every property tried thousands of times, and the tests that are too long for each day."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "soak or not soak", "--ignore", "tests/e2e"]
    files = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py") if "e2e" not in path.parts)
    progress = Progress("files of tests", len(files), seconds)
    well = True
    for done, file in enumerate(files):
        if not progress.goes_on(done):
            print(f"  time is over: {len(files) - done} files were not reached", flush=True)
            return well
        try:
            ran = subprocess.run(
                [*command, str(file)],
                cwd=ROOT,
                env={**os.environ, "MESHD_PROPERTIES": "soak"},
                capture_output=True,
                text=True,
                timeout=None if seconds is None else max(began + seconds + LAST_FILE - time.monotonic(), 1),
            )
        except subprocess.TimeoutExpired:
            print(f"  time is over: {file} and {len(files) - done - 1} more did not get to their end", flush=True)
            return well
        if ran.returncode not in (0, 5):  # 5: no tests
            well = False
            print(ran.stdout[-6000:] + ran.stderr[-2000:], flush=True)  # hypothesis prints the blob that repeats it
    progress.goes_on(len(files))
    return well


def _report(exc: BaseException) -> None:
    print(f"✗ {type(exc).__name__}: {str(exc)[:4000]}")
    for note in getattr(exc, "__notes__", ()):
        print(f"  {note}")


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


RUN: dict[str, Callable[[argparse.Namespace, float | None], bool]] = {
    "kills": kills,
    "portal-kills": portal_rounds,
    "worlds": worlds,
    "meshes": meshes,
    "logs": logs,
    "properties": properties,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="this part only; repeatable")
    parser.add_argument("--minutes", type=float, metavar="M", help="share so much time among the parts")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"of kill -9 (default {ROUNDS})")
    parser.add_argument("--worlds", type=int, default=WORLDS, metavar="N", help=f"of authority (default {WORLDS})")
    parser.add_argument("--meshes", type=int, default=MESHES, metavar="N", help=f"simulated (default {MESHES})")
    parser.add_argument("--logs", type=int, default=LOGS, metavar="N", help=f"lives of portals' logs (default {LOGS})")
    parser.add_argument("--seed", type=int, metavar="S", help="the first seed (default: any)")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(2**31)
    parts = [part for part in PARTS if part in (arguments.only or PARTS)]
    print(f"seed {arguments.seed}", flush=True)
    failed = []
    for part in parts:
        share = SHARES[part] / sum(SHARES[one] for one in parts)
        seconds = None if arguments.minutes is None else arguments.minutes * 60 * share
        print(f"{part}: {(RUN[part].__doc__ or '').partition('.')[0]}", flush=True)
        if not RUN[part](arguments, seconds):
            failed.append(part)
    print(f"failed: {', '.join(failed)}" if failed else "all is well", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
