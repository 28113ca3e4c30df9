"""First sync between two daemons: an empty device meets one with N items; every signature verified, all durable."""

from __future__ import annotations

from bench import hypercore, syncthing
from bench.figures import Figure, Section
from bench.lab import FirstSync, Lab
from bench.peers import Missing

AIM = 8_000  # items per second at 10⁵
PEAK = 200  # MiB


def run(lab: Lab, quick: bool) -> Section:
    sizes = (1_000,) if quick else (1_000, 10_000, 100_000)
    beside: dict[str, float] = {}
    missing = []
    for name, measure, most in (
        ("hypercore", hypercore.first_sync, sizes[-1]),
        ("Syncthing", syncthing.first_sync, 10_000),
    ):
        try:
            beside[f"{name}, {min(most, sizes[-1]):,} entries"] = measure(min(most, sizes[-1]))
        except Missing as exc:
            missing.append(str(exc))
    figures = []
    for size in sizes:
        figures.append(_figure(lab.first_sync(size, keep=True), "", beside if size == sizes[-1] else {}))
        lab.stop(size)
    figures.append(_figure(lab.first_sync(sizes[-1], newest_first=True), ", newest first", {}))
    return Section("first sync", BOUND, figures, missing=tuple(missing))


BOUND = (
    "CPU, where both ends share two cores: of some 210 µs an item the helper takes 100 (60 are one Ed25519 "
    "verification in libsodium, 25 parsing), the receiver's event loop 40, its writer 45 (keys are random, so it "
    "writes more pages than rows), the sender 25. With more cores: the helper"
)


def _figure(found: FirstSync, how: str, beside: dict[str, float]) -> Figure:
    last = found.items >= 100_000
    return Figure(
        f"{found.items:,} items of 1 KB{how}",
        found.rate,
        "items/s",
        f"≥ {AIM:,}, peak ≤ {PEAK} MiB" if last else "",
        (found.rate >= AIM and found.receiver_peak <= PEAK) if last else None,
        {name: found.rate / rate for name, rate in beside.items()},
        {
            "seconds": found.seconds,
            "receiver µs CPU/item": found.receiver_cpu / found.items * 1e6,
            "sender µs CPU/item": found.sender_cpu / found.items * 1e6,
            "receiver peak MiB, with its helper": found.receiver_peak,
            "sender peak MiB": found.sender_peak,
        }
        | ({"last fifth/first fifth": found.fifths[-1] / found.fifths[0]} if found.items >= 10_000 else {}),
    )
