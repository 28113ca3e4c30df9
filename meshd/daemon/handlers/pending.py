"""The items as this device shows them: those of the index, with what waits here for a key in place of what it replaces.

A write that no key is fit for yet is a draft (`daemon.drafts`). Whoever wrote it goes on as if it were there, and sees
that it is pending. Items of deleted vaults are not shown at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshd.daemon import drafts
from meshd.daemon.context import Daemon
from meshd.daemon.drafts import Pending
from meshd.daemon.index import Entry, Index
from meshd.profile.apps import PASSWORD, hosts, of_tag, password


class Shown:
    """The index, drafts included. `pending` holds the newest draft of each item that has one."""

    def __init__(self, daemon: Daemon, index: Index) -> None:
        self._index = index
        self.pending = newest(daemon)
        self._hidden = hidden(daemon)
        self._drafted = {
            identifier: _entry(daemon, one, index.entries.get(identifier)) for identifier, one in self.pending.items()
        }

    def entries(self) -> list[Entry]:
        """Every item of a vault that is there, deleted items too."""
        found = [entry for entry in self._index.entries.values() if entry.identifier not in self._drafted]
        return [
            entry
            for entry in (*found, *self._drafted.values())
            if of_tag(entry.tag).vault and entry.container not in self._hidden
        ]

    def find(
        self, tag: str, site: str, username: str | None = None, container: str | None = None
    ) -> tuple[list[Entry], bool]:
        """As `Index.find`: (live entries for a site, exact?)."""

        def among(entry: Entry) -> bool:
            return entry.container not in self._hidden and container in (None, entry.container)

        def indexed(entry: Entry) -> bool:
            return entry.identifier not in self._drafted and among(entry)

        found, exact = self._index.find(tag, site, username, indexed)
        host = hosts.normalise(site)
        live = [
            entry
            for entry in self._drafted.values()
            if not entry.deleted and entry.tag == tag and username in (None, entry.username) and among(entry)
        ]
        matching = [entry for entry in live if hosts.matches(host, entry.sites)]
        if matching or exact:
            found = [*found, *matching] if exact else matching
            exact = True
        else:
            domain = hosts.registrable(host)
            found += [entry for entry in live if any(hosts.registrable(known) == domain for known in entry.sites)]
        return sorted(found, key=lambda entry: (entry.username, entry.identifier)), exact


def newest(daemon: Daemon) -> Mapping[str, Pending]:
    """The newest draft of each item; without one, one small query."""
    connection, keyring = daemon.reader.connection, daemon.keyring
    if keyring is None or not drafts.count(connection):
        return {}
    return {one.identifier: one for one in drafts.every(connection, keyring)}


def hidden(daemon: Daemon) -> frozenset[str]:
    """The deleted vaults."""
    keyring = daemon.keyring
    vaults = keyring.vaults.items() if keyring is not None else ()
    return frozenset(identifier for identifier, opened in list(vaults) if opened.container.deleted)


def visible(daemon: Daemon, entries: Iterable[Entry]) -> list[Entry]:
    """Without those of deleted vaults."""
    gone = hidden(daemon)
    return [entry for entry in entries if entry.container not in gone]


def _entry(daemon: Daemon, draft: Pending, known: Entry | None) -> Entry:
    row = password.row(draft.item) if draft.tag == PASSWORD.tag else password.Row("", (), "")
    return Entry(
        draft.identifier,
        b"",
        draft.tag,
        row.title,
        row.sites,
        row.username,
        draft.item.made,
        draft.created_ms // 1000,
        daemon.snapshot.own,
        known.heads if known is not None else 1,
        draft.item.deleted,
    )
