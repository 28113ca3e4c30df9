"""`items`, read: lists and look-ups from the index, secrets from the store.

Lists never hold a secret: they are made of index entries, which have none. Secrets are decrypted for the one item that
is asked for, and reading them puts off the automatic lock. What waits here for a key is shown as pending, in place of
what it replaces.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from meshd.crypto import base64url
from meshd.daemon import drafts, names, vaults
from meshd.daemon.context import Daemon
from meshd.daemon.drafts import Pending
from meshd.daemon.handlers import wishes
from meshd.daemon.handlers.pending import Shown
from meshd.daemon.index import Entry
from meshd.daemon.vaults import Head
from meshd.errors import Ambiguous, BadRequest, DecryptError, FormatError, MeshError, NotFound
from meshd.localapi.errors import with_details
from meshd.profile import payload, vault, version
from meshd.profile.apps import BY_NAME, PASSWORD, hosts, of_tag, password
from meshd.profile.vault import Item
from meshd.store import versions

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call

PAGE = 1000
CANDIDATES = 50  # that an ambiguous look-up lists
_KEY = 60  # characters of a title that order it; the cursor of a page has to hold them


# --- reading ----------------------------------------------------------------------------------------------------------


async def every(app: App, call: Call) -> dict[str, Any]:
    """A page of items without secrets, by title then id. A deleted one is shown as it was before."""
    daemon, query = app.daemon, call.query
    everything = Shown(daemon, await daemon.fresh_index())
    vault_id = _vault_id(daemon, query.get("vault"), query.get("application"))
    wanted = [entry for entry in everything.entries() if _is_asked_for(entry, query, vault_id)]
    if query.get("deleted"):
        wanted = [_before(daemon, entry) for entry in wanted]
    wanted = [entry for entry in wanted if _fits(entry, query)]
    limit: int = query.get("limit", PAGE)
    after = _read_cursor(query["after"]) if "after" in query else None
    rest = [entry for entry in wanted if after is None or _order(entry) > after]
    page = heapq.nsmallest(limit, rest, key=_order)
    called = names.current(daemon)
    return {
        "items": [summary(entry, called) for entry in page],
        "next": _cursor(page[-1]) if len(rest) > len(page) else None,
    }


async def one(app: App, call: Call) -> dict[str, Any]:
    return whole(app.daemon, call.params["item"])


async def lookup(app: App, call: Call) -> dict[str, Any]:
    """The one login of a site: an exact or `*.` match, else the only one of its registrable domain.

    Ambiguous and NotFound list the candidates that there are.
    """
    daemon, site, username = app.daemon, call.body["site"], call.body.get("username")
    application: str = call.body["application"]
    vault_id = _vault_id(daemon, call.body.get("vault"), application)
    everything = Shown(daemon, await daemon.fresh_index())
    tag = BY_NAME[application].tag
    host = hosts.display(checked_host(site))
    found, exact = everything.find(tag, site, username, vault_id)
    if len(found) == 1:
        return whole(daemon, found[0].identifier)
    if found:
        hint = "say which with --username or --id" if exact else "name its site in full"
        raise _choices(daemon, Ambiguous(f"More than one login fits {host}.", hint=hint), found)
    others, _ = everything.find(tag, site, None, vault_id) if username is not None else ([], False)
    if others:
        error = NotFound(f"There is no login for {host} with that user name.", hint="see the candidates")
        raise _choices(daemon, error, others)
    raise NotFound(f"There is no login for {host}.", hint="see: meshctl password list")


async def conflicts(app: App, call: Call) -> dict[str, Any]:
    everything = Shown(app.daemon, await app.daemon.fresh_index())
    called = names.current(app.daemon)
    found = [entry for entry in everything.entries() if entry.heads > 1]
    return {"conflicts": [summary(entry, called) for entry in sorted(found, key=_order)]}


def whole(daemon: Daemon, identifier: str) -> dict[str, Any]:
    """An item with its secrets; in conflict, every version of it. NotFound, Locked."""
    called = names.current(daemon)
    if (draft := pending_of(daemon, identifier)) is not None:
        return _whole_draft(daemon, draft, called)
    heads = opened_heads(daemon, identifier)
    winner, *others = vaults.distinct(heads)
    said = _content(winner)
    view = {
        "id": identifier,
        "application": of_tag(winner.tag).name,
        "vault": identifier.partition("/")[0],
        **said,
        "title": _title(said["title"], said["sites"], said["username"]),
        "made": _made(winner.item.made, winner.updated),
        "updated": payload.write_date(winner.updated),
        "conflicts": len(others),
        "device": names.shown(called, winner.signer),
        "vid": base64url.encode(winner.vid),
        "deleted": winner.item.deleted,
    }
    if others:
        view["versions"] = [_version(head, called, winner=head is winner) for head in (winner, *others)]
    return view


def _whole_draft(daemon: Daemon, draft: Pending, called: Mapping[str, str]) -> dict[str, Any]:
    """What waits here, as an item is shown."""
    application = of_tag(draft.tag).name
    return {
        "id": draft.identifier,
        "application": application,
        "vault": draft.container,
        **content(application, draft.item),
        "made": _made(draft.item.made, draft.created_ms // 1000),
        "updated": payload.write_date(draft.created_ms // 1000),
        "conflicts": 0,
        "device": names.shown(called, daemon.snapshot.own),
        "pending": True,
    }


def pending_of(daemon: Daemon, identifier: str) -> Pending | None:
    """The draft of an item, if there is one. Locked."""
    return drafts.latest(daemon.reader.connection, daemon.unlocked(), identifier)


def opened_heads(daemon: Daemon, identifier: str) -> list[Head]:
    """The heads of a person's item, the winner first. NotFound, Locked."""
    keyring = daemon.unlocked()
    opened = keyring.vaults.get(identifier.partition("/")[0])
    heads: Sequence[Head] = ()
    if opened is not None and of_tag(opened.application.tag).vault and not opened.container.deleted:
        heads = vaults.open_heads(daemon.reader.connection, keyring, identifier)
    if not heads:
        raise NotFound("there is no such item, or this device can't read it", hint="see: meshctl password list")
    return list(heads)


