"""New keys for a device that stays: `renew` makes a DAK and a DEK under the same DSK; a new DSK is another device.

The new keys are in the keystore before the mesh hears of them, beside the old ones, and the profile in the store says
which DAK is in use: wherever a crash comes, the device can still connect and still opens what is wrapped to it. Vaults
are wrapped for the new DEK by an admin, with new keys, since the old DEK may be why somebody renews; until then the old
one opens them, and after that it is forgotten.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import trio

from meshd.crypto import certs
from meshd.crypto.keys import DecryptKey, SigningKey, public_key_json
from meshd.daemon import authoring, exposure, membership, rotation, surplus
from meshd.daemon.background import with_pen
from meshd.daemon.context import Daemon
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.daemon.tiers import tier2_map
from meshd.errors import Denied, Locked, NotFound
from meshd.profile import device, vault
from meshd.profile.apps import of_tag
from meshd.profile.claim import Kind, Role
from meshd.profile.device import DeviceKeys
from meshd.profile.links import Cut
from meshd.profile.version import Parsed, Version
from meshd.store import peers, portals_client, versions
from meshd.store.replica import Draft

MAX_OLDER = 8  # DEKs that are kept while something may need them


async def renew(daemon: Daemon, *, master_key: SigningKey | None = None) -> Version:
    """New authentication and encryption keys for this device; returns its new profile.

    An admin's sealed master key is wrapped for the new DEK only with the master key; without it the old DEK stays, for
    that. Locked, NotConnected; Denied on a device that was removed, or whose older keys are too many."""
    keyring = daemon.unlocked()
    if daemon.keystore is None or daemon.tier1 is None:
        raise Locked
    old, keystore, rng = keyring.device, daemon.keystore, daemon.rng
    older = (old.dek, *old.older)
    if len(older) > MAX_OLDER:  # the oldest may be all that opens a vault, or the sealed master key
        raise Denied(
            f"The keys before the last {MAX_OLDER} are still needed here: not every device has heard of the new ones.",
            hint="let it meet the others, or remove one that is gone; on an admin, give the master passphrase",
        )
    fresh = DeviceKeys(old.dsk, SigningKey.generate(rng), DecryptKey.generate(rng), older)
    known = daemon.tier1.spare
    daemon.tier1 = replace(daemon.tier1, spare=fresh.dak)
    await trio.to_thread.run_sync(keystore.update_tier1, daemon.tier1.to_map())
    await trio.to_thread.run_sync(keystore.update_tier2, tier2_map(fresh, keyring.cache_key))
    keyring.device = replace(fresh, dak=old.dak)  # what either DEK opens is opened from now on
    written = await daemon.write(lambda pen: write(pen, fresh, master_key=master_key))
    # The portals know this device by its old key until an admin tells them of the new one (`portals.renewed`).
    kept = (known or old.dak) if portals_client.every(daemon.reader.connection) else None
    with trio.CancelScope(shield=True):
        keyring.device = fresh
        daemon.tier1 = replace(daemon.tier1, dak=fresh.dak, spare=kept)
        daemon.changed.bump()
        await trio.to_thread.run_sync(keystore.update_tier1, daemon.tier1.to_map())
    return written


def write(pen: Pen, keys: DeviceKeys, *, master_key: SigningKey | None = None) -> Version:
    """This device's profile with other keys, and what an admin makes of that at once. In the writer's thread."""
    own = pen.replica.own
    heads = versions.heads(pen.connection, Kind.DEVICE, own)
    before = pen.load(heads)
    if not before:
        raise NotFound("This device has no profile.")
    body: dict[str, Any] = dict(max(before, key=lambda parsed: parsed.claim.links.g).body)
    body |= {
        "DeviceSignatureKey": public_key_json(keys.dsk.verify_key),
        "DeviceAuthenticationKey": public_key_json(keys.dak.verify_key, certs.device_certificate(keys.dak)),
        "DeviceEncryptiontionKey": public_key_json(keys.dek.recipient),
    }
    written = pen.write(Draft(Kind.DEVICE, own, "DeviceProfile", body, parents=heads))
    authority = pen.replica.authority
    if own in authority.admins():
        top: Parsed | None = None
        if master_key is not None:
            sealed = authoring.held_master(pen)
            top = authoring.write_master(pen, master_key, authority.admins(), sealed=sealed)
        authoring.write_profile(pen, authoring.state(pen), top=top, master_key=master_key)
        rotation.settle(pen)
    return written


async def forget_old(daemon: Daemon) -> bool:
    """Drop the old DEKs once nothing that counts is wrapped to them and every device has heard of the new one; True if
    so.

    For whoever looks after the daemon while it is unlocked (`repair`)."""
    keyring, keystore = daemon.keyring, daemon.keystore
    if keyring is None or keystore is None or not keystore.unlocked or not keyring.device.older:
        return False
    fresh = replace(keyring.device, older=())

    def needed(pen: Pen) -> bool:
        key = fresh.dek.recipient.udf
        wrapped = [vault.container_recipients(head) for opened in keyring.vaults.values() for head in opened.heads]
        return (
            not all(key in one for one in wrapped)
            or _master_needs_old(pen, fresh)
            or not _everybody_knows(pen)
            or quarantine_needs_old(pen, fresh)
        )

    if await with_pen(daemon, needed):
        return False
    keyring.device = fresh
    await trio.to_thread.run_sync(keystore.update_tier2, tier2_map(fresh, keyring.cache_key))
    return True


def _master_needs_old(pen: Pen, fresh: DeviceKeys) -> bool:
    """Is there a sealed master key that only an older DEK opens?"""
    only = replace(pen, keyring=Keyring(fresh, pen.keyring.cache_key))
    escrowed = pen.replica.authority.escrow().values()
    return any(
        membership.open_sealed(pen, vid) is not None and membership.open_sealed(only, vid) is None for vid in escrowed
    )


def quarantine_needs_old(pen: Pen, fresh: DeviceKeys) -> bool:
    """Is there an item in quarantine under a key that only an older DEK opens, in a container that fell as well?"""
    held = {key.kid for opened in pen.keyring.vaults.values() for key in opened.container.keys}
    lost: dict[str, str] = {}  # kid → vault
    rows = pen.connection.execute("SELECT vid FROM versions WHERE kind = 2 AND state = 3").fetchall()
    for parsed in pen.load([row[0] for row in rows]):
        kids = vault.container_kids(parsed) - held
        if kids and of_tag(parsed.tag).vault and fresh.dek.recipient.udf not in vault.container_recipients(parsed):
            lost |= dict.fromkeys(kids, parsed.claim.identifier)
    if not lost:
        return False
    marks = {exposure.mark_of(kid) for kid in lost}
    sql = "SELECT raw FROM versions WHERE kind = 8 AND state = 3 AND identifier > ? AND identifier < ?"
    return any(
        exposure.read_mark(raw) in marks
        for container in set(lost.values())
        for (raw,) in pen.connection.execute(sql, (container + "/", container + "0"))
        if raw is not None
    )


def _everybody_knows(pen: Pen) -> bool:
    """Does every other device hold this one's newest profile? Only then nobody wraps for the old key any more."""
    rows = versions.of_entry(pen.connection, Kind.DEVICE, pen.replica.own)
    newest = max((row.seq for row in rows), default=0)
    others = pen.replica.authority.devices() - {pen.replica.own}
    return all(peers.get(pen.connection, udf).their_ack >= newest for udf in others)


