"""Which addresses this machine has, and when that changes.

A laptop wakes up in another network, a cable is pulled, a VPN comes: discovery and listeners must follow (pain: mDNS
that goes deaf). The kernel says so on a netlink socket, so that waiting costs nothing; a slow poll stands in where
netlink is not to be had, and catches what it should ever miss.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ifaddr
import trio

from meshd.errors import NetworkError

SETTLE_SECONDS = 0.5  # changes come in bursts: link, address, duplicate address detection
POLL_SECONDS = 60.0  # beside netlink
POLL_ALONE_SECONDS = 5.0  # without it

_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40  # linux/if.h
_SIOCGIFFLAGS = 0x8913
_RTMGRP = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR (linux/rtnetlink.h)


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One address of a usable interface. `ip` has no scope; `index` is the interface's number."""

    interface: str
    index: int
    ip: str
    loopback: bool

    @property
    def host(self) -> str:
        """As `connect` and `bind` want it: link-local IPv6 with its scope."""
        return f"{self.ip}%{self.interface}" if self.link_local and ":" in self.ip else self.ip

    @property
    def link_local(self) -> bool:
        return ipaddress.ip_address(self.ip).is_link_local


def usable(names: Sequence[str] = ()) -> tuple[Address, ...]:
    """Addresses of the interfaces that are up and have a carrier: those named, or all but loopback. NetworkError."""
    found: set[Address] = set()
    try:
        adapters = ifaddr.get_adapters()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            for adapter in adapters:
                flags = _flags(probe, adapter.name)
                loopback = bool(flags & _IFF_LOOPBACK)
                wanted = adapter.name in names if names else not loopback
                # An interface without a carrier is left out although it keeps its address: only so is it new when the
                # carrier returns, and announced and browsed again.
                if not wanted or adapter.index is None or flags & (_IFF_UP | _IFF_RUNNING) != _IFF_UP | _IFF_RUNNING:
                    continue
                for ip in adapter.ips:
                    text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
                    found.add(Address(adapter.name, adapter.index, str(ipaddress.ip_address(text)), loopback))
    except OSError as exc:
        raise NetworkError(f"the addresses of this machine can't be read: {exc.strerror}") from exc
    return tuple(sorted(found))


class Interfaces:
    """The usable addresses, kept current by `run`, and a counter to wait on, so that nobody misses a change."""

    def __init__(
        self, names: Sequence[str] = (), *, read: Callable[[Sequence[str]], tuple[Address, ...]] = usable
    ) -> None:
        self.names = tuple(names)
        self.addresses: tuple[Address, ...] = ()
        self.version = 0
        self._read = read
        self._changed = trio.Event()
        self.refresh()

    def refresh(self) -> bool:
        """Look now; True if something changed. Takes well under a millisecond."""
        try:
            addresses = self._read(self.names)
        except NetworkError:
            addresses = ()  # "no network" is what everybody downstream can live with
        if addresses == self.addresses:
            return False
        self.addresses = addresses
        self.version += 1
        self._changed.set()
        self._changed = trio.Event()
        return True

    async def after(self, seen: int) -> int:
        """Wait until `version` is no longer `seen`; returns it."""
        while self.version == seen:
            await self._changed.wait()
        return self.version

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the kernel's news until cancelled."""
        task_status.started()
        news = _netlink()
        try:
            while True:
                await self._wait(news)
                self.refresh()
        finally:
            if news is not None:
                news.close()

    async def _wait(self, news: socket.socket | None) -> None:
        if news is None:
            await trio.sleep(POLL_ALONE_SECONDS)
            return
        with trio.move_on_after(POLL_SECONDS) as quiet:
            await trio.lowlevel.wait_readable(news)
        if quiet.cancelled_caught:
            return
        # What was said does not matter, only that it was: one look at the end of a burst is cheaper than its parsing.
        with trio.move_on_after(SETTLE_SECONDS * 4):
            settled = False
            while not settled:
                _drain(news)
                with trio.move_on_after(SETTLE_SECONDS) as silence:
                    await trio.lowlevel.wait_readable(news)
                settled = silence.cancelled_caught
        _drain(news)


def _flags(probe: socket.socket, name: str) -> int:
    try:
        answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16sH22x", os.fsencode(name)[:15], 0))
    except OSError:
        return 0  # went away since it was listed
    return int(struct.unpack_from("16sH", answer)[1])


def _netlink() -> socket.socket | None:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError:
        return None  # a sandbox that has not AF_NETLINK
    try:
        sock.setblocking(False)
        sock.bind((0, _RTMGRP))
    except OSError:
        sock.close()
        return None
    return sock


def _drain(news: socket.socket) -> None:
    for _ in range(1024):
        try:
            news.recv(16 * 1024)
        except BlockingIOError:
            return
        except OSError:
            continue  # ENOBUFS: the kernel had more to say than it could keep, and we only want to know "something"
