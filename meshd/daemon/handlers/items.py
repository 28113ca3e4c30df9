"""`items`: lists and look-ups from the index, secrets from the store, one version for every change.

Lists never hold a secret: they are made of index entries, which have none. Secrets are decrypted for the one item that
is asked for, and reading them puts off the automatic lock.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from meshd.crypto import base64url
from meshd.daemon import generate, names, vaults
from meshd.daemon.context import Daemon
from meshd.daemon.index import Entry
from meshd.daemon.vaults import Head
from meshd.errors import Ambiguous, BadRequest, DecryptError, Exists, FormatError, MeshError, NotFound
from meshd.localapi.errors import with_details
from meshd.profile import payload, vault, version
from meshd.profile.apps import BY_NAME, PASSWORD, hosts, of_tag, password
from meshd.profile.vault import Item
from meshd.profile.version import Version
from meshd.store import versions

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call

PAGE = 1000
CANDIDATES = 50  # that an ambiguous look-up lists
_KEY = 60  # characters of a title that order it; the cursor of a page has to hold them


# --- reading ----------------------------------------------------------------------------------------------------------


async def every(app: App, call: Call) -> dict[str, Any]:
    """A page of items without secrets, by title then id. A deleted one is shown as it was before."""
    index = await app.daemon.fresh_index()
    query = call.query
    wanted = [entry for entry in index.entries.values() if _is_asked_for(entry, query)]
    if query.get("deleted"):
        wanted = [_before(app.daemon, entry) for entry in wanted]
    wanted = [entry for entry in wanted if _fits(entry, query)]
    limit: int = query.get("limit", PAGE)
    after = _read_cursor(query["after"]) if "after" in query else None
    rest = [entry for entry in wanted if after is None or _order(entry) > after]
    page = heapq.nsmallest(limit, rest, key=_order)
    called = names.current(app.daemon)
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
    index = await daemon.fresh_index()
    tag = BY_NAME[call.body["application"]].tag
    host = hosts.display(checked_host(site))
    found, exact = index.find(tag, site, username)
    if len(found) == 1:
        return whole(daemon, found[0].identifier)
    if found:
        hint = "say which with --username or --id" if exact else "name its site in full"
        raise _choices(daemon, Ambiguous(f"More than one login fits {host}.", hint=hint), found)
    others, _ = index.find(tag, site) if username is not None else ([], False)
    if others:
        error = NotFound(f"There is no login for {host} with that user name.", hint="see the candidates")
        raise _choices(daemon, error, others)
    raise NotFound(f"There is no login for {host}.", hint="see: meshctl password list")


async def conflicts(app: App, call: Call) -> dict[str, Any]:
    index = await app.daemon.fresh_index()
    called = names.current(app.daemon)
    found = [entry for entry in index.conflicts() if of_tag(entry.tag).vault]
    return {"conflicts": [summary(entry, called) for entry in sorted(found, key=_order)]}


def whole(daemon: Daemon, identifier: str) -> dict[str, Any]:
    """An item with its secrets; in conflict, every version of it. NotFound, Locked."""
    heads = opened_heads(daemon, identifier)
    called = names.current(daemon)
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


def opened_heads(daemon: Daemon, identifier: str) -> list[Head]:
    """The heads of a person's item, the winner first. NotFound, Locked."""
    keyring = daemon.unlocked()
    opened = keyring.vaults.get(identifier.partition("/")[0])
    heads: Sequence[Head] = ()
    if opened is not None and of_tag(opened.application.tag).vault:
        heads = vaults.open_heads(daemon.reader.connection, keyring, identifier)
    if not heads:
        raise NotFound("there is no such item, or this device can't read it", hint="see: meshctl password list")
    return list(heads)


def summary(entry: Entry, called: Mapping[str, str]) -> dict[str, Any]:
    """An index entry as lists show it."""
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
        "vid": base64url.encode(entry.winner),
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
    """What a login holds. An item of an application that this release can't read shows as empty."""
    said = password.view(head.item) if head.tag == PASSWORD.tag else password.view(Item({}, {}))
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


