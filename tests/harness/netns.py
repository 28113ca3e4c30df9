"""Hosts on one switch, in network namespaces: real interfaces, real multicast, no trace outside.

    with Lab(3) as lab:
        laptop, desktop, server = lab.hosts
        daemon = laptop.popen(["meshd", "--home", home])
        lab.cut(desktop); lab.heal(desktop); lab.readdress(server, "192.0.2.77")

One idea: a namespace lives exactly as long as the processes in it, so none is given a name. Each is held open by a
`cat` that reads a pipe from this process; when this process ends, however it ends, the pipes close, the holders end,
and once what was started in the hosts has ended too, the kernel takes links, bridge and addresses away. Root is not
needed where the kernel gives user namespaces to users.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Argument = str | Path
STOP_SECONDS = 10


class LabError(Exception):
    """The lab can't be set up, or a command in it failed."""


@dataclass
class Host:
    """One machine on the switch: interface eth0, an IPv4 address of 192.0.2.0/24 and an IPv6 link-local one."""

    index: int
    address: str
    holder: subprocess.Popen[str] = field(repr=False)
    _enter: list[str] = field(repr=False)
    _running: list[subprocess.Popen[Any]] = field(default_factory=list, repr=False)

    def command(self, argv: Sequence[Argument]) -> list[str]:
        """`argv` as a command to run from outside, for `subprocess` or `trio.run_process`; its pid is the program's."""
        return [*self._enter, *map(str, argv)]

    def run(self, argv: Sequence[Argument], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run to the end, capturing text; raises LabError with what it said if it fails (unless `check=False`)."""
        check = options.pop("check", True)
        done = subprocess.run(self.command(argv), capture_output=True, text=True, **options)
        if check and done.returncode:
            raise LabError(f"{' '.join(map(str, argv))}: exit {done.returncode}: {done.stderr.strip()}")
        return done

    def popen(self, argv: Sequence[Argument], **options: Any) -> subprocess.Popen[Any]:
        """Start and leave running; the lab ends it, when it closes, if nobody did before."""
        process = subprocess.Popen(self.command(argv), **options)
        self._running.append(process)
        return process


class Lab:
    """`count` hosts on a switch. A context manager; everything is up when it is entered."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._holders: list[subprocess.Popen[str]] = []
        self.hosts: list[Host] = []

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what runs in the hosts, then the hosts."""
        running = [process for host in self.hosts for process in host._running if process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for holder in self._holders:
            holder.communicate()  # closes its standard input: it ends
        self._holders, self.hosts = [], []

    def cut(self, host: Host) -> None:
        """Pull the host's cable at the switch."""
        self._switch("link", "set", f"v{host.index}", "down")

    def heal(self, host: Host) -> None:
        """Plug it in again."""
        self._switch("link", "set", f"v{host.index}", "up")

    def readdress(self, host: Host, address: str) -> None:
        """Give the host another IPv4 address, as a new lease would."""
        host.run(["ip", "addr", "del", f"{host.address}/24", "dev", "eth0"])
        host.run(["ip", "addr", "add", f"{address}/24", "brd", "+", "dev", "eth0"])
        _multicast(host)
        host.address = address

    def unplug_interface(self, host: Host) -> None:
        """Take eth0 itself down: the host has no network, and knows it."""
        host.run(["ip", "link", "set", "eth0", "down"])

    def plug_interface(self, host: Host) -> None:
        """Bring eth0 back, with the address it had."""
        host.run(["ip", "link", "set", "eth0", "up"])
        _multicast(host)

    def _build(self) -> None:
        # Without root everything happens in one user namespace, in which this user is root.
        mapped = os.geteuid() != 0
        switch = self._hold(["unshare", *(["--user", "--map-root-user"] if mapped else []), "--net"])
        user = ["--user", "--preserve-credentials"] if mapped else []
        self._enter_switch = ["nsenter", f"--target={switch.pid}", *user, "--net", "--"]
        self._switch("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self._switch("link", "set", "br0", "up")
        for index in range(1, self._count + 1):
            if mapped:
                holder = self._hold(["nsenter", f"--target={switch.pid}", *user, "--", "unshare", "--net"])
            else:
                holder = self._hold(["unshare", "--net"])
            enter = ["nsenter", f"--target={holder.pid}", *user, "--net", "--"]
            host = Host(index, f"192.0.2.{index}", holder, enter)
            self.hosts.append(host)
            host.run(
                ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", f"v{index}", "netns", str(switch.pid)]
            )
            self._switch("link", "set", f"v{index}", "master", "br0", "up")
            host.run(["ip", "addr", "add", f"{host.address}/24", "brd", "+", "dev", "eth0"])
            host.run(["ip", "link", "set", "lo", "up"])
            self.plug_interface(host)

    def _hold(self, unshare: list[str]) -> subprocess.Popen[str]:
        """A namespace and the process that keeps it; that process is still the one we started, as each step execs."""
        holder = subprocess.Popen(
            [*unshare, "sh", "-c", "echo up; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._holders.append(holder)
        assert holder.stdout is not None and holder.stderr is not None
        if holder.stdout.readline() != "up\n":
            raise LabError(f"no network namespace: {holder.stderr.read().strip()}")
        return holder

    def _switch(self, *arguments: str) -> None:
        done = subprocess.run([*self._enter_switch, "ip", *arguments], capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _multicast(host: Host) -> None:
    # Without a default route the kernel knows no way for multicast; the route goes when the address or the link goes.
    host.run(["ip", "route", "replace", "224.0.0.0/4", "dev", "eth0"])


@functools.cache
def netns_available() -> str | None:
    """None where a Lab can be made; otherwise the reason, for pytest's skip."""
    for tool in ("ip", "unshare", "nsenter"):
        if not shutil.which(tool):
            return f"network namespaces: `{tool}` is not installed"
    try:
        with Lab(1):
            return None
    except LabError as exc:
        return f"network namespaces can't be made here: {exc}"
