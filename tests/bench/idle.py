"""A daemon that has nothing to do, with a sibling connected."""

from __future__ import annotations

import time

from bench import machine
from bench.figures import Figure, Section
from bench.lab import Lab

AIM_MIB = 60
AIM_CPU = 0.1  # seconds a minute
SETTLE = 5.0


def run(lab: Lab, quick: bool) -> Section:
    seconds = 10.0 if quick else 60.0
    device, _ = lab.pair(100)
    assert device.process is not None
    pid = device.process.pid
    time.sleep(SETTLE)  # what follows a start is over
    cpu, wakes = machine.cpu_seconds(pid), machine.wake_ups(pid)
    time.sleep(seconds)
    used = (machine.cpu_seconds(pid) - cpu) * 60 / seconds
    woken = (machine.wake_ups(pid) - wakes) * 60 / seconds
    resident = machine.memory(pid)
    figures = [
        Figure("resident memory", resident, "MiB", f"≤ {AIM_MIB}", resident <= AIM_MIB),
        Figure("CPU", used, "s/min", f"≤ {AIM_CPU}", used <= AIM_CPU, more={"wake-ups a minute": woken}),
    ]
    return Section("idle", BOUND, figures)


BOUND = (
    "the interpreter with its libraries: trio 16 MiB, cryptography and OpenSSL 13, zeroconf 5; mDNS and its refreshes"
)
