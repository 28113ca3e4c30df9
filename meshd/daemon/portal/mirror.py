"""A mirror at work: it follows a portal's log, whole and verified, and cosigns what it holds (protocol D1.8).

    look      the newest checkpoint, proved to extend the one before; that is written down first, and does not move
    fill      page after page, each proved to belong to it
    complete  all entries are here: cosigned, and shown

Whatever stops it, it goes on behind the last page. Memory holds the edge and two pages. What can't be proved is dropped
and asked for again; a log that signed two histories is followed no more, and what was verified of it stays.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence

import trio

from meshd.daemon.logging import told
from meshd.daemon.portal.filling import Forked, fill
from meshd.daemon.portal.http import Request, Response
from meshd.daemon.portal.mirrored import EVIDENCE, Identity, Mirrored, cosigned
from meshd.daemon.portal.origin import Origin, Shown
from meshd.daemon.portal.peers import TRANSFER
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.tree import reader
from meshd.daemon.portal.witness import ADD, PREFIX
from meshd.daemon.portals.watch import looked_into
from meshd.errors import FormatError, MeshError, NotFound, ProofError
from meshd.store import portal_log_rows as log_rows
from meshd.store.db import get_meta, set_meta
from meshd.tlog import cosignature, tree, watch, witness
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.note import COSIGNATURE, ED25519, Note, Verifier
from meshd.tlog.watch import Evidence, Pin

PAUSE_SECONDS = 15.0  # between two looks at a log that is all here
FIRST_RETRY, MOST_RETRY = 2.0, 300.0
ANEW_SECONDS = 600  # between two cosignatures of one checkpoint
STORE_SECONDS = 15.0  # that whoever brings a checkpoint waits until it is stored here
_log = logging.getLogger(__name__)


class Contradicted(ProofError):
    """The log has signed two histories."""


class Mirror:
    """Of one log; every method belongs to trio's thread. `complete` is called with each checkpoint that is all here."""

    def __init__(
        self,
        sequencer: Sequencer,
        origin: Origin,
        identity: Identity,
        *,
        keys: Sequence[Verifier] = (),
        wall: Callable[[], float] = time.time,
        progress: Callable[[int, int], None] = lambda done, total: None,
        complete: Callable[[Checkpoint], None] = lambda checkpoint: None,
    ) -> None:
        assert sequencer.mirrors is not None
        self.name = sequencer.mirrors
        self.why: str | None = None  # it does not go on now
        self._sequencer, self._origin, self._cosigner = sequencer, origin, identity.cosigner
        self._keys = tuple(keys)
        self._wall = wall
        self._progress, self._complete = progress, complete
        self._wake = trio.Event()
        self._stored = trio.Event()

    @property
    def uri(self) -> str:
        """Where what can't be done here can be."""
        return self._origin.uri

    @property
    def size(self) -> int:
        """Entries that are here."""
        return self._sequencer.edge.size

    @property
    def target(self) -> int:
        """Entries of the newest good checkpoint."""
        peer = log_rows.peer(self._sequencer.view.connection, self.name)
        return peer.size if peer is not None else 0

    @property
    def evidence(self) -> bytes | None:
        """Of a log that contradicted itself: what anybody can check (docs/specs/log.md)."""
        return get_meta(self._sequencer.view.connection, EVIDENCE)

    async def run(self) -> None:
        """Follow until cancelled; what goes wrong is told and tried again."""
        failures = 0
        while True:
            wake = self._wake = trio.Event()
            try:
                await self.once()
                failures, pause = 0, PAUSE_SECONDS
            except Contradicted as exc:
                self._went(exc)
                await trio.sleep_forever()
            except MeshError as exc:
                self._went(exc)
                pause = min(FIRST_RETRY * 2 ** min(failures, 16), MOST_RETRY)
                failures += 1
            else:
                self._went(None)
            with trio.move_on_after(pause):
                await wake.wait()

    async def once(self) -> None:
        """Come to where the log is now. MeshError says what is in the way; what was stored stays. Contradicted."""
        if self.evidence is not None:
            raise Contradicted(f"{self.name} has contradicted itself, and is followed no more")
        await self._origin.hello()
        pin = self._pin()
        if pin is not None and self.size < pin.size:  # where it was stopped
            try:
                await self._fill(pin)
                await self._show(pin, None)
            except NotFound:
                pass  # that checkpoint is not there any more: what is there now says why
        seen = await self._origin.status(pin.size if pin is not None else None)
        pin = await self._judge(pin, seen)
        await self._fill(pin)
        await self._show(pin, seen)

    def _went(self, error: MeshError | None) -> None:
        why = None if error is None else told(error)
        if why is not None and why != self.why:
            _log.warning("%s", f"{why} ({error.hint})" if error is not None and error.hint else why)
        self.why = why

    # --- the checkpoint that it goes for ------------------------------------------------------------------------------

    def _pin(self) -> Pin | None:
        peer = log_rows.peer(self._sequencer.view.connection, self.name)
        if peer is None or peer.note is None or peer.root is None:
            return None
        keys = tuple(map(Verifier.parse, peer.log_keys))
        return Pin(peer.origin, peer.size, peer.root, Note.parse(peer.note.encode()), peer.seen, keys)

    async def _judge(self, pin: Pin | None, seen: Shown) -> Pin:
        """What Status shows, written down as what is to be followed. ProofError: not believed; Contradicted."""
        named = self._keys or seen.keys if pin is None else seen.keys
        judged = watch.judge(pin, seen.note, named, None, seen.proof, int(self._wall()), self.name)

        async def more(size: int) -> tuple[bytes, ...] | None:
            return (await self._origin.status(size)).proof

        match await looked_into(judged, pin, seen.note, more):
            case watch.Advanced(found):
                if pin is None and not self._keys:
                    trusted = ", ".join(one.vkey for one in found.keys)
                    _log.warning("%s is believed at first sight, by its key %s", self.name, trusted)
                await self._write(found, seen, first=pin is None)
                return found
            case watch.Same(found):
                return found
            case watch.Contradiction(evidence):
                raise await self._freeze(evidence)
            case watch.Stale(reason=reason):
                raise ProofError(f"{self.name} shows {reason}: it may be an old copy")
            case watch.Suspect(reason):
                raise ProofError(f"{self._origin.domain} does not prove that its log only grew: {reason}")

    async def _write(self, pin: Pin, seen: Shown | None, *, first: bool = False) -> None:
        now, note = int(self._wall()), pin.note.encode().decode()

        def work(connection: sqlite3.Connection) -> None:
            if seen is not None:
                witnesses = [one.vkey for one in seen.keys if one.kind == COSIGNATURE]
                log_rows.put_peer(connection, self.name, "", [one.vkey for one in pin.keys], witnesses)
                if first:  # whose log it is may have it back; later such a key is a matter for whoever runs this
                    _grant_back(connection, self.name, self._origin.domain, seen.keys)
            log_rows.saw(connection, self.name, pin.size, pin.root, note, now)
            if self.size == pin.size:
                log_rows.set_note(connection, pin.size, note)

        await self._sequencer.change(work)

    async def _freeze(self, evidence: Evidence) -> Contradicted:
        notes = json.dumps([one.encode().decode() for one in (evidence.first, evidence.second)])

        def work(connection: sqlite3.Connection) -> None:
            log_rows.equivocated(connection, self.name, notes)
            set_meta(connection, EVIDENCE, evidence.encode())

        await self._sequencer.change(work)
        return Contradicted(f"{self.name} has contradicted itself, and is followed no more: {evidence.sentence()}")

    # --- its entries --------------------------------------------------------------------------------------------------

    async def _fill(self, pin: Pin) -> None:
        try:
            await fill(self._sequencer, self._origin, pin, self._progress)
        except Forked as exc:
            raise await self._freeze(exc.evidence) from exc

    async def _show(self, pin: Pin, seen: Shown | None) -> None:
        """All entries of the checkpoint are here."""
        now, log = int(self._wall()), self._sequencer.log
        if log is not None and log.signed.note.text == pin.note.text and now - log.signed.time < ANEW_SECONDS:
            return
        signed = cosigned(pin.note, self._cosigner, now)
        await self._write(Pin(pin.origin, pin.size, pin.root, signed.note, now, pin.keys), seen)
        made = Mirrored.of(self._sequencer.view.connection, self.size, clock=self._wall)
        assert made is not None
        if seen is not None:
            made.interval = seen.interval
        elif log is not None:
            made.interval = log.interval
        self._sequencer.show(made)
        self._stored.set()
        self._stored = trio.Event()
        self._complete(signed.checkpoint)

    # --- as a witness that also keeps what it cosigns -----------------------------------------------------------------

    async def witness(self, request: Request) -> Response:
        """What a request below /.well-known/mmm-witness/ is answered: as c2sp.org/tlog-witness has it, for this one
        log, and cosigned once everything is stored."""
        log = self._sequencer.log
        if request.target == ADD and request.method == "POST":
            return await self._brought(request.body)
        if request.target == f"{PREFIX}{witness.origin_hash(self.name)}/checkpoint" and log is not None:
            if request.method in ("GET", "HEAD"):
                return Response(200, log.signed.note.encode())
            return Response(405, b"checkpoints are read by GET\n", headers=(("Allow", "GET"),))
        return Response(404, b"no such log\n")

    async def _brought(self, body: bytes) -> Response:
        try:
            asked = witness.Request.parse(body)
        except FormatError as exc:
            return Response(400, f"{exc}\n".encode())
        pin = self._pin()
        if pin is None or asked.origin != self.name or self.evidence is not None:
            return Response(404 if asked.origin != self.name else 503, b"this log is not cosigned here now\n")
        outcome = witness.decide(pin.keys, witness.Seen(pin.size, pin.root, pin.note), asked)
        if outcome.evidence is not None:
            await self._freeze(outcome.evidence)
        if outcome.size is not None:
            return Response(outcome.status, outcome.body, witness.SIZE_TYPE)
        if outcome.status != 200:
            return Response(outcome.status, f"{outcome.reason}\n".encode())
        wanted = Checkpoint.parse(asked.note.text)
        self._wake.set()
        with trio.move_on_after(STORE_SECONDS):
            while not self._holds(wanted):
                await self._stored.wait()
        log = self._sequencer.log
        if log is None or not self._holds(wanted):
            return Response(503, b"not everything is stored yet\n", headers=(("Retry-After", "5"),))
        if log.signed.size > wanted.size:  # it grew meanwhile, and a cosignature is of the largest tree seen
            return Response(409, f"{log.signed.size}\n".encode(), witness.SIZE_TYPE)
        line = cosignature.make(asked.note.text, self._cosigner, int(self._wall())).line
        return Response(200, line.encode())

    def _holds(self, wanted: Checkpoint) -> bool:
        log = self._sequencer.log
        if log is None or log.signed.size < wanted.size:
            return False
        return tree.root(wanted.size, reader(self._sequencer.view.connection)) == wanted.root


def _grant_back(connection: sqlite3.Connection, origin: str, domain: str, keys: Sequence[Verifier]) -> None:
    """Let the portal ask for its own log, by the key that it names for asking."""
    for one in keys:
        if one.kind == ED25519 and one.name == domain + TRANSFER:
            values = (one.key.udf, one.key.public, "full", origin)
            connection.execute("INSERT OR REPLACE INTO peers (keyid, key, granted, name) VALUES (?, ?, ?, ?)", values)
