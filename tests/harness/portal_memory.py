"""A whole portal in memory, behind the codec: what an engine does with requests, without sockets or disks.

`ask` sends a message the whole way: encoded as a client does, decoded, verified, decided against what is here, applied,
and the answer encoded and decoded. `raw` takes bytes. A request may be signed by a device (`by`), whose HTTP signature
is taken as verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.portal_people import NOW, PaperDevice
from meshd.crypto.keys import RsaVerifyKey, VerifyKey
from meshd.errors import MeshError
from meshd.portal import codec, decide, decide_publish, documents2016, outcomes, verify
from meshd.portal.checked import Publish, Row
from meshd.portal.codec import Answer, Asked, Dialect
from meshd.portal.documents2016 import Document, Profile
from meshd.portal.messages import PublishResponse, Request, Response
from meshd.portal.names import AccountName
from meshd.portal.outcomes import Accept, Anonymous, Caller, Context, Decision, PeerPortal, Policy, SignedBy
from meshd.portal.view import CLOSED, Account, Answered, Device, Known, LogPage, LogState, Pending, Stored, Told, Usage
from meshd.profile import device, version
from meshd.profile.claim import Kind, State
from meshd.profile.trust import Authority
from meshd.profile.version import Version

DOMAIN = "example.net"
JSON_2016 = "application/json;charset=UTF-8"


@dataclass
class MemoryPortal:
    """Everything that a portal keeps, as dictionaries; satisfies `meshd.portal.view.View`."""

    policy: Policy = field(default_factory=lambda: Policy(DOMAIN))
    now: int = NOW
    accounts: dict[str, Account] = field(default_factory=dict)
    invites: set[str] = field(default_factory=set)
    peers: dict[str, str] = field(default_factory=dict)
    notices: list[outcomes.Notice] = field(default_factory=list)
    log: LogState = field(default_factory=LogState)
    page: LogPage | None = None
    last: Decision | None = None

    def __post_init__(self) -> None:
        self.versions: dict[bytes, Stored] = {}
        self.parsed: dict[bytes, Version] = {}
        self.rows: dict[bytes, Known] = {}
        self.authorities: dict[str, Authority] = {}
        self.chains: dict[str, list[tuple[bytes, tuple[bytes, ...]]]] = {}
        self.keys: dict[str, VerifyKey] = {}
        self.index = 0
        self.told_at: list[int] = []
        self.reserved: dict[str, tuple[str, int]] = {}
        self.profiles_2016: dict[str, Profile] = {}
        self.old_heads: dict[tuple[Kind, str], bytes] = {}
        self.held: dict[str, tuple[Document, int]] = {}
        self.waiting: dict[tuple[str, str], tuple[Pending, int]] = {}
        self.ever: set[str] = set()
        self.answers: dict[tuple[str, str], Answered] = {}

    # --- asking -------------------------------------------------------------------------------------------------------

    def ask(
        self, transaction: str, message: Request, by: PaperDevice | PeerPortal | None = None, **context: Any
    ) -> Response:
        """As a client of ours. The HTTP status is in `http`."""
        body = codec.encode_request(transaction, message, Dialect.OURS)
        answer = self.raw(body, by, extensions=frozenset({"auth"}), **context)
        self.http = answer.http_status
        return codec.decode_response(answer.body, transaction, answer.content_type)

    def raw(
        self,
        body: bytes,
        by: PaperDevice | PeerPortal | None = None,
        *,
        extensions: frozenset[str] | None = None,
        content_type: str = JSON_2016,
        if_head: frozenset[bytes] | None = None,
        languages: tuple[str, ...] = (),
        account: AccountName | None = None,
    ) -> Answer:
        """Any request; without extensions from a client of 2016."""
        caller: Caller = Anonymous()
        if isinstance(by, PeerPortal):
            caller = by
        elif by is not None:
            caller = SignedBy(by.dak)
        context = Context(
            caller, self.now, self.policy, extensions, languages, if_head, fresh="a-random-token", account=account
        )
        try:
            asked = codec.decode_request(body, content_type, extensions)
        except codec.Undecodable as error:
            return codec.encode_undecodable(error, "The request can't be read")
        decision = self.decide(asked, context)
        self.last = decision
        status = decision.status if isinstance(decision, outcomes.Refuse) else 201
        return codec.encode_response(asked, decision.reply, status=status)

    def decide(self, asked: Asked, context: Context) -> Decision:
        language = getattr(asked.message, "language", None)
        context = replace(context, languages=tuple(language or context.languages))
        try:
            checked = verify.verify(asked, self, self.policy.domain)
        except MeshError as error:
            return decide.refusal(asked.transaction, context, error)
        if isinstance(checked, Publish) and checked.batch:
            replies = [self._commit(one, context).reply for one in decide_publish.split(checked)]
            return Accept((), decide_publish.join([one for one in replies if isinstance(one, PublishResponse)]))
        return self._commit(checked, context)

    def _commit(self, checked: Any, context: Context) -> Decision:
        decision = decide.decide(checked, context, self)
        if isinstance(decision, Accept):
            for write in decision.writes:
                self.apply(write)
        return decision

    # --- writing ------------------------------------------------------------------------------------------------------

    def apply(self, write: outcomes.Write) -> None:
        match write:
            case outcomes.OpenAccount(account):
                self.accounts[account.name] = account
            case outcomes.CloseAccount(name):
                self.accounts[name] = replace(self.accounts[name], status=CLOSED)
            case outcomes.PutOpener(name, keyid, _):
                self.accounts[name] = replace(self.accounts[name], opener=keyid)
            case outcomes.UseInvite(token):
                self.invites.remove(token)
            case outcomes.Reserve(name, token, until):
                self.reserved[name] = (token, until)
            case outcomes.PutVersion(mesh, found, _, leaf):
                self._put(mesh, found, leaf)
            case outcomes.PutRow(_, row):
                self._put_row(row)
            case outcomes.PutDocument(mesh, document):
                self._put_document(mesh, document)
            case outcomes.Hold(document, until):
                self.held[document.identifier] = (document, until)
            case outcomes.Release(identifier):
                del self.held[identifier]
            case outcomes.PutPending(one, expires):
                self.waiting[one.account, one.device] = (one, expires)
                self.ever.add(one.account)
                self.answers.pop((one.account, one.device), None)
            case outcomes.PutAnswer(one):
                self.answers[one.account, one.device] = one
                del self.waiting[one.account, one.device]
            case outcomes.Notice():
                self.notices.append(write)
                self.told_at.append(self.now)

    def _put(self, mesh: str, found: Version, leaf: bool) -> None:
        authority = self.authorities.setdefault(mesh, Authority(mesh, self))
        claim = found.claim
        if leaf:
            self.index += 1
        self.parsed[claim.vid] = found
        if found.kind is Kind.MASTER:
            self.keys |= version.online_keys(found.body)
            self.keys[mesh] = version.master_key(found.body)
        if found.kind is Kind.DEVICE:
            self.keys[found.identifier] = version.device_keys(found.body)[0]
        if claim.links.n:
            self.chains.setdefault(claim.signer, []).append((claim.vid, claim.links.q))
            authority.joined(claim.signer, claim.vid, claim.links.q)
        if found.kind in (Kind.MASTER, Kind.PERSONAL):
            authority.integrate(claim)
        self.versions[claim.vid] = Stored(
            self.index if leaf else 0, f"TID:{self.index}", self.now, claim.vid, found.kind, found.identifier, mesh,
            claim.links.g, State.APPLIED, found.raw,
        )  # fmt: skip
        for vid, stored in self.versions.items():  # by force: this is a model
            if stored.mesh == mesh and not stored.old:
                right = authority.may_write(self.parsed[vid].claim)
                self.versions[vid] = replace(stored, state=State.APPLIED if right else State.QUARANTINED)

    def _put_row(self, row: Row) -> None:
        self.rows[row.vid] = Known(row.kind, row.identifier, row.links.g, row.signer, row.links.n)
        self.chains.setdefault(row.signer, []).append((row.vid, row.links.q))

    def _put_document(self, mesh: str | None, document: Document) -> None:
        self.index += 1
        entry = (document.kind, document.identifier)
        action = "Update" if entry in self.old_heads else "New"
        self.old_heads[entry] = document.vid
        self.versions[document.vid] = Stored(
            self.index, f"TID:{self.index}", self.now, document.vid, document.kind, document.identifier, mesh or "",
            1, State.APPLIED, document.raw, action=action, old=True,
        )  # fmt: skip
        if mesh is not None and document.kind is Kind.PERSONAL:
            self.profiles_2016[mesh] = documents2016.read_profile(document)

    # --- the view -----------------------------------------------------------------------------------------------------

    def account(self, name: str) -> Account | None:
        return self.accounts.get(name)

    def mesh_account(self, mesh: str) -> Account | None:
        mine = [one for one in self.accounts.values() if one.mesh == mesh]
        return min(mine, key=lambda one: one.status == CLOSED, default=None)

    def usage(self, mesh: str) -> Usage:
        mine = [one for one in self.versions.values() if one.mesh == mesh]
        away = [one for one in mine if one.state is State.QUARANTINED]
        escrow = sum(one.kind in (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW) for one in mine)
        return Usage(sum(len(one.raw) for one in mine), len(mine), sum(len(one.raw) for one in away), len(away), escrow)

    def reservation(self, name: str, now: int) -> str | None:
        token, until = self.reserved.get(name, (None, 0))
        return token if until > now else None

    def reservations(self, now: int) -> int:
        return sum(until > now for _, until in self.reserved.values())

    def has_invite(self, token: str, now: int) -> bool:
        return token in self.invites

    def _newest(self) -> dict[str, Version]:
        found: dict[str, Version] = {}
        for one in self.parsed.values():
            if one.kind is Kind.DEVICE and one.links.g > (
                found[one.identifier].links.g if one.identifier in found else 0
            ):
                found[one.identifier] = one
        return found

    def devices_of(self, dak: str) -> Sequence[Device]:
        stated = {udf for udf, profile in self._newest().items() if device.read(profile).dak.udf == dak}
        found = [
            Device(mesh, udf)
            for mesh, authority in self.authorities.items()
            for udf in stated & authority.ever_devices()
        ]
        return found + [
            Device(mesh, old.authentication[dak])
            for mesh, old in self.profiles_2016.items()
            if dak in old.authentication
        ]

    def authentication_key(self, keyid: str) -> VerifyKey | RsaVerifyKey | None:
        for profile in self._newest().values():
            key = device.read(profile).dak
            if key.udf == keyid:
                return key
        return None

    def signing_key(self, signer: str) -> VerifyKey | None:
        return self.keys.get(signer)

    def authority(self, mesh: str) -> Authority | None:
        return self.authorities.get(mesh)

    def chain(self, signer: str) -> Iterable[tuple[bytes, tuple[bytes, ...]]]:
        return self.chains.get(signer, ())

    def peer_grant(self, keyid: str) -> str | None:
        return self.peers.get(keyid)

    def stored(self, vid: bytes) -> Stored | None:
        return self.versions.get(vid)

    def known(self, vid: bytes) -> Known | None:
        if vid in self.parsed:
            claim = self.parsed[vid].claim
            return Known(claim.kind, claim.identifier, claim.links.g, claim.signer, claim.links.n)
        if vid in self.versions:
            one = self.versions[vid]
            return Known(one.kind, one.identifier, 1, "", 0)
        return self.rows.get(vid)

    def heads(self, kind: Kind, identifier: str) -> Sequence[Stored]:
        if (kind, identifier) in self.old_heads:
            return [self.versions[self.old_heads[kind, identifier]]]
        mine = [one for one in self.versions.values() if (one.kind, one.identifier) == (kind, identifier)]
        if kind in (Kind.OFFLINE_ESCROW, Kind.ONLINE_ESCROW):
            return mine
        mine = [one for one in mine if one.state is State.APPLIED]
        named = {vid for one in mine for vid in self.parsed[one.vid].claim.links.p}
        return [one for one in mine if one.vid not in named]

    def owner(self, kind: Kind, identifier: str) -> str | None:
        for one in self.versions.values():
            if (one.kind, one.identifier) == (kind, identifier):
                return one.mesh or None
        return None

    def feed(self, mesh: str, after: int, limit: int, *, profiles: bool = False) -> Sequence[Stored]:
        found = sorted((one.index, one) for one in self.versions.values() if one.mesh == mesh and one.index > after)
        return [one for _, one in found if not profiles or one.kind is Kind.PERSONAL][:limit]

    def index_at(self, mesh: str, seconds: int) -> int:
        return max((one.index for one in self.versions.values() if one.mesh == mesh and one.added < seconds), default=0)

    def last_index(self) -> int:
        return self.index

    def told(self, mesh: str, after: int, limit: int) -> Sequence[Told]:
        behind = list(enumerate(zip(self.notices, self.told_at, strict=True), 1))[after:]
        return [Told(n, at, one.what, one.about) for n, (one, at) in behind if one.mesh == mesh][:limit]

    def last_notice(self) -> int:
        return len(self.notices)

    def profile_2016(self, mesh: str) -> Profile | None:
        return self.profiles_2016.get(mesh)

    def signer_2016(self, kid: str) -> tuple[str, RsaVerifyKey] | None:
        for mesh, profile in self.profiles_2016.items():
            if kid in profile.devices:
                return mesh, profile.devices[kid]
        return None

    def held_2016(self, identifier: str) -> Document | None:
        found = self.held.get(identifier)
        return found[0] if found is not None and found[1] > self.now else None

    def held_count(self, now: int) -> int:
        return len(self.held)

    def unowned_escrow(self) -> int:
        return sum(one.old and not one.mesh for one in self.versions.values())

    def pending(self, account: str, now: int) -> Sequence[Pending]:
        return [one for (name, _), (one, expires) in self.waiting.items() if name == account and expires > now]

    def ever_pending(self, account: str) -> bool:
        return account in self.ever

    def answered(self, account: str | None, device: str) -> Answered | None:
        for (name, about), one in self.answers.items():
            if about == device and account in (None, name):
                return one
        return None

    def log_state(
        self, old_size: int | None, peer_sizes: Sequence[tuple[str, int]], tree_size: int | None = None
    ) -> LogState:
        return self.log

    def log_page(self, **asked: Any) -> LogPage | None:
        self.asked_page = asked
        return self.page
