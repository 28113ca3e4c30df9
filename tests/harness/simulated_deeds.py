"""What people do in a simulated mesh: one deed at a time, on any device, in whatever state it finds itself.

A deed that is not allowed is refused in the words of `meshd.errors`, and that is all right; any other exception is a
finding. Each deed goes through the functions that the daemon's handlers call.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from harness.simulation import Crash, Node, Promise, World
from meshd.daemon import (
    authoring,
    drafts,
    fallen,
    membership,
    quarantine,
    removal,
    renewal,
    roles,
    rotation,
    undo,
    vault_admin,
    vaults,
)
from meshd.daemon.keyring import Opened
from meshd.daemon.pen import Pen
from meshd.errors import BadRequest, Denied, Exists, NotFound, Refused
from meshd.profile import device
from meshd.profile.apps import PASSWORD, password
from meshd.profile.claim import ALL, READ, WRITE, Kind, Role
from meshd.profile.device import DeviceKeys

ALLOWED = (Denied, NotFound, Refused, BadRequest, Exists)


def something(world: World) -> None:
    """One deed of somebody."""
    from harness import simulated_thief

    chance = world.chance
    if world.evil and world.thieves and chance.random() < 0.35:
        simulated_thief.something(world)
        return
    node = chance.choice(world.nodes)
    if node.udf in world.stolen or not node.up:
        return
    deed = chance.choices([one for _, one in DEEDS], [weight for weight, _ in DEEDS])[0]
    if deed not in OUTSIDE and (node.locked or not node.is_member):
        return
    attempt(world, node, deed)


def attempt(world: World, node: Node, deed: Callable[[World, Node], None]) -> bool:
    """Do it; False when it was refused, or the process died over it."""
    world.counts["deeds"] += 1
    world.trace.append(f"{world.events.now:.0f} {node.name} {deed.__name__}")
    try:
        deed(world, node)
    except ALLOWED as exc:
        world.counts["refused"] += 1
        world.trace[-1] += f": {exc}"
        return False
    except Crash:
        world.trace[-1] += ": died"
        return False
    return True


# --- items ------------------------------------------------------------------------------------------------------------


def _vaults(node: Node) -> list[Opened]:
    return [
        one
        for _, one in sorted(node.keyring.vaults.items())
        if one.application.tag == PASSWORD.tag and not one.container.deleted
    ]


def _items(world: World, node: Node) -> list[str]:
    found = [
        item for one in _vaults(node) for item in sorted(vaults.items_of(node.connection, one.application.identifier))
    ]
    return found + [one.identifier for one in drafts.every(node.connection, node.keyring)]


def add(world: World, node: Node) -> None:
    found = _vaults(node)
    if not found:
        return
    opened = world.chance.choice(found)
    secret = f"secret {len(world.promises)}"
    built: Callable[[int, str], object] = lambda t, made: password.new(  # noqa: E731
        [f"{len(world.promises)}.example"], "alice", secret, time=t, made=made
    )
    written = node.write(lambda pen: drafts.add(pen, opened, built))  # type: ignore[arg-type]
    world.promises.append(Promise(node, written.identifier, secret, isinstance(written, drafts.Pending)))


def edit(world: World, node: Node) -> None:
    items = _items(world, node)
    if not items:
        return
    identifier = world.chance.choice(items)
    secret = f"secret {len(world.promises)}"
    before = drafts.latest(node.connection, node.keyring, identifier)
    written = node.write(
        lambda pen: drafts.replace(
            pen, identifier, lambda item, t, made: password.edit(item, {"password": secret}, time=t, made=made)
        )
    )
    for one in world.promises:
        if before is not None and one.node is node and one.identifier == identifier and one.draft:
            one.void = True  # a second edit of a draft takes the place of the first
    world.promises.append(Promise(node, identifier, secret, isinstance(written, drafts.Pending)))


def delete(world: World, node: Node) -> None:
    items = _items(world, node)
    if not items:
        return
    identifier = world.chance.choice(items)
    before = drafts.latest(node.connection, node.keyring, identifier)
    node.write(
        lambda pen: drafts.replace(pen, identifier, lambda item, t, made: password.deleted(item, time=t, made=made))
    )
    for one in world.promises:
        if before is not None and one.node is node and one.identifier == identifier and one.draft:
            one.void = True


def take_over(world: World, node: Node) -> None:
    found = quarantine.every(node.connection, node.keyring, node.snapshot.removed)
    vids = sorted(one.vid for one in found if one.kind is Kind.ITEM and one.title)
    if vids:
        vid = world.chance.choice(vids)
        node.write(lambda pen: quarantine.take_over(pen, vid))


# --- devices ----------------------------------------------------------------------------------------------------------


def _hand_over(node: Node) -> list[tuple[bytes, bytes]]:
    rows = node.connection.execute("SELECT vid, raw FROM versions WHERE kind <> 8 AND raw IS NOT NULL ORDER BY seq")
    return [(row[0], row[1]) for row in rows]


def admit(world: World, node: Node) -> None:
    if len(world.nodes) >= world.most:
        return
    chance = world.chance
    role = chance.choice((Role.MEMBER, Role.MEMBER, Role.ADMIN, Role.RELAY))
    new = world.newcomer()
    grants: dict[str, str] | None = None
    if role is Role.MEMBER and node.keyring.vaults and chance.random() < 0.4:
        one = chance.choice(sorted(node.keyring.vaults))
        grants = {chance.choice((one, ALL)): chance.choice((READ, WRITE))}
    profile = device.create(new.keys, world.clock(new) // 1000, new.rng)
    node.write(lambda pen: membership.admit(pen, profile, role, new.name, grants, world.master_key))
    world.welcome(new, node.mesh, _hand_over(node))


def _others(world: World, node: Node) -> list[str]:
    return sorted(node.snapshot.siblings)


def remove(world: World, node: Node) -> None:
    others = _others(world, node) + sorted(node.snapshot.removed) * (world.chance.random() < 0.2)
    if not others:
        return
    chosen = sorted(set(world.chance.sample(others, min(len(others), world.chance.choice((1, 1, 1, 2))))))
    since = None
    if world.chance.random() < 0.3:
        since = int(world.clock(node) - world.chance.random() * world.events.now)
    remove_these(world, node, chosen, since)


def remove_these(world: World, node: Node, chosen: list[str], since: int | None) -> None:
    """What `device remove` asks a person is answered by chance."""
    plan = node.write(lambda pen: removal.plan(pen, chosen, since_ms=since))
    keep, readmit = [], []
    for one in plan.undone:
        (keep if world.chance.random() < 0.5 else readmit).append(one.victim)
    adds = [key for key in plan.adds if key.startswith("D:") and key[2:] not in keep]
    confirm = [key for key in adds if world.chance.random() < 0.3 and key[2:] not in world.stolen]
    node.write(
        lambda pen: removal.remove(
            pen,
            chosen,
            since_ms=since,
            master_key=world.master_key if plan.needs_master else None,
            keep_removed=keep,
            readmit=readmit,
            confirm=confirm,
        )
    )


def confirm(world: World, node: Node) -> None:
    """What fell is taken back, but no device of a thief."""
    bad = {f"D:{udf}" for udf in world.bad()}
    fell = [key for key in node.write(fallen.every) if key not in bad]
    if fell:
        key = world.chance.choice(fell)
        node.write(lambda pen: fallen.confirm(pen, [key]))


def set_role(world: World, node: Node) -> None:
    others = _others(world, node)
    if not others:
        return
    udf, role = world.chance.choice(others), world.chance.choice(list(Role))
    grants = None
    if role is Role.MEMBER and world.chance.random() < 0.4:
        grants = {world.chance.choice([*sorted(node.snapshot.applications), ALL]): world.chance.choice((READ, WRITE))}
    node.write(lambda pen: roles.set_role(pen, udf, role, master_key=world.master_key, grants=grants))


def _member(world: World, node: Node) -> str | None:
    found = [udf for udf in _others(world, node) if node.snapshot.roles.get(udf) is Role.MEMBER]
    return world.chance.choice(found) if found else None


def grant(world: World, node: Node) -> None:
    udf = _member(world, node)
    if udf is not None:
        wishes = {world.chance.choice([*sorted(node.snapshot.applications), ALL]): world.chance.choice((READ, WRITE))}
        node.write(lambda pen: roles.grant(pen, udf, wishes))


def revoke(world: World, node: Node) -> None:
    udf = _member(world, node)
    if udf is not None:
        chosen = [world.chance.choice([*sorted(node.snapshot.applications), ALL])]
        keep = world.chance.random() < 0.4
        node.write(lambda pen: roles.revoke(pen, udf, chosen, keep_read=keep))


def take_back(world: World, node: Node) -> None:
    found = sorted(one.id for one in node.write(undo.every))
    if found:
        one = world.chance.choice(found)
        node.write(lambda pen: undo.undo(pen, one, master_key=world.master_key))


def renew(world: World, node: Node) -> None:
    """New keys beside the old ones first, as the keystore has them, and then the profile."""
    old = node.keys
    made = DeviceKeys.generate(node.rng)
    node.keys = DeviceKeys(old.dsk, made.dak, made.dek, (old.dek, *old.older)[: renewal.MAX_OLDER])
    world.keys[node.udf].append(node.keys)
    node.keyring.device = node.keys
    node.backup = None  # an old home has no new key
    master = world.master_key if world.chance.random() < 0.5 else None
    node.write(lambda pen: renewal.write(pen, node.keys, master_key=master))


def replace_device(world: World, node: Node) -> None:
    others = _others(world, node)
    if not others or len(world.nodes) >= world.most:
        return
    old, new = world.chance.choice(others), world.newcomer()
    profile = device.create(new.keys, world.clock(new) // 1000, new.rng)
    node.write(lambda pen: renewal.replace_device(pen, old, profile, new.name, master_key=world.master_key))
    world.welcome(new, node.mesh, _hand_over(node))


# --- keys and vaults --------------------------------------------------------------------------------------------------


def rotate(world: World, node: Node) -> None:
    chosen = world.chance.choice([None, *sorted(node.keyring.vaults)])
    node.write(lambda pen: rotation.rotate(pen, chosen))


def create_vault(world: World, node: Node) -> None:
    if len(node.snapshot.applications) < 10:
        name = f"vault {world.chance.randrange(4)}"
        node.write(lambda pen: vault_admin.create(pen, PASSWORD.name, name))


def change_vault(world: World, node: Node) -> None:
    found = sorted(key for key, one in node.keyring.vaults.items() if one.application.tag == PASSWORD.tag)
    if not found:
        return
    container, act = world.chance.choice(found), world.chance.randrange(3)
    name = f"vault {world.chance.randrange(4)}"

    def do(pen: Pen) -> None:
        if act == 0:
            vault_admin.rename(pen, container, name)
        elif act == 1:
            vault_admin.delete(pen, container)
        else:
            vault_admin.restore(pen, container)

    node.write(do)


def new_master_profile(world: World, node: Node) -> None:
    """As a change of the master passphrase writes it."""

    def do(pen: Pen) -> None:
        admins = pen.replica.authority.admins()
        top = authoring.write_master(pen, world.master_key, admins, sealed=authoring.held_master(pen))
        authoring.write_profile(pen, authoring.state(pen), top=top, master_key=world.master_key)
        rotation.settle(pen)

    node.write(do)


# --- the machine ------------------------------------------------------------------------------------------------------


def lock(world: World, node: Node) -> None:
    if node.locked:
        node.unlock()
    elif world.chance.random() < 0.5:
        node.lock()


def restart(world: World, node: Node) -> None:
    node.restart()


def back_up(world: World, node: Node) -> None:
    """Copy the home, or put the copy back."""
    if node.backup is None:
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
        node.connection.backup(copy)
        node.backup = (copy, node.keys)
        node.backed_up_at = len(world.promises)
        return
    for line, _ in world.net.of(node):
        line.close()
    node.connection, node.keys = node.backup
    node.backup = None
    for one in world.promises[node.backed_up_at :]:
        one.void = one.void or one.node is node
    for one in world.promises:
        one.void = one.void or (one.node is node and one.draft)
    node.restart()


def set_clock(world: World, node: Node) -> None:
    node.skew_ms = world.chance.choice((0, world.chance.randint(-(10**10), 10**10)))


def steal(world: World, node: Node) -> None:
    from harness.simulated_thief import Thief

    if not world.evil or len(world.thieves) >= 2 or not node.is_member:
        return
    if sum(one.up for one in world.honest) > 2 and world.chance.random() < 0.7:
        for line, _ in world.net.of(node):
            line.close()
        node.up = False
        world.stolen.add(node.udf)
    world.thieves.append(Thief(world, node))


def notice(world: World, node: Node) -> None:
    """A person finds that a device is lost, and removes it here."""
    found = sorted(thief.udf for thief in world.thieves if thief.udf in node.snapshot.siblings)
    if found:
        since = None
        if world.chance.random() < 0.5:
            since = int(world.clock(node) - world.chance.random() * 100_000)
        remove_these(world, node, [world.chance.choice(found)], since)


DEEDS: list[tuple[float, Callable[[World, Node], None]]] = [
    (6, add),
    (8, edit),
    (2, delete),
    (1, take_over),
    (1.5, admit),
    (2, remove),
    (0.5, confirm),
    (1.5, set_role),
    (1, grant),
    (1.5, revoke),
    (1, take_back),
    (0.7, renew),
    (0.5, replace_device),
    (1.5, rotate),
    (0.6, create_vault),
    (0.8, change_vault),
    (0.5, new_master_profile),
    (1.5, lock),
    (1, restart),
    (1.2, back_up),
    (0.5, set_clock),
    (2, steal),
    (3, notice),
]
OUTSIDE = {lock, restart, back_up, set_clock, steal}


def clean_up(world: World) -> bool:
    """What a person would do who sees it all: a mesh has an admin again, and nobody in it who was stolen."""
    did = False
    for node in world.honest:
        authority = node.replica.authority
        if node.is_member and not any(one.udf in authority.admins() and one.is_member for one in world.honest):
            did = attempt(world, node, _make_admin)
            if did:
                break
    for node in world.honest:
        bad = sorted(world.bad() & node.snapshot.siblings.keys())
        if bad and node.is_member and node.udf in node.replica.authority.admins():
            did = attempt(world, node, lambda world, node: remove_these(world, node, bad, None)) or did  # noqa: B023
            break
    return did


def _make_admin(world: World, node: Node) -> None:
    node.write(lambda pen: roles.set_role(pen, node.udf, Role.ADMIN, master_key=world.master_key))
