"""What a Status answer says of a portal's log, as far as it can be read. Nothing of it is believed here."""

from __future__ import annotations

from meshd.errors import FormatError
from meshd.portal.messages import StatusResponse
from meshd.profile import payload
from meshd.tlog import tree
from meshd.tlog.note import Verifier

MAX_KEYS = 16
USUAL_INTERVAL = 24 * 3600  # seconds between checkpoints, where the portal does not say
LEAST_INTERVAL, MOST_INTERVAL = 60, 30 * 24 * 3600


def named_keys(answer: StatusResponse) -> tuple[Verifier, ...]:
    """The keys that a portal names as its own, those that can be read."""
    found = []
    for vkey in (answer.log_keys or [])[:MAX_KEYS]:
        try:
            found.append(Verifier.parse(vkey))
        except FormatError:
            continue  # of a sort that others read
    return tuple(found)


def proof_hashes(answer: StatusResponse) -> tuple[bytes, ...] | None:
    """The proof from the size that was asked for; None: it gave none."""
    proof = answer.consistency_proof
    return None if proof is None else tuple(bytes(one) for one in proof.hashes[: tree.MAX_PROOF + 1])


def interval_of(answer: StatusResponse) -> int:
    """Seconds between two scheduled checkpoints."""
    try:
        last = payload.read_date(answer.last_checkpoint_time or "")
        following = payload.read_date(answer.next_checkpoint_time or "")
    except FormatError:
        return USUAL_INTERVAL
    return min(max(following - last, LEAST_INTERVAL), MOST_INTERVAL)
