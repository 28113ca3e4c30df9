"""`meshctl portal verify`: everything that this mesh published at a portal, held to the portal's log.

The feed is read from its beginning with a receipt for each record. What is proved so must be all that was published
from here, at the places that earlier receipts named; and all that it shows must be known here: a version that this
device never took from anybody is somebody else's work under the mesh's own names.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from meshd.daemon.portals import known_keys, quorum
from meshd.daemon.portals.receipts import PAGE, read
from meshd.daemon.portals.state import Portal
from meshd.daemon.portals.watch import TRIES, Contradicted, Unproved, held_as
from meshd.errors import FormatError, MeshError, NotFound, SignatureError, TrustError
from meshd.portal.messages import GetRecordsResponse, GetRequest
from meshd.portal.structures import DataItem, KeyValue, SearchConstraints
from meshd.profile.claim import Kind, State
from meshd.store import events, portal_pins, versions
from meshd.store import portals_client as store
from meshd.store.replica import Outcome
from meshd.tlog.leaf import Leaf, content_digest

ROWS = 1000
CATCH_UP_SECONDS = 60.0
AUDIT_FIRST, AUDIT_SECONDS = 3600.0, 24 * 3600.0
AUDIT_MOST = 5000  # versions: some megabytes
TRY_PAUSE = 0.5  # seconds
_ESCROW = (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW)  # a feed need not show them, and portals forget them


@dataclass(slots=True)
class _Found:
    """What the feed proved: vid → index of its leaf."""

    places: dict[bytes, int] = field(default_factory=dict)
    unproved: int = 0
    proof: tuple[bytes, str] | None = None  # of the version that is wanted: vid, tlog-proof


async def verify(portal: Portal, wanted: Sequence[bytes] = ()) -> dict[str, Any]:
    """The verdict on one portal, as the local API shows it; it raises nothing that the portal could bring about.

    With `wanted`, the proof of one of these versions comes with it: of the first that is proved now, or was."""
    found = _Found()
    try:
        verdict = await _verified(portal, found, wanted)
    finally:
        portal.verifying = None
    if wanted:
        verdict |= _proof(portal, found, wanted)
    return verdict


async def audit(portal: Portal) -> None:
    """Verify by itself once a day, where that costs little: an intrusion is to be noticed while nobody looks."""
    await portal.entered.wait()
    await trio.sleep(AUDIT_FIRST * (0.5 + random.random()))  # noqa: S311  (so that devices don't ask together)
    while True:
        connection = portal.daemon.reader.connection
        if portal.in_step and not portal.watch.doubted and versions.last_seq(connection) <= AUDIT_MOST:
            said = await verify(portal)
            portal.daemon.log.info("portal %s: %s: %s", portal.name, said["verdict"], said["message"])
        await trio.sleep(AUDIT_SECONDS)


async def _verified(portal: Portal, found: _Found, wanted: Sequence[bytes]) -> dict[str, Any]:
    watch = portal.watch
    try:
        watch.check()
        await watch.settle(await watch.look())
        if watch.pin is None:
            doubt = portal_pins.shown(portal.daemon.reader.connection, portal.name)
            if doubt is not None:
                return _verdict(portal, "suspect", doubt.why)
            return _verdict(portal, "unverifiable", "it keeps no log: what it shows or withholds can't be verified")
        agreed = await watch.compare_siblings()
        if not agreed or (watch.pin.suspect and not watch.pin.owes):
            return _verdict(portal, "suspect", watch.pin.why)
        owed = _owed(portal)  # what is published while the feed is read may be missing there
        await _read_feed(portal, found, frozenset(wanted), len(owed.vids))
        judged = await _judged(portal, found, owed)
        try:
            await quorum.wait_for(watch, watch.policy)
        except SignatureError as exc:
            judged |= {"verdict": "uncosigned", "message": str(exc)} if judged["verdict"] == "verified" else {}
        return judged
    except Contradicted as exc:
        return _verdict(portal, "contradicted", str(exc))
    except (FormatError, TrustError) as exc:
        await watch.suspect(str(exc), owes=True)
        return _verdict(portal, "suspect", str(exc))
    except MeshError as exc:
        return _verdict(portal, "unreachable", str(exc))


async def trust_anew(portal: Portal) -> dict[str, Any]:
    """A person decided: the pin, the evidence and the receipts go, and the next contact is a first one."""
    name = portal.name
    await known_keys.tell(portal, ())
    portal.told_keys, portal.told_until = (), 0.0
    await portal.daemon.transact(lambda connection, outcome: portal_pins.forget(connection, name))
    portal.nudge()
    try:
        await portal.watch.settle(await portal.watch.look())
    except MeshError as exc:
        portal.daemon.log.info("portal %s was not reached yet: %s", name, exc)
    portal.daemon.changed.bump()
    return portal.view()


async def _read_feed(portal: Portal, found: _Found, wanted: frozenset[bytes], expected: int) -> None:
    """All records of this mesh, each verified under a checkpoint of the pinned tree."""
    key: str | None = None
    agreed: set[str] = set()
    while True:
        portal.verifying = len(found.places), max(expected, len(found.places))
        before = len(found.places)
        page, following = await _page(portal, key)
        for item, text in page:
            if not text:
                found.unproved += 1
                continue
            proof, leaf = read(text)
            if not _is_of(leaf, item):
                raise Unproved("the portal shows another record than its log has at that place")
            if proof.checkpoint.text not in agreed:
                await portal.watch.settle(await portal.watch.agree(proof.checkpoint))
                agreed.add(proof.checkpoint.text)
            pin = portal.watch.pin
            if pin is None:
                raise Unproved("the portal was trusted anew meanwhile")
            proof.verify(leaf.hash(), held_as(pin).keys)
            found.places[leaf.vid] = proof.index
            if leaf.vid in wanted:
                found.proof = leaf.vid, text
        if not page or not following or following == key:
            return
        if len(found.places) == before:  # a log has an end, and each page must prove some of it
            raise Unproved("the portal shows pages of its feed that prove nothing new, and may go on for ever")
        key = following


async def _page(portal: Portal, key: str | None) -> tuple[list[tuple[DataItem, str]], str | None]:
    """The records of a page, each with its receipt or "", and the key of the next page. What is so new that it stands
    under no checkpoint yet is asked for again."""
    for attempt in range(TRIES):
        if attempt:
            await trio.sleep(TRY_PAUSE)
        asked = GetRequest(
            key_values=[KeyValue(key="UserProfile", value=portal.daemon.snapshot.mesh)],
            search_constraints=SearchConstraints(max_entries=PAGE, page_key=key),
        )
        answer = await portal.link.ask("GetRecords", asked, GetRecordsResponse)
        items = answer.data_items or []
        receipts = (answer.receipts or [])[: len(items)]
        if all(receipts) and len(receipts) == len(items):
            break
    receipts += [""] * (len(items) - len(receipts))
    return list(zip(items, receipts, strict=True)), answer.page_key


def _is_of(leaf: Leaf, item: DataItem) -> bool:
    """Is this the leaf of the record? What was pruned or erased has no content that could be compared."""
    held = bytes(item.data) if item.data else (item.text or "").encode()
    return leaf.pkey == item.primary_key and (not held or leaf.content == content_digest(held))


@dataclass(frozen=True, slots=True)
class _Owed:
    """What the portal said that it took from here, and where receipts said that it is."""

    vids: set[bytes]
    places: dict[bytes, int]


def _owed(portal: Portal) -> _Owed:
    connection, name = portal.daemon.reader.connection, portal.name
    places = {one.vid: one.place for one in portal_pins.receipts(connection, name)}
    escrow = {row.vid for row in store.by_vid(connection, list(places)) if row.kind in _ESCROW}
    return _Owed(_published(connection, name) | (places.keys() - escrow), places)


async def _foreign(portal: Portal, found: _Found) -> set[bytes]:
    """What the feed proved and nobody of this mesh is known to have written: what this device did not take, though it
    was told all, and entries for recovery that no master profile lists."""
    connection, vids = portal.daemon.reader.connection, list(found.places)

    def strange() -> set[bytes]:
        unlisted = {
            row.vid for row in versions.some(connection, vids) if row.kind in _ESCROW and row.state is State.PENDING
        }
        return (found.places.keys() - versions.known(connection, vids)) | unlisted

    if strange():  # it may have come in between
        portal.nudge()
        with trio.move_on_after(CATCH_UP_SECONDS):
            while not portal.caught_up:
                seen = portal.daemon.changed.count
                if not portal.caught_up:
                    await portal.daemon.changed.after(seen)
    return strange() if portal.caught_up else set()


async def _judged(portal: Portal, found: _Found, owed: _Owed) -> dict[str, Any]:
    watch = portal.watch
    withheld = owed.vids - found.places.keys()
    moved = [vid for vid, place in owed.places.items() if found.places.get(vid, place) != place]
    foreign = await _foreign(portal, found)
    counts = {"proved": len(found.places), "withheld": len(withheld), "foreign": len(foreign)}
    why = ""
    if withheld:
        why = f"{len(withheld)} versions that were published to it are not shown any more"
    elif moved or found.unproved:
        why = f"{len(moved) + found.unproved} versions are not proved to be in its log, or at another place than before"
    if why:
        await watch.suspect(f"the portal does not show what it owes: {why}", owes=True)
        return _verdict(portal, "suspect", why, counts)
    if foreign:
        many = f"{len(foreign)} versions" if len(foreign) > 1 else "a version"
        why = f"it holds {many} under names of this mesh that no device here knows: somebody else wrote there"
    await _alarm(portal, why)
    if why:
        return _verdict(portal, "intrusion", why, counts)
    if watch.view()["state"] == "stale":
        return _verdict(portal, "stale", "its newest checkpoint is old: it may be withholding what is newer", counts)
    return _verdict(portal, "verified", "everything that was published is in its log, which only grew", counts)


async def _alarm(portal: Portal, why: str) -> None:
    """Remember an intrusion until a look finds none any more; what the portal owed was proved."""
    daemon, name = portal.daemon, portal.name
    now = daemon.now_ms()

    def write(connection: sqlite3.Connection, outcome: Outcome) -> None:
        portal_pins.clear(connection, name)
        if portal_pins.intrude(connection, name, why, now):
            events.append(connection, now, "health", {"state": "intrusion", "name": name})

    await daemon.transact(write)
    daemon.changed.bump()


def wanted(portal: Portal, item: str | None) -> list[bytes]:
    """Of which version a proof is meant, the best first: the heads of an item; else what this device published there
    last, or the mesh's profile. NotFound."""
    connection, mesh = portal.daemon.reader.connection, portal.daemon.snapshot.mesh
    if item is not None:
        found = list(versions.heads(connection, Kind.ITEM, item))
        if not found:
            raise NotFound("There is no such item.", hint="see: meshctl password list --json")
        return found
    last = portal_pins.last_receipt(connection, portal.name)
    return [last.vid] if last is not None else list(versions.heads(connection, Kind.PERSONAL, mesh))


