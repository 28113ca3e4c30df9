"""New keys for vaults: containers that say exactly who reads them now, and what was written under older keys since.

A rotation is one container version with one key more (formats.md F5). It never touches items: what was readable stays
readable to whoever could read it, and what is written from now on is not. The new key remembers how far the rotating
device knew everybody's chain (`Seen`, in the container's plaintext). So every device can tell a write by somebody who
had not heard from an old one, and writes it anew, the same plaintext under the new key: two that do so make no
conflict.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from meshd.daemon import authoring, exposure, membership, snapshot, surplus, vaults
from meshd.daemon import keyring as keyrings
from meshd.daemon.keyring import Keyring, Opened
from meshd.daemon.pen import Pen
from meshd.errors import DecryptError, Denied, FormatError, NotFound
from meshd.profile import vault, version
from meshd.profile.apps import of_tag
from meshd.profile.claim import Kind, State
from meshd.profile.personal import Application
from meshd.profile.vault import Container, EpochKey
from meshd.profile.version import Version
from meshd.store import events, versions
from meshd.store.replica import Draft, Replica

SEEN = "Seen"  # member of a key: {UDF: n}, how far each chain was known when the key was made


@dataclass(frozen=True, slots=True)
class Stale:
    """An item's head that somebody wrote under a key which a device that no longer reads holds."""

    identifier: str
    vid: bytes
    signer: str


# --- containers -------------------------------------------------------------------------------------------------------


def rotate(pen: Pen, container: str | None = None) -> tuple[str, ...]:
    """New keys for one vault, or for all that this device opens; returns their Identifiers. Denied on a device that is
    no admin, NotFound for a vault that it does not open."""
    authoring.check_admin(pen)
    pen.refresh()
    if container is not None and container not in pen.keyring.vaults:
        raise NotFound("There is no such vault on this device.")
    _no_surplus(pen)
    chosen = [container] if container is not None else sorted(pen.keyring.vaults)
    for identifier in chosen:
        _write(pen, pen.keyring.vaults[identifier], fresh=True)
    pen.refresh(chosen)
    return tuple(chosen)


def settle(pen: Pen, lost: Collection[str] = ()) -> tuple[str, ...]:
    """Bring every container in line with who reads it now; returns the vaults that got a new key. `lost` are vaults
    that somebody just lost: they get one in any case, for an admin who has not heard may yet wrap the others for him.

    A vault gets one where none of its keys is fit for new writes, and where a reader renewed its encryption key. Others
    are wrapped anew where a reader came, or where heads are to be merged. Containers that this device can't open are
    left to who can. Doing it twice changes nothing."""
    pen.refresh()
    if pen.replica.own not in pen.replica.authority.admins():
        return ()
    closed = _closed_to_all(pen)
    if closed or any(_unsettled(pen, opened, lost) for opened in pen.keyring.vaults.values()):
        _no_surplus(pen)
    rotated = [application.identifier for application in closed]
    for application in closed:
        begin_anew(pen, application)
    for identifier in sorted(pen.keyring.vaults):
        opened = pen.keyring.vaults[identifier]
        fault = _unsettled(pen, opened, lost)
        if fault:
            _write(pen, opened, fresh=fault.fresh, lost=fault.lost)
            if fault.fresh:
                rotated.append(identifier)
    pen.refresh()
    return tuple(rotated)


def unsettled(pen: Pen) -> tuple[str, ...]:
    """The vaults that `settle` would write on this device; empty where it is no admin."""
    if pen.replica.own not in pen.replica.authority.admins():
        return ()
    closed = [application.identifier for application in _closed_to_all(pen)]
    return (*closed, *(name for name, opened in sorted(pen.keyring.vaults.items()) if _unsettled(pen, opened)))


@dataclass(frozen=True, slots=True)
class _Fault:
    fresh: bool  # a new key is due
    lost: tuple[EpochKey, ...] = ()  # keys that the containers which stand do not hold


