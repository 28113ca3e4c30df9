"""PersonalProfile: the devices of a mesh, its vaults, and what each device may do. Signed by an admin or the master
key.

It embeds one MasterProfile and the DeviceProfiles whole. Members that this release does not know survive: the decoded
object is edited, never a typed copy. Not being listed removes nothing — removal is a cut (formats.md F7).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshd.profile import version
from meshd.profile.claim import Role
from meshd.profile.links import Cut, Links
from meshd.profile.version import Parsed


@dataclass(frozen=True, slots=True)
class Application:
    """A vault as the profile lists it. `tag` is the type name of its profile, e.g. `PasswordProfile`."""

    identifier: str
    tag: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The effective state that a new PersonalProfile states. `grants` is device → container or `*` → "read" |
    "write"."""

    devices: Mapping[str, Parsed]
    applications: Sequence[Application]
    roles: Mapping[str, Role]  # members and relays; admins are the master profile's business
    grants: Mapping[str, Mapping[str, str]]
    admins: frozenset[str]


def body(master: Parsed, listing: Listing, previous: Parsed | None = None) -> dict[str, Any]:
    """The members of a PersonalProfile. `previous` gives the members, and members of entries, that this release does
    not know."""
    old: dict[str, Any] = copy.deepcopy(dict(previous.body)) if previous is not None else {}
    old_entries = {entry.get("Identifier"): entry for entry in old.get("Applications", []) if type(entry) is dict}
    old_grants = old.get("MeshdGrants", {})
    readers = {app.identifier: _readers(app.identifier, listing, level=None) for app in listing.applications}
    writers = {app.identifier: _readers(app.identifier, listing, level="write") for app in listing.applications}
    applications = []
    for app in sorted(listing.applications, key=lambda app: app.identifier):
        entry: dict[str, Any] = dict(old_entries.get(app.identifier, {}))
        entry |= {
            "Identifier": app.identifier,
            "Type": app.tag,
            # For 2016 readers; authority never reads them.
            "SignID": writers[app.identifier],
            "DecryptID": readers[app.identifier],
        }
        applications.append(entry)
    grants = {}
    for device in sorted(listing.roles):
        stated = dict(old_grants.get(device, {})) if type(old_grants.get(device)) is dict else {}
        stated |= {"Role": str(listing.roles[device]), "Grant": dict(sorted(listing.grants.get(device, {}).items()))}
        grants[device] = stated
    return old | {
        "SignedMasterProfile": version.bare_json(master),
        "Devices": [version.bare_json(listing.devices[device]) for device in sorted(listing.devices)],
        "Applications": applications,
        "MeshdGrants": grants,
    }


def _readers(container: str, listing: Listing, level: str | None) -> list[str]:
    found = set(listing.admins)
    for device, granted in listing.grants.items():
        held = {granted.get(container), granted.get("*")} - {None}
        if held and (level is None or level in held):
            found.add(device)
    return sorted(found & set(listing.devices))


def links(
    parents: Iterable[Parsed],
    *,
    n: int = 0,
    q: Sequence[bytes] = (),
    cuts: Iterable[Cut] = (),
    confirm: Iterable[str] = (),
) -> Links:
    """The links of a PersonalProfile that replaces `parents`; n = 0 when the master key signs."""
    heads = sorted(parents, key=lambda head: head.claim.vid)
    return Links(
        g=1 + max((head.claim.links.g for head in heads), default=0),
        n=n,
        q=tuple(q),
        p=tuple(head.claim.vid for head in heads),
        k=tuple(confirm),
        x=tuple(cuts),
    )


def application_entries(parsed: Parsed) -> dict[str, Application]:
    """The vaults that a PersonalProfile lists, by Identifier. `Type` may be absent in other writers' profiles."""
    found = {}
    for entry in parsed.body.get("Applications", []):
        tag = entry.get("Type")
        found[entry["Identifier"]] = Application(entry["Identifier"], tag if type(tag) is str else "")
    return found
