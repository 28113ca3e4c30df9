"""TCP on the LAN, and the `Network` that daemons are built on: listen, dial, discover.

`Lan` is the real one; the tests have another of memory streams, so that many devices run in one program. Listening is
bound to the addresses of the chosen interfaces and follows them; with no choice it is every address, and needs no
following. The port is fixed at once, network or not, because it is announced and written down.
"""

from __future__ import annotations

import ipaddress
import math
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from meshd.errors import BadRequest, NetworkError
from meshd.net.discovery import DiscoveryPort
from meshd.net.interfaces import Address, Interfaces, usable
from meshd.net.mdns import Discovery
from meshd.net.streams import os_words

DIAL_SECONDS = 10.0
REBIND_SECONDS = 2.0  # until an address that can't be bound yet is tried again
_BACKLOG = 64
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?\Z")
_SCOPE = re.compile(r"[A-Za-z0-9._-]{1,15}\Z")

# What takes a connection: the stream, which it owns from then on, and the caller's address as "host:port".
StreamHandler = Callable[[trio.abc.Stream, str], Awaitable[None]]


class Network(Protocol):
    """All that the daemon knows of the LAN."""

    @property
    def discovery(self) -> DiscoveryPort: ...

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep discovery and addresses current until cancelled."""
        ...

    async def serve(
        self, handler: StreamHandler, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take connections until cancelled; `started` gives the port. `handler` must not raise. NetworkError."""
        ...

    async def dial(self, address: str, within: float = DIAL_SECONDS) -> trio.abc.Stream:
        """Connect to "host:port" within that many seconds. NetworkError, BadRequest."""
        ...

    def hosts(self) -> tuple[str, ...]:
        """The addresses under which others may reach this machine, best first; without ports."""
        ...

    async def changed(self, seen: int) -> int:
        """Wait until the addresses are others than those numbered `seen` (begin with -1); returns the new number."""
        ...