def _unsettled(pen: Pen, opened: Opened, taken: Collection[str] = ()) -> _Fault | None:
    """What is wrong with a vault's containers."""
    wanted = {key.udf for key in membership.recipients_of(pen, opened.application)}
    if not wanted:
        return None  # every reader was removed by somebody who fell, and none was taken back yet
    wrapped = [vault.container_recipients(head) for head in opened.heads]
    readers = snapshot.readers(pen.replica, opened.application)
    renewed = any(pen.replica.holders(key) & readers for one in wrapped for key in one - wanted)
    lost = _lost(pen, opened)
    renewed = renewed or opened.application.identifier in taken
    if renewed or (not opened.container.deleted and not usable(pen.connection, pen.replica, opened)):
        return _Fault(fresh=True, lost=lost)
    if lost or any(one != wanted for one in wrapped) or not _same(opened, pen.keyring):
        return _Fault(fresh=False, lost=lost)
    return None


def _closed_to_all(pen: Pen) -> list[Application]:
    """Vaults whose containers have come, and that no admin can open any more: they were wrapped for this one by
    somebody who fell."""
    authority, replica = pen.replica.authority, pen.replica
    found = []
    for identifier, application in snapshot.applications(pen.connection, replica).items():
        if identifier in pen.keyring.vaults or replica.own not in snapshot.readers(
            replica, application, authority.heads(Kind.PERSONAL)
        ):
            continue
        heads = versions.heads(pen.connection, Kind.CONTAINER, identifier)
        keys = {key for vid in heads for key in replica.envelope(pen.connection, vid).recipients}
        others = {udf for key in keys for udf in replica.holders(key)} & authority.admins()
        if application.tag and not others and (heads or pen.keyring.aside(pen.connection, identifier)):
            found.append(application)
    return found


