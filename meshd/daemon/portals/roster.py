"""The portals of this mesh: which there are, the tasks that keep them in step, adding one and giving one up.

Which accounts a mesh has is said in items of its Discovery vault, which every device can read without a person (ADR
0017); the store remembers them beside how far each was followed. So an account that one device opened is used by all,
and a device that joined through a portal follows it before it has read that item.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import trio

from meshd.crypto.keys import SigningKey
from meshd.daemon import names as naming
from meshd.daemon import vaults
from meshd.daemon.context import Daemon, wait
from meshd.daemon.pen import Pen
from meshd.daemon.portals import known_keys, renewed, verify
from meshd.daemon.portals.account import open_account, shown_profiles
from meshd.daemon.portals.following import Following
from meshd.daemon.portals.link import Link, Where
from meshd.daemon.portals.listed import containers, items_of, stated
from meshd.daemon.portals.publishing import Publishing
from meshd.daemon.portals.state import Portal
from meshd.errors import BadRequest, Denied, FormatError, MeshError, NotFound
from meshd.net.lan import parse_address
from meshd.net.portal_client import HttpClient
from meshd.net.srv import Services
from meshd.portal import names
from meshd.portal.codec import Dialect
from meshd.portal.messages import PublishRequest, PublishResponse
from meshd.portal.names import AccountName
from meshd.profile.apps import DISCOVERY
from meshd.profile.apps import portals as entries
from meshd.profile.apps.portals import PortalEntry
from meshd.store import portals_client as store

LEAVE_SECONDS = 10.0
AFTER_FAULT = 60.0  # seconds until a task that failed by our own mistake is begun again


class Portals:
    """The registry. `http` and `services` are how they are reached: the network, unless a test says otherwise."""

    def __init__(self, daemon: Daemon, http: HttpClient | None = None, services: Services | None = None) -> None:
        self.daemon = daemon
        self.http = http or HttpClient()
        self.services = services or Services()
        self.running: dict[str, Portal] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep every portal of the mesh in step until cancelled."""
        daemon = self.daemon
        last: object = None
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                nursery.start_soon(renewed.run, self)
                while True:
                    moved, changed = daemon.moved.count, daemon.changed.count
                    now = self._state()
                    if now != last:
                        try:
                            await self._reconcile(nursery)
                            last = self._state()
                        except MeshError as exc:
                            daemon.log.warning("the list of portals was not followed: %s", exc)
                    await naming.settled_past(daemon, moved, changed)
        finally:
            with trio.CancelScope(shield=True):
                await self.http.aclose()

    def get(self, account: str) -> Portal:
        """The portal of an account, or the only one that the text fits; NotFound."""
        fitting = [one for name, one in self.running.items() if account in (name, one.account.portal)]
        if len(fitting) != 1:
            raise NotFound("This mesh has no such account.", hint="see: meshctl portal list")
        return fitting[0]

    def views(self) -> list[dict[str, Any]]:
        """All of them as the local API shows them, by account."""
        return [self.running[name].view() for name in sorted(self.running)]

    def link(self, where: Where, key: Callable[[], SigningKey | None] | None = None) -> Link:
        """A way to talk to a portal, signed by this device unless another key is given."""
        daemon = self.daemon

        def own() -> SigningKey | None:
            return daemon.tier1.dak if daemon.tier1 is not None else None

        def spare() -> SigningKey | None:
            return daemon.tier1.spare if daemon.tier1 is not None and key is None else None

        return Link(
            self.http,
            self.services,
            where,
            key=key or own,
            spare=spare,
            now=lambda: daemon.now_ms() // 1000,
            rng=daemon.rng,
        )

    # --- what the local API asks for ----------------------------------------------------------------------------------

    async def add(self, account: str, address: str, invite: str | None, *, plain: bool) -> dict[str, Any]:
        """Open the account if it is not open, and have the mesh use it. Exists, Denied, NetworkError, Locked …"""
        where = where_of(account, address, plain=plain)
        daemon = self.daemon
        daemon.unlocked()
        if not daemon.snapshot.is_member:
            raise Denied("This device was removed from its mesh.", hint="run: meshctl wipe, then connect it anew")
        await open_account(daemon, self.link(where), invite)
        entry = PortalEntry(str(where.account), address, plain)

        def write(pen: Pen) -> None:
            said = stated(daemon, pen.connection).live.get(entry.account)
            if said is None or replace(said[0], log_keys=()) != entry:
                opened = pen.keyring.find(DISCOVERY.name)
                for identifier in items_of(daemon, pen.connection, entry.account):
                    vaults.replace(pen, identifier, lambda item, t, made: entries.deleted(item, time=t, made=made))
                written = vaults.add(pen, opened, lambda t, made: entries.item(entry, time=t, made=made))
                item = written.identifier
            else:
                item = said[1]
            store.put(pen.connection, entry.account, entry.address, plain=entry.plain, item=item)

        await daemon.write(write)
        await self._started(entry.account)
        return self.running[entry.account].view()

    async def remove(self, account: str) -> dict[str, Any]:
        """No device of the mesh uses the account any more. At the portal it stays as it is. NotFound, Locked."""
        portal, daemon = self.get(account), self.daemon

        def write(pen: Pen) -> None:
            for identifier in items_of(daemon, pen.connection, portal.name):
                vaults.replace(pen, identifier, lambda item, t, made: entries.deleted(item, time=t, made=made))
            if not (row := store.get(pen.connection, portal.name)) or not row.item:
                store.forget(pen.connection, portal.name)  # the mesh never said that it has it

        shown = portal.view()
        await daemon.write(write)
        with trio.move_on_after(LEAVE_SECONDS + 2):
            while portal.name in self.running:
                seen = daemon.changed.count
                if portal.name in self.running:
                    await daemon.changed.after(seen)
        return shown

    async def close(self, account: str) -> dict[str, Any]:
        """As `remove`, and the portal closes the account: nobody gets its name again.

        NotFound, Locked; Denied where this device is no administrator's; NetworkError, whose hint says it where the
        account is used no more and still open."""
        portal, daemon = self.get(account), self.daemon
        if daemon.snapshot.own not in daemon.replica.authority.admins():
            raise Denied("Only an administrator's device closes an account.", hint="run meshctl portal close there")
        link = self.link(portal.link.where)
        await link.hello()
        if link.dialect is Dialect.PLAIN:
            raise Denied("A portal of 2016 has no word for closing an account.", hint="see: meshctl portal remove")
        if portal.error is not None:
            raise portal.error
        # The other devices learn it from the portal, so they are told before it is closed.
        shown = await self.remove(account)
        try:
            await link.ask("Publish", PublishRequest(close=portal.name), PublishResponse)
        except MeshError as exc:
            if isinstance(exc, NotFound) and not await shown_profiles(link):
                return shown  # it was closed already
            exc.hint = f"{portal.name} is used no more, and still open; meshctl portal add it again to close it"
            raise
        return shown

    # --- the list -----------------------------------------------------------------------------------------------------

    def _state(self) -> object:
        """Something that differs when the list may be another one. Cheap: most commits are about something else."""
        daemon = self.daemon
        connection = daemon.reader.connection
        heads = [vaults.heads_in(connection, container) for container in containers(daemon)]
        keys = daemon.tier1.discovery if daemon.tier1 is not None else ()
        rows = [(row.account, row.address, row.plain) for row in store.every(connection)]
        return heads, keys, rows, daemon.snapshot.is_member, daemon.tier1 is not None

    async def _reconcile(self, nursery: trio.Nursery) -> None:
        daemon = self.daemon
        said = stated(daemon, daemon.reader.connection)
        rows = {row.account: row for row in store.every(daemon.reader.connection)}

        def write(connection: sqlite3.Connection) -> None:
            for account, (entry, item) in said.live.items():
                store.put(connection, account, entry.address, plain=entry.plain, item=item)
            for account in ended:
                store.forget(connection, account)

        ended = [row.account for row in rows.values() if row.account not in said.live and row.item in said.gone]
        for account in [account for account in ended if account in self.running]:
            ended.remove(account)
            if not self.running[account].leaving:
                self.running[account].leaving = True
                nursery.start_soon(self._leave, self.running[account])
        known = {(row.account, row.address, row.plain, row.item) for row in rows.values()}
        told = {(account, entry.address, entry.plain, item) for account, (entry, item) in said.live.items()}
        if not told <= known or ended:
            await wait(daemon.writer.submit(write))
        usable = daemon.tier1 is not None and daemon.snapshot.is_member
        wanted = {row.account: row for row in store.every(daemon.reader.connection)} if usable else {}
        for account, portal in list(self.running.items()):
            row = wanted.get(account)
            where = portal.link.where
            if row is None or (row.address, row.plain) != (where.address, where.plain):
                portal.scope.cancel()
                del self.running[account]
        for account, row in wanted.items():
            if account not in self.running:
                where = where_of(account, row.address, plain=row.plain, moved=row.moved)
                portal = Portal(daemon, where.account, self.link(where), page_key=row.page_key)
                self.running[account] = portal
                nursery.start_soon(self._keep, portal)
        for account, portal in self.running.items():
            portal.told_keys = said.live[account][0].log_keys if account in said.live else ()
        daemon.changed.bump()

    async def _keep(self, portal: Portal) -> None:
        """The tasks of one portal. A mistake of ours that a portal can bring about ends neither them nor the daemon."""
        with portal.scope:
            while True:
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(Following(portal).run)
                        nursery.start_soon(Publishing(portal).run)
                        nursery.start_soon(self._remember_move, portal)
                        nursery.start_soon(portal.watch.run)
                        nursery.start_soon(known_keys.keep, portal)
                        nursery.start_soon(verify.audit, portal)
                except* Exception:
                    self.daemon.log.exception("the tasks for a portal failed; they begin anew in a minute")
                    row = store.get(self.daemon.reader.connection, portal.name)
                    portal.page_key = row.page_key if row is not None else ""
                await trio.sleep(AFTER_FAULT)

    async def _remember_move(self, portal: Portal) -> None:
        """Where a portal moved to for good is kept over restarts."""
        told = ""
        while True:
            seen = self.daemon.changed.count
            if portal.link.moved != told:
                told = portal.link.moved
                await self._moved(portal.name, told)
            await self.daemon.changed.after(seen)

    async def _leave(self, portal: Portal) -> None:
        """The account was given up: the portal still gets that last word, for the devices that have no other way."""
        with trio.move_on_after(LEAVE_SECONDS):
            while portal.error is None and portal.behind():
                seen = self.daemon.changed.count
                if portal.behind():
                    await self.daemon.changed.after(seen)
        name = portal.name
        await wait(self.daemon.writer.submit(lambda connection: store.forget(connection, name)))
        portal.scope.cancel()
        self.running.pop(name, None)
        self.daemon.changed.bump()

    async def _moved(self, account: str, uri: str) -> None:
        await wait(self.daemon.writer.submit(lambda connection: store.moved(connection, account, uri)))

    async def _started(self, account: str) -> None:
        """Wait until its tasks run; the list is followed by another task."""
        while account not in self.running:
            seen = self.daemon.changed.count
            if account not in self.running:
                await self.daemon.changed.after(seen)


def where_of(account: str, address: str = "", *, plain: bool = False, moved: str = "") -> Where:
    """Checked; BadRequest says what is wrong with an account's name or an address."""
    try:
        name: AccountName = names.normalise(account)
    except FormatError as exc:
        raise BadRequest(f"not an account: {exc}", hint="an account is NAME@PORTAL, as in alice@example.net") from exc
    if address:
        parse_address(address)
    return Where(name, address, plain, moved)
