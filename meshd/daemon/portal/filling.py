"""The entries of a log up to a checkpoint that is believed, fetched and stored page by page (protocol D1.8).

A page is taken whole or not at all: its leaves onto the edge of the tree, the proof that this edge leads to the
checkpoint, and then the entries themselves. While one is stored the next is on its way, so memory holds two of them.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from meshd.daemon.portal.origin import Origin, Page
from meshd.daemon.portal.sequencer import Sequencer
from meshd.errors import MeshError, ProofError
from meshd.tlog import watch
from meshd.tlog.frontier import Frontier, verify_page
from meshd.tlog.watch import Evidence, Pin


class Forked(ProofError):
    """The log has signed two histories."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__()
        self.evidence = evidence


async def fill(
    sequencer: Sequencer, source: Origin, target: Pin, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Everything up to the checkpoint. MeshError says what is in the way, and what was stored stays; Forked."""
    edge, page = sequencer.edge, None
    while edge.size < target.size:
        if page is None:
            page = await source.page(edge.size, target.size)
        after = _verified(source, edge, page, target)
        page = await _store(sequencer, source, page, after, target)
        edge = after
        progress(edge.size, target.size)


def _verified(source: Origin, edge: Frontier, page: Page, target: Pin) -> Frontier:
    """The edge after a page that belongs to the checkpoint."""
    if page.note.text != target.note.text:
        evidence = watch.compare(target.note, page.note, target.keys)
        if evidence is not None:
            raise Forked(evidence)
        raise ProofError(f"{source.domain} gives a page under another checkpoint than was asked for")
    return verify_page(edge, [one.hash for one in page.entries], target.size, target.root, page.proof)


async def _store(sequencer: Sequencer, source: Origin, page: Page, after: Frontier, target: Pin) -> Page | None:
    """Store a page, and fetch the next one meanwhile; None where that did not come."""
    following: Page | None = None
    failure: MeshError | None = None

    async def fetch() -> None:
        nonlocal following
        try:
            following = await source.page(after.size, target.size)
        except MeshError:
            pass  # it is asked for again, and then told

    async with trio.open_nursery() as nursery:
        if after.size < target.size:
            nursery.start_soon(fetch)
        try:
            await sequencer.replay(page.entries, after)
        except MeshError as exc:
            failure = exc
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return following
