"""One connection to one sibling: the sync session driven from the store (docs/specs/sync.md).

Four tasks share a session: the reader owns its events and never waits for the peer to read; the speaker writes, and
serves what the peer wants; the pusher announces what the store got since; the committer takes what arrived and was
checked into one transaction after the other, and acknowledges what is durable. They meet in bounded places, the want
queue and the intake, so a peer that never reads, or never stops, costs a fixed amount.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Collection

import trio

from meshd.daemon import gossip
from meshd.daemon.context import Daemon, wait
from meshd.daemon.progress import Progress
from meshd.daemon.pushing import Pusher
from meshd.daemon.receiving import MAX_BYTES, MAX_ITEMS, Announced, Intake
from meshd.daemon.tracing import Tracer
from meshd.daemon.verifying import Verified, combined, verify
from meshd.errors import MeshError, NetworkError, RemoteProtocolError
from meshd.net.streams import Link
from meshd.store import chains, peers, versions
from meshd.store.db import get_meta
from meshd.store.replica import Outcome
from meshd.sync.arrivals import WINDOW_BYTES, WINDOW_ITEMS
from meshd.sync.events import (
    PeerAck,
    PeerChain,
    PeerChanges,
    PeerClosed,
    PeerEvidence,
    PeerFeed,
    PeerGone,
    PeerHello,
    PeerItem,
    PeerNote,
    PeerProfiles,
    PeerTrace,
    PeerWant,
)
from meshd.sync.messages import TRACES, CloseCode, HelloInfo
from meshd.sync.session import Session

STRIKES = 3  # batches with something malformed or wrongly signed before the peer is left alone for an hour
HELLO_SECONDS = 20.0
QUIET_SECONDS = 90.0  # then we ask for a sign of life
SILENT_SECONDS = 150.0  # then the peer counts as gone
WRITE_SECONDS = 60.0  # a peer that takes nothing for so long is cut off
DOUBT_SECONDS = 5.0  # to answer when there is reason to think that the peer can't be reached here any more


class Conversation:
    """One sync session with the device `udf` over an authenticated stream."""

    def __init__(self, daemon: Daemon, link_stream: trio.abc.Stream, progress: Progress) -> None:
        snapshot = daemon.snapshot
        self._daemon = daemon
        self.progress = progress
        self._numbering = daemon.store_id()  # what our seqs in this conversation mean
        self._asked = peers.asked(daemon.reader.connection)  # what the peer's do
        self._session = Session(
            HelloInfo(
                store_id=self._numbering,
                udf=snapshot.own,
                features=(TRACES,),
                clock_ms=daemon.now_ms(),
                heads=snapshot.heads,
                max_frame=daemon.config.limits.max_frame,
                run=daemon.run,
            ),
            outgoing=progress.outgoing,
        )
        self._link = Link(self._session, link_stream)
        self._store_id = self._run = b""  # the peer's
        self._announced = Announced(0)
        self._intake = Intake(daemon.replica.directory)
        self._wants: deque[tuple[bytes, ...]] = deque()  # what the peer wants; the session bounds it
        self._tracer = Tracer(daemon, self._session)
        self._speak = trio.Event()  # something is to be said
        self._pusher = Pusher(daemon, self._session, progress, self._numbering, self._flush)
        self._heard = trio.current_time()

    async def run(self) -> None:
        """Talk until one side ends it. MeshError says why it was ended early."""
        try:
            self._session.start()
            await self._flush()
            with trio.fail_after(HELLO_SECONDS):
                await self._greet()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._intake.run)
                nursery.start_soon(self._commit)
                nursery.start_soon(self._say)
                nursery.start_soon(self._pusher.run)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._dispel_doubts)
                nursery.start_soon(self._tell_of_portals)
                await self._read()
                nursery.cancel_scope.cancel()
        except* trio.TooSlowError as group:
            raise NetworkError("the other device did not answer in time") from group
        finally:
            self.progress.connected = False
            await self._end()

    async def _end(self) -> None:
        with trio.move_on_after(2) as scope:
            scope.shield = True
            try:
                self._session.close(CloseCode.STOPPING)
                await self._link.flush()
            except MeshError:
                pass  # it is gone already
            await self._save_ack()
        with trio.CancelScope(shield=True):
            await self._link.aclose()

    async def _save_ack(self) -> None:
        """How far each holds the other's versions. Losing it costs a repeated announcement, so it is written once."""
        progress, now, numbering = self.progress, self._daemon.now_ms(), self._numbering
        store_id, run, seq, last = self._store_id, self._run, self._announced.durable, self._announced.last

        whole, asked = self._announced.skipped is None, self._asked

        def save(connection: sqlite3.Connection) -> None:
            if get_meta(connection, "store_id") == numbering:  # or else it was said of other versions
                peers.set_ack(connection, progress.udf, progress.acked)
            if last and whole and peers.asked(connection) == asked:
                peers.set_cursor(connection, progress.udf, store_id, seq, run, last)
            peers.seen(connection, progress.udf, now)

        await wait(self._daemon.writer.submit(save))

    async def _flush(self) -> None:
        with trio.fail_after(WRITE_SECONDS):
            await self._link.flush()

    # --- the reader ---------------------------------------------------------------------------------------------------

    async def _greet(self) -> None:
        while (event := self._session.next_event()) is None:
            await self._link.fill()
        if not isinstance(event, PeerHello):
            raise NetworkError("the other device ended the connection")
        info = event.info
        if info.udf != self.progress.udf:
            raise RemoteProtocolError("the other device says another name than its certificate")
        self._store_id, self._run = info.store_id, info.run
        self.progress.clock_skew_ms = info.clock_ms - self._daemon.now_ms()
        await self._hand_profiles(info.heads)
        cursor = peers.place(self._daemon.reader.connection, self.progress.udf, info.store_id)
        self._announced = Announced(cursor.seq)
        self.progress.ours = self.progress.theirs = cursor.seq
        self._session.feed(info.store_id, cursor.seq, cursor.run, cursor.vid)
        await self._flush()
        self.progress.connected = self.progress.greeted = True
        self._daemon.changed.bump()

    async def _hand_profiles(self, heads: tuple[bytes, ...]) -> None:
        """Profiles go first: the peer judges everything else by them."""
        for raw in self._daemon.profiles_beyond(heads):
            self._session.profiles([raw])
            if self._session.backlog > WINDOW_BYTES:
                await self._flush()

    async def _read(self) -> None:
        while True:
            event = self._session.next_event()
            if event is None:
                self._want()
                if self._wants or self._session.backlog:
                    self._speak.set()
                await self._link.fill()
                self._heard = trio.current_time()
                continue
            match event:
                case PeerItem():
                    self._intake.put(event)
                case PeerChanges():
                    await self._announced_to_us(event)
                case PeerWant():
                    self._wants.append(event.vids)
                case PeerTrace():
                    self._tracer.asked(event)
                    self._speak.set()
                case PeerChain():
                    await self._tracer.heard(event.links)
                case PeerAck():
                    self.progress.acked = max(self.progress.acked, event.seq)
                    self._moved()
                case PeerFeed():
                    await self._start_push(event)
                case PeerProfiles():
                    await self._take_profiles(event.raws)
                case PeerClosed():
                    if event.code in (CloseCode.PROTOCOL, CloseCode.UNSUPPORTED, CloseCode.DENIED):
                        raise NetworkError(f"the other device ended the connection: {event.text or 'no reason given'}")
                    return
                case PeerGone():
                    return
                case PeerNote():
                    await gossip.heard(self._daemon, self.progress.udf, event.text)
                case PeerEvidence():
                    await gossip.heard(self._daemon, self.progress.udf, event.first, event.second)
                case _:
                    pass  # stability: for pruning

    async def _announced_to_us(self, event: PeerChanges) -> None:
        if event.anew:  # the sibling was restored from a backup: its numbers meant other versions
            self._announced = Announced(0)
            self.progress.ours = self.progress.theirs = 0
        held = versions.known(self._daemon.reader.connection, [change.vid for change in event.changes])
        self._announced.add(event.changes, held)
        self._intake.expect(self._announced.queued)
        self.progress.theirs = max(self.progress.theirs, event.changes[-1].seq if event.changes else 0)
        self.progress.caught_up = event.caught_up
        await self._tracer.announced(event.changes, held)
        self._acknowledge()

    def _want(self) -> None:
        """Keep the window filled, half a window at a time, as far as the committer keeps up."""
        outstanding = self._session.outstanding
        full = outstanding > WINDOW_ITEMS // 2 or self._intake.bytes >= MAX_BYTES
        if full or self._tracer.busy or not self._announced.queued:
            return
        room = min(self._session.want_room(), MAX_ITEMS - self._intake.items - outstanding)
        if room <= 0:
            return
        part = self._announced.next(room)
        self._announced.wanted(self._session.want([one.vid for one in part], [one.size for one in part]))
        self._speak.set()

    def _acknowledge(self) -> None:
        """Everything up to the first row that is not durable yet is ours."""
        if self._announced.advance():
            self.progress.ours = self._announced.durable
            self._session.ack(self._announced.durable)
            self._moved()

    async def _take_profiles(self, raws: tuple[bytes, ...]) -> None:
        """Profiles come before everything that is judged by them, so they are taken in at once."""
        verified = await verify(raws, [None] * len(raws), self._daemon.replica.directory)
        if verified.refused or verified.unknown:
            self._strike(verified.refused or ("a profile by a signer that no profile lists",))
        await self._store(verified, [])

    # --- the speaker --------------------------------------------------------------------------------------------------

    async def _say(self) -> None:
        """Serve wants, and write out what the others said. Only here and in the pusher the peer may keep us waiting."""
        while True:
            await self._speak.wait()
            self._speak = trio.Event()
            self._tracer.answer()
            while self._wants:
                await self._serve(self._wants.popleft())
            await self._flush()

    async def _serve(self, vids: tuple[bytes, ...]) -> None:
        found = versions.raws(self._daemon.reader.connection, vids)
        for vid in vids:
            if self._session.closed:
                return
            kind, raw = found.get(vid, (0, b""))
            self._session.item(vid, kind, raw)
            if self._session.backlog > WINDOW_BYTES // 4:
                await self._flush()

    # --- the committer ------------------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        """Whatever is checked by the time the writer is free goes into one transaction: a slow disk makes them larger,
        not the wait longer."""
        while True:
            items, found = await self._intake.next()
            if found.unknown:  # the profile that lists the signer may have come in the lot before
                raws = found.unknown
                again = await verify(raws, [None] * len(raws), self._daemon.replica.directory)
                found = combined([Verified(found.versions, (), found.refused), again])
            if found.refused:
                self._strike(found.refused)
            unknown = set(found.unknown)
            await self._store(found, items, {item.vid for item in items if item.raw in unknown})

    async def _store(self, verified: Verified, items: list[PeerItem], unknown: Collection[bytes] = ()) -> None:
        """One transaction: the versions, and the cursor that says so."""
        vids = [item.vid for item in items]
        announced = self._announced
        settled, last = announced.reach(vids)
        left = set(unknown)  # not to be judged now: its signer is not known, or there is no room
        daemon, udf, store_id, run = self._daemon, self.progress.udf, self._store_id, self._run
        asked = self._asked

        def commit(connection: sqlite3.Connection, outcome: Outcome) -> list[tuple[int, bytes]]:
            daemon.replica.accept(connection, verified.versions, daemon.now_ms(), outcome)
            left.update(outcome.deferred, outcome.strangers)
            if settled and not left and announced.skipped is None and peers.asked(connection) == asked:
                peers.set_cursor(connection, udf, store_id, settled, run, last)
            return outcome.added

        devices = daemon.snapshot.devices.keys()
        added = await daemon.transact(commit)
        self._pusher.check_numbering()
        if left:
            announced.skip(left)
            self.progress.skipped += len(left)
        if self.progress.skipped and daemon.snapshot.devices.keys() - devices:
            raise NetworkError("a device was listed whose versions were not taken; asking for them again")
        self._pusher.brought([seq for seq, _ in added])
        self.progress.received += len(verified.versions)
        self._announced.settle(vids)
        self._intake.settle(items)
        if not self._session.closed:
            self._acknowledge()
            self._want()
            self._speak.set()

    def _strike(self, reasons: tuple[str, ...]) -> None:
        self.progress.strikes += 1
        self._daemon.refused(len(reasons))
        if self.progress.strikes >= STRIKES:
            raise RemoteProtocolError(f"the other device sent what can't be believed: {reasons[0]}")

    # --- the pusher ---------------------------------------------------------------------------------------------------

    async def _start_push(self, event: PeerFeed) -> None:
        """From the peer's cursor on; or, where that says what this store never said, from the first version on: this
        store was restored from a backup (formats.md F8), or the peer errs and is told everything again."""
        after, udf = 0, self.progress.udf
        if event.store_id == self._numbering and event.after:
            if peers.holds(self._daemon.reader.connection, peers.Cursor(event.after, event.run, event.vid)):
                after = event.after
            else:

                def doubt(connection: sqlite3.Connection, outcome: Outcome) -> None:
                    peers.forget_ack(connection, udf)
                    outcome.renumbered = chains.doubted(connection, self._daemon.rng)

                await self._daemon.transact(doubt)
                self._pusher.check_numbering()
                self._pusher.anew = True
        self._pusher.begin(after)

    # --- life ---------------------------------------------------------------------------------------------------------

    def _moved(self) -> None:
        self._pusher.go_on()
        self._daemon.changed.bump()

    async def _watch(self) -> None:
        """End the connection of a device that was removed, and of one that is silent."""
        while True:
            seen = self._daemon.changed.count
            if not self._may_stay():
                self._session.close(CloseCode.DENIED, "not a device of this mesh any more")
                await self._flush()
                raise NetworkError("the other device was removed from the mesh")
            if peers.asked(self._daemon.reader.connection) != self._asked:
                raise NetworkError("something may stand now for which there was no room; asking for it again")
            if self.progress.caught_up and self._announced.whole:
                await self._tracer.end()
            with trio.move_on_after(QUIET_SECONDS / 3):
                await self._daemon.changed.after(seen)
            silence = trio.current_time() - self._heard
            if silence > SILENT_SECONDS:
                raise NetworkError("the other device went silent")
            if silence > QUIET_SECONDS:
                self._session.ping()
                await self._flush()

    async def _tell_of_portals(self) -> None:
        """The newest checkpoints that are believed here, and what speaks against a portal; each once."""
        told: set[tuple[str, ...]] = set()
        while not self._session.closed:
            seen = self._daemon.changed.count
            now = gossip.to_tell(self._daemon.reader.connection)
            for texts in now:
                if texts in told:
                    continue
                if len(texts) == 1:
                    self._session.note(texts[0])
                else:
                    self._session.evidence(texts[0], texts[1])
                self._speak.set()
            told = set(now)
            await self._daemon.changed.after(seen)
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _dispel_doubts(self) -> None:
        """TCP alone would take minutes to find out that an address is gone: ask, and do not wait long."""
        while True:
            await self.progress.doubted.wait()
            asked = trio.current_time()
            self._session.ping()
            await self._flush()
            await trio.sleep(DOUBT_SECONDS)
            if self._heard < asked:
                raise NetworkError("the other device can't be reached this way any more")

    def _may_stay(self) -> bool:
        snapshot = self._daemon.snapshot
        return snapshot.is_member and self.progress.udf in snapshot.devices
