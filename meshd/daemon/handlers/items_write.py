"""`items`, written: an item added, changed or deleted, each as one version over everything that it replaces.

What no key is fit for yet is kept as a draft instead, and the answer says that it is pending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from meshd.crypto import base64url
from meshd.daemon import drafts, generate
from meshd.daemon.context import Daemon
from meshd.daemon.drafts import Pending
from meshd.daemon.handlers import wishes
from meshd.daemon.handlers.items import checked_host, opened_heads, pending_of
from meshd.daemon.handlers.pending import Shown
from meshd.daemon.keyring import Opened
from meshd.errors import BadRequest, Exists, FormatError, NotFound
from meshd.profile import payload
from meshd.profile.apps import PASSWORD, hosts, of_tag, password
from meshd.profile.vault import Item
from meshd.profile.version import Version

if TYPE_CHECKING:
    from meshd.daemon.api import App, Call


async def add(app: App, call: Call) -> dict[str, Any]:
    """A new item. Exists where the vault has a login of that site and user name; BadRequest, Denied, NotFound."""
    daemon, body = app.daemon, call.body
    secret = _password(daemon, body)
    if secret is None:
        raise BadRequest("a password is expected, or generate")
    _check_texts(body)
    sites, username = checked_sites(body["sites"]), body.get("username", "")
    opened = chosen_vault(daemon, body)
    everything = Shown(daemon, await daemon.fresh_index())
    for site, host in zip(body["sites"], map(checked_host, body["sites"]), strict=True):
        there, _ = everything.find(opened.application.tag, site, username, opened.application.identifier)
        if any(host in entry.sites for entry in there):
            name = hosts.display(host)
            raise Exists(f"There is a login for {name} with that user name.", hint=f"run: meshctl password edit {name}")
    members = {name: body.get(name) for name in ("title", "note", "totp")}
    url = next((site for site in body["sites"] if "://" in site), None)

    def build(time: int, made: str) -> Item:
        return password.new(
            sites, username, secret, time=time, made=made, url=url, tags=body.get("tags", ()), **members
        )

    return _written(await daemon.write(lambda pen: drafts.add(pen, opened, build)))


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
            lambda pen: drafts.replace(
                pen, identifier, lambda item, time, made: password.edit(item, changes, time=time, made=made)
            )
        )
    )


async def delete(app: App, call: Call) -> dict[str, Any]:
    """A delete marker over every head. NotFound when it was deleted already."""
    daemon, identifier = app.daemon, call.params["item"]
    _check_live(daemon, identifier)
    draft = pending_of(daemon, identifier)
    if draft is not None and draft.new:  # nobody else has heard of it
        await daemon.write(lambda pen: drafts.discard(pen, draft.id))
        return {"id": identifier, "deleted": True}
    written = await daemon.write(
        lambda pen: drafts.replace(
            pen, identifier, lambda item, time, made: password.deleted(item, time=time, made=made)
        )
    )
    return _written(written) | {"deleted": True}


def _check_live(daemon: Daemon, identifier: str) -> None:
    draft = pending_of(daemon, identifier)
    winner = draft if draft is not None else opened_heads(daemon, identifier)[0]
    if winner.item.deleted:
        raise NotFound("That item was deleted.", hint="see: meshctl password list --deleted")
    if winner.tag != PASSWORD.tag:
        raise BadRequest(f"items of {of_tag(winner.tag).name} can't be changed by this release of meshd")


def chosen_vault(daemon: Daemon, body: Mapping[str, Any]) -> Opened:
    """The vault that something new goes into: the one that is named, else the one that is called like its application,
    else the application's first."""
    keyring, application = daemon.unlocked(), body["application"]
    if body.get("vault") is not None:
        return wishes.vault(keyring, body["vault"], application)
    first = keyring.find(application)
    like_it = (
        opened
        for opened in keyring.vaults.values()
        if opened.application.tag == first.application.tag
        and opened.name == application
        and not opened.container.deleted
    )
    return min(like_it, key=lambda opened: opened.application.identifier, default=first)


def _written(version: Version | Pending) -> dict[str, Any]:
    if isinstance(version, Pending):
        updated = payload.write_date(version.created_ms // 1000)
        return {"id": version.identifier, "updated": updated, "deleted": False, "pending": True}
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


def checked_sites(sites: Sequence[str]) -> list[str]:
    """The normalised hosts of a login, each once; BadRequest for none or too many."""
    if not 1 <= len(sites) <= password.MAX_SITES:
        raise BadRequest(f"a login is for one to {password.MAX_SITES} sites")
    return list(dict.fromkeys(checked_host(site) for site in sites))
