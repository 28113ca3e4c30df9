"""Every route of the local API as data: one row says method, path, what it needs, what goes in and what comes out.

The daemon dispatches on it, meshctl checks answers with it, docs/openapi.yaml is made of it.
"""

from __future__ import annotations

from typing import NamedTuple

from meshd.errors import BadRequest, NotFound
from meshd.localapi import bodies as b
from meshd.localapi.http import split_target, unquote
from meshd.localapi.route import CONNECTED, MAX_BODY, RUNNING, UNLOCKED, Route
from meshd.localapi.routes_admin import ADMIN_ROUTES
from meshd.localapi.routes_portal import PORTAL_ROUTES
from meshd.localapi.routes_recovery import RECOVERY_ROUTES
from meshd.localapi.routes_restore import RESTORE_ROUTES
from meshd.localapi.shapes import Json, boolean, check_request, integer, number, read_query, record, text

__all__ = ["CONNECTED", "MAX_BODY", "MAX_IMPORT", "ROUTES", "RUNNING", "UNLOCKED", "Match", "Route"]
__all__ += ["by_name", "check_body", "find"]

MAX_IMPORT = 64 * 1024 * 1024  # JSON around 32 MiB of text, quotes escaped


class Match(NamedTuple):
    """A request that fits a route: its path parameters and query, decoded and checked."""

    route: Route
    params: dict[str, str]
    query: Json


ROUTES: tuple[Route, ...] = (
    Route(
        "version",
        "GET",
        "/v1/version",
        "Release and API number of the daemon",
        RUNNING,
        record({"version": text(most=64), "api": integer()}),
    ),
    Route("status", "GET", "/v1/status", "The state of this device and its mesh", RUNNING, b.STATUS),
    Route("whoami", "GET", "/v1/whoami", "Which device of which mesh this is", CONNECTED, b.WHOAMI),
    Route(
        "init",
        "POST",
        "/v1/mesh",
        "Make a new mesh with this device as its admin",
        RUNNING,
        b.MESH,
        b.MESH_REQUEST,
        status=201,
    ),
    Route("lock", "POST", "/v1/lock", "Forget the keys that open items", CONNECTED, b.LOCK, record({})),
    Route("unlock", "POST", "/v1/unlock", "Open the keystore", CONNECTED, b.LOCK, record({}, {"passphrase": b.SECRET})),
    Route(
        "passphrase",
        "PUT",
        "/v1/passphrase",
        "Change the device's passphrase",
        CONNECTED,
        record({"changed": boolean()}),
        record({}, {"old": b.SECRET, "new": b.SECRET, "no_passphrase": boolean(), "force": boolean()}),
    ),
    Route(
        "phrase",
        "POST",
        "/v1/phrase",
        "Make a passphrase of random words",
        RUNNING,
        record({"phrase": text(most=512, form="password")}),
        record({}, {"words": integer("default 6", least=3, most=24)}),
    ),
    Route(
        "invite",
        "POST",
        "/v1/invitations",
        "Open a pairing window",
        UNLOCKED,
        b.INVITATION,
        b.INVITATION_REQUEST,
        status=201,
    ),
    Route(
        "invitation",
        "GET",
        "/v1/invitations/{invitation}",
        "An invitation; waits for its state to change",
        CONNECTED,
        b.INVITATION,
        query=record({}, b.LONG_POLL),
    ),
    Route(
        "cancel-invitation",
        "DELETE",
        "/v1/invitations/{invitation}",
        "Close the pairing window",
        CONNECTED,
        b.INVITATION,
    ),
    Route(
        "answer-invitation",
        "POST",
        "/v1/invitations/{invitation}/answer",
        "Admit or refuse the device that asks",
        UNLOCKED,
        b.INVITATION,
        b.ANSWER_REQUEST,
    ),
    Route("connect", "POST", "/v1/connections", "Join a mesh", RUNNING, b.CONNECTION, b.CONNECTION_REQUEST, status=201),
    Route(
        "connection",
        "GET",
        "/v1/connections/{connection}",
        "A connection under way; waits for its state to change",
        RUNNING,
        b.CONNECTION,
        query=record({}, b.LONG_POLL),
    ),
    Route("cancel-connection", "DELETE", "/v1/connections/{connection}", "Give up joining", RUNNING, b.CONNECTION),
    Route("devices", "GET", "/v1/devices", "The devices of the mesh", CONNECTED, b.DEVICES),
    Route(
        "device",
        "GET",
        "/v1/devices/{device}",
        "One device, by name, id or the id's unique beginning",
        CONNECTED,
        b.DEVICE,
    ),
    Route(
        "change-device",
        "PATCH",
        "/v1/devices/{device}",
        "Rename a device (needs unlocked), or say where it is reached (kept on this device)",
        CONNECTED,
        b.DEVICE,
        b.DEVICE_REQUEST,
    ),
    Route(
        "applications",
        "GET",
        "/v1/applications",
        "The vaults",
        UNLOCKED,
        b.APPLICATIONS,
        query=record({}, {"deleted": boolean("deleted ones too")}),
    ),
    Route(
        "items",
        "GET",
        "/v1/items",
        "Items without their secrets, by title then id",
        UNLOCKED,
        b.ITEMS,
        query=record(
            {},
            {
                "application": text(enum=("password",)),
                "vault": b.VAULT_WISH,
                "site": text(most=2048),
                "username": text(most=1024),
                "query": text("words that title, sites or user name contain", most=1024),
                "deleted": boolean("deleted items instead of live ones"),
                "limit": integer("default 1000", least=1, most=10000),
                "after": text("`next` of the page before", most=512),
            },
        ),
    ),
    Route("add-item", "POST", "/v1/items", "Add an item", UNLOCKED, b.WRITTEN, b.ITEM_REQUEST, status=201),
    Route("lookup", "POST", "/v1/items/lookup", "The one item of a site, with its secrets", UNLOCKED, b.ITEM, b.LOOKUP),
    Route("item", "GET", "/v1/items/{item}", "An item with its secrets", UNLOCKED, b.ITEM),
    Route("change-item", "PATCH", "/v1/items/{item}", "Change an item", UNLOCKED, b.WRITTEN, b.ITEM_CHANGE),
    Route("delete-item", "DELETE", "/v1/items/{item}", "Delete an item", UNLOCKED, b.WRITTEN),
    Route(
        "import",
        "POST",
        "/v1/imports",
        "Import a file of another program, all or nothing",
        UNLOCKED,
        b.IMPORT,
        b.IMPORT_REQUEST,
        most=MAX_IMPORT,
    ),
    Route(
        "generate",
        "POST",
        "/v1/generate",
        "Make a password",
        RUNNING,
        record({"password": text(most=4096, form="password")}),
        record({}, b.GENERATE),
    ),
    Route("conflicts", "GET", "/v1/conflicts", "Items with more than one head", UNLOCKED, b.CONFLICTS),
    Route(
        "events",
        "GET",
        "/v1/events",
        "Changes as they happen",
        RUNNING,
        b.EVENT,
        query=record(
            {},
            {
                "since": integer("events after this id; without it only new ones"),
                "follow": boolean("default true: stay and send what comes"),
            },
        ),
        stream=True,
    ),
    Route(
        "wait",
        "GET",
        "/v1/wait",
        "Wait until a mesh is there (no parameter), or devices are in step",
        RUNNING,
        record({"synced": boolean()}, {"peers": b.PEERS}),
        query=record(
            {},
            {
                "synced": boolean(
                    "every connected peer has acknowledged our newest version, and we theirs; where none is connected, "
                    "one gets up to 5 seconds to, and then there is nobody to wait for"
                ),
                "portal": boolean("every portal must be reached, and hold what we hold, and we what it holds"),
                "peer": text("this device must connect and be in step, by name, id or its beginning", most=256),
                "timeout": number("seconds; default 60", most=86400),
            },
        ),
    ),
    *ADMIN_ROUTES,
    *PORTAL_ROUTES,
    *RECOVERY_ROUTES,
    *RESTORE_ROUTES,
)


