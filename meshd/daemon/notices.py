"""What one device saw and every device should tell: that an invitation was burnt, a recovery entry fetched.

A notice is an entry of one item in the Group vault, so it travels as names do and nobody outside reads it. Each device
records an event for every notice that is new to it and not older than a day, once, whatever crashes. What a locked
device saw it owes until it is unlocked; a relay can't write to Group, and says it in its own events and log alone.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from meshd.daemon import vaults
from meshd.daemon.background import with_pen
from meshd.daemon.context import Daemon, wait
from meshd.daemon.keyring import Keyring, Opened
from meshd.daemon.names import settled_past
from meshd.daemon.pen import Pen
from meshd.errors import FormatError, MeshError
from meshd.profile import clock, payload, vault
from meshd.profile.apps import GROUP
from meshd.profile.vault import Item
from meshd.store import events
from meshd.store.db import get_meta, set_meta

BURNED, FETCHED = "burned", "fetched"
KEPT = 20  # notices in the item; older ones go as new ones come
HOUR, DAY = 3600, 24 * 3600  # seconds
_OWED = "notice-owed"  # meta: [seconds, seconds]: when it was owed last, and what is owed still (0: nothing)
_TOLD = "noticed"  # meta: [[type, device, seconds]], what was told or seen first on this device


_EVENTS = {BURNED: "invitation", FETCHED: "recovery"}  # what a notice is told as


@dataclass(frozen=True, slots=True, order=True)
class Notice:
    """`device` is the UDF of who saw it, `at` seconds since 1970 by its clock."""

    at: int
    device: str
    kind: str


def write(pen: Pen, kind: str, at: int = 0) -> Notice:
    """Give notice of something that happened here, just now or `at`. Denied where this device may not write to
    Group."""
    opened = pen.keyring.find(GROUP.tag)
    found = _items(pen.connection, pen.keyring, opened)
    identifier = min(found, default="") or vault.new_item_identifier(_id(opened), pen.rng)
    heads = found.get(identifier, [])
    notice = Notice(at or pen.now_ms // 1000, pen.replica.own, kind)
    kept = sorted({notice, *(one for head in heads for one in read(head.item))})[-KEPT:]
    entries = [{"Notice": one.kind, "Device": one.device, "At": payload.write_date(one.at)} for one in kept]
    time = clock.tick(pen.now_ms, [head.item.time for head in heads])
    item = Item({GROUP.private: {"Entries": entries}}, vault.new_meta(time, pen.made, Fields={}))
    vaults.write_item(pen, opened, identifier, item, heads)
    return notice


def read(item: Item) -> list[Notice]:
    """The notices in an item of Group; none where it is about something else. What is malformed is left out."""
    body = item.private.get(GROUP.private)
    entries = body.get("Entries") if type(body) is dict else None
    found = []
    for entry in entries[:KEPT] if type(entries) is list else ():
        kind, device = (entry.get("Notice"), entry.get("Device")) if type(entry) is dict else (None, None)
        if type(kind) is not str or type(device) is not str or not 0 < len(kind) <= 32 or not 0 < len(device) <= 64:
            continue
        try:
            found.append(Notice(payload.read_date(str(entry.get("At"))), device, kind))
        except FormatError:
            continue
    return found


async def burnt(daemon: Daemon) -> None:
    """Tell the other devices that an invitation was burnt here. Best effort: the person in front of this one knows."""
    try:
        await daemon.write(lambda pen: write(pen, BURNED))
    except MeshError as exc:
        daemon.log.warning("the other devices were not told of a burnt invitation: %s", exc)


def owe(connection: sqlite3.Connection, now_ms: int) -> None:
    """In a transaction: the other devices are to hear that a recovery entry was fetched here; once an hour."""
    last, _ = _owed(connection)
    if abs(now_ms // 1000 - last) >= HOUR:
        set_meta(connection, _OWED, json.dumps([now_ms // 1000] * 2).encode())


async def pay(daemon: Daemon) -> None:
    """Tell what is owed, as soon as this device can."""
    if daemon.keyring is None or not _owed(daemon.reader.connection)[1]:
        return

    def forget(connection: sqlite3.Connection) -> int:
        last, at = _owed(connection)
        set_meta(connection, _OWED, json.dumps([last, 0]).encode())
        return at

    try:
        await with_pen(daemon, lambda pen: write(pen, FETCHED, forget(pen.connection)))
    except MeshError as exc:
        daemon.log.warning("the other devices were not told that the recovery entry was fetched here: %s", exc)
        await wait(daemon.writer.submit(forget))


async def follow(daemon: Daemon) -> None:
    """Tell what other devices saw, until cancelled. Nearly every commit costs one look at an index."""
    last: object = None
    while True:
        moved, changed = daemon.moved.count, daemon.changed.count
        try:
            await pay(daemon)
            now = _state(daemon)
            if now is not None and now != last:
                await catch_up(daemon)
                last = now
        except MeshError as exc:
            daemon.log.info("notices of other devices were not followed: %s", exc)
        await settled_past(daemon, moved, changed)


async def catch_up(daemon: Daemon) -> list[Notice]:
    """Record an event for each notice of the last day that is new; returns them."""
    keyring, connection = daemon.keyring, daemon.reader.connection
    if keyring is None:
        return []
    now = daemon.now_ms()
    listed = {
        notice
        for opened in _groups(keyring)
        for heads in _items(connection, keyring, opened).values()
        for head in heads
        for notice in read(head.item)
        if abs(now // 1000 - notice.at) < DAY
    }
    if not listed - _told(get_meta(connection, _TOLD)):
        return []

    def save(connection: sqlite3.Connection) -> list[Notice]:
        told = _told(get_meta(connection, _TOLD))
        fresh = sorted(one for one in listed - told if one.device != daemon.replica.own)
        kept = sorted(told | listed)[-KEPT:]
        set_meta(connection, _TOLD, json.dumps([[one.kind, one.device, one.at] for one in kept]).encode())
        for one in fresh:
            if one.kind in _EVENTS:
                events.append(connection, now, _EVENTS[one.kind], {"state": one.kind, "device": one.device})
        return fresh

    fresh = await wait(daemon.writer.submit(save))
    for one in fresh:
        daemon.log.warning("notice of %s: %s", one.device, one.kind)
    if fresh:
        daemon.changed.bump()
    return fresh


def _owed(connection: sqlite3.Connection) -> tuple[int, int]:
    stored = get_meta(connection, _OWED)
    last, at = json.loads(stored) if stored else (0, 0)
    return last, at


def _told(stored: bytes | None) -> set[Notice]:
    listed: list[Any] = json.loads(stored) if stored else []
    return {Notice(at, device, kind) for kind, device, at in listed}


def _groups(keyring: Keyring) -> list[Opened]:
    return [opened for opened in list(keyring.vaults.values()) if opened.application.tag == GROUP.tag]


def _items(connection: sqlite3.Connection, keyring: Keyring, opened: Opened) -> dict[str, list[vaults.Head]]:
    """The heads of the items of notices in a Group vault: one, unless two devices gave their first notice apart."""
    found = {}
    for identifier in vaults.items_of(connection, _id(opened)):
        heads = vaults.open_heads(connection, keyring, identifier)
        if any(read(head.item) for head in heads):
            found[identifier] = heads
    return found


def _state(daemon: Daemon) -> object:
    """Something that differs when there may be a new notice; None while locked."""
    keyring = daemon.keyring
    if keyring is None:
        return None
    heads: list[tuple[str, bytes]] = []
    for opened in _groups(keyring):
        heads += vaults.heads_in(daemon.reader.connection, _id(opened))
    return heads, keyring


def _id(opened: Opened) -> str:
    return opened.application.identifier
