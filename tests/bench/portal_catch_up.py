"""A device that catches up through a portal, with no LAN: every signature verified, all durable.

One device fills its vault while it is stopped and publishes it; another one of its mesh, which has nothing, follows the
portal's feed until it has everything.
"""

from __future__ import annotations

import time

import trio

from bench import machine
from bench.figures import Figure, Section
from bench.lab import SYNC_SECONDS, Lab, fill
from harness.daemons import Device
from harness.portal_daemon import PortalDaemon

SIZE = 100_000
AIM = 3_000  # items per second at that
ACCOUNT = "alice@example.net"
BOUND = "CPU, where the portal, the device and its helper share two cores"


def run(lab: Lab, quick: bool) -> Section:
    size = 1_000 if quick else SIZE
    with PortalDaemon(lab.house.directory / "catch-up-portal") as portal:
        first, second = lab.apart(0)
        _introduce(lab, portal, first, second)
        trio.run(fill, first.home, size)
        published = _synced(lab, portal, first)
        first.stop()
        caught_up = _synced(lab, portal, second)
        second.stop()
    aim, rate = (f"≥ {AIM:,}", size / caught_up[0]) if size == SIZE else ("", 0.0)
    figures = [
        Figure(
            f"a device catches up on {size:,} items", size / caught_up[0], "items/s", aim, rate >= AIM if aim else None
        ),
        Figure(f"a device publishes {size:,} items", size / published[0], "items/s"),
    ]
    for figure, (seconds, device, server, peak) in zip(figures, (caught_up, published), strict=True):
        figure.more["seconds"] = seconds
        figure.more["device µs CPU/item"] = device / size * 1e6
        figure.more["portal µs CPU/item"] = server / size * 1e6
        figure.more["device peak MiB, with its helper"] = peak
    return Section("portal catch-up", BOUND, figures)


def _introduce(lab: Lab, portal: PortalDaemon, first: Device, second: Device) -> None:
    """Both know the portal; afterwards they are stopped."""
    lab.start(first)
    lab.start(second)
    first.run("portal", "add", ACCOUNT, *portal.reach)
    second.in_step_with(first)
    for device in (second, first):
        device.run("wait", "--synced", "--portal")
        device.stop()


def _synced(lab: Lab, portal: PortalDaemon, device: Device) -> tuple[float, float, float, float]:
    """Start a device without a LAN and wait until it is in step with the portal.

    Seconds, CPU seconds of the device, and of the portal, and the device's peak in MiB."""
    assert portal.process is not None
    server = machine.cpu_seconds(portal.process.pid)
    start = time.monotonic()
    lab.start(device, "--no-lan")
    assert device.process is not None
    device.run("wait", "--synced", "--portal", "--timeout", str(SYNC_SECONDS))
    seconds = time.monotonic() - start
    used = machine.cpu_seconds(device.process.pid), machine.cpu_seconds(portal.process.pid) - server
    return seconds, *used, machine.memory(device.process.pid, "VmHWM")
