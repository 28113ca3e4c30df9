"""Founding a mesh and admitting devices: what is written, in one transaction each. Runs in the writer's thread.

Founding: master profile, personal profile, a container for every kind of vault, and this device's name. Admitting: a
personal profile that lists the device and its rights, the containers that it may read wrapped for it too, and its
name. The person's master passphrase has opened the master key only where an admin is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshd.crypto import udf
from meshd.crypto.keys import RecipientKey, SigningKey
from meshd.daemon import snapshot, surplus, vaults
from meshd.daemon.keyring import Keyring, Opened
from meshd.daemon.pen import Pen
from meshd.errors import DecryptError, Denied
from meshd.profile import clock, device, escrow, master, personal, vault
from meshd.profile.apps import DISCOVERY, GROUP, KINDS, group, of_tag
from meshd.profile.claim import ALL, WRITE, Kind, Role, State
from meshd.profile.links import Cut
from meshd.profile.personal import Application, Listing
from meshd.profile.vault import Container, EpochKey
from meshd.profile.version import Parsed, Version
from meshd.store import versions
from meshd.store.replica import Draft


def found(pen: Pen, master_key: SigningKey, sealed_master: bytes, name: str) -> None:
    """Make a new mesh whose only device and admin this one is."""
    keys = pen.keyring.device
    profile = device.create(keys, pen.now_ms // 1000, pen.rng)
    pen.replica.introduce(pen.connection, master_key.udf, keys.udf)
    sealed = escrow.entry(sealed_master, [keys.dek.recipient], pen.rng)
    pen.replica.take_escrow(pen.connection, sealed, pen.now_ms, pen.outcome)
    top = master.write(
        master_key, [keys.dsk.verify_key], escrow={sealed.identifier: sealed.vid}, now=pen.now_ms // 1000
    )
    applications = [Application(udf.random_udf(pen.rng), kind.tag) for kind in KINDS]
    listing = Listing(
        devices={keys.udf: profile}, applications=applications, roles={}, grants={}, admins=frozenset([keys.udf])
    )
    body = personal.body(top, listing)
    pen.write(Draft(Kind.PERSONAL, master_key.udf, "PersonalProfile", body), master_key)
    for application in applications:
        kind = of_tag(application.tag)
        container = Container(
            (EpochKey.generate(pen.rng, pen.now_ms // 1000),), kind.name if kind.vault else "", {}, {}
        )
        members = vault.seal_container(kind.private, container, [keys.dek.recipient], pen.rng)
        pen.write(Draft(Kind.CONTAINER, application.identifier, application.tag, members))
    pen.refresh()
    name_device(pen, keys.udf, name)


def admit(
    pen: Pen,
    joiner: Version,
    role: Role,
    name: str,
    grants: Mapping[str, str] | None = None,
    master_key: SigningKey | None = None,
) -> None:
    """Take `joiner` (its verified DeviceProfile) into the mesh. `grants` maps containers or `*` to read or write; by
    default a member writes everywhere and a relay nowhere. An admin needs the master key. Admitting twice changes
    nothing."""
    authority = pen.replica.authority
    if joiner.identifier in authority.removed():
        raise Denied(
            "That device was removed from this mesh; it can come back only with new keys.", hint="on it: meshctl wipe"
        )
    if joiner.identifier in authority.devices():
        return
    listing = effective(pen)
    roles, granted = dict(listing.roles), dict(listing.grants)
    if role is not Role.ADMIN:
        roles[joiner.identifier] = role
        granted[joiner.identifier] = _initial_grants(listing, role, grants)
    devices = dict(listing.devices) | {joiner.identifier: joiner}
    if role is Role.ADMIN:
        if master_key is None:
            raise Denied("Making an admin needs the master passphrase.")
        top = _promote(pen, master_key, joiner)
        listing = Listing(devices, listing.applications, roles, granted, listing.admins | {joiner.identifier})
        write_personal(pen, top, listing, master_key=master_key)
    else:
        listing = Listing(devices, listing.applications, roles, granted, listing.admins)
        write_personal(pen, master_to_embed(pen), listing)
    rewrap(pen)
    name_device(pen, joiner.identifier, name)


def _initial_grants(listing: Listing, role: Role, grants: Mapping[str, str] | None) -> dict[str, str]:
    if role is Role.RELAY:
        return {}
    if grants is None:
        return {ALL: WRITE}
    # A narrowed member still reads and writes the names of the devices.
    return dict(grants) | {app.identifier: WRITE for app in listing.applications if app.tag == GROUP.tag}


def _promote(pen: Pen, master_key: SigningKey, joiner: Version) -> Version:
    """A MasterProfile that lists one admin more, and the sealed master key wrapped for all of them."""
    authority = pen.replica.authority
    heads = pen.load(authority.heads(Kind.MASTER))
    blob = sealed_master(pen)
    profiles = [pen.replica.device(pen.connection, admin) for admin in authority.admins()]
    admins = [profile for profile in profiles if profile is not None] + [device.read(joiner)]
    sealed = escrow.entry(blob, [profile.dek for profile in admins], pen.rng)
    pen.replica.take_escrow(pen.connection, sealed, pen.now_ms, pen.outcome)
    kept = {identifier: vid for identifier, vid in authority.escrow().items() if open_sealed(pen, vid) is None}
    return master.write(
        master_key,
        [profile.dsk for profile in admins],
        parents=heads,
        escrow=kept | {sealed.identifier: sealed.vid},
        now=pen.now_ms // 1000,
    )


def sealed_master(pen: Pen) -> bytes:
    """The sealed master key that the current master profile lists; Denied on a device that is no admin."""
    for vid in sorted(pen.replica.authority.escrow().values()):
        blob = open_sealed(pen, vid)
        if blob is not None:
            return blob
    raise Denied("Only an admin device holds the sealed master key.", hint="do this on an admin device")


def open_sealed(pen: Pen, vid: bytes) -> bytes | None:
    """The sealed master key in an escrow entry; None where it holds something else or is not for this device."""
    for parsed in pen.load([vid]):
        if parsed.claim.kind is not Kind.ONLINE_ESCROW:
            continue
        for key in pen.keyring.device.deks:
            try:
                return escrow.open_entry(parsed, key)
            except DecryptError:
                continue
    return None


def master_to_embed(pen: Pen) -> Parsed:
    """The MasterProfile head that a new PersonalProfile embeds; the others count through its ancestors."""
    return pen.load(pen.replica.authority.heads(Kind.MASTER)[:1])[0]


def device_profile(pen: Pen, udf: str) -> Parsed | None:
    """The newest profile of a device, as it was signed: most edits, then smaller vid."""
    rows = [row for row in versions.of_entry(pen.connection, Kind.DEVICE, udf) if row.state is State.APPLIED]
    newest = min(rows, key=lambda row: (-row.gen, row.vid), default=None)
    return None if newest is None else pen.load([newest.vid])[0]


def effective(pen: Pen) -> Listing:
    """The state that the next PersonalProfile states: what is effective for this store."""
    authority = pen.replica.authority
    devices: dict[str, Parsed] = {}
    for identifier in authority.devices():
        profile = device_profile(pen, identifier)
        if profile is not None:
            devices[identifier] = profile
    grants: dict[str, dict[str, str]] = {}
    for holder, container, level in sorted(
        authority.grants(), reverse=True
    ):  # "write" before "read": read never narrows it
        grants.setdefault(holder, {}).setdefault(container, level)
    for holder, container, level in surplus.gaps(pen):
        grants.setdefault(holder, {}).setdefault(container, level)
    roles = {
        identifier: found
        for identifier in devices
        if (found := authority.role(identifier)) is not None and found is not Role.ADMIN
    }
    return Listing(
        devices=devices,
        applications=list(snapshot.applications(pen.connection, pen.replica).values()),
        roles=roles,
        grants={holder: granted for holder, granted in grants.items() if holder in roles},
        admins=authority.admins(),
    )


def write_personal(pen: Pen, top: Parsed, listing: Listing, *, master_key: SigningKey | None = None) -> Version:
    """A PersonalProfile over the current heads; by the master key where a master profile changed with it."""
    written = _write_personal(pen, top, listing, (), master_key)
    if master_key is not None and pen.replica.authority.undecided():
        return written  # whoever comes back with nothing but profiles cuts nobody off, and wraps nothing yet
    # Somebody whose rights came with a profile that fell must not be given keys when containers are wrapped anew.
    extra = tuple(surplus.cuts(pen))
    return _write_personal(pen, top, effective(pen), extra, master_key) if extra else written


def _write_personal(
    pen: Pen, top: Parsed, listing: Listing, cuts: tuple[Cut, ...], master_key: SigningKey | None
) -> Version:
    heads = pen.replica.authority.heads(Kind.PERSONAL)
    body = personal.body(top, listing, pen.load(heads[:1])[0])
    draft = Draft(Kind.PERSONAL, pen.replica.mesh, "PersonalProfile", body, parents=heads, cuts=cuts)
    return pen.write(draft, master_key)


def rewrap(pen: Pen) -> None:
    """Wrap every container for exactly those who read it now, with a new key where a device that no longer reads held
    the others. Containers that this device can't open are left to who can."""
    from meshd.daemon import rotation  # which is made of what is here

    rotation.settle(pen)


