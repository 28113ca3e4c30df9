"""Making, naming and deleting vaults: several of one application, each a container of its own. Admins do it.

A vault's name is in its container's plaintext (docs/adr/0012). Deleting marks the container: the items are hidden
everywhere and kept, so it can be taken back. Runs in the writer's thread.
"""

from __future__ import annotations

import sqlite3
import unicodedata
from dataclasses import dataclass, replace

from meshd.crypto import udf
from meshd.daemon import authoring, membership, vaults
from meshd.daemon.keyring import Keyring, Opened
from meshd.daemon.pen import Pen
from meshd.errors import BadRequest, Exists, NotFound
from meshd.profile import vault
from meshd.profile.apps import BY_NAME, of_tag
from meshd.profile.claim import Kind
from meshd.profile.personal import Application
from meshd.profile.vault import Container, EpochKey
from meshd.store.replica import Draft

MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class Vault:
    """A vault that this device reads. `items` counts those with a head, deleted ones too."""

    id: str
    application: str
    name: str
    items: int
    deleted: bool


def every(connection: sqlite3.Connection, keyring: Keyring, *, deleted: bool = False) -> list[Vault]:
    """The vaults that this device opens, by application and name; deleted ones only if asked for."""
    found = [
        _view(connection, opened)
        for opened in list(keyring.vaults.values())
        if of_tag(opened.application.tag).vault and (deleted or not opened.container.deleted)
    ]
    return sorted(found, key=lambda one: (one.application, one.name.casefold(), one.id))


def create(pen: Pen, application: str, name: str) -> str:
    """A new vault; its Identifier. Everybody with a grant on `*` reads it. Denied, Exists, BadRequest."""
    authoring.check_admin(pen)
    kind = BY_NAME.get(application)
    if kind is None or not kind.vault:
        raise BadRequest(f"There is no application {application[:40]!r}.", hint=f"known: {_known()}")
    _check_free(pen, kind.tag, check_name(name))
    made = Application(udf.random_udf(pen.rng), kind.tag)
    wanted = authoring.state(pen)
    wanted.applications[made.identifier] = made
    authoring.write_profile(pen, wanted)
    container = Container((EpochKey.generate(pen.rng, pen.now_ms // 1000),), name, {}, {})
    members = vault.seal_container(kind.private, container, membership.recipients_of(pen, made), pen.rng)
    pen.write(Draft(Kind.CONTAINER, made.identifier, made.tag, members))
    pen.refresh([made.identifier])
    return made.identifier


def rename(pen: Pen, container: str, name: str) -> None:
    """Call a vault by another name, for everybody. Denied, Exists, NotFound, BadRequest."""
    authoring.check_admin(pen)
    opened = _opened(pen, container)
    if opened.name == check_name(name):
        return
    _check_free(pen, opened.application.tag, name)
    _rewrite(pen, opened, replace(opened.container, name=name))


def delete(pen: Pen, container: str) -> None:
    """Hide a vault and its items; nothing is lost. A rename made apart from it brings the vault back. Denied,
    NotFound."""
    authoring.check_admin(pen)
    opened = _opened(pen, container)
    if not opened.container.deleted:
        _rewrite(pen, opened, replace(opened.container, deleted=True))


def restore(pen: Pen, container: str) -> None:
    """Take a deletion back. Exists where another vault has its name now; Denied, NotFound."""
    authoring.check_admin(pen)
    opened = _opened(pen, container)
    if opened.container.deleted:
        _check_free(pen, opened.application.tag, opened.name)
        _rewrite(pen, opened, replace(opened.container, deleted=False))


def check_name(name: str) -> str:
    """1 to 64 printable characters without `/`, no blanks at the ends, nothing that looks like a fingerprint;
    BadRequest."""
    if name != name.strip() or not 1 <= len(name) <= MAX_NAME:
        raise BadRequest(f"A vault's name has 1 to {MAX_NAME} characters and no blanks at its ends.")
    if "/" in name or any(unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" for char in name):
        raise BadRequest("A vault's name has no slash and no characters that can't be shown.")
    if udf.is_udf(name.upper()):
        raise BadRequest("A vault's name that looks like a fingerprint.")
    return name


def _rewrite(pen: Pen, opened: Opened, container: Container) -> None:
    membership.write_container(pen, opened, container, membership.recipients_of(pen, opened.application))
    pen.refresh([opened.application.identifier])


def _opened(pen: Pen, container: str) -> Opened:
    opened = pen.keyring.vaults.get(container)
    if opened is None or not of_tag(opened.application.tag).vault:
        raise NotFound("There is no such vault on this device.")
    return opened


def _check_free(pen: Pen, tag: str, name: str) -> None:
    for other in pen.keyring.vaults.values():
        if other.application.tag == tag and not other.container.deleted and other.name.casefold() == name.casefold():
            raise Exists(f"There is a vault of that kind called {name!r}.")


def _view(connection: sqlite3.Connection, opened: Opened) -> Vault:
    identifier = opened.application.identifier
    items = len(vaults.items_of(connection, identifier))
    return Vault(identifier, of_tag(opened.application.tag).name, opened.name, items, opened.container.deleted)


def _known() -> str:
    return ", ".join(name for name, kind in BY_NAME.items() if kind.vault)
