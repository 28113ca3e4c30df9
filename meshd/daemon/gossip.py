"""What devices of one mesh tell each other of their portals' logs (protocol D1.7; frames 17 and 19).

Each shows the newest checkpoint that it believes, and the two notes by which a portal has contradicted itself. A fork
shows itself at once; another size is kept, and the portal has to prove at the next look that both are of one tree.
"""

from __future__ import annotations

import sqlite3

from meshd.crypto import base64url
from meshd.daemon.context import Daemon
from meshd.daemon.portals import known_keys, listed
from meshd.errors import MeshError
from meshd.store import events, portals_client
from meshd.store import portal_pins as store
from meshd.store.replica import Outcome
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import watch
from meshd.tlog.note import ED25519, Note, Verifier


def to_tell(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    """One note for a pin that is believed, two for one that is frozen."""
    found: list[tuple[str, ...]] = []
    for pin in store.every(connection):
        if pin.frozen:
            shown = watch.Evidence.decode(base64url.decode(pin.evidence))
            found.append((shown.first.encode().decode(), shown.second.encode().decode()))
        else:
            found.append((pin.note,))
    return found


def _for_later(daemon: Daemon, connection: sqlite3.Connection, device: str, texts: tuple[str, ...]) -> bool:
    """Keep what is of a portal that this device has not been in contact with: the first contact is held to it."""
    pinned = {pin.account for pin in store.every(connection)}
    if all(row.account in pinned for row in portals_client.every(connection)):
        return False
    news = False
    for account, (entry, _) in listed.stated(daemon, connection).live.items():
        keys = known_keys.read(entry.log_keys) if account not in pinned else ()
        for place, text in enumerate(texts):
            try:
                checkpoint, _ = checkpoints.read(Note.parse(text.encode()), keys)
            except MeshError:
                continue
            news = (
                store.hear(connection, checkpoint.origin, device if place == 0 else f"{device}/{place}", text) or news
            )
    return news


async def heard(daemon: Daemon, device: str, *texts: str) -> None:
    """A sibling showed these notes. Those that no pinned key has signed mean nothing; it may know other portals."""
    now = daemon.now_ms()

    def write(connection: sqlite3.Connection, outcome: Outcome) -> bool:
        news = False
        for pin in store.every(connection):
            keys = [one for one in map(Verifier.parse, pin.keys) if one.kind == ED25519]
            notes = [Note.parse(pin.note.encode())]
            for place, text in enumerate(texts):
                try:
                    note = Note.parse(text.encode())
                    checkpoint, _ = checkpoints.read(note, keys)
                except MeshError:
                    continue
                for other in notes:
                    shown = watch.compare(other, note, keys)
                    if shown is not None:
                        evidence = base64url.encode(shown.encode())
                        if store.freeze(connection, pin.account, evidence, now):
                            news = True
                            said = {"state": "portal-contradiction", "name": pin.account}
                            events.append(connection, now, "health", said)
                notes.append(note)
                name = device if place == 0 else f"{device}/{place}"
                news = store.hear(connection, checkpoint.origin, name, text) or news
        return _for_later(daemon, connection, device, texts) or news

    if await daemon.transact(write):
        daemon.changed.bump()
