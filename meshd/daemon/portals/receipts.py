"""Receipts: a portal's proof that its log has what this device published (protocol D1.7).

A receipt is a tlog-proof whose extra data is the leaf and, before it, the salt of its index terms. Whether the leaf is
the one of our version is seen by its vid; whether the log that the receipt speaks of is the one that is pinned, the
watch finds out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshd.daemon.portals.state import Portal
from meshd.daemon.portals.watch import Contradicted, Unproved, held_as
from meshd.errors import FormatError, TrustError
from meshd.portal.messages import GetRecordsResponse, GetRequest
from meshd.portal.structures import KeyValue, SearchConstraints
from meshd.store.portal_pins import PinRow, Receipt
from meshd.store.portals_client import ToPublish
from meshd.tlog import checkpoint as checkpoints
from meshd.tlog.checkpoint import Checkpoint
from meshd.tlog.leaf import SALT_BYTES, Leaf
from meshd.tlog.note import Note
from meshd.tlog.proof import Proof

ASKED_AFTER = 4  # versions of a lot without a receipt that are looked for in the feed
PAGE, PAGES = 1000, 64  # records that such a search looks at, at most


def read(text: str) -> tuple[Proof, Leaf]:
    """A receipt and the leaf in it; nothing is verified. FormatError."""
    proof = Proof.parse(text.encode())
    return proof, Leaf.decode(proof.extra[SALT_BYTES:])


async def prove(portal: Portal, given: Sequence[tuple[ToPublish, str | None]]) -> tuple[PinRow | None, list[Receipt]]:
    """Verify what a portal gave for versions that it says it stored; the pin and the receipts to keep.

    What does not hold makes the portal suspect. A portal without a log owes none. Contradicted, NetworkError.
    """
    watch = portal.watch
    if watch.pin is None and not any(text for _, text in given):
        return None, []
    found: dict[bytes, str] = {row.vid: text for row, text in given if text}
    unproved = 0
    for row in [row for row, text in given if not text][:ASKED_AFTER]:
        # What it had already it need not prove again in the answer to a Publish; its feed shows it.
        text = await _asked_after(portal, row)
        if text:
            found[row.vid] = text
        unproved += text is None
    kept: list[Receipt] = []
    agreed: dict[Note, tuple[PinRow, Checkpoint]] = {}  # most of a lot were made under the same
    try:
        for vid, text in found.items():
            proof, leaf = read(text)
            if leaf.vid != vid:
                raise Unproved("it gave the receipt of another version")
            note = proof.checkpoint
            if note not in agreed:
                pin = await watch.agree(note)
                checkpoint, _ = checkpoints.read(note, held_as(pin).keys)
                agreed[note] = pin, checkpoint
            proof.verify_under(agreed[note][1], leaf.hash())
            kept.append(Receipt(vid, proof.index, text))
        if unproved:
            raise Unproved(f"it proves of {unproved} versions that were published to it not that its log has them")
    except Contradicted:
        raise
    except (FormatError, TrustError) as exc:
        await watch.suspect(f"a receipt of the portal does not hold: {exc}", owes=True)
    newest = max((pin for pin, _ in agreed.values()), key=lambda pin: pin.size, default=None)
    return newest, kept


async def _asked_after(portal: Portal, row: ToPublish) -> str | None:
    """The receipt of one version, as the feed shows it; None where it shows none, "" where that is not known."""
    terms = [("UserProfile", portal.daemon.snapshot.mesh), ("UniqueID", row.identifier)]
    key: str | None = None
    for _ in range(PAGES):
        asked = GetRequest(
            key_values=[KeyValue(key=name, value=value) for name, value in terms],
            search_constraints=SearchConstraints(max_entries=PAGE, page_key=key),
        )
        answer = await portal.link.ask("GetRecords", asked, GetRecordsResponse)
        text = of_version(row.vid, answer.receipts or ())
        if text is not None:
            return text
        if not answer.page_key or answer.page_key == key:
            return None
        key = answer.page_key
    return ""


def of_version(vid: bytes, receipts: Iterable[str]) -> str | None:
    """That of these receipts which speaks of the version."""
    for text in receipts:
        try:
            _, leaf = read(text)
        except FormatError:
            continue
        if leaf.vid == vid:
            return text
    return None
