"""What decisions ask of a portal, answered from its SQLite store: `meshd.portal.view.View` over one connection.

There is one over the writer's connection, which sees the transaction that is under way, and one over a connection that
only reads. Rows become the values that decisions know; nothing is decided here.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from meshd.crypto.keys import RsaVerifyKey, VerifyKey
from meshd.daemon.portal.authorities import Authorities
from meshd.portal import crosslog, documents2016
from meshd.portal.checked import Row
from meshd.portal.documents2016 import Document, Profile
from meshd.portal.view import Account, Answered, Device, Known, LogPage, LogState, Pending, Stored, Told, Usage
from meshd.profile import links
from meshd.profile.claim import Kind, State
from meshd.profile.trust import Authority
from meshd.store import portal_key_rows
from meshd.store import portal_rows as rows

if TYPE_CHECKING:
    from meshd.daemon.portal.shown import Shown

_KEPT_KEYS = 50_000
_KEPT_PROFILES = 256  # of 2016: each is some milliseconds of RSA


class SqliteView:
    """Satisfies `meshd.portal.view.View`. `now` is the time of the request at hand, in UTC seconds."""

    def __init__(self, connection: sqlite3.Connection, authorities: Authorities) -> None:
        self.connection = connection
        self.authorities = authorities
        self.now = 0
        self.log: Shown | None = None  # of a portal that has a name to sign it by
        self.mirror = False  # of another portal's log, in which there are no accounts
        self._keys: dict[str, VerifyKey] = {}  # a fingerprint is the hash of its key: never out of date
        self._daks: dict[str, VerifyKey] = {}
        self._profiles: dict[bytes, Profile] = {}
        self._vaults: dict[str, str] = {}  # whose each is
        self._heads: dict[str, list[rows.Row]] | None = None  # while nothing changes

    @contextmanager
    def deciding(self, now: int) -> Iterator[None]:
        """While a decision is made nothing changes, so that nothing needs to be read twice."""
        self.now = now
        self._heads = {}
        try:
            yield
        finally:
            self._heads = None

    def forget(self) -> None:
        """A transaction was rolled back."""
        self.authorities.drop()
        self._vaults.clear()

    # --- accounts -----------------------------------------------------------------------------------------------------

    def account(self, name: str) -> Account | None:
        return _account(rows.account(self.connection, name=name))

    def mesh_account(self, mesh: str) -> Account | None:
        if self.mirror:  # who may read is said by the profiles alone
            return Account("", mesh, 0) if mesh and rows.mesh_id(self.connection, mesh) is not None else None
        return _account(rows.account(self.connection, mesh=mesh)) if mesh else None

    def usage(self, mesh: str) -> Usage:
        return Usage(*rows.usage(self.connection, mesh))

    def reservation(self, name: str, now: int) -> str | None:
        found = self._one("SELECT token FROM reservations WHERE name = ? AND until > ?", name, now)
        return None if found is None else str(found[0])

    def reservations(self, now: int) -> int:
        found = self._one("SELECT count(*) FROM reservations WHERE until > ?", now)
        return int(found[0]) if found else 0

    def has_invite(self, token: str, now: int) -> bool:
        return (
            self._one("SELECT 1 FROM invites WHERE digest = ? AND expires > ?", invite_digest(token), now) is not None
        )

    # --- who ----------------------------------------------------------------------------------------------------------

    def devices_of(self, dak: str) -> Sequence[Device]:
        return [
            Device(mesh, udf)
            for mesh, udf, old in portal_key_rows.devices_of(self.connection, dak)
            if old or ((authority := self.authority(mesh)) is not None and udf in authority.ever_devices())
        ]

    def signing_key(self, signer: str) -> VerifyKey | None:
        key = self._keys.get(signer)
        if key is None:
            public = portal_key_rows.signer(self.connection, signer)
            if public is None:
                return None
            if len(self._keys) >= _KEPT_KEYS:
                self._keys.clear()
            key = self._keys[signer] = VerifyKey(public, signer)
        return key

    def authentication_key(self, keyid: str) -> VerifyKey | RsaVerifyKey | None:
        known = self._daks.get(keyid)
        if known is not None:
            return known
        found = portal_key_rows.device_key(self.connection, keyid)
        if found is not None:
            # Kept although its device may state another by now: whose key it is, is asked anew for each request.
            if len(self._daks) >= _KEPT_KEYS:
                self._daks.clear()
            known = self._daks[keyid] = VerifyKey(found, keyid)
            return known
        found = portal_key_rows.passing_key(self.connection, keyid)
        if found is not None:
            return VerifyKey(found, keyid)
        for mesh, _ in portal_key_rows.devices_2016_of(self.connection, dak=keyid):
            profile = self.profile_2016(mesh)
            key = documents2016.authentication_key(profile, keyid) if profile is not None else None
            if key is not None:
                return key
        return None

    def is_device_key(self, keyid: str) -> bool:
        """Is a key that `authentication_key` has found that of a device of some account, not only of one that asks?"""
        return keyid in self._daks or bool(portal_key_rows.devices_2016_of(self.connection, dak=keyid))

    def authority(self, mesh: str) -> Authority | None:
        return self.authorities.get(mesh) if mesh else None

    def peer_grant(self, keyid: str) -> str | None:
        found = self._one("SELECT granted FROM peers WHERE keyid = ?", keyid)
        return None if found is None else str(found[0])

    # --- versions -----------------------------------------------------------------------------------------------------

    def stored(self, vid: bytes) -> Stored | None:
        row = rows.version(self.connection, vid)
        if row is not None:
            return stored_of(row)
        part = rows.part(self.connection, vid)
        if part is None:
            return None
        kind, identifier, mesh, gen, raw, added = part
        return Stored(0, "", added, vid, Kind(kind), identifier, mesh, gen, State.APPLIED, raw)

    def known(self, vid: bytes) -> Known | None:
        found = rows.brief(self.connection, vid)
        return None if found is None else Known(Kind(found.kind), found.identifier, found.gen, found.signer, found.n)

    def heads(self, kind: Kind, identifier: str) -> Sequence[Stored]:
        return [stored_of(row) for row in self._head_rows(identifier) if row.kind == kind]

    def _head_rows(self, identifier: str) -> list[rows.Row]:
        """Whoever asks for one kind asks for the others next: an Identifier does not say its kind."""
        if self._heads is None:
            return rows.heads(self.connection, identifier)
        found = self._heads.get(identifier)
        if found is None:
            found = self._heads[identifier] = rows.heads(self.connection, identifier)
        return found

    def owner(self, kind: Kind, identifier: str) -> str | None:
        # A vault is asked for with each of its items, and never changes hands.
        found = self._vaults.get(identifier) if kind is Kind.CONTAINER else None
        if found is None:
            found = rows.owner(self.connection, int(kind), identifier)
            if found is not None and kind is Kind.CONTAINER:
                if len(self._vaults) >= _KEPT_KEYS:
                    self._vaults.clear()
                self._vaults[identifier] = found
        return found

    def feed(self, mesh: str, after: int, limit: int, *, profiles: bool = False) -> Sequence[Stored]:
        found = rows.feed(self.connection, mesh, after, limit, profiles=profiles)
        if self.log is not None:  # what is committed and not signed yet would come without a receipt, as if withheld
            size = self.log.signed.size
            found = [row for row in found if row.seq <= size]
        return [stored_of(row) for row in found]

    def index_at(self, mesh: str, seconds: int) -> int:
        return rows.place_at(self.connection, seconds)

    def last_index(self) -> int:
        return rows.last_place(self.connection)

    def told(self, mesh: str, after: int, limit: int) -> Sequence[Told]:
        return [Told(*row) for row in rows.notices(self.connection, mesh, after, limit)]

    def last_notice(self) -> int:
        return rows.last_notice(self.connection)

    # --- 2016 ---------------------------------------------------------------------------------------------------------

    def profile_2016(self, mesh: str) -> Profile | None:
        if not mesh:
            return None
        for row in self._head_rows(mesh):
            if row.kind == Kind.PERSONAL and row.old and row.raw is not None:
                found = self._profiles.get(row.vid)
                if found is None:
                    found = documents2016.read_profile(documents2016.parse(row.raw))
                    if len(self._profiles) >= _KEPT_PROFILES:
                        self._profiles.clear()
                    self._profiles[row.vid] = found
                return found
        return None

    def signer_2016(self, kid: str) -> tuple[str, RsaVerifyKey] | None:
        for mesh, _ in portal_key_rows.devices_2016_of(self.connection, device=kid):
            profile = self.profile_2016(mesh)
            if profile is not None and kid in profile.devices:
                return mesh, profile.devices[kid]
        return None

    def held_2016(self, identifier: str) -> Document | None:
        found = self._one("SELECT raw FROM held WHERE identifier = ? AND until > ?", identifier, self.now)
        return None if found is None else documents2016.parse(bytes(found[0]))

    def held_count(self, now: int) -> int:
        found = self._one("SELECT count(*) FROM held WHERE until > ?", now)
        return int(found[0]) if found else 0

    def unowned_escrow(self) -> int:
        return rows.unowned(self.connection)

    # --- connecting ---------------------------------------------------------------------------------------------------

    def pending(self, account: str, now: int) -> Sequence[Pending]:
        found = self.connection.execute(
            "SELECT account, device, dak, request, asked, wire, old FROM pending WHERE account = ? AND expires > ?"
            " ORDER BY asked, device",
            (account, now),
        ).fetchall()
        return [
            Pending(name, device, dak, bytes(request), asked, json.loads(wire), old=bool(old))
            for name, device, dak, request, asked, wire, old in found
        ]

    def ever_pending(self, account: str) -> bool:
        return self._one("SELECT 1 FROM accounts WHERE name = ? AND asked = 1", account) is not None

    def answered(self, account: str | None, device: str) -> Answered | None:
        found = self._one(
            "SELECT account, device, dak, request, wire FROM answers WHERE device = ? AND (? IS NULL OR account = ?)"
            " ORDER BY given DESC LIMIT 1",
            device,
            account,
            account,
        )
        return None if found is None else Answered(found[0], found[1], found[2], bytes(found[3]), json.loads(found[4]))

    # --- the log ------------------------------------------------------------------------------------------------------

    def log_state(
        self, old_size: int | None, peer_sizes: Sequence[tuple[str, int]], tree_size: int | None = None
    ) -> LogState:
        if self.log is None:
            return LogState(last_write=rows.last_added(self.connection) or None)
        return self.log.state(self.connection, old_size, peer_sizes, tree_size)

    def log_page(
        self,
        *,
        full: bool,
        after: str | None,
        not_before: int | None,
        until: int | None,
        max_entries: int,
        max_bytes: int,
        origin: str | None,
        tree_size: int | None,
    ) -> LogPage | None:
        if self.log is None:
            return None
        return self.log.page(
            self.connection, full=full, after=after, not_before=not_before, until=until, max_entries=max_entries,
            max_bytes=max_bytes, origin=origin, tree_size=tree_size,
        )  # fmt: skip

    # --- parts --------------------------------------------------------------------------------------------------------

    def _one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self.connection.execute(sql, values).fetchone()
        return found


def invite_digest(token: str) -> bytes:
    """What is kept of an invitation."""
    return hashlib.sha256(token.strip().encode("utf-8", "replace")).digest()


def tid_of(place: int) -> str:
    """The TransactionID of a place in the log."""
    return f"TID:{place}"


def stored_of(row: rows.Row, *, bare: bool = False) -> Stored:
    """A row of the store as decisions see it; `bare`: without its content."""
    raw = b"" if bare else row.raw or b""
    return Stored(
        row.seq,
        tid_of(row.seq),
        row.added,
        row.vid,
        Kind(row.kind) if row.kind else crosslog.KIND,
        row.identifier,
        row.mesh,
        row.gen,
        State(row.state),
        raw,
        action="New" if row.prior is None else "Update",
        prior=None if row.prior is None else tid_of(row.prior),
        old=row.old,
        row=None if raw or not row.token else _left(row),
    )


def _left(row: rows.Row) -> Row:
    return Row(row.vid, Kind(row.kind), row.identifier, row.signer, links.parse(row.token), row.token, row.digest)


def place_of(after: str | None) -> int | None:
    """The place in the log that a cursor of Transfer names; None for one of another form."""
    if after is None:
        return 0
    digits = after.removeprefix("TID:")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 15 else None


def _account(found: tuple[str, str, int, str, int, int, str] | None) -> Account | None:
    if found is None:
        return None
    name, mesh, created, status, old, compat, opener = found
    return Account(name, mesh, created, status, old=bool(old), compat=bool(compat), opener=opener)
