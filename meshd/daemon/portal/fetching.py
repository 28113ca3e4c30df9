"""An old copy gets back what it lost: the entries that a mirror holds, proved to be this portal's own log.

What this portal signed is known by its own keys, so nothing of the mirror has to be believed. While it is behind it
writes nothing else, and goes on as the log that it was once no witness has more than it.
"""

from __future__ import annotations

from meshd.daemon.portal.filling import Forked, fill
from meshd.daemon.portal.origin import Origin
from meshd.daemon.portal.sequencer import Sequencer
from meshd.daemon.portal.witnesses import Witnesses
from meshd.errors import BadRequest, ProofError
from meshd.tlog import watch
from meshd.tlog.watch import Pin


async def fetch(sequencer: Sequencer, witnesses: Witnesses, source: Origin) -> int:
    """Fetch everything that `source` holds beyond this store; how many entries came. BadRequest: nothing is missing.
    ProofError: what it shows is not the log of this store. NetworkError …: what came stays, and it may be asked again.
    """
    log = sequencer.own_log
    if log is None or log.ahead is None:
        raise BadRequest("no witness has more of this log than its store: there is nothing to fetch")
    signed = log.signed
    await source.hello()
    seen = await source.status(signed.size)
    here = Pin(log.origin, signed.size, signed.checkpoint.root, signed.note, log.now, tuple(log.verifiers))
    match watch.judge(here, seen.note, (), None, seen.proof, log.now):
        case watch.Advanced(target):
            try:
                await fill(sequencer, source, target)
            except Forked as exc:
                raise ProofError(f"{source.domain} shows two histories of this log: {exc.evidence.sentence()}") from exc
        case watch.Same():
            raise BadRequest(f"{source.domain} has no more of this log than this store")
        case watch.Contradiction(evidence):
            raise ProofError(
                f"this store and {source.domain} hold two histories of this log: {evidence.sentence()}",
                hint="both were signed by this portal's key: nothing can make them one",
            )
        case watch.Stale(reason=reason) | watch.Suspect(reason=reason):
            raise ProofError(f"{source.domain} does not prove that it holds more of this log: {reason}")
    log.ahead = None
    await witnesses.guard()
    return log.signed.size - signed.size
