"""`imports`: the file of another program, taken whole or not at all.

First it is read and held against the vault, then, in one transaction, what it says is written. A malformed row, a full
disk or a crash leave the vault as it was. Importing the same file again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from meshd.daemon import drafts, vaults
from meshd.daemon.drafts import Pending
from meshd.daemon.handlers.items_write import chosen_vault
from meshd.daemon.handlers.pending import Shown
from meshd.daemon.index import Entry
from meshd.daemon.keyring import Keyring, Opened
from meshd.daemon.pen import Pen
from meshd.profile.apps import chrome_csv, password
from meshd.profile.apps.chrome_csv import Login
from meshd.profile.vault import Item
from meshd.store.db import Reader, store_errors

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call

SOURCE = "chrome-csv"
Known = dict[tuple[str, str], list[Entry]]  # site and user name → the logins in the vault


@dataclass(slots=True)
class Plan:
    """What an import comes to."""

    add: list[Login] = field(default_factory=list)
    edit: list[tuple[str, Login]] = field(default_factory=list)  # item Identifier
    unchanged: int = 0
    duplicates: int = 0
    different: list[tuple[int, str]] = field(default_factory=list)  # row, reason


async def run(app: App, call: Call) -> dict[str, Any]:
    """The report of an import. FormatError: the file is no such file. NotFound, Denied."""
    daemon, body = app.daemon, call.body
    logins, rejected = await trio.to_thread.run_sync(chrome_csv.read, body["text"])
    if rejected:
        rows = [(one.row, one.reason) for one in rejected]
        return _report(Plan(), rejected=rows, applied=False)
    update, dry = bool(body.get("update")), bool(body.get("dry_run"))
    async with app.importing:
        keyring, opened = daemon.unlocked(), chosen_vault(daemon, body)
        everything = Shown(daemon, await daemon.fresh_index())
        known = _by_login(everything.entries(), opened)
        vault = _Vault(keyring, everything.pending)
        plan = await trio.to_thread.run_sync(partial(_compare, app, logins, known, vault, update=update))
        pending = 0
        if not dry and (plan.add or plan.edit):
            pending = await daemon.write(lambda pen: _write(pen, opened, plan))
    return _report(plan, rejected=[], applied=not dry) | ({"pending": pending} if pending else {})


def _by_login(entries: Iterable[Entry], opened: Opened) -> Known:
    known: Known = {}
    for entry in entries:
        if entry.container == opened.application.identifier and not entry.deleted:
            for site in entry.sites:
                known.setdefault((site, entry.username), []).append(entry)
    return known


@dataclass(frozen=True, slots=True)
class _Vault:
    """What this device has of its items: heads, or a draft in their place."""

    keyring: Keyring
    pending: Mapping[str, Pending]

    def items(self, reader: Reader, identifier: str) -> list[Item]:
        """What an item says now; several in conflict. Blocking."""
        if identifier in self.pending:
            return [self.pending[identifier].item]
        return [head.item for head in vaults.open_heads(reader.connection, self.keyring, identifier)]


def _compare(app: App, logins: list[Login], known: Known, vault: _Vault, *, update: bool) -> Plan:
    """Hold the rows against the vault and against each other. Blocking: it decrypts every login that a row may mean."""
    plan = Plan()
    first: dict[tuple[str, str], Login] = {}
    reader = Reader(app.daemon.paths.store)
    try:
        with store_errors():
            for login in logins:
                key = (login.site, login.username)
                if key not in first:
                    first[key] = login
                    _against_vault(plan, login, known.get(key, ()), reader, vault, update=update)
                elif first[key].password == login.password:
                    plan.duplicates += 1
                else:
                    # Which of the two is current the file does not say, and an item holds one.
                    reason = f"row {first[key].row} has another password for this login and was taken"
                    plan.different.append((login.row, reason))
    finally:
        reader.close()
    return plan


def _against_vault(
    plan: Plan, login: Login, entries: Iterable[Entry], reader: Reader, vault: _Vault, *, update: bool
) -> None:
    others = []
    for entry in entries:
        items = vault.items(reader, entry.identifier)
        if any(password.view(item)["password"] == login.password for item in items):
            plan.unchanged += 1
            return
        if items:
            others.append(entry)
    if not others:
        plan.add.append(login)
    elif update and len(others) == 1:
        plan.edit.append((others[0].identifier, login))
    else:
        reason = "the vault has another password for this login"
        if len(others) > 1:
            reason = f"the vault has {len(others)} logins of this site and user name, with other passwords"
        plan.different.append((login.row, reason))


def _write(pen: Pen, opened: Opened, plan: Plan) -> int:
    """Everything in the caller's one transaction; how many of them wait here for a key."""
    key = drafts.write_key(pen, opened)
    if key is None:
        written: list[object] = [drafts.add(pen, opened, partial(_new, login)) for login in plan.add]
        written += [drafts.replace(pen, identifier, partial(_edited, login)) for identifier, login in plan.edit]
        return sum(isinstance(one, Pending) for one in written)
    for login in plan.add:
        vaults.add(pen, opened, partial(_new, login), key)
    for identifier, login in plan.edit:
        drafts.replace(pen, identifier, partial(_edited, login))
    return 0


def _new(login: Login, time: int, made: str) -> Item:
    return password.new(
        [login.site],
        login.username,
        login.password,
        time=time,
        made=made,
        title=login.title or None,
        note=login.note or None,
        url=login.url or None,
        source=SOURCE,
    )


def _edited(login: Login, item: Item, time: int, made: str) -> Item:
    """The password alone: whatever else the vault says was said by the person, the file's title by a browser."""
    return password.edit(item, {"password": login.password}, time=time, made=made)


def _report(plan: Plan, *, rejected: list[tuple[int, str]], applied: bool) -> dict[str, Any]:
    return {
        "added": len(plan.add),
        "updated": len(plan.edit),
        "unchanged": plan.unchanged,
        "duplicates": plan.duplicates,
        "rejected": [{"row": row, "reason": reason} for row, reason in rejected],
        "different": [{"row": row, "reason": reason} for row, reason in plan.different],
        "applied": applied,
    }