class Lan:
    """The real network, on the named interfaces or on all but loopback. `rng` like secrets.token_bytes."""

    def __init__(
        self,
        names: Sequence[str],
        rng: Callable[[int], bytes],
        *,
        read: Callable[[Sequence[str]], tuple[Address, ...]] = usable,
    ) -> None:
        self._interfaces = Interfaces(names, read=read)
        self._discovery = Discovery(self._interfaces, rng)

    @property
    def discovery(self) -> Discovery:
        return self._discovery

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._interfaces.run)
            await nursery.start(self._discovery.run)
            task_status.started()

    async def serve(
        self, handler: StreamHandler, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async def handle(stream: trio.SocketStream) -> None:
            _keep_alive(stream)
            await handler(stream, peer_address(stream))

        if not self._interfaces.names:
            listeners = open_listeners([""], port)
            task_status.started(_port_of(listeners[0]))
            await trio.serve_listeners(handle, listeners)
            return
        with reserve_port(port) as reservation:
            port = int(reservation.getsockname()[1])
            async with trio.open_nursery() as connections:
                task_status.started(port)
                await self._follow(handle, port, connections)

    async def _follow(
        self, handle: Callable[[trio.SocketStream], Awaitable[None]], port: int, connections: trio.Nursery
    ) -> None:
        open_on: dict[str, trio.CancelScope] = {}

        async def listen(scope: trio.CancelScope, listener: trio.SocketListener) -> None:
            try:
                with scope:
                    await trio.serve_listeners(handle, [listener], handler_nursery=connections)
            finally:
                listener.socket.close()

        while True:
            seen = self._interfaces.version
            hosts = {address.host for address in self._interfaces.addresses}
            for host in [host for host in open_on if host not in hosts]:
                # Connections that were made there end by themselves, or survive if the address comes back.
                open_on.pop(host).cancel()
            for host in hosts - open_on.keys():
                try:
                    listener = open_listeners([host], port)[0]
                except NetworkError:
                    continue  # not bindable yet, e.g. while an IPv6 address is being checked for uniqueness
                open_on[host] = trio.CancelScope()
                connections.start_soon(listen, open_on[host], listener)
            with trio.move_on_after(REBIND_SECONDS if hosts - open_on.keys() else math.inf):
                await self._interfaces.after(seen)

    async def dial(self, address: str, within: float = DIAL_SECONDS) -> trio.abc.Stream:
        return await dial(address, within)

    def hosts(self) -> tuple[str, ...]:
        addresses = sorted(self._interfaces.addresses, key=lambda address: (":" in address.ip, address.link_local))
        return tuple(address.host for address in addresses)

    async def changed(self, seen: int) -> int:
        return await self._interfaces.after(seen)


async def dial(address: str, within: float = DIAL_SECONDS) -> trio.abc.Stream:
    """Connect to "host:port", trying all addresses of a name. NetworkError says what is wrong in words for a person."""
    host, port = parse_address(address)
    try:
        with trio.fail_after(within):
            stream = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError as exc:
        raise NetworkError(f"{address} does not answer") from exc
    except socket.gaierror as exc:
        raise NetworkError(f"{address} can't be reached: the name {host} is not known") from exc
    except OSError as exc:
        raise NetworkError(f"{address} can't be reached: {os_words(_first_cause(exc))}") from exc
    _keep_alive(stream)
    return stream


def open_listeners(hosts: Sequence[str], port: int) -> list[trio.SocketListener]:
    """Listen on these IP addresses (IPv6 link-local with scope; "" is every address of both families). NetworkError.

    With port 0 the first one chooses and the others take the same.
    """
    listeners: list[trio.SocketListener] = []
    try:
        for host in hosts:
            sock = _bound_socket(host, port)
            try:
                sock.listen(_BACKLOG)
                listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
            except BaseException:
                sock.close()
                raise
            port = _port_of(listeners[0])
    except OSError as exc:
        for listener in listeners:
            listener.socket.close()
        raise NetworkError(f"can't listen on {format_address(host or '*', port)}: {os_words(exc)}") from exc
    return listeners


def reserve_port(port: int) -> socket.socket:
    """A socket that keeps `port` (0: any free one) ours, without listening, until it is closed. NetworkError.

    Linux lets sockets with SO_REUSEADDR share a port as long as no two of them listen on the same address.
    """
    try:
        return _bound_socket("", port)
    except OSError as exc:
        raise NetworkError(f"can't use port {port}: {os_words(exc)}") from exc


def parse_address(address: str) -> tuple[str, int]:
    """Split "host:port", "1.2.3.4:port" or "[v6%scope]:port"; BadRequest for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise BadRequest(f"{address[:80]!r} is not an address of the form host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        ip, percent, scope = host.partition("%")
        if not _is_ip(ip, 6) or (percent and not _SCOPE.match(scope)):
            raise BadRequest(f"{address[:80]!r} has no IPv6 address between its brackets")
        return host, int(port)
    if ":" in host:
        raise BadRequest(f"{address[:80]!r}: an IPv6 address is written in brackets, like [fe80::1%eth0]:7000")
    if not _HOST_NAME.match(host):
        raise BadRequest(f"{address[:80]!r} is not an address of the form host:port")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """The inverse of `parse_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer_address(stream: trio.SocketStream) -> str:
    """The other end of a TCP connection as "host:port"; "" if it is gone already."""
    try:
        name = stream.socket.getpeername()
    except OSError:
        return ""
    host = str(name[0])
    mapped = ipaddress.IPv6Address(host.partition("%")[0]).ipv4_mapped if ":" in host else None
    return format_address(str(mapped) if mapped is not None else host, int(name[1]))


def _bound_socket(host: str, port: int) -> socket.socket:
    try:
        family, address = _sockaddr(host, port)
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError:
        if host:
            raise
        family, address = socket.AF_INET, ("0.0.0.0", port)  # noqa: S104 - a machine without IPv6
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(host)))
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _keep_alive(stream: trio.SocketStream) -> None:
    # A peer that lost its power says nothing. Found out within two minutes, at the price of a packet a minute.
    try:
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000),  # ms, for data that is never acknowledged
        ):
            stream.setsockopt(level, option, value)
    except OSError:
        pass  # closed already; whoever reads it will see that


def _sockaddr(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]:
    ip, _, scope = host.partition("%")
    if ":" not in ip and ip:
        return socket.AF_INET, (ip, port)
    return socket.AF_INET6, (ip or "::", port, 0, socket.if_nametoindex(scope) if scope else 0)


def _port_of(listener: trio.SocketListener) -> int:
    return int(listener.socket.getsockname()[1])


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _first_cause(exc: OSError) -> BaseException:
    """Why the attempt failed: trio tries every address of a name, and groups the reasons."""
    cause: BaseException | None = exc.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if cause is not None else exc