def begin_anew(pen: Pen, application: Application) -> None:
    """A container beside those that can't be opened, with a new key and those that are known from what fell."""
    known = pen.keyring.aside(pen.connection, application.identifier)
    made = _with(EpochKey.generate(pen.rng, pen.now_ms // 1000), SEEN, _seen(pen))
    keys = [_with(known[kid], keyrings.ASIDE, True) for kid in sorted(known)]
    members = vault.seal_container(
        of_tag(application.tag).private,
        Container((*keys, made), "", {}, {}),
        membership.recipients_of(pen, application),
        pen.rng,
    )
    pen.write(Draft(Kind.CONTAINER, application.identifier, application.tag, members))


def _same(opened: Opened, keyring: Keyring) -> bool:
    """Do all heads say the same? Then one of them is as good as a merged one, and writing that would never end."""
    if len(opened.heads) == 1:
        return True
    said = [_open(head, keyring) for head in opened.heads]
    return all(one is not None and _essence(one) == _essence(opened.container) for one in said)


def _open(head: version.Parsed, keyring: Keyring) -> Container | None:
    for key in keyring.deks:
        try:
            return vault.open_container(head, key)
        except (DecryptError, FormatError):
            continue
    return None


def _essence(container: Container) -> object:
    keys = {(key.kid, bool(key.unknown.get(keyrings.ASIDE))) for key in container.keys}
    return keys, container.name, container.deleted


def _no_surplus(pen: Pen) -> None:
    """A container is wrapped for the readers that its profiles' signed ancestors give: they must give no more than
    stands, and know every removal that is known here. A removed admin may show the MasterProfile that removes him
    without the PersonalProfile that embeds it, and would be given each new key."""
    authority = pen.replica.authority
    for top in pen.load(authority.masters_beyond(authority.heads(Kind.PERSONAL))):
        authoring.write_profile(pen, authoring.state(pen), top=top)
    if surplus.cuts(pen) or surplus.gaps(pen):
        authoring.write_profile(pen, authoring.state(pen))


def _lost(pen: Pen, opened: Opened) -> tuple[EpochKey, ...]:
    """The keys of containers that do not stand under which something was written that does: by a device that had not
    heard. They are carried on, so that everybody reads it, and marked, for somebody who is no reader may hold them."""
    identifier = opened.application.identifier
    held = {key.kid for key in opened.container.keys}
    found = {kid: key for kid, key in pen.keyring.aside(pen.connection, identifier).items() if kid not in held}
    if not found:
        return ()
    used = _used(pen, identifier, frozenset(found))
    return tuple(_with(found[kid], keyrings.ASIDE, True) for kid in sorted(used))


def _used(pen: Pen, container: str, kids: frozenset[str]) -> set[str]:
    """Those of `kids` that a standing item of a vault is under. What was looked at once is not looked at again."""
    marks = {exposure.mark_of(kid): kid for kid in kids}
    memo = ("used kids", container, kids)
    start: tuple[int, set[str]] = (0, set())
    seen, found = pen.replica.memo.get(memo, start)
    rows = pen.connection.execute(
        "SELECT raw FROM versions WHERE kind = 8 AND state = 1 AND seq > ? AND identifier > ? AND identifier < ?"
        " AND raw IS NOT NULL",
        (seen, container + "/", container + "0"),
    )
    found = {*found} | {marks[mark] for (raw,) in rows if (mark := exposure.read_mark(raw)) in marks}
    pen.replica.memo[memo] = (versions.last_seq(pen.connection), found)
    return found


def _write(pen: Pen, opened: Opened, *, fresh: bool, lost: tuple[EpochKey, ...] = ()) -> Version:
    """The container anew. What is not fit for writing now is said to be so for good: who was given it then may be hard
    to see later, when the container that did it has fallen."""
    fit = set(keyrings.fit_keys(pen.connection, pen.replica, opened.application))
    keys = [key if key.kid in fit else _with(key, keyrings.ASIDE, True) for key in (*opened.container.keys, *lost)]
    if fresh:
        made = EpochKey.generate(pen.rng, pen.now_ms // 1000)
        keys = [*(_with(key, SEEN, None) for key in keys), _with(made, SEEN, _seen(pen))]
    container = replace(opened.container, keys=tuple(keys))
    return membership.write_container(pen, opened, container, membership.recipients_of(pen, opened.application))


def _with(key: EpochKey, member: str, value: object) -> EpochKey:
    """The key with one member of ours changed; None takes it away."""
    unknown = {name: told for name, told in key.unknown.items() if name != member}
    return replace(key, unknown=unknown | ({member: value} if value is not None else {}))


def _seen(pen: Pen) -> dict[str, int]:
    found = {}
    for udf in sorted(pen.replica.authority.ever_devices()):
        (count,) = pen.connection.execute("SELECT max(n) FROM versions WHERE signer = ?", (udf,)).fetchone()
        if count:
            found[udf] = count
    return found


# --- keys -------------------------------------------------------------------------------------------------------------


def usable(connection: sqlite3.Connection, replica: Replica, opened: Opened) -> bool:
    """Is there a key for new writes?"""
    try:
        keyrings.write_key(connection, replica, opened)
    except Denied:
        return False
    return True


def write_kid(pen: Pen, opened: Opened) -> str:
    """Which key new writes are under; empty where none is fit."""
    try:
        return keyrings.write_key(pen.connection, pen.replica, opened).kid
    except Denied:
        return ""


def spoiled(connection: sqlite3.Connection, replica: Replica, application: Application) -> frozenset[str]:
    """The kids of a vault that somebody who is no reader now holds, or may yet be given."""
    fit = set(keyrings.fit_keys(connection, replica, application))
    found: set[str] = set()
    for row in versions.of_entry(connection, Kind.CONTAINER, application.identifier):
        if row.state is State.APPLIED:
            found |= replica.envelope(connection, row.vid).kids - fit
    return frozenset(found)


# --- what was written meanwhile ---------------------------------------------------------------------------------------


def stale(pen: Pen, containers: Collection[str] | None = None, after_seq: int = 0) -> list[Stale]:
    """Heads that are under a spoiled key and were not known to who made the newest one, in vaults where this device may
    write. `after_seq`: of those that came later only."""
    found = []
    for identifier, opened in sorted(pen.keyring.vaults.items()):
        if containers is not None and identifier not in containers:
            continue
        if opened.container.deleted or not pen.replica.authority.can_write(pen.replica.own, identifier):
            continue
        found += list(_stale_in(pen, opened, after_seq))
    return found


def _stale_in(pen: Pen, opened: Opened, after_seq: int) -> Iterator[Stale]:
    try:
        seen = keyrings.write_key(pen.connection, pen.replica, opened).unknown.get(SEEN)
    except Denied:
        return  # nothing to write it under
    identifier = opened.application.identifier
    held = {key.kid for key in opened.container.keys}
    orphaned = frozenset(pen.keyring.aside(pen.connection, identifier)) - held | _out_of_reach(pen, opened)
    if orphaned:  # this device alone may be able to read it, and no admin can carry its key on
        yield from heads_under(pen, orphaned, identifier, "", ())
    bad = spoiled(pen.connection, pen.replica, opened.application)
    bad |= {key.kid for key in opened.container.keys if key.unknown.get(keyrings.ASIDE)}
    if not bad or type(seen) is not dict:
        return  # nobody who is no reader holds a key, or the key was made with the vault
    for signer in sorted(pen.replica.authority.ever_devices()):
        known = seen.get(signer, 0)
        where = " AND signer = ? AND n > ? AND seq > ?"
        yield from heads_under(pen, bad, identifier, where, (signer, known if type(known) is int else 0, after_seq))


def _out_of_reach(pen: Pen, opened: Opened) -> frozenset[str]:
    """The kids that are in no container for all readers, but in one that no admin opens: after the last who did is
    gone, and another device was made an admin that had not all vaults."""
    wanted = {key.udf for key in membership.recipients_of(pen, opened.application)}
    admins = pen.replica.authority.admins()
    whole: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    for head in opened.heads:
        recipients = vault.container_recipients(head)
        if wanted <= recipients:
            whole |= vault.container_kids(head)
        elif not any(pen.replica.holders(key) & admins for key in recipients):
            closed |= vault.container_kids(head)
    return closed - whole if whole else frozenset()


def heads_under(
    pen: Pen, kids: frozenset[str], container: str, where: str, parameters: tuple[object, ...]
) -> Iterator[Stale]:
    """The heads of a vault's items that are under one of these keys, and of which `where` is true."""
    marks = {exposure.mark_of(kid) for kid in kids}
    sql = (
        "SELECT vid, identifier, signer, raw FROM versions WHERE kind = 8 AND head = 1 AND identifier > ?"
        " AND identifier < ? AND raw IS NOT NULL"
    )
    rows = pen.connection.execute(sql + where, (container + "/", container + "0", *parameters))
    for vid, identifier, signer, raw in rows.fetchall():
        if exposure.read_mark(raw) in marks:
            yield Stale(identifier, vid, signer)


def rewrite(pen: Pen, found: Collection[Stale]) -> list[Version]:
    """The same plaintexts under the present keys, each over the head that it stands for; told in events."""
    written = []
    for one in found:
        opened = pen.keyring.vaults.get(one.identifier.partition("/")[0])
        heads = vaults.open_heads(pen.connection, pen.keyring, one.identifier) if opened is not None else []
        head = next((head for head in heads if head.vid == one.vid), None)
        if opened is None or head is None:
            continue  # replaced meanwhile, or not for this device
        written.append(vaults.write_item(pen, opened, one.identifier, head.item, [head]))
        events.append(pen.connection, pen.now_ms, "stale", {"id": one.identifier, "device": one.signer})
    return written
