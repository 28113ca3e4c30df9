"""A portal's own log: its keys and what it signs with them (protocol D1.3, D1.4).

What is signed is durable already: `sign` is called when a COMMIT has returned, and at start for what a crash left
unsigned. Ed25519 makes the same signature again, so nothing is lost with it but the time of our own cosignature.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from meshd.crypto.keys import SigningKey
from meshd.daemon.portal.shown import Shown, Signed
from meshd.errors import StoreBusy
from meshd.store import portal_log_rows as log_rows
from meshd.store.db import get_meta, set_meta
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import cosignature
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.cosignature import Cosigner
from meshd.tlog.frontier import Frontier
from meshd.tlog.note import Note, Signer, Verifier, add_lines

INTERVAL = 3600  # seconds between cosignatures of our own when nothing is written
OVERLAP = 30 * 24 * 3600  # for which a key that was replaced signs beside the new one
ORIGIN, WITNESS, PEER = "mmm-log", "mmm-witness", "mmm-peer"
LOG_ROLE, WITNESS_ROLE, PEER_ROLE = "log", "witness", "peer"
_ORIGIN_KEY = "log_origin"


class LogBehind(StoreBusy):
    """Somebody has seen more of this log than the store has: writing would make a second history."""


class Log(Shown):
    """One portal's. Made before its writer runs. What sets `ahead` is in `witnesses`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        domain: str,
        edge: Frontier,
        *,
        interval: int = INTERVAL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(interval=interval, clock=clock)
        self.domain = domain
        self.take_keys(connection)
        self.signed = self._newest(connection, edge)
        self.lost: Note | None = None  # what a witness has seen of it, where that is more

    # --- keys ---------------------------------------------------------------------------------------------------------

    def take_keys(self, connection: sqlite3.Connection) -> None:
        """Read the keys, making those that are not there. Within a transaction, or before the writer runs."""
        now = int(self._clock())
        stated = get_meta(connection, _ORIGIN_KEY)
        self.origin = stated.decode() if stated is not None else f"{self.domain}/{ORIGIN}"
        if not self._log_keys(connection, now):
            make_key(connection, self.origin, LOG_ROLE, now)
        if not log_rows.keys(connection, WITNESS_ROLE, now):
            make_key(connection, f"{self.domain}/{WITNESS}", WITNESS_ROLE, now)
        self._signers = [
            Signer(self.origin, SigningKey.from_private(key.secret)) for key in self._log_keys(connection, now)
        ]
        self.peer = peer_key(connection, self.domain, now)
        (witness, *_) = log_rows.keys(connection, WITNESS_ROLE, now)
        self.witness = Cosigner(f"{self.domain}/{WITNESS}", SigningKey.from_private(witness.secret))

    def _log_keys(self, connection: sqlite3.Connection, now: int) -> list[log_rows.Key]:
        """Those of this origin: one that the log had before has keys of its own."""
        found = log_rows.keys(connection, LOG_ROLE, now)
        return [key for key in found if Verifier.parse(key.vkey).name == self.origin]

    @property
    def vkeys(self) -> list[str]:
        """Of the log, the newest first, and of the witness."""
        return [*(signer.vkey for signer in self._signers), self.witness.vkey]

    @property
    def stated(self) -> list[str]:
        return [*self.vkeys, self.peer.vkey]

    @property
    def verifiers(self) -> list[Verifier]:
        return [signer.verifier for signer in self._signers]

    def rotate(self, connection: sqlite3.Connection) -> str:
        """A new log key, which signs beside the old one for thirty days; returns its vkey. Within a transaction."""
        now = int(self._clock())
        log_rows.retire_keys(connection, LOG_ROLE, now + OVERLAP)
        vkey = make_key(connection, self.origin, LOG_ROLE, now)
        self.take_keys(connection)
        self._again(connection)
        return vkey

    def begin_anew(self, connection: sqlite3.Connection) -> str:
        """Go on under another origin and key: what the old origin signed beyond this store is lost, and this says so.

        Returns the new origin. Within a transaction."""
        origin = next_origin(self.origin)
        set_origin(connection, origin)
        log_rows.retire_keys(connection, LOG_ROLE, int(self._clock()))
        self.take_keys(connection)
        self._again(connection)
        self.ahead = None
        return origin

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def sign(self, edge: Frontier) -> None:
        """Sign the checkpoint of this edge, which is durable."""
        self.signed = self._signed(Checkpoint(self.origin, edge.size, edge.root()))

    def heartbeat(self, connection: sqlite3.Connection) -> None:
        """Cosign again, and keep the note. Within a transaction."""
        now = int(self._clock())
        self.signed = replace(self.signed, note=cosignature.add(self.signed.note, self.witness, now), time=now)
        self.keep(connection)

    def merge(self, connection: sqlite3.Connection, text: str, lines: bytes, verifiers: Iterable[Verifier]) -> bool:
        """Take a witness's lines into the note, if that is still the newest. Within a transaction; SignatureError."""
        if self.signed.note.text != text:
            return False
        self.signed = replace(self.signed, note=add_lines(self.signed.note, lines, verifiers))
        self.keep(connection)
        return True

    def _signed(self, checkpoint: Checkpoint) -> Signed:
        now = self.now
        note = checkpoints.sign(checkpoint, self._signers)
        return Signed(checkpoint, cosignature.add(note, self.witness, now), now)

    def _newest(self, connection: sqlite3.Connection, edge: Frontier) -> Signed:
        """As kept with its cosignatures, or signed again."""
        signed = self._signed(Checkpoint(self.origin, edge.size, edge.root()))
        last = log_rows.last_checkpoint(connection)
        if last is None or last.note is None:
            return signed
        kept = Note.parse(last.note.encode())
        if kept.text != signed.note.text:  # under the origin before this one
            return signed
        lines = tuple({(one.name, one.key_id): one for one in (*kept.signatures, *signed.note.signatures)}.values())
        return replace(signed, note=Note(kept.text, lines))

    def _again(self, connection: sqlite3.Connection) -> None:
        self.signed = self._signed(replace(self.signed.checkpoint, origin=self.origin))
        self.keep(connection)

    def at(self, connection: sqlite3.Connection, size: int | None) -> Signed | None:
        """The checkpoint of this size, if there ever was one: its signature is the same whenever it is made. It is
        not cosigned again, for that would say that no larger tree was seen."""
        signed = self.signed
        if size is None or size == signed.size:
            return signed
        found = log_rows.checkpoint(connection, size) if size < signed.size else None
        if found is None:
            return None
        checkpoint = Checkpoint(self.origin, size, found.root)
        return Signed(checkpoint, checkpoints.sign(checkpoint, self._signers), found.time)


