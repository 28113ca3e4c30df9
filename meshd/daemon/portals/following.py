"""Reading a portal's feed: everything that it holds of the mesh, in its order, and what comes, as it comes.

Every version is verified as one from a sibling and goes through the same door, so that a portal's lies change nothing:
what is malformed, wrongly signed or of another mesh is dropped and counted. How far the feed was followed is written in
the transaction that takes a page in; meanwhile the next page is verified, and the one behind that fetched.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from meshd.daemon.context import Daemon
from meshd.daemon.helping import Helper
from meshd.daemon.portals.account import check_mesh, come_back, open_account, shown_profiles
from meshd.daemon.portals.state import NotListed, Portal
from meshd.daemon.portals.watch import settle
from meshd.daemon.verifying import Verified, combined, verify
from meshd.errors import (
    Denied,
    Exists,
    FormatError,
    MeshError,
    NetworkError,
    NotFound,
    Refused,
    RemoteProtocolError,
    TrustError,
)
from meshd.portal.messages import GetRecordsResponse, GetRequest
from meshd.portal.structures import KeyValue, Noticed, SearchConstraints
from meshd.profile import payload
from meshd.profile.version import Parsed
from meshd.store import events, peers
from meshd.store import portals_client as store
from meshd.store.portal_pins import PinRow
from meshd.store.replica import Outcome

PAGE = 1000  # records asked for at once
MANY = 500  # records of a page behind which so many more are expected that a helper pays
WAIT = 55  # seconds that the portal may hold an empty answer
EARLY = 3.0  # an empty answer that comes sooner was not held
FIRST_UNHELD_PAUSE, UNHELD_PAUSE = 0.1, 10.0
PLAIN_PAUSE = 120.0  # between two looks at a portal of 2016
MAX_PAGE_KEY = 512
MAX_TOLD = 20  # notices that are looked at
TOLD_SECONDS = 60.0  # between two times that a portal may make a person look up
LOOKED_UP, PUBLISHED = "looked-up", "published"


@dataclass(frozen=True, slots=True)
class _Page:
    raws: tuple[bytes, ...] = field(repr=False)
    page_key: str
    end: bool  # nothing follows as yet
    asked: int  # how often somebody had wanted to know, when it was asked for
    told: tuple[Noticed, ...] = ()
    life: int = 0  # of the portal, when it was asked for


class Following:
    """The task that reads one portal's feed."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._daemon: Daemon = portal.daemon
        self._told = -math.inf  # when it told something last
        self._helper = Helper(portal.daemon.replica.directory)
        self._asked = peers.asked(self._daemon.reader.connection)  # what our place in its feed means
        self._anew = False  # the portal lost what it had: once it was seen what is left, it gets the rest again

    async def run(self) -> None:
        """Follow until cancelled; whatever goes wrong is told in `status` and tried again."""
        failures = 0
        while True:
            try:
                await self._follow()
            except* MeshError as group:
                error = _first(group)
                failures = 1 if self._portal.follow_error is None else failures + 1
                self._portal.went(follow=True, error=error)
                await self._portal.pause(failures, error)

    async def _follow(self) -> None:
        """One stretch of following, until something goes wrong."""
        portal = self._portal
        if portal.link.dialect is None:
            await portal.link.hello()
        if portal.plain:
            await self._follow_plain()
        portal.watch.check()
        asked = peers.asked(self._daemon.reader.connection)
        if asked != self._asked:
            self._asked, portal.page_key = asked, ""
        send, receive = trio.open_memory_channel[_Page](1)
        checked, taken = trio.open_memory_channel[tuple[_Page, Verified]](0)
        failures: list[MeshError] = []

        async def fetch() -> None:
            async with send:  # what was fetched before something went wrong is taken in all the same
                try:
                    await self._fetch(send)
                except MeshError as exc:
                    failures.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._helper.keep)
            nursery.start_soon(fetch)
            nursery.start_soon(self._check, receive, checked)
            await self._take_in(taken)
            nursery.cancel_scope.cancel()  # the helper
        raise failures[0]

    # --- fetching -----------------------------------------------------------------------------------------------------

    async def _fetch(self, pages: trio.MemorySendChannel[_Page]) -> None:
        portal = self._portal
        key, end, early = portal.page_key, False, 0
        while True:
            began, asked = trio.current_time(), portal.nudges
            with trio.CancelScope() as polling:
                portal.polling = polling if end else None
                page = await self._page(key, WAIT if end else 0, asked)
            portal.polling = None
            if polling.cancelled_caught:
                end = False
                continue
            if page.raws and page.page_key == key:
                raise RemoteProtocolError("the portal gives the same page of its feed again and again")
            key = page.page_key
            await pages.send(page)
            early = early + 1 if page.end and end and trio.current_time() - began < EARLY else 0
            if early:  # once is nothing; a portal that holds no answers is asked now and then
                wake = portal.wake
                with trio.move_on_after(min(FIRST_UNHELD_PAUSE * 2 ** min(early, 16), UNHELD_PAUSE)):
                    await wake.wait()
            end = page.end and portal.nudges == asked

    async def _page(self, key: str, wait: int, nudges: int) -> _Page:
        mesh, life = self._daemon.snapshot.mesh, self._portal.life
        asked = GetRequest(
            key_values=[KeyValue(key="UserProfile", value=mesh)],
            search_constraints=SearchConstraints(max_entries=PAGE, page_key=key or None),
        )
        try:
            answer = await self._portal.link.ask("GetRecords", asked, GetRecordsResponse, wait=wait, receipts=False)
        except NotFound:
            await self._not_there(key)
            raise
        items = answer.data_items or []
        following = answer.page_key or ""
        if len(following) > MAX_PAGE_KEY or (items and not following):
            raise RemoteProtocolError("the portal does not say where its feed goes on")
        raws = tuple(bytes(item.data) for item in items if item.data)
        return _Page(raws, following or key, not items, nudges, tuple((answer.notices or ())[:MAX_TOLD]), life)

    async def _not_there(self, key: str) -> None:
        """The portal says that there is nothing: it lost what it had, the account is not open, or it does not know us.

        Returns where another attempt may go better at once; raises what is wrong otherwise."""
        portal, daemon = self._portal, self._daemon
        if key:  # before it gets again what it lost: is that the log that it had?
            await portal.watch.settle(await portal.watch.look())
        lost = bool(key) and await self._knows_us()
        shown = [] if lost else await shown_profiles(portal.link)
        check_mesh(shown, daemon.snapshot.mesh)
        if lost or (key and not shown):
            # Of another life of that portal: what it lost it gets from us again.
            portal.page_key = ""
            portal.life += 1
            portal.holds.clear()
            await daemon.transact(lambda connection, outcome: store.begin_anew(connection, portal.name))
            self._anew = True
        if lost:
            return
        if not shown:
            try:
                await open_account(daemon, portal.link)
            except (Exists, Denied) as exc:
                raise Refused(
                    "The portal has no account of that name for this mesh any more.",
                    hint="it was closed, or lost: meshctl portal remove it, and add another",
                ) from exc
            return
        await self._profiles(shown)
        if await come_back(daemon, portal.link, shown):
            return
        raise NotListed("The portal does not know this device yet.", hint="let a device that it knows connect to it")

    async def _knows_us(self) -> bool:
        """Does the portal answer when it is asked from the beginning? Then only the place in its feed was lost."""
        asked = GetRequest(
            key_values=[KeyValue(key="UserProfile", value=self._daemon.snapshot.mesh)],
            search_constraints=SearchConstraints(max_entries=1),
        )
        try:
            await self._portal.link.ask("GetRecords", asked, GetRecordsResponse)
        except NotFound:
            return False
        return True

    async def _profiles(self, shown: list[Parsed]) -> None:
        """Take in what anybody may read: by it a device learns that it was removed, or admitted."""
        await self._accept(await self._verified(tuple(one.raw for one in shown)), None)

    # --- taking in ----------------------------------------------------------------------------------------------------

    async def _check(
        self, pages: trio.MemoryReceiveChannel[_Page], checked: trio.MemorySendChannel[tuple[_Page, Verified]]
    ) -> None:
        """Verify each page while the one before is written, and the one behind is fetched."""
        async with pages, checked:
            async for page in pages:
                if len(page.raws) >= MANY:
                    self._helper.expect_much()
                await checked.send((page, await self._verified(page.raws)))

    async def _take_in(self, pages: trio.MemoryReceiveChannel[tuple[_Page, Verified]]) -> None:
        portal = self._portal
        asked = -1  # a portal that is reached anew, or asked by a person, shows its log even where there is no news
        async with pages:
            async for page, verified in pages:
                if page.life != portal.life:  # it is good to have it, and says nothing of what the portal has now
                    await self._accept(verified, None)
                    continue
                if page.raws or page.page_key != portal.page_key or page.asked != asked:
                    asked = page.asked
                    await self._accept(verified, page.page_key, await portal.watch.look(), page.told)
                    portal.page_key = page.page_key
                if peers.asked(self._daemon.reader.connection) != self._asked:
                    raise NetworkError("something may stand now for which there was no room; asking for it again")
                portal.reached = True
                before = portal.caught_up
                portal.caught_up = page.end and page.asked == portal.nudges
                portal.went(follow=True, error=None)
                if page.end:
                    portal.entered.set()
                    if self._anew:
                        self._anew = False
                        portal.rouse()
                if portal.caught_up != before:
                    self._daemon.changed.bump()

    async def _verified(self, raws: tuple[bytes, ...]) -> Verified:
        if not raws:
            return Verified((), (), ())
        return await self._helper.verify(raws, [None] * len(raws))

    async def _accept(
        self, verified: Verified, page_key: str | None, seen: PinRow | None = None, told: tuple[Noticed, ...] = ()
    ) -> None:
        """One transaction: the versions, how far the feed was followed, the checkpoint that covers it, and what the
        portal tells."""
        portal, daemon, asked = self._portal, self._daemon, self._asked
        said = told_events(told) if trio.current_time() - self._told >= TOLD_SECONDS else {}
        self._told = trio.current_time() if said else self._told

        def commit(connection: sqlite3.Connection, outcome: Outcome) -> tuple[int, list[tuple[bytes, int]]]:
            """How many of them are no versions of this mesh, or by nobody whom it lists; and which are held, with the
            places that our own numbering gives them, as far as they are behind its cursor."""
            settle(connection, portal.name, seen)
            daemon.replica.accept(connection, verified.versions, daemon.now_ms(), outcome)
            for (kind, state), when in said.items():
                events.append(connection, daemon.now_ms(), kind, {"state": state, "name": portal.name, "at": when})
            foreign = sum(why == _FOREIGN for _, why in outcome.rejected) + len(outcome.strangers)
            if page_key is None or peers.asked(connection) != asked:
                return foreign, []
            store.followed(connection, portal.name, page_key, daemon.now_ms())
            at = store.cursor(connection, portal.name)
            return foreign, store.places(connection, [one.vid for one in verified.versions], at)

        if verified.unknown:  # the profile that lists their signer may have come with them
            again = await verify(verified.unknown, [None] * len(verified.unknown), daemon.replica.directory)
            verified = combined([Verified(verified.versions, (), verified.refused), again])
        foreign, shown = await daemon.transact(commit)
        portal.holds.update(shown)
        for _, state in said:
            daemon.log.warning("portal %s tells: %s", portal.name, state)
        if said:
            daemon.changed.bump()
        lies = foreign + len(verified.refused) + len(verified.unknown)
        if lies:
            portal.lies += lies
            daemon.log.warning("portal %s gave %s versions that can't be believed", portal.name, lies)
            daemon.changed.bump()

    # --- 2016 ---------------------------------------------------------------------------------------------------------

    async def _follow_plain(self) -> None:
        """A portal of 2016 has no feed: its profile is looked at now and then."""
        portal = self._portal
        while True:
            shown = await shown_profiles(portal.link)
            if not shown:
                await open_account(self._daemon, portal.link)
            try:
                check_mesh(shown, self._daemon.snapshot.mesh)
            except TrustError:
                portal.lies += 1
                raise
            await self._profiles(shown)
            portal.reached = True
            portal.went(follow=True, error=None)
            portal.entered.set()
            wake = portal.wake
            with trio.move_on_after(PLAIN_PAUSE):
                await wake.wait()


# What a portal tells: (type, state) of an event.
_TOLD = {"escrow-read": ("recovery", LOOKED_UP), "published-by-master-key": ("master", PUBLISHED)}


def told_events(told: Iterable[Noticed]) -> dict[tuple[str, str], str]:
    """The events that notices make, each once, and when it happened last by the portal's clock. What this release does
    not know is left out."""
    found = {}
    for one in told:
        try:
            payload.read_date(one.time)
        except FormatError:
            continue
        if one.what in _TOLD:
            found[_TOLD[one.what]] = one.time
    return found


_FOREIGN = "a profile of another mesh"


def _first(group: BaseExceptionGroup[MeshError]) -> MeshError:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, MeshError)
    return found
