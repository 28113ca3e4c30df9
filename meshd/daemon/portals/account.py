"""An account at a portal: looking whether it is there and whose it is, and opening it.

An account is opened with the root of the mesh's profiles, by a device that the root lists, or by one that a later
profile shows to be an administrator: it brings the profiles after the root at once, and the portal knows it then. Who
shows another mesh's profile under our account's name is told so, and nothing of it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshd.daemon.context import Daemon
from meshd.daemon.portals.link import Link, shown_words
from meshd.errors import Denied, Exists, FormatError, NotFound, RemoteProtocolError, StoreError, TrustError
from meshd.portal import codec
from meshd.portal.codec import Dialect
from meshd.portal.messages import (
    CreateRequest,
    CreateResponse,
    GetRequest,
    GetResponse,
    PublishRequest,
    PublishResponse,
    ValidateRequest,
    ValidateResponse,
)
from meshd.portal.structures import Binary, ChainRow
from meshd.profile import device, version
from meshd.profile.claim import Kind
from meshd.profile.version import Parsed
from meshd.store import portals_client as store

MAX_SHOWN = 64  # profiles that one answer may show, or one request
LOT_BYTES = 2_500_000  # of the signed bytes of one request; a body has at most 4 MiB
LANGUAGES = ["en"]


async def shown_profiles(link: Link) -> list[Parsed]:
    """The heads of the personal profile that the portal shows for the account, not believed; empty: no such account.

    RemoteProtocolError, NetworkError. Documents of 2016 are left out."""
    return _profiles(link, await _entries(link))


async def _entries(link: Link) -> list[dict[str, Any]]:
    """What the portal shows for the account, as it came."""
    asked = GetRequest(account=str(link.where.account), multiple=True if link.dialect is not Dialect.PLAIN else None)
    try:
        answer = await link.ask("Get", asked, GetResponse, signed=False)
    except NotFound:
        return []
    return (answer.entries or [])[:MAX_SHOWN]


def _profiles(link: Link, entries: Sequence[dict[str, Any]]) -> list[Parsed]:
    found, plain = [], link.dialect is Dialect.PLAIN
    for entry in entries:
        try:
            parsed = version.from_json(codec.respelled(entry) if plain else entry)
        except FormatError as exc:
            if plain:
                continue
            raise RemoteProtocolError(f"the portal shows what is no profile: {exc}") from exc
        if parsed.claim.kind is not Kind.PERSONAL:
            raise RemoteProtocolError("the portal shows something else than a profile")
        found.append(parsed)
    return found


async def open_account(daemon: Daemon, link: Link, invite: str | None = None) -> None:
    """Have the account, opening it if need be. Exists: it is somebody else's. Denied, NetworkError …"""
    account, mesh = str(link.where.account), daemon.snapshot.mesh
    name = await link.ask("ValidateAccount", ValidateRequest(account=account, language=LANGUAGES), ValidateResponse)
    entries = await _entries(link)
    shown = _profiles(link, entries)
    if any(profile.claim.identifier == mesh for profile in shown):
        if link.dialect is not Dialect.PLAIN and not _listed(daemon, shown):
            await come_back(daemon, link, shown)
        return
    # A portal of 2016 says that every name is free, and would replace the account.
    if entries or (name.valid is False and link.dialect is Dialect.PLAIN):
        raise Exists(f"{account} is another mesh's account.", hint="choose another name")
    root = _root(daemon)
    proof = None if _listed(daemon, [root]) else _proof(daemon)
    if proof is None and not _listed(daemon, [root]):
        raise Denied(
            "Only an administrator's device can open an account at a portal.",
            hint="run meshctl portal add there; this device uses it too then",
        )
    if link.dialect is Dialect.PLAIN:  # it keeps one profile, and knows no proof
        root, proof = version.parse(daemon.profiles_beyond(())[-1]), None
    try:
        await link.ask("CreateAccount", _creation(daemon, link, root, proof, invite), CreateResponse)
        if proof is not None:
            await _bring(daemon, link, daemon.profiles_beyond([root.claim.vid]))
    except (Exists, Denied, NotFound) as exc:
        told = shown_words(name.reason) if name.valid is False else ""
        why = f"{account} can't be had; the portal says: {told}" if told else f"{account} can't be had; {exc}"
        hint = None if told else "if it opens accounts by invitation: --invite TOKEN"
        if invite is not None and isinstance(exc, Denied):
            hint = "an invitation counts once, and for some days: ask who runs the portal for another"
        if isinstance(exc, Exists):
            hint = "choose another name, or add the one that it names"
        raise type(exc)(why, hint=hint) from exc


