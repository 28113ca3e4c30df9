"""mDNS on real networks: python-zeroconf, which lives in threads of its own, behind the `DiscoveryPort`.

One task, `run`, owns the responder and brings it in line with two wishes: the addresses that the machine has now, and
the services that should be announced now. Whatever fails is tried again; without a usable interface nothing runs and
nothing is an error. Blocking calls are made in worker threads that may be left behind, so that no fault of the network
holds up the daemon or its end. News from zeroconf's threads enters through `run_sync_soon`, with functions that cannot
raise.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import math
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio
from zeroconf import DNSQuestionType, IPVersion, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from meshd.errors import BadRequest, NetworkError
from meshd.net.discovery import MAX_ADDRESSES, TYPES, Board, Service, Subscription, check_service, read_sighting
from meshd.net.interfaces import Address, Interfaces

CLOSE_SECONDS = 3.0
RETRY_SECONDS = 5.0
MAX_RETRY_SECONDS = 60.0
RECHECK_SECONDS = 3.0  # after a change: an IPv6 address can't be bound until it is known to be unique (RFC 4862, 5.4)
RESOLVE_MS = 1500
_RESOLVERS = 4
_RESOLVE_QUEUE = 64
_HOST_LABEL_BYTES = 8
_REMEMBERED_OWN = 64

# Questions go out by multicast, the first one too. A unicast answer would come to port 5353, which several daemons on
# one machine share, and the kernel would give it to any one of them.
_MULTICAST = DNSQuestionType.QM

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Announced:
    service: Service
    addresses: tuple[Address, ...]
    info: ServiceInfo


class Discovery:
    """The `DiscoveryPort` of a real LAN; start `run` in a nursery. `rng` makes host labels that say nothing."""

    def __init__(self, interfaces: Interfaces, rng: Callable[[int], bytes]) -> None:
        self._interfaces = interfaces
        self._rng = rng
        self._board = Board()
        self._wanted: dict[str, Service] = {}
        self._announced: dict[str, _Announced] = {}
        self._own: dict[tuple[str, str], None] = {}  # what we announce or announced a while ago, in that order
        self._bound: tuple[Address, ...] = ()
        self._responder: Zeroconf | None = None
        self._browser: ServiceBrowser | None = None
        self._recheck_at = math.inf
        self._problem: str | None = "discovery has not started yet"
        self._wake = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._unresolved, self._to_resolve = trio.open_memory_channel[tuple[str, str]](_RESOLVE_QUEUE)
        # Limits of our own: names that nobody answers for must not use up the threads that the store waits for.
        self._resolve_threads = trio.CapacityLimiter(_RESOLVERS)
        self._threads = trio.CapacityLimiter(4)

    # -- the port

    async def announce(self, name: str, service: Service) -> None:
        """See DiscoveryPort. Takes effect within milliseconds, or when there is a network again."""
        check_service(service)
        key = (service.service_type, service.instance)
        if any((other.service_type, other.instance) == key for word, other in self._wanted.items() if word != name):
            raise BadRequest("an instance that is announced already")
        self._wanted[name] = service
        self._own.pop(key, None)
        self._own[key] = None
        while len(self._own) > _REMEMBERED_OWN:
            del self._own[next(iter(self._own))]
        self._board.remove(*key)
        self._wake.set()
        await trio.lowlevel.checkpoint()

    async def withdraw(self, name: str) -> None:
        """See DiscoveryPort. The farewell is sent in the background."""
        self._wanted.pop(name, None)
        self._wake.set()
        await trio.lowlevel.checkpoint()

    def subscribe(self) -> Subscription:
        """See DiscoveryPort."""
        return self._board.subscribe()

    async def update_interfaces(self) -> None:
        """See DiscoveryPort."""
        self._interfaces.refresh()
        await trio.lowlevel.checkpoint()

    @property
    def problem(self) -> str | None:
        """See DiscoveryPort."""
        return self._problem

    @property
    def names(self) -> tuple[str, ...]:
        """The interfaces on which we announce and listen at present."""
        return tuple(sorted({address.interface for address in self._bound}))

    # -- the task

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announce and listen until cancelled; then say goodbye, within three seconds. To be run once."""
        self._token = trio.lowlevel.current_trio_token()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_interfaces)
                for _ in range(_RESOLVERS):
                    nursery.start_soon(self._resolve_names)
                task_status.started()
                await self._keep_in_line()
        finally:
            with trio.CancelScope(shield=True):
                await self._close()

    async def _follow_interfaces(self) -> None:
        seen = -1
        while True:
            seen = await self._interfaces.after(seen)
            self._wake.set()

    async def _keep_in_line(self) -> None:
        retry = RETRY_SECONDS
        while True:
            # Replaced before the work: a wish that comes up meanwhile wakes us for another round.
            self._wake = trio.Event()
            try:
                await self._follow_addresses()
                await self._follow_services()
            except Exception as exc:  # zeroconf raises a dozen kinds, and none may end the daemon
                self._problem = f"mDNS does not work: {str(exc) or type(exc).__name__}"
                _log.warning("%s; next try in %g s", self._problem, retry)
                await self._close()
                wait, retry = retry, min(retry * 2, MAX_RETRY_SECONDS)
            else:
                wait, retry = max(self._recheck_at - trio.current_time(), 0), RETRY_SECONDS
            with trio.move_on_after(wait):
                await self._wake.wait()

    async def _follow_addresses(self) -> None:
        now = self._interfaces.addresses
        if not now:
            self._problem = self._no_interface()
            await self._close()
            return
        if self._responder is not None and _renumbered(self._bound, now):
            # The same address on another interface: the sockets hold on to the one that is gone.
            await self._close()
        # Before anything is opened, since the first answers are judged by it; a failure closes, and empties it again.
        before, self._bound = self._bound, now
        responder = self._responder
        if responder is None:
            await self._open(now)
            self._recheck_at = trio.current_time() + RECHECK_SECONDS
        elif now != before:
            await self._rebind(responder, now)
            # New networks are to be asked, and not only listened to.
            await self._browse(responder)
            self._recheck_at = trio.current_time() + RECHECK_SECONDS
        elif trio.current_time() >= self._recheck_at:
            self._recheck_at = math.inf
            await self._rebind(responder, now)
        self._problem = None

    async def _rebind(self, responder: Zeroconf, addresses: Sequence[Address]) -> None:
        choice, version = _binds(addresses)
        await self._in_thread(lambda: responder.update_interfaces(choice, version))

    async def _follow_services(self) -> None:
        responder = self._responder
        if responder is None:
            return
        for name, service in list(self._wanted.items()):
            old = self._announced.get(name)
            if old is not None and (old.service, old.addresses) == (service, self._bound):
                continue
            same = old is not None and (old.service.service_type, old.service.instance) == (
                service.service_type,
                service.instance,
            )
            info = self._info(service, old.info.server if old is not None and same else None)
            if same:
                await self._in_thread(lambda info=info: responder.update_service(info))  # type: ignore[misc]
            else:
                # No probing for a free name: 64 random bits are free, and a code that is on the screen should be found.
                await self._in_thread(
                    lambda info=info: responder.register_service(info, cooperating_responders=True)  # type: ignore[misc]
                )
            self._announced[name] = _Announced(service, self._bound, info)
            if old is not None and not same:  # only now, so that there is no moment without an announcement
                await self._in_thread(lambda info=old.info: responder.unregister_service(info))  # type: ignore[misc]
        for name in [name for name in self._announced if name not in self._wanted]:
            info = self._announced.pop(name).info
            await self._in_thread(lambda info=info: responder.unregister_service(info))  # type: ignore[misc]

    def _info(self, service: Service, server: str | None) -> ServiceInfo:
        label = base64.b32encode(self._rng(_HOST_LABEL_BYTES)).decode("ascii").rstrip("=").lower()
        return ServiceInfo(
            service.service_type,
            f"{service.instance}.{service.service_type}",
            port=service.port,
            properties=dict(service.txt),
            addresses=[ipaddress.ip_address(address.ip).packed for address in _announceable(self._bound)],
            server=server or f"{label}.local.",
        )

    # -- zeroconf

    async def _open(self, addresses: Sequence[Address]) -> None:
        # An address that can't be used yet, or no longer, would make zeroconf fail over all of them.
        choice, version = _binds([address for address in addresses if _usable_now(address)])
        if not choice:
            raise NetworkError("no address can be used yet")
        # Not to be left behind: it takes milliseconds, and nobody would close what an abandoned thread had opened.
        self._responder = await trio.to_thread.run_sync(
            lambda: Zeroconf(choice, ip_version=version, use_asyncio=False), limiter=self._threads
        )
        await self._browse(self._responder)

    async def _browse(self, responder: Zeroconf) -> None:
        old = self._browser

        def browse() -> ServiceBrowser:
            browser = ServiceBrowser(responder, list(TYPES), handlers=[self._on_change], question_type=_MULTICAST)
            if old is not None:
                old.cancel()
            return browser

        self._browser = await trio.to_thread.run_sync(browse, limiter=self._threads)

    async def _close(self) -> None:
        responder, self._responder = self._responder, None
        browser, self._browser = self._browser, None
        self._announced.clear()
        self._bound = ()
        self._recheck_at = math.inf
        self._board.clear()
        if responder is None:
            return

        def close() -> None:
            if browser is not None:
                browser.cancel()
            responder.close()

        with trio.move_on_after(CLOSE_SECONDS):
            try:
                await self._in_thread(close)
            except Exception as exc:  # what can't be closed is left to the end of the process
                _log.warning("the mDNS responder did not close: %s", str(exc) or type(exc).__name__)

    async def _in_thread(self, work: Callable[[], object]) -> None:
        await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)

    # -- in zeroconf's threads

    def _on_change(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:  # the names of the arguments are zeroconf's
        assert self._token is not None
        try:
            if state_change is ServiceStateChange.Removed:
                self._token.run_sync_soon(self._lost, service_type, name)
                return
            info = ServiceInfo(service_type, name)
            if info.load_from_cache(zeroconf):
                self._token.run_sync_soon(self._found, info)
            else:
                self._token.run_sync_soon(self._ask, service_type, name)
        except trio.RunFinishedError:
            pass
        except Exception:  # a name that zeroconf itself can't bear, sent by anybody
            _log.debug("an mDNS record that can't be read")

    # -- back in trio; these must not raise

    def _lost(self, service_type: str, name: str) -> None:
        self._board.remove(service_type, name.removesuffix(f".{service_type}"))

    def _found(self, info: ServiceInfo) -> None:
        instance = info.name.removesuffix(f".{info.type}")
        if self._responder is None or (info.type, instance) in self._own:
            return
        try:
            seen = read_sighting(
                info.type,
                instance,
                _scoped(info.parsed_scoped_addresses(), self._bound),
                info.port,
                info.properties,
                loopback=any(address.loopback for address in self._bound),
            )
        except Exception:  # zeroconf decodes names and texts on demand
            return
        if seen is not None:
            self._board.put(seen)

    def _ask(self, service_type: str, name: str) -> None:
        try:
            self._unresolved.send_nowait((service_type, name))
        except trio.WouldBlock:
            pass  # a flood; siblings announce all their records at once and need no asking

    async def _resolve_names(self) -> None:
        async for service_type, name in self._to_resolve:
            responder = self._responder
            if responder is None:
                continue
            try:
                info = ServiceInfo(service_type, name)
                found = await trio.to_thread.run_sync(
                    lambda info=info, zc=responder: info.request(zc, RESOLVE_MS, question_type=_MULTICAST),  # type: ignore[misc]
                    abandon_on_cancel=True,
                    limiter=self._resolve_threads,
                )
            except Exception:  # the responder was closed under it, or the name is odd
                _log.debug("an mDNS name that can't be resolved")
                continue
            if found:
                self._found(info)

    def _no_interface(self) -> str:
        names = self._interfaces.names
        return f"no address on {', '.join(names)}" if names else "no network interface is up"


def _binds(addresses: Sequence[Address]) -> tuple[list[str | int | tuple[tuple[str, int, int], int]], IPVersion]:
    """One IPv4 and one IPv6 address an interface: a second join of the same group on one interface would fail."""
    chosen: dict[tuple[str, int], Address] = {}
    for address in sorted(addresses, key=lambda address: not address.link_local):
        version = ipaddress.ip_address(address.ip).version
        if version == 6 and address.loopback:
            continue  # ff02::fb can't be used on ::1; 127.0.0.1 serves the loopback interface
        if version == 4 and address.link_local and (address.interface, 4) not in chosen:
            chosen[address.interface, 4] = address
            continue
        if version == 4:
            known = chosen.get((address.interface, 4))
            if known is None or known.link_local:
                chosen[address.interface, 4] = address
            continue
        chosen.setdefault((address.interface, 6), address)  # link-local first, as RFC 6762 would have it
    choice: list[str | int | tuple[tuple[str, int, int], int]] = [address.ip for address in chosen.values()]
    versions = {version for _, version in chosen}
    if versions == {4, 6}:
        return choice, IPVersion.All
    return choice, IPVersion.V6Only if versions == {6} else IPVersion.V4Only


def _usable_now(address: Address) -> bool:
    ip6 = ":" in address.ip
    family = socket.AF_INET6 if ip6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind((address.ip, 0, 0, address.index if address.link_local else 0) if ip6 else (address.ip, 0))
    except OSError:
        return False
    return True


def _announceable(addresses: Sequence[Address]) -> list[Address]:
    """IPv4 first, then wide IPv6, then link-local, at most 16."""
    return sorted(addresses, key=lambda address: (":" in address.ip, address.link_local))[:MAX_ADDRESSES]


def _scoped(addresses: Sequence[str], own: Sequence[Address]) -> list[str]:
    """Link-local IPv6 addresses with the name of the interface that they were heard on; where that is not known (an
    AAAA record that came over IPv4), with every one that it could be."""
    links = {address.index: address.interface for address in own if ":" in address.ip and address.link_local}
    found: list[str] = []
    for text in addresses:
        ip, _, scope = text.partition("%")
        if ":" not in ip or not ipaddress.ip_address(ip).is_link_local:
            found.append(text)
        elif scope.isdecimal():
            found.append(f"{ip}%{links.get(int(scope), scope)}")
        elif scope:
            found.append(text)
        else:
            found.extend(f"{ip}%{name}" for name in links.values())
    return found


def _renumbered(before: Sequence[Address], now: Sequence[Address]) -> bool:
    indexes = {address.host: address.index for address in before}
    return any(indexes.get(address.host, address.index) != address.index for address in now)