def _proof(portal: Portal, found: _Found, wanted: Sequence[bytes]) -> dict[str, Any]:
    """The proof that came now, or the receipt that was verified when it came."""
    connection, (vid, text) = portal.daemon.reader.connection, found.proof or (wanted[0], "")
    if not text:
        kept = [one for each in wanted if (one := portal_pins.receipt(connection, portal.name, each)) is not None]
        vid, text = (kept[0].vid, kept[0].proof) if kept else (vid, "")
    row = versions.get(connection, vid)
    return {"proof": text or None, "entry": row.identifier if row is not None else None}


def _published(connection: sqlite3.Connection, account: str) -> set[bytes]:
    """The versions that the portal said it took from here, as far as they are still held."""
    at, found, place = store.cursor(connection, account), set(), 0
    outbox = store.kept_back(connection, account)
    while rows := store.after(connection, place, ROWS):
        found |= {row.vid for row in rows if row.seq <= at and row.seq not in outbox and row.kind not in _ESCROW}
        place = rows[-1].seq
        if place >= at:
            break
    return found


def _verdict(portal: Portal, verdict: str, message: str, counts: dict[str, int] | None = None) -> dict[str, Any]:
    pin = portal.watch.pin
    heard = portal_pins.heard(portal.daemon.reader.connection, pin.origin) if pin is not None else []
    said: dict[str, Any] = {"account": portal.name, "verdict": verdict, "message": message, "log": portal.watch.view()}
    said["siblings"] = sum(bool(one.agreed) for one in heard)
    said["evidence"] = pin.evidence or None if pin is not None else None
    return said | (counts or {})