async def come_back(daemon: Daemon, link: Link, shown: Sequence[Parsed]) -> bool:
    """Show a portal that does not know this device the profiles by which it comes to: after a recovery, or where the
    account is younger than this device, nobody else may be there to do it. False where this device can't: it is no
    administrator, and the master key listed it in none of them. Denied, NetworkError …"""
    raws = daemon.profiles_beyond([one.claim.vid for one in shown])
    if not raws:
        return False
    if version.parse(raws[0]).claim.signer != daemon.snapshot.mesh:
        proof = _proof(daemon)
        if proof is None or link.dialect is Dialect.PLAIN:
            return False
        await link.ask("CreateAccount", _creation(daemon, link, _root(daemon), proof, None), CreateResponse)
    await _bring(daemon, link, raws)
    return True


async def _bring(daemon: Daemon, link: Link, raws: Sequence[bytes]) -> None:
    """Publish profiles in their order, as many at once as one request holds."""
    lot: list[Parsed] = []
    for number, raw in enumerate(raws, 1):
        lot.append(version.parse(raw))
        size = sum(len(one.raw) for one in lot)
        following = len(raws[number]) if number < len(raws) else 0
        if len(lot) == MAX_SHOWN or size + following > LOT_BYTES or not following:
            rows = chain_rows(daemon, [vid for one in lot for part in one.embedded[1:] for vid in part.claim.links.p])
            request = PublishRequest(entries=[version.to_json(one) for one in lot], rows=rows or None)
            await link.ask("Publish", request, PublishResponse)
            lot = []


def _root(daemon: Daemon) -> Parsed:
    root = store.root(daemon.reader.connection, daemon.snapshot.mesh)
    if root is None:
        raise StoreError("the store does not hold the first profile of its mesh")
    return version.parse(root)


def _creation(daemon: Daemon, link: Link, root: Parsed, proof: Parsed | None, invite: str | None) -> CreateRequest:
    rows = chain_rows(daemon, [vid for part in root.embedded[1:] for vid in part.claim.links.p])
    return CreateRequest(
        account=str(link.where.account),
        profile=version.to_json(root),
        invite=invite,
        rows=rows or None,
        proof=None if proof is None else version.to_json(proof),
    )


def _listed(daemon: Daemon, profiles: Sequence[Parsed]) -> bool:
    """Does one of these profiles list this device, with the key that it signs requests with now?"""
    own, tier1 = daemon.snapshot.own, daemon.tier1
    return tier1 is not None and any(
        part.claim.identifier == own and device.read(part).dak.udf == tier1.dak.udf
        for profile in profiles
        for part in profile.embedded[1:]
    )


def _proof(daemon: Daemon) -> Parsed | None:
    """The newest profile that lists this device, under a MasterProfile that makes it an administrator."""
    for raw in reversed(daemon.profiles_beyond(())):
        found = version.parse(raw)
        if daemon.snapshot.own in found.embedded[0].claim.admins and _listed(daemon, [found]):
            return found
    return None


def chain_rows(daemon: Daemon, vids: Sequence[bytes]) -> list[ChainRow]:
    """What is left of these versions, for a portal that does not know them; only what may travel as rows."""
    found = []
    for vid in vids:
        row = store.chain_record(daemon.reader.connection, vid)
        if row is not None and row.kind in (Kind.DEVICE, Kind.PERSONAL, Kind.CONTAINER, Kind.ITEM):
            found.append(
                ChainRow(
                    kind=row.kind,
                    identifier=row.identifier,
                    signer=row.signer,
                    notary_token=row.token,
                    digest=Binary(row.digest),
                )
            )
    return found


def check_mesh(profiles: Sequence[Parsed], mesh: str) -> None:
    """TrustError where one of them is another mesh's."""
    if any(one.claim.identifier != mesh for one in profiles):
        raise TrustError("the portal shows another mesh's profile under the name of this account")
