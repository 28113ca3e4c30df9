"""What the log says of a stored version: the bridge from records to leaves (protocol D1.2).

Its index terms are those by which Get finds it, as far as they are: UserProfile (the mesh), UniqueID, Type.
"""

from __future__ import annotations

from meshd.portal import records
from meshd.portal.structures import IndexTerm
from meshd.portal.view import Stored
from meshd.tlog.leaf import Leaf, blind_terms, content_digest


def leaf_of(stored: Stored, salt: bytes) -> Leaf:
    """The leaf of a version whose content is at hand. `salt` is 16 random bytes of its own."""
    return Leaf(
        tid=stored.transaction_id,
        prior=stored.prior,
        action=stored.action,
        pkey=stored.identifier,
        added=stored.added,
        vid=stored.vid,
        content=content_digest(records.content(stored)),
        terms=blind_terms(salt, terms(stored)),
    )


def terms(stored: Stored) -> list[tuple[str, str]]:
    """(type, term), those that are not empty."""
    found = (("UserProfile", stored.mesh), ("UniqueID", stored.identifier), ("Type", records.type_of(stored)))
    return [one for one in found if one[1]]


def keys(stored: Stored) -> list[dict[str, IndexTerm]]:
    """The same as a DataItem carries them."""
    return [{"IndexTerm": IndexTerm(type=type_, term=term)} for type_, term in terms(stored)]