def next_origin(origin: str) -> str:
    """The name under which a log that lost entries begins anew: `…/mmm-log/2` after `…/mmm-log`."""
    domain, _, rest = origin.partition("/")
    number = int(rest.rpartition("/")[2]) if "/" in rest else 1
    return f"{domain}/{ORIGIN}/{number + 1}"


def set_origin(connection: sqlite3.Connection, origin: str) -> None:
    """From the next look at the keys on the log has this name. Within a transaction."""
    set_meta(connection, _ORIGIN_KEY, origin.encode())


def make_key(connection: sqlite3.Connection, name: str, role: str, now: int) -> str:
    """A new key of this portal; returns its vkey."""
    key = SigningKey.generate(os.urandom)
    vkey = Signer(name, key).vkey if role in (LOG_ROLE, PEER_ROLE) else Cosigner(name, key).vkey
    log_rows.put_key(connection, log_rows.Key(vkey, role, key.private, now, None))
    return vkey


def peer_key(connection: sqlite3.Connection, name: str, now: int) -> Signer:
    """The key with which the portal `name` asks others for their logs, made when it is first needed. Within a
    transaction, or before the writer runs."""
    full = f"{name}/{PEER}"
    found = [one for one in log_rows.keys(connection, PEER_ROLE, now) if Verifier.parse(one.vkey).name == full]
    if not found:
        make_key(connection, full, PEER_ROLE, now)
        return peer_key(connection, name, now)
    return Signer(full, SigningKey.from_private(found[0].secret))