def _is_asked_for(entry: Entry, query: Mapping[str, Any]) -> bool:
    kind = of_tag(entry.tag)
    return (
        kind.vault
        and entry.deleted == bool(query.get("deleted"))
        and query.get("application", kind.name) == kind.name
        and query.get("vault", entry.container) == entry.container
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
    raw = versions.raw(connection, entry.winner)
    parents = versions.raws(connection, version.parse(raw).claim.links.p if raw is not None else ())
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


# --- writing ----------------------------------------------------------------------------------------------------------


async def add(app: App, call: Call) -> dict[str, Any]:
    """A new item. Exists where the vault has a login of that site and user name; BadRequest, Denied, NotFound."""
    daemon, body = app.daemon, call.body
    secret = _password(daemon, body)
    if secret is None:
        raise BadRequest("a password is expected, or generate")
    _check_texts(body)
    sites, username = checked_sites(body["sites"]), body.get("username", "")
    opened = daemon.unlocked().find(body["application"], body.get("vault"))
    index = await daemon.fresh_index()
    for site, host in zip(body["sites"], map(checked_host, body["sites"]), strict=True):
        there = [entry for entry in index.find(opened.application.tag, site, username)[0] if host in entry.sites]
        if any(entry.container == opened.application.identifier for entry in there):
            name = hosts.display(host)
            raise Exists(f"There is a login for {name} with that user name.", hint=f"run: meshctl password edit {name}")
    members = {name: body.get(name) for name in ("title", "note", "totp")}
    url = next((site for site in body["sites"] if "://" in site), None)

    def build(time: int, made: str) -> Item:
        return password.new(
            sites, username, secret, time=time, made=made, url=url, tags=body.get("tags", ()), **members
        )

    return _written(await daemon.write(lambda pen: vaults.add(pen, opened, build)))


async def change(app: App, call: Call) -> dict[str, Any]:
    """A version that replaces every head; members that are not given stay as they are. NotFound, BadRequest, Denied."""
    daemon, identifier = app.daemon, call.params["item"]
    changes = {name: value for name, value in call.body.items() if name != "generate"}
    secret = _password(daemon, call.body)
    if secret is not None:
        changes["password"] = secret
    if not changes:
        raise BadRequest("there is nothing to change")
    _check_texts(changes)
    if "sites" in changes:
        changes["url"] = next((site for site in changes["sites"] if "://" in site), None)
        changes["sites"] = checked_sites(changes["sites"])
    _check_live(daemon, identifier)
    return _written(
        await daemon.write(
            lambda pen: vaults.replace(
                pen, identifier, lambda item, time, made: password.edit(item, changes, time=time, made=made)
            )
        )
    )


async def delete(app: App, call: Call) -> dict[str, Any]:
    """A delete marker over every head. NotFound when it was deleted already."""
    daemon, identifier = app.daemon, call.params["item"]
    _check_live(daemon, identifier)
    written = await daemon.write(
        lambda pen: vaults.replace(
            pen, identifier, lambda item, time, made: password.deleted(item, time=time, made=made)
        )
    )
    return _written(written) | {"deleted": True}


def _check_live(daemon: Daemon, identifier: str) -> None:
    winner = opened_heads(daemon, identifier)[0]
    if winner.item.deleted:
        raise NotFound("That item was deleted.", hint="see: meshctl password list --deleted")
    if winner.tag != PASSWORD.tag:
        raise BadRequest(f"items of {of_tag(winner.tag).name} can't be changed by this release of meshd")


def _written(version: Version) -> dict[str, Any]:
    return {
        "id": version.identifier,
        "vid": base64url.encode(version.vid),
        "updated": payload.write_date(version.updated),
        "deleted": False,
    }


def _password(daemon: Daemon, body: Mapping[str, Any]) -> str | None:
    """The password that a request gives or wants made; None: neither."""
    if "generate" not in body:
        given: str | None = body.get("password")
        return given
    if "password" in body:
        raise BadRequest("either a password or generate")
    return generate.from_recipe(body["generate"], daemon.rng)


def _check_texts(body: Mapping[str, Any]) -> None:
    """BadRequest for what an item can't hold, before anything is written."""
    try:
        for name in ("title", "username", "password", "note", "totp"):
            password.check_text(name, body.get(name))
        for tag in body.get("tags", ()):
            password.check_text("tag", tag)
    except FormatError as exc:
        raise BadRequest(str(exc)) from exc


def checked_host(site: str) -> str:
    """The normalised host of a site that a person named; BadRequest."""
    try:
        return hosts.normalise(site)
    except FormatError as exc:
        raise BadRequest(str(exc)) from exc


def checked_sites(sites: Sequence[str]) -> list[str]:
    """The normalised hosts of a login, each once; BadRequest for none or too many."""
    if not 1 <= len(sites) <= password.MAX_SITES:
        raise BadRequest(f"a login is for one to {password.MAX_SITES} sites")
    return list(dict.fromkeys(checked_host(site) for site in sites))