# --- another DSK ------------------------------------------------------------------------------------------------------


def replace_device(
    pen: Pen, old: str, joiner: Version, name: str, *, master_key: SigningKey | None = None
) -> tuple[str, ...]:
    """Take `joiner` (a verified DeviceProfile) in and remove `old`, in one version that an admin signs; returns the
    vaults that got new keys. The new device has the role and the rights of the old one.

    Denied: this device is no admin, or the old one is and the master key is missing; NotFound."""
    authoring.check_admin(pen, master_key)
    authority = pen.replica.authority
    role = authority.role(old)
    if role is None or old == pen.replica.own:
        raise NotFound("There is no other device of that name in this mesh.", hint="see: meshctl device list")
    if joiner.identifier in authority.ever_devices():
        raise Denied("That device is or was of this mesh; it can come only with new keys.", hint="on it: meshctl wipe")
    pen.replica.take_device(pen.connection, joiner, pen.now_ms, pen.outcome)
    cuts = [Cut(old, surplus.tips(pen, old))]
    top: Parsed | None = None
    if role is Role.ADMIN:
        if master_key is None:
            raise Denied("Replacing an admin takes the master passphrase.")
        admins = authority.admins() - {old} | {joiner.identifier}
        again = surplus.stated_by(pen, [old])
        top = authoring.write_master(pen, master_key, admins, cuts=cuts, sealed=authoring.held_master(pen))
        cuts = again
    wanted = authoring.state(pen)
    granted = {vault: level for udf, vault, level in authority.grants() if udf == old}
    wanted.drop(old)
    wanted.devices[joiner.identifier] = joiner
    if role is not Role.ADMIN:
        wanted.roles[joiner.identifier] = role
        wanted.grants[joiner.identifier] = granted
    authoring.write_profile(pen, wanted, top=top, cuts=cuts, master_key=master_key)
    rotated = rotation.settle(pen)
    membership.name_device(pen, joiner.identifier, name)
    return rotated


def keys_of(daemon: Daemon) -> tuple[str, str]:
    """(DAK, DEK) of this device as its profile states them, for people to compare."""
    found: device.DeviceProfile | None = daemon.snapshot.devices.get(daemon.snapshot.own)
    return (found.dak.udf, found.dek.udf) if found is not None else ("", "")
