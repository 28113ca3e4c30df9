"""The portal: which tasks run, in which order they start, and how they stop.

tasks   a listener each · connections · the administrator's socket · figures · the sweep of what has expired
start   everything that listens is started before READY is told
stop    SIGTERM or SIGINT: nothing new, feeds answer at once, what is being answered finishes, then cut; the store last
"""

from __future__ import annotations

import datetime
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from meshd.daemon.config import Address
from meshd.daemon.logging import told
from meshd.daemon.portal import admin, fetching
from meshd.daemon.portal.config import Config
from meshd.daemon.portal.http import Limits, Server
from meshd.daemon.portal.limits import Buckets
from meshd.daemon.portal.metrics import Metrics
from meshd.daemon.portal.mirror import Mirror
from meshd.daemon.portal.origin import Origin
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.service import Service
from meshd.daemon.portal.tls import Certificate
from meshd.daemon.portal.witnesses import COSIGNS, Witnesses
from meshd.daemon.portal.writes import Applied
from meshd.errors import BadRequest, MeshError
from meshd.net import systemd
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Services
from meshd.net.streams import STREAM_ERRORS, os_words
from meshd.portal import names
from meshd.store.db import get_meta, set_meta

STORE, SOCKET, LOCK, CONFIG = "portal.db", "portal.sock", "portal.lock", "portal.toml"
GRACE_SECONDS = 10.0  # for what is being answered when the portal stops
HANDSHAKE_SECONDS = 10.0
SWEEP_SECONDS = 60.0
_FULL_SECONDS = 0.1  # wait when there are no descriptors left for new connections
_BACKLOG = 1024
_log = logging.getLogger(__name__)


