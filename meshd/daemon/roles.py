"""Roles and grants of devices that are in the mesh: what each may read and write, and who is an admin.

Giving is a listing in a new profile; taking is a cut of the device's chain with the right as its scope, so that what it
wrote while it had the right stands (formats.md F7, docs/adr/0013). To and from admin is the master key's business.
After each of them the vaults are settled: wrapped for who reads now, with new keys where somebody lost reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshd.crypto.keys import SigningKey
from meshd.daemon import authoring, rotation, snapshot, surplus
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.errors import BadRequest, Denied, NotFound, Refused
from meshd.profile.apps import BY_NAME, GROUP, of_tag
from meshd.profile.claim import ALL, READ, WRITE, Kind, Role
from meshd.profile.links import SCOPE_ADMIN, Cut
from meshd.profile.version import Parsed

_RANK = {None: 0, READ: 1, WRITE: 2}


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of it: the rights that a device has now, and the vaults that got new keys."""

    device: str
    role: Role
    grants: Mapping[str, str]  # container or "*" → read or write; an admin needs none
    rotated: tuple[str, ...] = ()


def parse_grants(texts: Sequence[str], keyring: Keyring) -> dict[str, str]:
    """Container → level, of wishes as a person types them. BadRequest, NotFound.

    `ssh:read` means every vault of that application that there is now, `ssh/work:read` the one of that name, a
    container's Identifier itself, and `*:read` all vaults, future ones too."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, level = text.rpartition(":")
        if level not in (READ, WRITE) or not name:
            raise BadRequest(f"{text[:80]!r} is not VAULT:read or VAULT:write.")
        for container in find_vaults(name, keyring):
            if _RANK[level] > _RANK[found.get(container)]:
                found[container] = level
    return found


def find_vaults(name: str, keyring: Keyring) -> list[str]:
    """The containers that a person means by `ssh`, `ssh/work`, an Identifier or `*`. NotFound, BadRequest."""
    if name == ALL:
        return [ALL]
    opened = {key: vault for key, vault in keyring.vaults.items() if of_tag(vault.application.tag).vault}
    if name in opened:
        return [name]
    application, _, called = name.partition("/")
    kind = BY_NAME.get(application)
    if kind is None or not kind.vault:
        meant = sorted(
            f"{of_tag(vault.application.tag).name}/{vault.name}"
            for vault in opened.values()
            if vault.name == name and not vault.container.deleted
        )
        known = "known: " + ", ".join(each for each, kind in BY_NAME.items() if kind.vault)
        hint = f"the vault of that name is {' or '.join(meant)}" if meant else known
        raise BadRequest(f"There is no application {application[:40]!r}.", hint=hint)
    found = [
        identifier
        for identifier, vault in sorted(opened.items())
        if vault.application.tag == kind.tag and not vault.container.deleted and (not called or vault.name == called)
    ]
    if not found:
        raise NotFound(f"This mesh has no {application} vault" + (f" called {called[:40]!r}." if called else "."))
    return found


# --- grants -----------------------------------------------------------------------------------------------------------


def grant(pen: Pen, device: str, wishes: Mapping[str, str], *, master_key: SigningKey | None = None) -> Changed:
    """Let a member read or write these vaults: each gets exactly this level, so `read` takes writing where there was
    it.

    Denied: this device is no admin, or that one is a relay, which never gets a vault's keys. BadRequest: it is an
    admin."""
    _check_member(pen, device, master_key)
    wanted = authoring.state(pen)
    before = dict(wanted.grants.get(device, {}))
    after = before | {container: _level(level) for container, level in wishes.items()}
    if not after.keys() <= {ALL} | wanted.applications.keys():
        raise NotFound("There is no such vault in this mesh.")
    if ALL in wishes:  # it says what holds of all: what is granted one by one gives no less, and need not stay
        after = {name: level for name, level in after.items() if _RANK[level] > _RANK[wishes[ALL]] or name == ALL}
    lowered = [name for name in wishes if _RANK[_effective(before, name)] > _RANK[after.get(name)]]
    return _apply(pen, wanted, device, after, lowered, again=tuple(wishes), master_key=master_key)


def revoke(
    pen: Pen,
    device: str,
    containers: Iterable[str],
    *,
    keep_read: bool = False,
    master_key: SigningKey | None = None,
) -> Changed:
    """Take vaults from a member, or only the writing in them. `*` takes all but the names of devices.

    What it wrote so far stands. Vaults that it reads no longer get new keys. Denied, BadRequest as `grant`."""
    _check_member(pen, device, master_key)
    chosen = list(dict.fromkeys(containers))
    wanted = authoring.state(pen)
    before = dict(wanted.grants.get(device, {}))
    after = dict(before)
    if ALL in chosen:
        chosen = [ALL, *(name for name in before if name != ALL and not _is_group(wanted, name))]
    for name in chosen:
        if name != ALL and name not in wanted.applications:
            raise NotFound("There is no such vault in this mesh.")
        if keep_read and _RANK[_effective(before, name)]:
            after[name] = READ
        else:
            after.pop(name, None)
    if ALL in chosen:
        after |= {name: WRITE for name in wanted.applications if _is_group(wanted, name)}
    lowered = [name for name in chosen if _RANK[_effective(before, name)] > _RANK[after.get(name)]]
    return _apply(pen, wanted, device, after, lowered, master_key=master_key)


def set_grants(pen: Pen, device: str, grants: Mapping[str, str], *, master_key: SigningKey | None = None) -> Changed:
    """Give a member exactly these rights. Denied, BadRequest as `grant`."""
    _check_member(pen, device, master_key)
    wanted = authoring.state(pen)
    before = dict(wanted.grants.get(device, {}))
    after = {name: _level(level) for name, level in grants.items() if name == ALL or name in wanted.applications}
    lowered = [name for name in before if _RANK[_effective(before, name)] > _RANK[after.get(name)]]
    # What a grant on all vaults gives and these do not, though nothing names it, is one cut of "*".
    raised = tuple(name for name in after if _RANK[after[name]] > _RANK[_effective(before, name)] or name == ALL)
    return _apply(pen, wanted, device, after, lowered, again=raised, master_key=master_key)


def _apply(
    pen: Pen,
    wanted: authoring.State,
    device: str,
    after: dict[str, str],
    lowered: Iterable[str],
    *,
    again: tuple[str, ...] = (),
    master_key: SigningKey | None = None,
) -> Changed:
    cuts = [Cut(device, surplus.tips(pen, device), scope) for scope in lowered]
    # What is listed already would add nothing: a vault taken from under `*` comes back only if `*` is said anew.
    confirm = [f"G:{device}@{name}" for name in again if name in after and name not in lowered]
    wanted.grants[device] = after
    read = _read_by(pen, device)
    authoring.write_profile(pen, wanted, cuts=cuts, confirm=confirm, master_key=master_key)
    return _changed(pen, device, rotation.settle(pen, read - _read_by(pen, device)))


def _effective(granted: Mapping[str, str], name: str) -> str | None:
    """The level that a listing gives for one vault, `*` included."""
    levels = [granted.get(name), granted.get(ALL) if name != ALL else None]
    return max(levels, key=_RANK.__getitem__)


def _check_member(pen: Pen, device: str, master_key: SigningKey | None) -> None:
    authoring.check_admin(pen, master_key)
    match pen.replica.authority.role(device):
        case None:
            raise NotFound("There is no such device in this mesh.", hint="see: meshctl device list")
        case Role.ADMIN:
            raise BadRequest("An admin reads and writes every vault.", hint="make it a member first")
        case Role.RELAY:
            raise Denied("A relay never gets a vault's keys.", hint="make it a member first")


# --- roles ------------------------------------------------------------------------------------------------------------


def needs_master(pen: Pen, device: str, role: Role) -> bool:
    """Does giving `device` this role take the master passphrase? NotFound."""
    current = _role(pen, device)
    return current is not role and Role.ADMIN in (current, role)


def set_role(
    pen: Pen,
    device: str,
    role: Role,
    *,
    master_key: SigningKey | None = None,
    grants: Mapping[str, str] | None = None,
    leave_no_admin: bool = False,
) -> Changed:
    """Make a device an admin, a member or a relay. `grants` are a new member's; by default it writes everywhere.

    To and from admin takes the master key; a member whose person has it can become one without any admin's help.
    Denied, NotFound, Refused for the last admin. A role that the device has already changes nothing."""
    current = _role(pen, device)
    if current is role:
        return _changed(pen, device)
    authoring.check_admin(pen, master_key)
    if Role.ADMIN in (current, role) and master_key is None:
        raise Denied("Making or unmaking an admin takes the master passphrase.")
    authority = pen.replica.authority
    read = _read_by(pen, device)
    top: Parsed | None = None
    cuts: list[Cut] = []
    again: list[Cut] = []
    if role is Role.ADMIN:
        assert master_key is not None  # said above
        admins = authority.admins() | {device}
        top = authoring.write_master(pen, master_key, admins, sealed=authoring.held_master(pen))
    elif current is Role.ADMIN:
        assert master_key is not None
        again = surplus.stated_by(pen, [device])
        top = _demote(pen, device, master_key, leave_no_admin)
    wanted = authoring.state(pen)
    if role is Role.ADMIN:
        wanted.roles.pop(device, None)
        wanted.grants.pop(device, None)
    else:
        after = {} if role is Role.RELAY else _member_grants(wanted, grants)
        listed = {name: level for udf, name, level in authority.grants() if udf == device}
        cuts = [
            Cut(device, surplus.tips(pen, device), name)
            for name, level in listed.items()
            if _RANK[level] > _RANK[_effective(after, name)]
        ]
        if current is Role.ADMIN and after.get(ALL) != WRITE and ALL not in listed:
            # What he writes as an admin, not having heard, must not stand where he is none.
            cuts.append(Cut(device, surplus.tips(pen, device), ALL))
        wanted.roles[device] = role
        wanted.grants[device] = after
    confirm = [f"G:{device}@{ALL}"] if role is Role.MEMBER and ALL in wanted.grants[device] else []
    if device not in authority.devices_at(authority.heads(Kind.PERSONAL)):
        confirm.append(f"D:{device}")  # a removal of it fell: who gives it a role takes it back for good
    authoring.write_profile(pen, wanted, top=top, cuts=[*again, *cuts], confirm=confirm, master_key=master_key)
    return _changed(pen, device, rotation.settle(pen, read - _read_by(pen, device)))


def _demote(pen: Pen, device: str, master_key: SigningKey, leave_no_admin: bool) -> Parsed:
    """The MasterProfile that lists one admin less and cuts his chain for what only admins write."""
    left = pen.replica.authority.admins() - {device}
    if not left and not leave_no_admin:
        raise Refused(
            "That would leave the mesh without an admin, and no device would hold the sealed master key.",
            hint="make another device an admin first",
        )
    sealed = authoring.held_master(pen)
    cut = Cut(device, surplus.tips(pen, device), SCOPE_ADMIN)
    return authoring.write_master(pen, master_key, left, cuts=[cut], sealed=sealed)


def _member_grants(wanted: authoring.State, grants: Mapping[str, str] | None) -> dict[str, str]:
    if grants is None:
        return {ALL: WRITE}
    # A narrowed member still reads and writes the names of the devices.
    named = {name: WRITE for name in wanted.applications if _is_group(wanted, name)}
    return {name: _level(level) for name, level in grants.items()} | ({} if ALL in grants else named)


def _role(pen: Pen, device: str) -> Role:
    found = pen.replica.authority.role(device)
    if found is None:
        raise NotFound("There is no such device in this mesh.", hint="see: meshctl device list")
    return found


def _read_by(pen: Pen, device: str) -> frozenset[str]:
    """The vaults, Group among them, that a device reads now."""
    found = snapshot.applications(pen.connection, pen.replica)
    return frozenset(name for name, one in found.items() if device in snapshot.readers(pen.replica, one))


def _changed(pen: Pen, device: str, rotated: tuple[str, ...] = ()) -> Changed:
    authority = pen.replica.authority
    role = authority.role(device) or Role.MEMBER
    grants = {name: level for udf, name, level in authority.grants() if udf == device}
    return Changed(device, role, grants if role is Role.MEMBER else {}, rotated)


def _is_group(wanted: authoring.State, container: str) -> bool:
    application = wanted.applications.get(container)
    return application is not None and application.tag == GROUP.tag


def _level(level: str) -> str:
    if level not in (READ, WRITE):
        raise BadRequest("A grant is read or write.")
    return level
