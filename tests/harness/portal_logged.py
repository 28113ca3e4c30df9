"""`HttpPortal` with a log: leaves of what it stores, receipts, Status. Its past can be forged, as a liar would do it.

portal = logged(HttpPortal(...))
portal.memory.log_          # harness.log_world.Log: fork, restore, another clock
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec

from harness.log_world import INTERVAL, Log
from harness.portal_http import HttpPortal
from harness.portal_memory import MemoryPortal
from meshd.portal import outcomes
from meshd.portal.logleaf import leaf_of
from meshd.portal.messages import GetRecordsResponse, PublishResponse
from meshd.portal.outcomes import Accept, Context, Decision
from meshd.portal.structures import Binary, ConsistencyProof
from meshd.portal.view import LogState
from meshd.tlog import tree
from meshd.tlog.proof import Proof

ORIGIN = "example.net/mmm-log"
SALT = bytes(16)


class LoggedPortal(MemoryPortal):
    """`places` has the leaf of each version, counted from 1. `receipts` off: it proves nothing of what it takes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.entries = Log(seed="portal", origin=ORIGIN)
        self.leaves: list[bytes] = []
        self.places: list[int] = []
        self.busy = False  # others write there whenever it was looked at
        self.receipts = True
        self.spoil = False  # its receipts prove another place

    def _put(self, mesh: str, found: Any, leaf: bool) -> None:
        super()._put(mesh, found, leaf)
        if leaf:
            self.places.append(len(self.leaves))
            self._grow(leaf_of(self.versions[found.claim.vid], SALT).encode())

    def _grow(self, data: bytes) -> None:
        self.leaves.append(data)
        self.entries.now = self.now
        self.entries.publish(data)

    def receipt(self, index: int) -> str:
        at = self.places[index - 1]
        proof = self.entries.proof(at)
        place = proof.index ^ 1 if self.spoil else proof.index
        return Proof(place, proof.hashes, proof.checkpoint, SALT + self.leaves[at]).encode().decode()

    def _commit(self, checked: Any, context: Context) -> Decision:
        before = self.index
        decision = super()._commit(checked, context)
        if not isinstance(decision, Accept) or not self.receipts:
            return decision
        reply = decision.reply
        if isinstance(reply, PublishResponse) and self.index > before:
            return Accept(
                decision.writes, msgspec.structs.replace(reply, receipt=self.receipt(self.index)), decision.feed
            )
        if isinstance(reply, GetRecordsResponse) and reply.data_items:
            places = [int((item.transaction_id or ":0").rpartition(":")[2]) for item in reply.data_items]
            shown = [self.receipt(place) if place else "" for place in places]
            return dataclasses.replace(decision, reply=msgspec.structs.replace(reply, receipts=shown))
        return decision

    def log_state(
        self, old_size: int | None, peer_sizes: Sequence[tuple[str, int]], tree_size: int | None = None
    ) -> LogState:
        log = self.entries
        size = tree_size if tree_size is not None and tree_size <= log.tree.size else log.tree.size
        note, shown = log.note(size), None
        if old_size is not None and old_size <= size:
            proof = tree.consistency_proof(old_size, size, log.tree.read)
            shown = ConsistencyProof(old_size=old_size, new_size=size, hashes=[Binary(one) for one in proof])
        if self.busy:
            self._grow(b"somebody else's")
        return LogState(
            last_checkpoint=log.cosigned,
            next_checkpoint=log.cosigned + INTERVAL,
            checkpoint=note.encode().decode(),
            log_keys=[*(one.vkey for one in log.signers), log.witness.vkey],
            consistency=shown,
        )


def logged(portal: HttpPortal) -> LoggedPortal:
    """Give the portal a log."""
    made = LoggedPortal(policy=outcomes.Policy(portal.domain), now=portal.now())
    portal.memory = made
    return made
