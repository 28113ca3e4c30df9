"""What a request means by a device, a vault, a moment and the master passphrase; how vaults are named in answers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from meshd.crypto.keys import SigningKey
from meshd.daemon import authoring, masterkeys, names
from meshd.daemon.context import Daemon
from meshd.daemon.keyring import Keyring, Opened
from meshd.errors import Ambiguous, BadRequest, Denied, MeshError, NotFound
from meshd.localapi.errors import with_details
from meshd.profile.apps import of_tag

if TYPE_CHECKING:
    from meshd.daemon.api import App

# --- devices and moments ----------------------------------------------------------------------------------------------


async def device(daemon: Daemon, text: str) -> str:
    """The UDF of a device by name, id or its beginning; one that was removed too, where no present one fits."""
    return await names.resolve(daemon, text, removed=True)


async def writer(daemon: Daemon, text: str) -> str:
    """The same where it matters which: a removed one and the present one of its name are told apart by id."""
    return await names.resolve(daemon, text, alike=True)


async def devices(daemon: Daemon, texts: Iterable[str]) -> tuple[str, ...]:
    """The same for several, each once."""
    return tuple(dict.fromkeys([await device(daemon, text) for text in texts]))


def called(daemon: Daemon, udf: str) -> dict[str, Any]:
    """A device as answers name it."""
    return {"id": udf, "name": names.shown(names.current(daemon), udf)}


def moment(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 time, or of a date's local midnight. BadRequest."""
    try:
        found = datetime.fromisoformat(text) if len(text) > 10 else datetime.combine(date.fromisoformat(text), time())
        return int(found.timestamp() * 1000)  # without an offset it is local time
    except (ValueError, OverflowError, OSError):
        raise BadRequest("since: a date like 2026-11-20 or a time like 2026-11-20T08:00:00Z is expected") from None


# --- vaults -----------------------------------------------------------------------------------------------------------


def vault(keyring: Keyring, text: str, application: str | None = None, *, deleted: bool = False) -> Opened:
    """The one vault that `text` means: an id, `ssh/work`, a name, or an application that has one vault alone.

    NotFound; Ambiguous with the choices. `application` narrows it; `deleted` vaults count only if asked for."""
    known = [
        opened
        for opened in keyring.vaults.values()
        if of_tag(opened.application.tag).vault
        and (deleted or not opened.container.deleted)
        and application in (None, of_tag(opened.application.tag).name)
    ]
    for fits in (
        lambda opened: opened.application.identifier == text,
        lambda opened: f"{of_tag(opened.application.tag).name}/{opened.name}" == text,
        lambda opened: opened.name == text,
        lambda opened: of_tag(opened.application.tag).name == text,
    ):
        found = [opened for opened in known if fits(opened)]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(sorted(f"{of_tag(one.application.tag).name}/{one.name}" for one in found))
            raise Ambiguous(f"more than one vault fits: {choices}", hint="say which, or give its id")
    raise NotFound("this device reads no such vault", hint="see: meshctl vault list")


def vault_view(daemon: Daemon, identifier: str) -> dict[str, Any] | None:
    """A vault as answers name it; None for those that only devices use (names on the LAN, names of devices)."""
    opened = daemon.keyring.vaults.get(identifier) if daemon.keyring is not None else None
    application = daemon.snapshot.applications.get(identifier)
    if opened is None and application is None:
        return None
    kind = of_tag(opened.application.tag if opened is not None else application.tag if application is not None else "")
    if not kind.vault:
        return None
    return {"id": identifier, "application": kind.name, "name": opened.name if opened is not None else kind.name}


def vault_views(daemon: Daemon, identifiers: Iterable[str]) -> list[dict[str, Any]]:
    """Those of a person, by application and name."""
    found = [view for identifier in identifiers if (view := vault_view(daemon, identifier)) is not None]
    return sorted(found, key=lambda view: (view["application"], view["name"].casefold(), view["id"]))


def grant_views(daemon: Daemon, grants: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Rights as answers list them, `*` first."""
    found: list[dict[str, Any]] = []
    for identifier, level in sorted(grants):
        if identifier == "*":
            found.append({"vault": identifier, "level": level})
        elif (view := vault_view(daemon, identifier)) is not None:
            about = {"application": view["application"], "name": view["name"]}
            found.append({"vault": identifier, "level": level} | about)
    return sorted(found, key=lambda view: (view["vault"] != "*", view.get("application", ""), view.get("name", "")))


def grant_text(view: dict[str, Any]) -> str:
    """`ssh/work:read`, as a person types it."""
    if view["vault"] == "*":
        return f"*:{view['level']}"
    name = view["application"] if view["name"] == view["application"] else f"{view['application']}/{view['name']}"
    return f"{name}:{view['level']}"


# --- the master key ---------------------------------------------------------------------------------------------------


async def master_key(app: App, body: dict[str, Any]) -> SigningKey | None:
    """The master key, where the request gives its passphrase. WrongPassphrase after a pause that grows; Denied."""
    passphrase: str | None = body.get("master_passphrase")
    file: str | None = body.get("master_file")
    if passphrase is None:
        if file is not None:
            raise master_needed("That file opens with the master passphrase.")
        return None
    daemon = app.daemon
    if file is not None:
        sealed = masterkeys.decode(file.encode(), daemon.snapshot.mesh)
        return await app.guard.tried(lambda: masterkeys.unseal(daemon, passphrase, sealed=sealed))
    if daemon.snapshot.own in daemon.snapshot.admins and await daemon.write(authoring.held_master) is None:
        raise Denied(
            "No device holds the sealed master key: it is kept offline.",
            hint="give its file with --master-file, or bring it back: meshctl master online FILE",
        )
    return await app.guard.tried(lambda: masterkeys.unseal(daemon, passphrase))


def master_needed(message: str) -> MeshError:
    """What is said where the master passphrase is missing: whoever asked can ask again with it."""
    error = Denied(message, hint="ask again with the master passphrase")
    return with_details(error, needs="master_passphrase")
