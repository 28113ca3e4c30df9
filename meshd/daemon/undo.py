"""Taking back, for a day, what was given: grants, roles and names that a profile, Group or a vault changed.

An undo is a new grant and nothing else (formats.md F7): a version on top that says what was said before. What fell with
a removed device is none of its business, that stays in quarantine. What counts as a day is this store's own record of
receipt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from meshd.crypto import base64url
from meshd.crypto.keys import SigningKey
from meshd.daemon import membership, roles, vault_admin
from meshd.daemon.pen import Pen
from meshd.errors import DecryptError, Denied, FormatError, NotFound
from meshd.profile import links, vault
from meshd.profile.apps import GROUP, group
from meshd.profile.claim import ALL, Claim, Kind, Role
from meshd.profile.links import SCOPE_REMOVED
from meshd.profile.vault import Container
from meshd.profile.version import Parsed
from meshd.store import versions

DAY_MS = 24 * 3600 * 1000
RIGHTS, DEVICE_NAME, VAULT_NAME = "rights", "device-name", "vault-name"


@dataclass(frozen=True, slots=True)
class Rights:
    """A role, and the grants that go with it."""

    role: Role
    grants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Undoable:
    """A change of the last 24 hours. `subject` is a device's UDF or a vault's Identifier; `before` and `after` are
    Rights or names."""

    id: str
    what: str
    subject: str
    by: str
    received_ms: int
    before: Rights | str
    after: Rights | str
    needs_master: bool = False

    @property
    def until_ms(self) -> int:
        return self.received_ms + DAY_MS


def every(pen: Pen) -> list[Undoable]:
    """What can be taken back now, the newest first."""
    since = pen.now_ms - DAY_MS
    rows = pen.connection.execute(
        "SELECT vid FROM versions WHERE received > ? AND state = 1 AND kind IN (1, 2, 8) ORDER BY seq DESC", (since,)
    ).fetchall()
    group_vaults = [key for key, opened in pen.keyring.vaults.items() if opened.application.tag == GROUP.tag]
    found: list[Undoable] = []
    for (vid,) in rows:
        row = versions.get(pen.connection, vid)
        assert row is not None  # selected just now, in this transaction
        parents = links.parse(row.token).p
        if not parents or (row.kind == Kind.ITEM and row.identifier.partition("/")[0] not in group_vaults):
            continue
        match row.kind:
            case Kind.PERSONAL:
                found += _rights(pen, row, parents)
            case Kind.CONTAINER:
                found += _vault_name(pen, row, parents)
            case _:
                found += _device_name(pen, row, parents)
    return found


def undo(pen: Pen, id: str, *, master_key: SigningKey | None = None) -> Undoable:
    """Take one change back. NotFound where it is older than a day or about a device that is gone; Denied without the
    master key where an admin is made or unmade."""
    one = next((one for one in every(pen) if one.id == id), None)
    if one is None:
        raise NotFound("There is nothing like that to take back.", hint="grants, roles and names can be, for 24 hours")
    before = one.before
    if isinstance(before, Rights):
        if one.needs_master and master_key is None:
            raise Denied("Taking that back takes the master passphrase.")
        if pen.replica.authority.role(one.subject) is before.role:
            if before.role is Role.MEMBER:
                roles.set_grants(pen, one.subject, _without(pen, one), master_key=master_key)
        else:
            grants = before.grants if before.role is Role.MEMBER else None
            roles.set_role(pen, one.subject, before.role, master_key=master_key, grants=grants)
    elif one.what == DEVICE_NAME:
        membership.name_device(pen, one.subject, before)
    else:
        vault_admin.rename(pen, one.subject, before)
    return one


def _without(pen: Pen, one: Undoable) -> dict[str, str]:
    """The grants that a member has now, with those that this change touched as they were before it: what was granted
    since stays."""
    assert isinstance(one.before, Rights) and isinstance(one.after, Rights)
    wanted = {name: level for udf, name, level in pen.replica.authority.grants() if udf == one.subject}
    for name in one.before.grants.keys() | one.after.grants.keys():
        if one.before.grants.get(name) != one.after.grants.get(name):
            wanted.pop(name, None)
            if name in one.before.grants:
                wanted[name] = one.before.grants[name]
    return wanted


# --- what changed -----------------------------------------------------------------------------------------------------


def _rights(pen: Pen, row: versions.Row, parents: tuple[bytes, ...]) -> Iterator[Undoable]:
    """The devices whose role or grants a profile changed; those that it added or removed are not among them."""
    parsed = pen.load([row.vid, *parents])
    if len(parsed) != 1 + len(parents):
        return
    here = pen.replica.authority.devices()
    after = _stated(parsed[:1])
    before = _stated(parsed[1:])
    cuts = links.parse(row.token).x
    for one in cuts:  # a vault taken from under "*" shows in no list
        if one.udf in before and (level := before[one.udf].grants.get(ALL)) and one.scope in pen.keyring.vaults:
            given = {one.scope: level, **before[one.udf].grants}
            before[one.udf] = Rights(before[one.udf].role, given)
    cut = {one.udf for one in cuts if one.scope == SCOPE_REMOVED}
    for udf in sorted(after.keys() & before.keys() & here - cut):
        if after[udf] == before[udf]:
            continue
        current = pen.replica.authority.role(udf)
        needs = Role.ADMIN in (before[udf].role, current) and before[udf].role is not current
        name = f"{base64url.encode(row.vid)}.{udf}"
        yield Undoable(name, RIGHTS, udf, row.signer, row.received, before[udf], after[udf], needs)


def _stated(profiles: list[Parsed]) -> dict[str, Rights]:
    """Device → what these profiles list for it, together."""
    found: dict[str, Rights] = {}
    for parsed in profiles:
        claim: Claim = parsed.claim
        admins = parsed.embedded[0].claim.admins
        stated = dict(claim.roles)
        for udf in claim.devices:
            if udf in admins:
                found[udf] = Rights(Role.ADMIN)
            elif found.get(udf, Rights(Role.MEMBER)).role is not Role.ADMIN:
                granted = {vault: level for holder, vault, level in claim.grants if holder == udf}
                known = found[udf].grants if udf in found else {}
                found[udf] = Rights(Role(stated.get(udf, Role.MEMBER)), {**known, **granted})
    return found


def _device_name(pen: Pen, row: versions.Row, parents: tuple[bytes, ...]) -> Iterator[Undoable]:
    after = _said(pen, row.vid)
    before = next((said for vid in parents if (said := _said(pen, vid)) is not None), None)
    if after is None or before is None or after[0] != before[0] or after[1] == before[1]:
        return
    if after[0] in pen.replica.authority.devices():
        name = base64url.encode(row.vid)
        yield Undoable(name, DEVICE_NAME, after[0], row.signer, row.received, before[1], after[1])


def _said(pen: Pen, vid: bytes) -> tuple[str, str] | None:
    """(device, name) of a version of a Group item."""
    for parsed in pen.load([vid]):
        try:
            said = group.read(vault.open_item(parsed, pen.keyring.key))
        except (DecryptError, FormatError):
            continue
        if said is not None:
            return said[0], said[1]
    return None


def _vault_name(pen: Pen, row: versions.Row, parents: tuple[bytes, ...]) -> Iterator[Undoable]:
    after = _container(pen, row.vid)
    before = next((found for vid in parents if (found := _container(pen, vid)) is not None), None)
    if after is None or before is None or not before.name or after.name == before.name:
        return
    name = base64url.encode(row.vid)
    yield Undoable(name, VAULT_NAME, row.identifier, row.signer, row.received, before.name, after.name)


def _container(pen: Pen, vid: bytes) -> Container | None:
    for parsed in pen.load([vid]):
        for key in pen.keyring.device.deks:
            try:
                return vault.open_container(parsed, key)
            except (DecryptError, FormatError):
                continue
    return None
