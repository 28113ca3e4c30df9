"""Who is to hold a vault's keys, and whether a container keeps to it (formats.md F5).

What a container must be wrapped to follows from the profiles that it names in `a`, cuts ignored, so everybody who
holds these says the same of it for ever: the readers of the vault and the newest master escrow keys. Two containers
are no vaults: Discovery goes to every device, Group to every device but relays. A container's type is its tag, which
no later version changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from meshd.profile import vault
from meshd.profile.apps import DISCOVERY, GROUP
from meshd.profile.claim import Claim, Role
from meshd.profile.trust import Authority
from meshd.profile.version import Parsed


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a container says in clear: which keys are inside, for which encryption keys, for which kind of vault."""

    tag: str
    kids: frozenset[str]
    recipients: frozenset[str]  # UDFs of encryption keys


def envelope(parsed: Parsed) -> Envelope:
    """FormatError for what is no container."""
    return Envelope(parsed.tag, vault.container_kids(parsed), vault.container_recipients(parsed))


def readers(authority: Authority, container: str, tag: str) -> frozenset[str]:
    """The devices that read a vault now."""
    roles = {udf: authority.role(udf) for udf in authority.devices()} if tag in (DISCOVERY.tag, GROUP.tag) else {}
    return authority.readers(container) | _all_of(roles, tag)


def readers_at(authority: Authority, a: tuple[bytes, ...], container: str, tag: str) -> frozenset[str]:
    """The devices that a container version under `a` is wrapped for. TrustError unless `a` names known profiles."""
    return authority.readers_at(a, container) | _all_of(authority.devices_at(a), tag)


def _all_of(roles: Mapping[str, Role | None], tag: str) -> frozenset[str]:
    if tag == DISCOVERY.tag:
        return frozenset(roles)
    if tag == GROUP.tag:
        return frozenset(udf for udf, role in roles.items() if role is not Role.RELAY)
    return frozenset()


def lacking_keys(mine: Envelope, parents: Iterable[Envelope], types: Collection[str]) -> str | None:
    """Why a container does not carry on what it replaces. `types` are those that its profiles state, for a first
    version.

    An author names only parents that it can open, so it owes the keys of all that it names."""
    if not mine.kids:
        return "a container without keys"
    first = True
    for parent in parents:
        first = False
        if not parent.kids <= mine.kids:
            return "a container without keys of a version that it replaces"
        if parent.tag != mine.tag:
            return "a container of another type than the version that it replaces"
    if first and types and mine.tag not in types:
        return "a container of another type than its mesh gives it"
    return None


def wrong_readers(
    authority: Authority,
    claim: Claim,
    mine: Envelope,
    holders: Callable[[str], Collection[str]],
    escrow: Callable[[bytes], Collection[str]],
) -> str | None:
    """Why a container is not wrapped for those who are to read it.

    `holders` says which devices state an encryption key as theirs, in any of their profiles: one renews it without an
    admin. `escrow` are the escrow keys of a MasterProfile, by its vid."""
    due = readers_at(authority, claim.links.a, claim.container, mine.tag)
    masters = authority.masters_at(claim.links.a)
    owed = {key for master in masters for key in escrow(master)}
    if not owed <= mine.recipients:
        return "a container that is not wrapped for the master escrow key"
    reached: set[str] = set()
    for recipient in mine.recipients:
        reading = due.intersection(holders(recipient))  # of an escrow key too: a device may call it its own
        if not reading and recipient not in owed:
            return "a container wrapped for a key that is no reader's"
        reached |= reading
    # An admin whom no profile lists among the devices has no encryption key that everybody knows.
    if not due.intersection(authority.devices_at(claim.links.a)) <= reached:
        return "a container that is not wrapped for all of its readers"
    return None
