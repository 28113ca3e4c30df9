"""A LAN in memory: many devices in one trio program, under the autojump clock.

A `MemoryLan` gives out hosts; each is a `meshd.net.lan.Network` with its own address, listeners over memory streams and
a view of one shared discovery bus. A host can be cut off: what is said meanwhile is neither lost nor delivered, as with
TCP, and comes through on `heal`; dialling times out. It can also get another address.

What differs from a real network: buffers have no end, so a peer that does not read never holds up a sender, and a
withdrawal is seen at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio
import trio.testing

from meshd.errors import BadRequest, NetworkError
from meshd.net.discovery import Board, Seen, Service, Subscription, check_service, read_sighting
from meshd.net.lan import DIAL_SECONDS, StreamHandler, format_address, parse_address

MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class MemoryLan:
    """All hosts see each other, but for those that are cut off."""

    def __init__(self) -> None:
        self.hosts: dict[str, MemoryHost] = {}  # by IP address
        self._pumps: list[tuple[MemoryHost, MemoryHost, Callable[[], object]]] = []
        self._count = 0

    def host(self, name: str) -> MemoryHost:
        """A new machine; `name` is for messages of failing tests only."""
        host = MemoryHost(self, name, self.next_ip())
        self.hosts[host.ip] = host
        return host

    def next_ip(self) -> str:
        self._count += 1
        return f"10.0.{self._count // 250}.{self._count % 250 + 1}"

    def joined(self, one: MemoryHost, other: MemoryHost) -> bool:
        return one is other or (one.online and other.online)

    def connect(self, one: MemoryHost, other: MemoryHost) -> tuple[MemoryStream, MemoryStream]:
        """A stream between two hosts that stalls while they are apart."""
        there = self._pipe(one, other)
        back = self._pipe(other, one)
        return trio.StapledStream(there[0], back[1]), trio.StapledStream(back[0], there[1])

    def _pipe(
        self, sender: MemoryHost, receiver: MemoryHost
    ) -> tuple[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]:
        send, receive = trio.testing.MemorySendStream(), trio.testing.MemoryReceiveStream()

        def pump() -> None:
            if self.joined(sender, receiver):
                trio.testing.memory_stream_pump(send, receive)

        async def pump_and_yield() -> None:
            pump()

        send.send_all_hook = pump_and_yield
        send.close_hook = pump
        self._pumps.append((sender, receiver, pump))
        return send, receive

    def pump(self) -> None:
        """Deliver what was held back; a stream that was closed meanwhile takes nothing any more."""
        for _, _, pump in self._pumps:
            try:
                pump()
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                pass

    def tell(self) -> None:
        """Bring every host's view up to date. Who is cut off sees nobody; who stayed still lists who was cut off."""
        for host in self.hosts.values():
            if host.online:
                host.discovery.look([other for other in self.hosts.values() if other is not host])
            else:
                host.discovery.board.clear()


class MemoryHost:
    """One machine; satisfies `meshd.net.lan.Network`."""

    def __init__(self, lan: MemoryLan, name: str, ip: str) -> None:
        self.name = name
        self.ip = ip
        self.online = True
        self.discovery = MemoryDiscovery(self)
        self.lan = lan
        self._version = 0
        self._changed = trio.Event()
        self._ports: dict[int, trio.MemorySendChannel[tuple[MemoryStream, str]]] = {}
        self._next_port = 40000

    def cut(self) -> None:
        """Unplug it."""
        self.online = False
        self._bump()
        self.lan.tell()

    def heal(self) -> None:
        """Plug it in again."""
        self.online = True
        self._bump()
        self.lan.tell()
        self.lan.pump()

    def renumber(self) -> None:
        """Give it another address, as a DHCP server would."""
        del self.lan.hosts[self.ip]
        self.ip = self.lan.next_ip()
        self.lan.hosts[self.ip] = self
        self._bump()
        self.lan.tell()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    async def serve(
        self, handler: StreamHandler, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        port = port or self.free_port()
        if port in self._ports:
            raise NetworkError(f"can't listen on port {port}: another program uses that address and port")
        send, receive = trio.open_memory_channel[tuple[MemoryStream, str]](math.inf)
        self._ports[port] = send
        try:
            async with trio.open_nursery() as connections:
                task_status.started(port)
                async for stream, caller in receive:
                    connections.start_soon(handler, stream, caller)
        finally:
            del self._ports[port]
            send.close()
            receive.close()

    async def dial(self, address: str, within: float = DIAL_SECONDS) -> trio.abc.Stream:
        host, port = parse_address(address)
        await trio.lowlevel.checkpoint()
        other = self.lan.hosts.get(host)
        if other is None or not self.lan.joined(self, other):
            await trio.sleep(within)
            raise NetworkError(f"{address} does not answer")
        if port not in other._ports:
            raise NetworkError(f"{address} can't be reached: nothing listens there")
        here, there = self.lan.connect(self, other)
        other._ports[port].send_nowait((there, format_address(self.ip, self.free_port())))
        return here

    def hosts(self) -> tuple[str, ...]:
        return (self.ip,) if self.online else ()

    async def changed(self, seen: int) -> int:
        while self._version == seen:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()
        return self._version

    def free_port(self) -> int:
        self._next_port += 1
        return self._next_port

    def _bump(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = trio.Event()


class MemoryDiscovery:
    """One host's view of the bus; satisfies `meshd.net.discovery.DiscoveryPort`."""

    def __init__(self, host: MemoryHost) -> None:
        self.board = Board()
        self.announced: dict[str, Service] = {}
        self._host = host

    async def announce(self, name: str, service: Service) -> None:
        check_service(service)
        key = (service.service_type, service.instance)
        if any((other.service_type, other.instance) == key for word, other in self.announced.items() if word != name):
            raise BadRequest("an instance that is announced already")
        self.announced[name] = service
        self._host.lan.tell()
        await trio.lowlevel.checkpoint()

    async def withdraw(self, name: str) -> None:
        self.announced.pop(name, None)
        self._host.lan.tell()
        await trio.lowlevel.checkpoint()

    def subscribe(self) -> Subscription:
        return self.board.subscribe()

    async def update_interfaces(self) -> None:
        self._host.lan.tell()
        await trio.lowlevel.checkpoint()

    @property
    def problem(self) -> str | None:
        return None if self._host.online else "no network interface is up"

    def look(self, others: list[MemoryHost]) -> None:
        """Take over what the others announce; of those that are cut off what was seen last stays."""
        heard: dict[tuple[str, str], Seen] = {}
        silent: set[str] = set()
        for other in others:
            if not other.online:
                silent.add(other.ip)
                continue
            for service in other.discovery.announced.values():
                txt = {key.encode(): value for key, value in service.txt.items()}
                seen = read_sighting(
                    service.service_type, service.instance, [other.ip], service.port, txt, loopback=False
                )
                if seen is not None:
                    heard[seen.service_type, seen.instance] = seen
        for key, old in list(self.board.seen.items()):
            if key not in heard and not silent.intersection(old.addresses):
                self.board.remove(*key)
        for seen in heard.values():
            self.board.put(seen)
