"""One change: asked for on one device, durable and told on the other; and the same in vaults of growing size."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from bench import hypercore, machine, syncthing
from bench.figures import Figure, Section
from bench.lab import Lab, Listener
from bench.peers import Missing
from harness.daemons import Device
from meshctl.client import path

AIM_MS = 5.0
NOTE = 600  # characters that are written anew
PAUSE = 0.02  # between changes, so that each is on its own


def run(lab: Lab, quick: bool) -> Section:
    count = 20 if quick else 200
    one, two = lab.pair(100)
    floors = machine.floors()
    both = 2 * floors["fsync"] + floors["sign"] + 2 * floors["verify"]
    answered, seen = times(one, two, count)
    p50 = machine.median(seen) * 1000
    beside = {f"two fsyncs, a signature, two verifications ({both:.2f} ms)": p50 / both}
    missing = []
    for name, measure in (("hypercore", hypercore.changes), ("Syncthing, told to look", syncthing.changes)):
        try:
            other = machine.median(measure(min(count, 50))) * 1000
            beside[f"{name} ({other:.2f} ms)"] = p50 / other
        except Missing as exc:
            missing.append(str(exc))
    figures = [
        Figure("seen on the other device, p50", p50, "ms", f"≤ {AIM_MS:g}", p50 <= AIM_MS, beside),
        Figure("seen on the other device, p95", machine.percentile(seen, 95) * 1000, "ms"),
        Figure("durable here and answered, p50", machine.median(answered) * 1000, "ms"),
    ]
    return Section("one change, connected devices", BOUND, figures, missing=tuple(missing))


BOUND = (
    "some 3 ms of Python on either device, and ten wake-ups of a thread or process, one after the other: API, writer, "
    "announce, want, item, check, writer, event; the two fsyncs are a tenth of it"
)


def sizes(lab: Lab, quick: bool) -> Section:
    """Changing one item, and reading one, in vaults of growing size."""
    counts = (100, 1_000) if quick else (100, 10_000, 100_000)
    rounds = 20 if quick else 100
    figures: list[Figure] = []
    first: tuple[float, float, float] | None = None
    for size in counts:
        one, two = lab.pair(size)
        answered, seen = times(one, two, rounds)
        read = machine.median(_reads(two, size, rounds))
        found = machine.median(answered), machine.median(seen), read
        first = first or found
        names = ("changed and answered", "seen on the other device", "look-up of a password")
        for name, value, small in zip(names, found, first, strict=True):
            beside = {f"with {counts[0]} items": value / small} if size != counts[0] else {}
            met = value <= 2 * small if beside else None
            figures.append(Figure(f"{size:,} items: {name}", value * 1000, "ms", "flat" if beside else "", met, beside))
        if size != counts[0]:
            lab.stop(size)
    return Section("vault size", "nothing that grows with the vault: B-trees of one more level", figures)


def times(one: Device, two: Device, count: int) -> tuple[list[float], list[float]]:
    """Seconds until the change of an item is answered by `one`, and until `two` tells of it."""
    ids = sorted(one.titles())[:count]
    answered, seen = [], []
    with Listener(two) as listener:
        for place in range(count):
            identifier = ids[place % len(ids)]
            note = secrets.token_urlsafe(NOTE)[:NOTE]
            start = time.monotonic()
            one.client.patch(path("items", identifier), {"note": note})
            answered.append(time.monotonic() - start)
            while True:
                at, event = listener.next(60)
                if event.get("item") == identifier:
                    break
            seen.append(at - start)
            time.sleep(PAUSE)
    return answered, seen


def _reads(device: Device, size: int, count: int) -> Sequence[float]:
    found = []
    for place in range(count):
        start = time.monotonic()
        answer = device.client.post(
            path("items", "lookup"), {"application": "password", "site": f"host{place * 7919 % size}.example"}
        )
        found.append(time.monotonic() - start)
        assert answer["password"]
    return found
