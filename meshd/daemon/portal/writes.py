"""What was decided, written down: each write as rows, within the transaction in which it was decided.

A version is judged once more here, by the authority into which the profiles before it were integrated, and so is
whatever a profile or a link of a chain that arrives touches: a portal's heads are those that the devices come to.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from meshd.daemon.portal.view import SqliteView, invite_digest
from meshd.errors import StoreError
from meshd.portal import crosslog, documents2016, outcomes
from meshd.portal.checked import Row
from meshd.portal.documents2016 import Document
from meshd.portal.view import CLOSED, Answered, Pending
from meshd.profile import connection as connecting
from meshd.profile import device, version
from meshd.profile.claim import Claim, Kind, State
from meshd.profile.trust import Authority, Change
from meshd.profile.version import Version
from meshd.store import portal_key_rows
from meshd.store import portal_rows as rows

_PROFILES = (Kind.MASTER, Kind.PERSONAL)
_ESCROW = (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW)

# Called for each new place of the log, within the transaction: (connection, place). Whoever keeps a tree over the log
# adds its leaf there.
OnPlace = Callable[[sqlite3.Connection, int], None]


def no_leaf(connection: sqlite3.Connection, place: int) -> None:
    """This portal keeps no tree."""


@dataclass(slots=True)
class Applied:
    """What writes came to; told when it is on disk."""

    places: list[int] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)  # meshes whose feed goes on
    profiles: set[str] = field(default_factory=set)  # meshes whose profiles are more than before
    whole: set[str] = field(default_factory=set)  # meshes whose profiles are to be judged anew from the rows
    notices: list[tuple[str, str]] = field(default_factory=list)  # (what, mesh)
    accounts: int = 0


def merge(whole: Applied, one: Applied) -> None:
    """Add what further writes came to."""
    whole.places += one.places
    whole.moved |= one.moved
    whole.profiles |= one.profiles
    whole.whole |= one.whole
    whole.notices += one.notices
    whole.accounts += one.accounts


class Writing:
    """Applies the writes of decisions. One, beside the writer's view; `now` is UTC seconds."""

    def __init__(self, view: SqliteView, on_place: OnPlace = no_leaf) -> None:
        self._view = view
        self._connection = view.connection
        self._on_place = on_place

    def apply(self, writes: Sequence[outcomes.Write], now: int) -> Applied:
        """All of them, in order. The caller's transaction makes them one."""
        done = Applied()
        for write in writes:
            self._apply(write, now, done)
        return done

    def _apply(self, write: outcomes.Write, now: int, done: Applied) -> None:
        connection = self._connection
        match write:
            case outcomes.PutVersion(mesh, found, _, leaf):
                self._put(mesh, found, leaf, now, done)
            case outcomes.PutRow(mesh, row):
                self._put_row(mesh, row, done)
            case outcomes.PutDocument(mesh, document):
                self._put_document(mesh, document, now, done)
            case outcomes.OpenAccount(account):
                connection.execute(
                    "INSERT INTO accounts (name, mesh, created, status, old, compat) VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        account.name, rows.make_mesh(connection, account.mesh), account.created, account.status,
                        int(account.old), int(account.compat),
                    ),
                )  # fmt: skip
                connection.execute("DELETE FROM reservations WHERE name = ?", (account.name,))
                done.accounts += 1
            case outcomes.CloseAccount(name):
                connection.execute("UPDATE accounts SET status = ?, opener = '' WHERE name = ?", (CLOSED, name))
            case outcomes.PutOpener(name, keyid, public):
                connection.execute(
                    "UPDATE accounts SET opener = ?, opener_key = ? WHERE name = ?", (keyid, public, name)
                )
            case outcomes.UseInvite(token):
                connection.execute("DELETE FROM invites WHERE digest = ?", (invite_digest(token),))
            case outcomes.Reserve(name, token, until):
                connection.execute("INSERT OR REPLACE INTO reservations VALUES (?, ?, ?)", (name, token, until))
            case outcomes.Hold(document, until):
                connection.execute(
                    "INSERT OR REPLACE INTO held VALUES (?, ?, ?)", (document.identifier, document.raw, until)
                )
            case outcomes.Release(identifier):
                connection.execute("DELETE FROM held WHERE identifier = ?", (identifier,))
            case outcomes.PutPending(pending, expires):
                self._put_pending(pending, expires)
            case outcomes.PutAnswer(answered):
                self._put_answer(answered, now)
            case outcomes.Notice(mesh, what, about):
                connection.execute(
                    "INSERT INTO notices (time, mesh, what, about) VALUES (?, ?, ?, ?)", (now, mesh, what, about)
                )
                done.notices.append((what, mesh))
                done.moved.add(mesh)  # its devices are told at once

    # --- versions of ours ---------------------------------------------------------------------------------------------

    def _put(self, mesh: str, found: Version, leaf: bool, now: int, done: Applied) -> None:
        connection, claim = self._connection, found.claim
        authority = self._view.authorities.writing(mesh)  # before the row is there, which would be read with the others
        number = rows.make_mesh(connection, mesh)
        change: Change | None = None
        if claim.kind in _PROFILES:
            change = authority.integrate(claim)
            state = change.state
        elif authority.may_write(claim):
            state = State.APPLIED
        else:
            state = State.PENDING if claim.kind in _ESCROW else State.QUARANTINED
        put = _put_of(found)
        before = rows.is_row(connection, claim.vid)  # of a version that was pruned
        self._learn(number, found)
        if leaf:
            place = rows.put(connection, number, put, state, self._added(now))
            self._on_place(connection, place)
            done.places.append(place)
            done.moved.add(mesh)
        else:
            place = rows.put_part(connection, number, put, now)
        if claim.kind in _PROFILES:
            self._view.authorities.wrote(mesh, **({"place": place} if leaf else {"part": place}))
            done.profiles.add(mesh)
        if before and leaf:
            rows.find_heads(connection, int(claim.kind), claim.identifier)
        if claim.links.n:
            self._join(mesh, number, authority, claim.signer, claim.vid, claim.links.q, done)
        if change is not None:
            self._follow(number, authority, change)
        if claim.kind is Kind.MASTER:
            self._judge(number, authority, rows.to_judge(connection, number, pending=True))
            rows.erase_escrow(connection, number, set(authority.escrow().values()))

    def _learn(self, mesh: int, found: Version) -> None:
        """The keys and devices that a profile states."""
        connection, claim = self._connection, found.claim
        if claim.kind is Kind.MASTER:
            key = version.master_key(found.body)
            for udf, stated in {**version.online_keys(found.body), key.udf: key}.items():
                portal_key_rows.learn_signer(connection, udf, stated.public)
        elif claim.kind is Kind.DEVICE:
            stated_by = device.read(found)
            portal_key_rows.learn_signer(connection, stated_by.udf, stated_by.dsk.public)
            portal_key_rows.put_device(
                connection, stated_by.udf, stated_by.dak.udf, stated_by.dak.public, claim.links.g, claim.vid
            )
        elif claim.kind is Kind.PERSONAL:
            portal_key_rows.put_members(connection, mesh, claim.devices)

    def _join(
        self, mesh: str, number: int, authority: Authority, signer: str, vid: bytes, q: tuple[bytes, ...], done: Applied
    ) -> None:
        """A link of a chain came: it may connect versions to a cut that left them outside."""
        change = authority.joined(signer, vid, q)
        if change.versions or change.flips:
            self._follow(number, authority, change)
            done.whole.add(mesh)

    def _follow(self, mesh: int, authority: Authority, change: Change) -> None:
        """Judge again what a change touches, and find the heads of the entries whose versions' states it changed."""
        connection = self._connection
        if change.flips:
            flipped = rows.to_judge(connection, mesh, vids=list(change.flips))
            self._set(mesh, [(one, change.flips[one.claim.vid]) for one in flipped])
        if change.everything:
            self._judge(mesh, authority, rows.to_judge(connection, mesh))
            return
        for signer in change.signers:
            self._judge(mesh, authority, rows.to_judge(connection, mesh, signer=signer))
        if change.versions:
            self._judge(mesh, authority, rows.to_judge(connection, mesh, vids=change.versions))

    def _judge(self, mesh: int, authority: Authority, found: Iterable[rows.Judged]) -> None:
        judged = []
        for one in found:
            if authority.may_write(one.claim):
                state = State.APPLIED
            elif one.claim.kind in _ESCROW:
                continue  # what was listed once is kept; no longer being listed is its readers' business
            else:
                state = State.QUARANTINED
            judged.append((one, state))
        self._set(mesh, judged)

    def _set(self, mesh: int, judged: Sequence[tuple[rows.Judged, State]]) -> None:
        touched: set[tuple[int, str]] = set()
        for one, state in judged:
            if state is not one.state:
                rows.set_state(self._connection, mesh, one, state)
                if one.claim.kind not in _ESCROW:
                    touched.add(one.claim.entry)
        for kind, identifier in touched:
            rows.find_heads(self._connection, kind, identifier)

    def _put_row(self, mesh: str, row: Row, done: Applied) -> None:
        number = rows.make_mesh(self._connection, mesh)
        put = rows.Put(
            row.vid, int(row.kind), row.identifier, row.signer, row.links.n, row.links.g, row.token, row.digest, b""
        )
        rows.put_row(self._connection, number, put)
        authority = self._view.authorities.get(mesh)
        if authority is not None and row.links.n:
            self._join(mesh, number, authority, row.signer, row.vid, row.links.q, done)

    def _added(self, now: int) -> int:
        """Never before what was added last: times in the log do not go back when a clock does."""
        return max(now, rows.last_added(self._connection))

    # --- documents of 2016 --------------------------------------------------------------------------------------------

    def _put_document(self, mesh: str | None, document: Document, now: int, done: Applied) -> None:
        connection = self._connection
        number = None if mesh is None else rows.make_mesh(connection, mesh)
        kind = int(document.kind)
        prior = rows.replace_head(connection, kind, document.identifier)
        put = rows.Put(document.vid, kind, document.identifier, document.kid, 0, 1, "", b"", document.raw, old=True)
        place = rows.put(connection, number, put, State.APPLIED, self._added(now))
        if prior is not None:
            rows.set_prior(connection, place, prior)
        self._on_place(connection, place)
        done.places.append(place)
        if mesh is not None and number is not None:
            done.moved.add(mesh)
            if document.kind is Kind.PERSONAL:
                profile = documents2016.read_profile(document)
                known = {udf: udf for udf in profile.devices} | {
                    udf: dak for dak, udf in profile.authentication.items()
                }
                portal_key_rows.put_devices_2016(connection, number, known)

    # --- checkpoints of other logs ------------------------------------------------------------------------------------

    def put_checkpoint(self, identifier: str, note: bytes, now: int, done: Applied) -> None:
        """Another log's checkpoint becomes an entry of this one, in place of the one before of that log."""
        connection, kind = self._connection, int(crosslog.KIND)
        prior = rows.replace_head(connection, kind, identifier)
        put = rows.Put(crosslog.vid(note), kind, identifier, "", 0, 1, "", b"", note)
        place = rows.put(connection, None, put, State.APPLIED, self._added(now))
        if prior is not None:
            rows.set_prior(connection, place, prior)
        self._on_place(connection, place)
        done.places.append(place)

    # --- connecting ---------------------------------------------------------------------------------------------------

    def _put_pending(self, one: Pending, expires: int) -> None:
        key = b""
        if not one.old:
            asked = connecting.read_request(one.wire).device
            if asked is None:
                raise StoreError("a connection request without its device")
            key = device.read(asked).dak.public
        self._connection.execute(
            "INSERT OR REPLACE INTO pending (account, device, dak, key, request, asked, expires, old, wire)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (one.account, one.device, one.dak, key, one.request_id, one.asked, expires, int(one.old), _text(one.wire)),
        )
        self._connection.execute("DELETE FROM answers WHERE account = ? AND device = ?", (one.account, one.device))
        self._connection.execute("UPDATE accounts SET asked = 1 WHERE name = ? AND asked = 0", (one.account,))

    def _put_answer(self, one: Answered, now: int) -> None:
        where = (one.account, one.device)
        found = self._connection.execute("SELECT key FROM pending WHERE account = ? AND device = ?", where).fetchone()
        self._connection.execute(
            "INSERT OR REPLACE INTO answers (account, device, dak, key, request, given, wire)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*where, one.dak, found[0] if found is not None else b"", one.request_id, now, _text(one.wire)),
        )
        self._connection.execute("DELETE FROM pending WHERE account = ? AND device = ?", where)


def _put_of(found: Version) -> rows.Put:
    claim: Claim = found.claim
    return rows.Put(
        claim.vid, int(claim.kind), claim.identifier, claim.signer, claim.links.n, claim.links.g, found.token,
        found.digest, found.raw, parents=claim.links.p,
    )  # fmt: skip


def _text(wire: object) -> str:
    return json.dumps(wire, ensure_ascii=False, separators=(",", ":"))
