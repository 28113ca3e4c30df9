"""Those who witness this portal's log: each new checkpoint is brought to them, and their cosignatures are taken in.

Beside the sequencer, never before it: a witness that is slow or gone delays no Publish. The same place asks at start
whether anybody has seen more of the log than this store holds. If so the store is an old copy, and what it would write
next would make a second history: it writes nothing until whoever runs it has decided.
"""

from __future__ import annotations

import logging
import sqlite3
from urllib.parse import urlsplit

import trio

from meshd.daemon.logging import told
from meshd.daemon.portal import crosslogging
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.tree import reader
from meshd.errors import BadRequest, MeshError, RemoteProtocolError
from meshd.net.portal_client import HttpAnswer, HttpClient, Place
from meshd.store import portal_log_rows as log_rows
from meshd.store.portal_log_rows import Peer
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog import tree, witness
from meshd.tlog.checkpoint import Checkpoint, read_number
from meshd.tlog.note import MAX_NOTE_BYTES, Note, Verifier

PACE_SECONDS = 1.0  # between two checkpoints for one witness
RETRY_SECONDS = 30.0
PUSH_SECONDS = 20.0
NOTE_SECONDS = 3600.0  # between two looks at which logs are to be noted
ASK_SECONDS = 5.0  # for each, at start; all are asked at once
COSIGNS = "cosigns"
_TRIES = 3
_log = logging.getLogger(__name__)


class Witnesses:
    """Tasks of one portal; every method belongs to trio's thread. `states`: how each witness's last answer was."""

    def __init__(self, sequencer: Sequencer, http: HttpClient) -> None:
        log = sequencer.own_log
        assert log is not None
        self._sequencer, self._log, self._http = sequencer, log, http
        self._wake = trio.Event()
        self._busy: set[str] = set()
        self._sizes: dict[tuple[str, str], int] = {}  # (witness, our origin) → the size that it has
        self._told: dict[str, tuple[str, int]] = {}  # what it cosigned last
        self.states: dict[str, str] = {}

    def nudge(self) -> None:
        """There is a new checkpoint."""
        self._wake.set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                for peer in self._asked():
                    if peer.origin not in self._busy and self._told.get(peer.origin) != self._now:
                        self._busy.add(peer.origin)
                        nursery.start_soon(self._bring, peer)
                with trio.move_on_after(RETRY_SECONDS):
                    await self._wake.wait()
                await trio.sleep(PACE_SECONDS)

    async def keep_fresh(self) -> None:
        """Cosign our own log again when that is due, whether or not anything was written."""
        while True:
            await trio.sleep(max(self._log.due - self._log.now, 1))
            if self._log.due <= self._log.now:
                try:
                    await self._sequencer.change(self._log.heartbeat)
                    self.nudge()
                except MeshError as exc:
                    _log.warning("the log is not cosigned anew: %s", told(exc))

    async def note_others(self) -> None:
        """Keep the checkpoints of other logs in our own, once a day each."""
        while True:
            try:
                await crosslogging.note_others(self._sequencer, self._log.now)
            except MeshError as exc:
                _log.info("the checkpoints of others are noted later: %s", told(exc))
            await trio.sleep(NOTE_SECONDS)

    async def guard(self) -> None:
        """Has anybody seen more of our log than is here? Then `Log.ahead` says so, and nothing is written."""
        async with trio.open_nursery() as nursery:
            for peer in self._asked():
                nursery.start_soon(self._compare, peer)

    def _asked(self) -> list[Peer]:
        return [one for one in log_rows.peers(self._sequencer.view.connection) if one.url and one.witness_keys]

    @property
    def _now(self) -> tuple[str, int]:
        return self._log.signed.note.text, self._log.signed.time

    async def _bring(self, peer: Peer) -> None:
        try:
            with trio.fail_after(PUSH_SECONDS):
                await self._push(peer)
            state = COSIGNS
        except (MeshError, trio.TooSlowError) as exc:
            state = told(exc) if isinstance(exc, MeshError) else "it did not answer in time"
        finally:
            self._busy.discard(peer.origin)
        if self.states.get(peer.origin) != state:
            _log.info("the witness %s: %s", peer.origin, state)
        self.states[peer.origin] = state

    async def _push(self, peer: Peer) -> None:
        """Bring the newest checkpoint; MeshError if it is not cosigned."""
        place, prefix = place_of_url(peer.url)
        key = peer.origin, self._log.origin
        for _ in range(_TRIES):
            signed, now = self._log.signed, self._now
            if not signed.size:
                return
            old = min(self._sizes.get(key, 0), signed.size)
            proof = self._log.proof(self._sequencer.view.connection, old, signed.size)
            request = witness.Request(old, proof, signed.note).encode()
            answer = await self._http.post(place, f"{prefix}/add-checkpoint", {}, request, most=MAX_NOTE_BYTES)
            if answer.status == 200:
                await self._take(peer, signed.note.text, answer)
                self._sizes[key], self._told[peer.origin] = signed.size, now
                return
            if answer.status != 409:
                raise RemoteProtocolError(f"it refuses our checkpoint ({answer.status})")
            self._sizes[key] = has = read_number(answer.body.decode("ascii", "replace").strip())
            if has > self._log.signed.size:
                await self._compare(peer)
                raise RemoteProtocolError(f"it has seen {has} entries of our log, and there are {signed.size}")
        raise RemoteProtocolError("it changes its mind about how much of our log it has seen")

    async def _take(self, peer: Peer, text: str, answer: HttpAnswer) -> None:
        keys = [Verifier.parse(key) for key in peer.witness_keys]
        await self._sequencer.change(lambda connection: self._merge(connection, text, answer.body, keys))

    def _merge(self, connection: sqlite3.Connection, text: str, lines: bytes, keys: list[Verifier]) -> None:
        self._log.merge(connection, text, lines, keys)

    async def _compare(self, peer: Peer) -> None:
        """Look at the newest checkpoint of ours that a witness has. Only what we signed ourselves can stop us."""
        try:
            place, prefix = place_of_url(peer.url)
            target = f"{prefix}/{witness.origin_hash(self._log.origin)}/checkpoint"
            with trio.fail_after(ASK_SECONDS):
                answer = await self._http.get(place, target, most=MAX_NOTE_BYTES)
            if answer.status != 200:
                return
            note = Note.parse(answer.body)
            found, _ = checkpoints.read(note, self._log.verifiers)
        except (MeshError, trio.TooSlowError) as exc:
            _log.info("the witness %s can't be asked for our log: %s", peer.origin, exc)
            return
        if found.origin == self._log.origin and not self._has(found):
            lost = self._log.lost
            if lost is None or Checkpoint.parse(lost.text).size < found.size:
                self._log.lost = note
            self._log.ahead = (
                f"{peer.origin} has seen {found.size} entries of this log, and this store does not have them:"
                " it is an old copy"
            )
            _log.error("%s; nothing is written until this is decided", self._log.ahead)

    def _has(self, found: checkpoints.Checkpoint) -> bool:
        """Is this a checkpoint of the log as it is here?"""
        if found.size > self._log.signed.size:
            return False
        return tree.root(found.size, reader(self._sequencer.view.connection)) == found.root


def place_of_url(url: str) -> tuple[Place, str]:
    """(where, path without a slash at its end) of a witness's prefix; BadRequest for what is no http or https URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadRequest(f"{url!r} is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise BadRequest(f"{url!r} is no http or https URL of a witness")
    secure = parts.scheme == "https"
    return Place(parts.hostname, port or (443 if secure else 80), secure, parts.netloc), parts.path.rstrip("/")
