"""The lab of network namespaces does what the end-to-end tests lean on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.netns import Lab, LabError, netns_available

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(netns_available() is not None, reason=netns_available() or ""),
]

# Sends to the mDNS group and prints what arrives: the thing that must work between hosts.
TALK = """
import socket, sys
own, other, what = sys.argv[1:]
group = ("224.0.0.251", 5353)
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
receiver.bind(("", 5353))
receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group[0]) + socket.inet_aton(own))
receiver.settimeout(float(what))
print("ready", flush=True)
try:
    print(receiver.recvfrom(100)[1][0])
except TimeoutError:
    print("nothing")
"""
SAY = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'hello', ('224.0.0.251', 5353))"


def heard(listener, speaker, seconds: float = 10) -> str:
    """Who `listener` hears when `speaker` sends to the mDNS group, or "nothing"."""
    argv = [sys.executable, "-c", TALK, listener.address, speaker.address, str(seconds)]
    with listener.popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        speaker.run([sys.executable, "-c", SAY])
        return process.stdout.readline().strip()


def test_hosts_hear_one_another_until_a_cable_is_cut_and_again_when_it_is_back():
    with Lab(2) as lab:
        one, two = lab.hosts
        assert heard(one, two) == two.address
        lab.cut(two)
        assert heard(one, two, 0.3) == "nothing"
        lab.heal(two)
        assert heard(one, two) == two.address


def test_a_host_can_change_its_address_and_lose_its_interface():
    with Lab(2) as lab:
        one, two = lab.hosts
        lab.readdress(two, "192.0.2.77")
        assert heard(one, two) == "192.0.2.77"
        lab.unplug_interface(one)
        assert "DOWN" in one.run(["ip", "-o", "link", "show", "eth0"]).stdout
        lab.plug_interface(one)
        assert heard(two, one) == "192.0.2.1"


def test_hosts_see_only_their_own_interfaces_and_failures_are_told():
    with Lab(1) as lab:
        [host] = lab.hosts
        names = host.run([sys.executable, "-c", "import socket; print(*[n for _, n in socket.if_nameindex()])"]).stdout
        assert set(names.split()) >= {"lo", "eth0"}
        with pytest.raises(LabError, match="exit 3"):
            host.run(["sh", "-c", "exit 3"])


def test_closing_ends_what_still_runs():
    with Lab(1) as lab:
        process = lab.hosts[0].popen(["sleep", "1000"])
        assert process.poll() is None
    assert process.returncode == -signal.SIGTERM


def test_nothing_is_left_even_when_the_test_run_is_killed():
    code = "from harness.netns import Lab\nwith Lab(1) as lab: print(lab.hosts[0].holder.pid, flush=True); input()"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as run:
        holder = os.pidfd_open(int(run.stdout.readline()))
        run.kill()
    readable, _, _ = select.select([holder], [], [], 10)  # a pidfd is readable once its process has ended
    os.close(holder)
    assert readable
