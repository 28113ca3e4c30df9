"""What one process of this program tells another of an item that it verified, so that one of them does the work alone.

Both are the same release started by the same daemon, so this is no format: it changes with the code. Only items travel
so, for they are nearly all of a first sync, and whoever stores one needs its claim and nothing of its content.
"""

from __future__ import annotations

import msgspec

from meshd.crypto.jws import Jws
from meshd.profile.claim import Claim, Kind
from meshd.profile.links import Links
from meshd.profile.version import Version

_ELSEWHERE = Jws(b"", b"", b"")


class Vouched(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A verified item without its bytes."""

    vid: bytes
    identifier: str
    signer: str
    tag: str
    token: str
    digest: bytes
    updated: int
    g: int
    n: int
    q: tuple[bytes, ...]
    p: tuple[bytes, ...]
    a: tuple[bytes, ...]


def vouch(item: Version) -> Vouched | None:
    """The summary of a verified version; None for one that is no item."""
    claim, links = item.claim, item.claim.links
    if claim.kind is not Kind.ITEM or links.e or links.k or links.x:
        return None
    return Vouched(
        claim.vid,
        claim.identifier,
        claim.signer,
        item.tag,
        item.token,
        item.digest,
        item.updated,
        links.g,
        links.n,
        links.q,
        links.p,
        links.a,
    )


def restore(found: Vouched, raw: bytes) -> Version:
    """The version that `found` was made from and whose bytes are `raw`; its body stayed behind, and its signature."""
    links = Links(found.g, found.n, found.q, found.p, found.a)
    claim = Claim(found.vid, Kind.ITEM, found.identifier, found.signer, links)
    return Version(claim, found.tag, {}, found.digest, raw, found.token, found.updated, _ELSEWHERE)
