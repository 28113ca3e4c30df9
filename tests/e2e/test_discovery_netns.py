"""Discovery between machines: network namespaces joined by a bridge, real interfaces that come, go and change.

Needs the right to make namespaces (root, iproute2); skipped with the reason where that is missing.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import trio

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SECONDS = 20.0

NODE = textwrap.dedent(
    """
    import json, secrets, sys
    import trio
    from meshd.net.discovery import SYNC_TYPE, Seen, Service
    from meshd.net.lan import Lan

    async def echo(stream, caller):
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    async def main(instance):
        lan = Lan([], secrets.token_bytes)
        async with trio.open_nursery() as nursery:
            await nursery.start(lan.run)
            port = await nursery.start(lan.serve, echo)
            await lan.discovery.announce("sync", Service(SYNC_TYPE, instance, port, {"v": b"1"}))
            print(json.dumps({"ready": port, "hosts": lan.hosts()}), flush=True)
            nursery.start_soon(changes, lan)
            async for event in lan.discovery.subscribe():
                seen = isinstance(event, Seen)
                told = {"seen" if seen else "gone": event.instance}
                if seen:
                    told["addresses"] = event.addresses
                    told["reached"] = await reach(lan, event)
                print(json.dumps(told), flush=True)

    async def reach(lan, event):
        for host in event.addresses:
            try:
                address = f"[{host}]:{event.port}" if ":" in host else f"{host}:{event.port}"
                async with await lan.dial(address, 2) as stream:
                    await stream.send_all(b"hello")
                    if await stream.receive_some() == b"hello":
                        return host
            except Exception as exc:
                sys.stderr.write(f"{host}: {exc}\\n")
        return None

    async def changes(lan):
        seen = -1
        while True:
            seen = await lan.changed(seen)
            print(json.dumps({"hosts": lan.hosts()}), flush=True)

    trio.run(main, sys.argv[1])
    """
)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def why_not() -> str | None:
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"mmp{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, timeout=30)
    if made.returncode:
        return f"network namespaces can't be made: {made.stderr.strip()}"
    link = ["ip", "-n", probe, "link", "add", "br0", "type", "bridge"]
    bridged = subprocess.run(link, capture_output=True, text=True, timeout=30)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, timeout=30)
    return f"a bridge can't be made: {bridged.stderr.strip()}" if bridged.returncode else None


class Lab:
    """Hosts on one switch, which lives in a namespace of its own, so that nothing touches the machine's network."""

    def __init__(self) -> None:
        self.prefix = f"mm{secrets.token_hex(3)}"
        self.switch = f"{self.prefix}-sw"
        ip("netns", "add", self.switch)
        self.spaces = [self.switch]
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        ip("-n", self.switch, "link", "set", "br0", "up")

    def host(self, number: int, *, plugged: bool = True) -> str:
        space = f"{self.prefix}-{number}"
        ip("netns", "add", space)
        self.spaces.append(space)
        ip("-n", space, "link", "set", "lo", "up")
        if plugged:
            self.plug(number)
        return space

    def plug(self, number: int, address: str = "") -> None:
        space = f"{self.prefix}-{number}"
        ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", f"v{number}", "netns", self.switch)
        ip("-n", self.switch, "link", "set", f"v{number}", "master", "br0", "up")
        ip("-n", space, "addr", "add", address or f"192.0.2.{number}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")

    def unplug(self, number: int) -> None:
        ip("-n", f"{self.prefix}-{number}", "link", "del", "eth0")

    def carrier(self, number: int, state: str) -> None:
        ip("-n", self.switch, "link", "set", f"v{number}", state)

    def close(self) -> None:
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, timeout=30)


@pytest.fixture
def lab() -> Iterator[Lab]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    made = Lab()
    yield made
    made.close()


class Node:
    """A process in a namespace and the lines that it prints."""

    def __init__(self, space: str, instance: str) -> None:
        self.instance = instance
        self._command = ["ip", "netns", "exec", space, sys.executable, "-c", NODE, instance]
        self._buffer = b""

    async def __aenter__(self) -> Self:
        self._process = await trio.lowlevel.open_process(self._command, stdout=subprocess.PIPE, cwd=ROOT)
        await self.line("ready")
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            self._process.kill()
            await self._process.wait()
            assert self._process.stdout is not None
            await self._process.stdout.aclose()

    async def line(self, key: str, value: str | None = None) -> dict[str, object]:
        """The next line that has `key`, with that value if one is asked for."""
        assert self._process.stdout is not None
        with trio.fail_after(SECONDS):
            while True:
                while b"\n" not in self._buffer:
                    more = await self._process.stdout.receive_some()
                    assert more, f"{self.instance} ended"
                    self._buffer += more
                line, _, self._buffer = self._buffer.partition(b"\n")
                told: dict[str, object] = json.loads(line)
                if key in told and (value is None or told[key] == value):
                    return told


async def test_machines_find_and_reach_each_other_on_ipv4_and_ipv6(lab: Lab) -> None:
    spaces = [lab.host(number) for number in (1, 2)]
    async with Node(spaces[0], "one") as one, Node(spaces[1], "two") as two:
        told = await one.line("seen", "two")
        assert told["reached"] == "192.0.2.2"
        addresses = told["addresses"]
        assert isinstance(addresses, list)
        # Announced again when the IPv6 address is known to be unique, if that was not so at first.
        while not any(str(address).startswith("fe80::") and str(address).endswith("%eth0") for address in addresses):
            addresses = (await one.line("seen", "two"))["addresses"]
            assert isinstance(addresses, list)
        assert (await two.line("seen", "one"))["reached"] == "192.0.2.1"


async def test_a_machine_that_starts_without_a_network_joins_when_it_gets_one(lab: Lab) -> None:
    spaces = [lab.host(1), lab.host(2, plugged=False)]
    async with Node(spaces[0], "one") as one, Node(spaces[1], "two") as two:
        lab.plug(2)
        assert (await one.line("seen", "two"))["reached"] == "192.0.2.2"
        assert (await two.line("seen", "one"))["reached"] == "192.0.2.1"
        # The interface goes with its address, and another of the same name and address comes: the sockets must be new.
        lab.unplug(2)
        await two.line("gone", "one")
        lab.plug(2)
        assert (await two.line("seen", "one"))["reached"] == "192.0.2.1"


async def test_what_happened_while_the_cable_was_out_is_found_afterwards(lab: Lab) -> None:
    spaces = [lab.host(number) for number in (1, 2, 3)]
    async with Node(spaces[0], "one") as one, Node(spaces[1], "two") as two:
        await one.line("seen", "two")
        await two.line("seen", "one")
        lab.carrier(1, "down")
        await one.line("gone", "two")
        async with Node(spaces[2], "three"):  # announced while nobody at one's end could hear it
            await two.line("seen", "three")
            lab.carrier(1, "up")
            assert (await one.line("seen", "three"))["reached"] == "192.0.2.3"


async def test_a_new_address_is_announced_and_reached(lab: Lab) -> None:
    spaces = [lab.host(number) for number in (1, 2)]
    async with Node(spaces[0], "one") as one, Node(spaces[1], "two"):
        await one.line("seen", "two")
        ip("-n", spaces[1], "addr", "del", "192.0.2.2/24", "dev", "eth0")
        ip("-n", spaces[1], "addr", "add", "192.0.2.77/24", "dev", "eth0")
        while (await one.line("seen", "two"))["reached"] != "192.0.2.77":
            pass
