"""An account at a portal: looking whether it is there and whose it is, and opening it.

An account is opened with the root of the mesh's profiles, by a device that the root lists. Who shows another mesh's
profile under our account's name is told so, and nothing of it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshd.daemon.context import Daemon
from meshd.daemon.portal_link import Link
from meshd.errors import Denied, Exists, FormatError, NotFound, RemoteProtocolError, StoreError, TrustError
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
from meshd.profile import version
from meshd.profile.claim import Kind
from meshd.profile.version import Parsed
from meshd.store import portals_client as store

MAX_SHOWN = 64  # profiles that one answer may show
LANGUAGES = ["en"]


async def shown_profiles(link: Link) -> list[Parsed]:
    """The heads of the personal profile that the portal shows for the account, not believed; empty: no such account.

    RemoteProtocolError, NetworkError. Documents of 2016 are left out."""
    asked = GetRequest(account=str(link.where.account), multiple=True if link.dialect is not Dialect.PLAIN else None)
    try:
        answer = await link.ask("Get", asked, GetResponse, signed=False)
    except NotFound:
        return []
    found = []
    for entry in (answer.entries or [])[:MAX_SHOWN]:
        try:
            parsed = version.from_json(entry)
        except FormatError as exc:
            if link.dialect is Dialect.PLAIN:
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
    shown = await shown_profiles(link)
    if any(profile.claim.identifier == mesh for profile in shown):
        return
    if shown or (name.valid is False and link.dialect is Dialect.PLAIN):
        raise Exists(f"{account} is another mesh's account.", hint="choose another name")
    root = store.root(daemon.reader.connection, mesh)
    if root is None:
        raise StoreError("the store does not hold the first profile of its mesh")
    parsed = version.parse(root)
    rows = chain_rows(daemon, [vid for part in parsed.embedded[1:] for vid in part.claim.links.p])
    request = CreateRequest(account=account, profile=version.to_json(parsed), invite=invite, rows=rows or None)
    try:
        await link.ask("CreateAccount", request, CreateResponse)
    except Denied as exc:
        if daemon.snapshot.own not in parsed.claim.devices:
            raise Denied(
                "Only the device that the mesh began with can open an account at a portal.",
                hint="run meshctl portal add there; this device uses it too then",
            ) from exc
        raise
    except Exists as exc:
        reason = f": {name.reason}" if name.valid is False and name.reason else ""
        raise Exists(f"{account} can't be had{reason[:200]}", hint="choose another name") from exc


async def come_back(daemon: Daemon, link: Link, shown: Sequence[Parsed]) -> bool:
    """Show a portal that does not know this device the profiles by which the master key listed it: after a recovery
    nobody else is there to do it. False where there are none. Denied, NetworkError …"""
    raws = daemon.profiles_beyond([one.claim.vid for one in shown])
    found = [version.parse(raw) for raw in raws[:MAX_SHOWN]]
    if not found or found[0].claim.signer != daemon.snapshot.mesh:
        return False
    await link.ask("Publish", PublishRequest(entries=[version.to_json(one) for one in found]), PublishResponse)
    return True


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
