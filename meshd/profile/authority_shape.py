"""The shape that a version of each kind must have, as far as it shows by itself (formats.md F1, F7).

What fails here is malformed, whoever signed it and whatever is known: it is dropped. What shows only beside the
versions that a claim names (`Authority.check_links`) is kept, for chains run through it, but never applied.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshd.errors import TrustError
from meshd.profile.claim import Claim, Kind

_SIGNED = (Kind.PERSONAL, Kind.CONTAINER, Kind.MASTER, Kind.DEVICE, Kind.ITEM)


def check_shape(mesh: str, claim: Claim) -> None:
    """TrustError if a version of the mesh `mesh` is malformed by itself."""
    fault = _fault(mesh, claim)
    if fault:
        raise TrustError(fault)


def check_parents(claim: Claim, parents: Iterable[tuple[int, str, int]]) -> None:
    """TrustError unless the parents, as (kind, Identifier, generation), are of the same entry and `g` is one more than
    the largest generation among them."""
    newest = 0
    for kind, identifier, generation in parents:
        if (kind, identifier) != claim.entry:
            raise TrustError("a version names a parent of another entry")
        newest = max(newest, generation)
    if claim.links.g != newest + 1:
        raise TrustError(f"a version of generation {claim.links.g} over parents of generation {newest}")


def _fault(mesh: str, claim: Claim) -> str | None:
    if claim.kind not in _SIGNED:
        return None  # escrow entries and receipts carry no links
    links = claim.links
    by_master = claim.signer == mesh
    if by_master and (links.n or links.q):
        return "a version signed by the master key names a chain"
    if not by_master and links.n < 1:
        return "a version without its place in the signer's chain"
    if (links.g == 1) != (not links.p):
        return "a version whose generation contradicts its parents"
    if claim.kind in (Kind.CONTAINER, Kind.ITEM):
        return _fault_of_entry(claim)
    if links.a:
        return "a profile names an authority"
    match claim.kind:
        case Kind.MASTER:
            if not by_master or claim.identifier != mesh:
                return "a master profile that the master key did not sign"
            if claim.master is not None:
                return "a master profile that embeds another"
        case Kind.PERSONAL:
            return _fault_of_personal(mesh, claim)
        case _:
            if claim.signer != claim.identifier:
                return "a device profile that another key signed"
            if links.e or links.k or links.x:
                return "a device profile with links of another kind"
    return None


def _fault_of_entry(claim: Claim) -> str | None:
    links = claim.links
    if not links.a:
        return "a container or item without authority"
    if links.e or links.k or links.x or claim.master is not None:
        return "a container or item with links of another kind"
    if ("/" in claim.identifier) != (claim.kind == Kind.ITEM):
        return "the identifier is not of this kind"
    return None


def _fault_of_personal(mesh: str, claim: Claim) -> str | None:
    if claim.identifier != mesh:
        return "a personal profile of another mesh"
    if claim.master is None:
        return "a personal profile without a master profile"
    if claim.links.e:
        return "a personal profile that lists escrow entries"
    if not claim.links.p and claim.signer != mesh:
        return "a first personal profile that the master key did not sign"
    return None