def summary(entry: Entry, called: Mapping[str, str]) -> dict[str, Any]:
    """An index entry as lists show it. Without a version it is a draft."""
    return {
        "id": entry.identifier,
        "application": of_tag(entry.tag).name,
        "vault": entry.container,
        "title": _title(entry.title, entry.sites, entry.username),
        "sites": [hosts.display(site) for site in entry.sites],
        "username": entry.username,
        "updated": payload.write_date(entry.updated),
        "made": _made(entry.made, entry.updated),
        "conflicts": max(entry.heads - 1, 0),
        "device": names.shown(called, entry.signer),
        "deleted": entry.deleted,
        **({"vid": base64url.encode(entry.winner)} if entry.winner else {"pending": True}),
    }


def _version(head: Head, called: Mapping[str, str], *, winner: bool) -> dict[str, Any]:
    said = _content(head)
    return {
        "vid": base64url.encode(head.vid),
        "winner": winner,
        "device": names.shown(called, head.signer),
        "device_id": head.signer,
        "updated": payload.write_date(head.updated),
        **said,
        "title": _title(said["title"], said["sites"], said["username"]),
        "deleted": head.item.deleted,
    }


def _content(head: Head) -> dict[str, Any]:
    return _read(of_tag(head.tag).name, head.item)


def content(application: str, item: Item) -> dict[str, Any]:
    """An item's plaintext as answers show it, secrets included."""
    said = _read(application, item)
    return said | {"title": _title(said["title"], said["sites"], said["username"]), "deleted": item.deleted}


def _read(application: str, item: Item) -> dict[str, Any]:
    """What a login holds. An item of an application that this release can't read shows as empty."""
    said: dict[str, Any] = password.view(item if application == PASSWORD.name else Item({}, {}))
    said["sites"] = [hosts.display(site) for site in said["sites"]]
    del said["url"]  # kept for other programs; it may hold a password, and nobody would look for one there
    return said


def _title(title: str, sites: Sequence[str], username: str) -> str:
    return title or (hosts.display(sites[0]) if sites else username)


def _made(made: str, updated: int) -> str:
    """When the item was first written, as its author says; where that is no date, when this version was."""
    try:
        payload.read_date(made)
        return made
    except FormatError:
        return payload.write_date(updated)


def _choices(daemon: Daemon, error: Ambiguous | NotFound, found: Iterable[Entry]) -> MeshError:
    called = names.current(daemon)
    return with_details(error, candidates=[summary(entry, called) for entry in list(found)[:CANDIDATES]])


# --- which ------------------------------------------------------------------------------------------------------------


def _vault_id(daemon: Daemon, wish: str | None, application: str | None) -> str | None:
    """The vault that is asked for, None for all; NotFound, Ambiguous."""
    return None if wish is None else wishes.vault(daemon.unlocked(), wish, application).application.identifier


def _is_asked_for(entry: Entry, query: Mapping[str, Any], vault_id: str | None) -> bool:
    name = of_tag(entry.tag).name
    return (
        entry.deleted == bool(query.get("deleted"))
        and query.get("application", name) == name
        and vault_id in (None, entry.container)
    )


def _fits(entry: Entry, query: Mapping[str, Any]) -> bool:
    if "username" in query and entry.username != query["username"]:
        return False
    if "site" in query:
        host = checked_host(query["site"])
        domain = hosts.registrable(host)
        if not hosts.matches(host, entry.sites) and all(hosts.registrable(site) != domain for site in entry.sites):
            return False
    if "query" in query:
        shown = [entry.title, entry.username, *entry.sites, *map(hosts.display, entry.sites)]
        text = "\n".join(shown).casefold()
        return all(word in text for word in query["query"].casefold().split())
    return True


def _before(daemon: Daemon, entry: Entry) -> Entry:
    """A deleted entry with the title, sites and user name of what was deleted."""
    keyring = daemon.unlocked()
    connection = daemon.reader.connection
    draft = None if entry.winner else pending_of(daemon, entry.identifier)
    before: Sequence[bytes] = draft.parents if draft is not None else ()
    if (raw := versions.raw(connection, entry.winner)) is not None:
        before = version.parse(raw).claim.links.p
    parents = versions.raws(connection, before)
    for _, old in parents.values():
        try:
            item = vault.open_item(version.parse(old), keyring.key)
        except (DecryptError, FormatError):
            continue
        row = password.row(item)
        if row.sites:
            return replace(entry, title=row.title, sites=row.sites, username=row.username)
    return entry


def _order(entry: Entry) -> tuple[str, str]:
    return _title(entry.title, entry.sites, entry.username).casefold()[:_KEY], entry.identifier


def _cursor(entry: Entry) -> str:
    return base64url.encode(json.dumps(_order(entry), ensure_ascii=False).encode())


def _read_cursor(text: str) -> tuple[str, str]:
    try:
        title, identifier = json.loads(base64url.decode(text))
    except (FormatError, ValueError, TypeError) as exc:
        raise BadRequest("after: not the `next` of a page") from exc
    if type(title) is not str or type(identifier) is not str:
        raise BadRequest("after: not the `next` of a page")
    return title, identifier


def checked_host(site: str) -> str:
    """The normalised host of a site that a person named; BadRequest."""
    try:
        return hosts.normalise(site)
    except FormatError as exc:
        raise BadRequest(str(exc)) from exc