def recipients_of(pen: Pen, application: Application) -> list[RecipientKey]:
    """The encryption keys that a container written now is wrapped to (formats.md F5)."""
    at = pen.replica.authority.heads(Kind.PERSONAL)
    found: dict[str, RecipientKey] = {}
    for reader in sorted(snapshot.readers(pen.replica, application, at)):
        profile = pen.replica.device(pen.connection, reader)
        if profile is not None:  # an admin that is in no profile has told no key
            found[profile.dek.udf] = profile.dek
    for parsed in pen.load(pen.replica.authority.masters_at(at)):
        found |= {key.udf: key for key in master.escrow_keys(parsed)}
    return list(found.values())


def write_container(pen: Pen, opened: Opened, container: Container, recipients: Sequence[RecipientKey]) -> Version:
    """A new version of a container over the heads that this device could open."""
    members = vault.seal_container(of_tag(opened.application.tag).private, container, recipients, pen.rng)
    rest = {name: value for name, value in opened.heads[0].body.items() if name != "EncryptedData"}
    return pen.write(
        Draft(
            Kind.CONTAINER,
            opened.application.identifier,
            opened.application.tag,
            rest | members,
            parents=tuple(parsed.claim.vid for parsed in opened.heads),
        )
    )


def name_device(pen: Pen, identifier: str, name: str) -> None:
    """Say what a device is called: a new version of its item in the Group vault, or the first."""
    opened = pen.keyring.find(GROUP.tag)
    entry = _item_that_names(pen, opened, identifier)
    current = vaults.open_heads(pen.connection, pen.keyring, entry) if entry is not None else []
    time = clock.tick(pen.now_ms, [head.item.time for head in current])
    item = group.name_item(identifier, name, time=time, made=pen.made)
    if entry is None:
        entry = vault.new_item_identifier(opened.application.identifier, pen.rng)
    vaults.write_item(pen, opened, entry, item, current)


def _item_that_names(pen: Pen, opened: Opened, device: str) -> str | None:
    """The Group item of a device, the smallest Identifier if there are several. Each head is opened once while
    unlocked."""
    said = pen.keyring.said
    for entry, vid in vaults.heads_in(pen.connection, opened.application.identifier):
        if vid not in said:
            for head in vaults.open_heads(pen.connection, pen.keyring, entry):
                found = group.read(head.item)
                said[head.vid] = found[0] if found is not None else None
            said.setdefault(vid, None)  # not for this device, or damaged
        if said[vid] == device:
            return entry
    return None


def discovery_keys(keyring: Keyring) -> list[bytes]:
    """The keys of names on the LAN, newest last; every key ever held is recognised (formats.md F10)."""
    for opened in keyring.vaults.values():
        if opened.application.tag == DISCOVERY.tag:
            return [key.key for key in opened.container.keys]
    return []