class Portal:
    """One portal, running. Made by `open_portal`; `run` returns when it has stopped."""

    def __init__(
        self,
        config: Config,
        directory: Path,
        *,
        fault: Callable[[str], None] | None = None,
        trust: ssl.SSLContext | None = None,
        mirror: Callable[[Sequencer, HttpClient], Mirror] | None = None,
    ) -> None:
        self.config = config
        self.directory = directory
        self.metrics = Metrics()
        self.certificate: Certificate | None = None
        if config.tls_cert:
            self.certificate = Certificate(Path(config.tls_cert), Path(config.tls_key), config.domain, _utc())
        self.sequencer = Sequencer(directory / STORE, domain=config.domain, told=self._count, fault=fault)
        self.http = HttpClient(trust=trust)
        self.mirror = mirror(self.sequencer, self.http) if mirror is not None else None
        self.service = Service(
            self.sequencer,
            config.policy(),
            buckets=Buckets(config.limits),
            metrics=self.metrics,
            hosts=(*config.hosts, *(where.host for where in config.addresses() if _is_name(where.host))),
            behind_proxy=config.behind_proxy,
            mirror=self.mirror,
        )
        limits = Limits(
            connections=config.limits.connections,
            connections_each=config.limits.connections if config.behind_proxy else config.limits.connections_each,
            idle_seconds=config.limits.idle_seconds,
            request_seconds=config.limits.request_seconds,
        )
        self.server = Server(self.service.handle, limits)
        self.figures = Server(self.service.figures, Limits(connections=64))
        self.witnesses = Witnesses(self.sequencer, self.http) if self.sequencer.own_log is not None else None
        self.addresses: list[str] = []  # where it listens, once it does
        self.metrics.gauges = {
            "connections": ("Connections now.", lambda: self.server.connections),
            "idle_connections": ("Connections that wait for a request.", lambda: self.server.idle),
            "feeds_waiting": ("Requests that wait for news.", lambda: self.sequencer.feeds.waiting),
            "turns_waiting": ("Requests that wait to write.", lambda: self.sequencer.turns.waiting),
            "last_place": ("The last place of the log.", self.sequencer.view.last_index),
        }
        log = self.sequencer.log
        followed = self.mirror
        if followed is not None:
            self.metrics.gauges |= {
                "mirror_size": ("Entries of the mirrored log that are here.", lambda: self.sequencer.edge.size),
                "mirror_target": ("Entries of its newest good checkpoint.", lambda: followed.target),
            }
        elif log is not None:
            self.metrics.gauges |= {
                "log_size": ("Leaves under the newest checkpoint.", lambda: log.signed.size),
                "log_time": ("When that was cosigned by this portal, UTC seconds.", lambda: log.signed.time),
                "log_behind": (
                    "1: a witness has seen more of the log, and nothing is written.",
                    lambda: bool(log.ahead),
                ),
                "witnesses": ("Those that cosigned when last asked.", self._cosigning),
            }

    def _cosigning(self) -> int:
        return sum(state == COSIGNS for state in self.witnesses.states.values()) if self.witnesses is not None else 0

    def _count(self, applied: Applied) -> None:
        self.metrics.versions += len(applied.places)
        self.metrics.accounts += applied.accounts
        if applied.places and self.witnesses is not None:
            self.witnesses.nudge()
        for what, mesh in applied.notices:
            _log.warning("%s in the mesh %s", what, mesh)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`; the task status is told when everything listens. MeshError: it could not start."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                self._accepting = trio.CancelScope()
                listeners = await _listen(self.config.addresses())
                self.addresses = [_spelled(listener) for listener in listeners]
                figures = await _listen([admin.metrics_address(self.config)] if self.config.metrics.listen else [])
                for listener in listeners:
                    nursery.start_soon(self._accept, listener, nursery, self.server, self.certificate)
                for listener in figures:
                    nursery.start_soon(self._accept, listener, nursery, self.figures, None)
                nursery.start_soon(self._sweep)
                fetch = self._fetch if self.witnesses is not None else None
                await nursery.start(
                    partial(admin.serve, self.directory / SOCKET, self.sequencer, self.config.policy(), fetch)
                )
                await self._remember()
                if self.witnesses is not None:
                    await self.witnesses.guard()
                    nursery.start_soon(self.witnesses.run)
                    nursery.start_soon(self.witnesses.keep_fresh)
                    nursery.start_soon(self.witnesses.note_others)
                if self.mirror is not None:
                    nursery.start_soon(self.mirror.run)
                task_status.started()
        finally:
            with trio.CancelScope(shield=True):
                await self.http.aclose()
            self.sequencer.close()

    async def _fetch(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Get what this store lost from a mirror."""
        log = self.sequencer.own_log
        assert log is not None and self.witnesses is not None
        where = names.normalise_portal(asked["source"])
        source = Origin(
            self.http,
            Services(),
            where,
            log.peer.key,
            address=asked["address"],
            plain=asked["plain"],
            now=lambda: log.now,
        )
        came = await fetching.fetch(self.sequencer, self.witnesses, source)
        return {"fetched": came, "size": log.signed.size, "behind": log.ahead}

    async def _remember(self) -> None:
        """Whose portal this directory is; BadRequest if it is another's: its accounts are of that domain."""
        mirrors = self.sequencer.mirrors
        if mirrors is not None and self.mirror is None:
            raise BadRequest(
                f"{self.directory} mirrors {mirrors}",
                hint=f"meshd portal mirror --of {mirrors}; or, where that is lost, meshd portal admin promote",
            )
        domain = self.config.domain.encode()
        known = get_meta(self.sequencer.view.connection, "domain")
        if known is None:
            await self.sequencer.change(lambda connection: set_meta(connection, "domain", domain))
        elif known != domain:
            raise BadRequest(f"{self.directory} is the portal of {known.decode()}, not of {self.config.domain}")

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Drain, then cut."""
        self.service.stopping = True
        self._accepting.cancel()
        self.server.stop()
        self.figures.stop()
        self.sequencer.feeds.all()
        with trio.move_on_after(grace):
            await self.server.drained.wait()
        self._scope.cancel()

    def reload(self) -> None:
        """Take the certificate's files again."""
        if self.certificate is None:
            return
        try:
            self.certificate.reload(_utc())
            _log.info("the certificate was read again")
        except MeshError as exc:
            _log.error("the certificate in use stays in use: %s", told(exc))

    async def _accept(
        self, listener: trio.SocketListener, nursery: trio.Nursery, server: Server, certificate: Certificate | None
    ) -> None:
        with self._accepting:
            async with listener:
                while True:
                    try:
                        stream = await listener.accept()
                    except OSError as exc:
                        _log.warning("no new connection for a moment: %s", os_words(exc))
                        await trio.sleep(_FULL_SECONDS)
                        continue
                    nursery.start_soon(self._connection, stream, server, certificate)

    async def _connection(self, stream: trio.SocketStream, server: Server, certificate: Certificate | None) -> None:
        try:
            address, local = str(stream.socket.getpeername()[0]), str(stream.socket.getsockname()[0])
        except OSError:
            await trio.aclose_forcefully(stream)
            return
        if certificate is None:
            await server.serve(stream, address, local)
            return
        secure = trio.SSLStream(stream, certificate.context, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                await secure.do_handshake()
        except (*STREAM_ERRORS, trio.TooSlowError):
            await trio.aclose_forcefully(stream)
            return
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        await server.serve(secure, address, local)

    async def _sweep(self) -> None:
        while True:
            try:
                await self.sequencer.sweep(int(time.time()))
            except MeshError as exc:
                _log.warning("what has expired stays a while: %s", told(exc))
            await trio.sleep(SWEEP_SECONDS)


async def run_portal(
    config: Config, directory: Path, mirror: Callable[[Sequencer, HttpClient], Mirror] | None = None
) -> None:
    """Be this directory's portal, or mirror, until a signal says stop. The caller holds its lock."""
    _more_descriptors()
    # What lives for one request is freed by its count; looking for cycles so often costs a tenth of the time.
    gc.set_threshold(20_000, 20, 20)
    portal = Portal(config, directory, mirror=mirror)
    try:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
                await nursery.start(portal.run)
                where = ", ".join(portal.addresses)
                what = "portal" if portal.mirror is None else "mirror"
                systemd.sd_notify(os.environ, "READY=1", f"STATUS=listening on {where}")
                _log.info("the %s of %s listens on %s", what, config.domain, where)
                nursery.start_soon(_watchdog)
                async for number in signals:
                    if number == signal.SIGHUP:
                        portal.reload()
                        continue
                    if portal.service.stopping:
                        os._exit(130)
                    systemd.sd_notify(os.environ, "STOPPING=1")
                    nursery.start_soon(_stop, portal, nursery)
    finally:
        portal.sequencer.close()


async def _stop(portal: Portal, nursery: trio.Nursery) -> None:
    await portal.stop()
    nursery.cancel_scope.cancel()


async def _watchdog() -> None:
    seconds = systemd.watchdog_seconds(os.environ)
    while seconds is not None:
        systemd.sd_notify(os.environ, "WATCHDOG=1")
        await trio.sleep(seconds)


async def _listen(addresses: Sequence[Address]) -> list[trio.SocketListener]:
    found: list[trio.SocketListener] = []
    for where in addresses:
        try:
            found += await trio.open_tcp_listeners(where.port, host=where.host or None, backlog=_BACKLOG)
        except (OSError, socket.gaierror) as exc:
            for listener in found:
                await listener.aclose()
            hint = "ports below 1024 need CAP_NET_BIND_SERVICE" if isinstance(exc, PermissionError) else None
            raise BadRequest(f"can't listen on {where}: {os_words(exc)}", hint=hint) from exc
    return found


def _spelled(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    return str(Address(host, port))


def _is_name(host: str) -> bool:
    return bool(host) and not host.replace(".", "").isdecimal() and ":" not in host


def _more_descriptors() -> None:
    """As many connections as the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _utc() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