def find(method: str, target: str) -> Match:
    """The route of a request line. NotFound for an unknown path, BadRequest for a method or query that does not fit."""
    path, pairs = split_target(target)
    parts = path.split("/")
    other_methods = False
    for route in ROUTES:
        params = _fit(route.path.split("/"), parts)
        if params is None:
            continue
        if route.method == method:
            return Match(route, params, read_query(pairs, route.query))
        other_methods = True
    if other_methods:
        raise BadRequest("this path does not take that method")
    raise NotFound("there is no such path", hint="the local API is described in docs/openapi.yaml")


def check_body(route: Route, body: object) -> Json:
    """The decoded body of a request, checked; `{}` for routes that take none."""
    if route.body is None:
        if body not in (None, {}):
            raise BadRequest("this request takes no body")
        return {}
    return check_request(body, route.body)


def by_name(name: str) -> Route:
    """The route of that name; KeyError when there is none."""
    return _BY_NAME[name]


_BY_NAME = {route.name: route for route in ROUTES}


def _fit(template: list[str], parts: list[str]) -> dict[str, str] | None:
    if len(template) != len(parts):
        return None
    params = {}
    for want, part in zip(template, parts, strict=True):
        if want.startswith("{"):
            value = unquote(part)  # after the split: an item's id holds a slash, written %2F
            if not 1 <= len(value) <= 256:
                return None
            params[want[1:-1]] = value
        elif want != part:
            return None
    return params
