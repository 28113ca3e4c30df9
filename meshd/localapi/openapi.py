"""docs/openapi.yaml, made of the table of routes: `python -m meshd.localapi.openapi > docs/openapi.yaml`.

Written with a few lines of YAML of our own (block maps and JSON scalars), so that no library is needed to build it.
"""

from __future__ import annotations

import json
import sys

from meshd import __version__
from meshd.localapi import API, HOST, bodies, bodies_admin, bodies_portal
from meshd.localapi.errors import EXIT_CODES, HTTP_STATUS
from meshd.localapi.routes import ROUTES, Route
from meshd.localapi.shapes import Shape, record, text

_INTRO = f"""HTTP/1.1 and JSON over the Unix socket of meshd, for meshctl and scripts of the same user.
Try it with `curl --unix-socket $XDG_RUNTIME_DIR/meshd/meshd.sock http://{HOST}/v1/status`.

The Host header must be `{HOST}`; requests with Origin or Referer are refused, and so is every user but the owner and
root. Every body carries `"schema": 1` (in requests it may be left out). Unknown members of requests are refused;
unknown members of answers are to be ignored. Answers carry the headers `Meshd-Api` (the number of this API) and
`Meshd-Version`; a request may carry `Meshd-Api` and is refused with `version-mismatch` when the daemon does not speak
it. A slash within a path parameter is written %2F. An answer to a write is given when the write is durable.
Streams are NDJSON; empty lines between events are signs of life.

Errors are `{{"schema": 1, "error": {{"code", "message", "hint"}}}}`. Codes, their HTTP status and meshctl's exit code:
"""


def document() -> dict[str, object]:
    """The OpenAPI 3.1 document as plain data."""
    codes = "\n".join(f"* `{code}` {status}, {EXIT_CODES.get(code, 1)}" for code, status in sorted(HTTP_STATUS.items()))
    paths: dict[str, dict[str, object]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "meshd local API",
            "version": f"{__version__}+api{API}",
            "description": _INTRO + codes + "\n",
        },
        "servers": [{"url": f"http://{HOST}"}],
        "paths": paths,
        "components": {
            "schemas": {
                "Envelope": record({"schema": {"const": 1}}),
                "Error": bodies.ERROR,
                **{name: _members_referred(shape) for name, shape in _named()},
            }
        },
    }


_NAMED = {
    "Status": "STATUS",
    "Peer": "PEER",
    "Problem": "PROBLEM",
    "Device": "DEVICE",
    "DeviceName": "DEVICE_NAME",
    "Invitation": "INVITATION",
    "Connection": "CONNECTION",
    "Vault": "VAULT",
    "Summary": "SUMMARY",
    "Item": "ITEM",
    "Head": "HEAD",
    "Import": "IMPORT",
    "Written": "WRITTEN",
    "Event": "EVENT",
    "Content": "CONTENT",
    "Announcement": "ANNOUNCEMENT",
    "Grant": "GRANT",
}
_NAMED_ADMIN = {
    "Called": "CALLED",
    "VaultName": "VAULT_NAME",
    "RemovalPlan": "REMOVAL_PLAN",
    "Removal": "REMOVAL",
    "Exposure": "EXPOSURE",
    "Rights": "RIGHTS",
    "Quarantined": "QUARANTINED",
    "Undoable": "UNDOABLE",
}
_NAMED_PORTAL = {
    "Portal": "PORTAL",
    "Asking": "ASKING",
    "RemoteInvitation": "REMOTE_INVITATION",
    "RemoteConnection": "REMOTE_CONNECTION",
}


def _operation(route: Route) -> dict[str, object]:
    kind = "application/x-ndjson" if route.stream else "application/json"
    operation: dict[str, object] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Needs: {route.needs}.",
        "x-needs": route.needs,
    }
    parameters = [*_path_parameters(route.path), *_query_parameters(route.query)]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        strict = {**_closed(route.body), "properties": {**_members(_closed(route.body)), "schema": {"const": 1}}}
        operation["requestBody"] = {
            "required": bool(route.body.get("required")),
            "content": {"application/json": {"schema": strict}},
        }
    operation["responses"] = {
        str(route.status): {"description": "done", "content": {kind: {"schema": _answer(route)}}},
        "default": {
            "description": "an error",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        },
    }
    return operation


def _path_parameters(path: str) -> list[object]:
    return [
        {"name": part[1:-1], "in": "path", "required": True, "schema": text(least=1, most=256)}
        for part in path.split("/")
        if part.startswith("{")
    ]


def _query_parameters(query: Shape) -> list[object]:
    return [{"name": name, "in": "query", "schema": shape} for name, shape in _members(query).items()]


def _answer(route: Route) -> Shape:
    shape = _refer(route.answer)
    return shape if route.stream else {"allOf": [{"$ref": "#/components/schemas/Envelope"}, shape]}


def _closed(shape: Shape) -> Shape:
    """The shape as requests are checked: no unknown members, at any depth."""
    if shape.get("type") == "object" and "properties" in shape:
        members = {name: _closed(part) for name, part in _members(shape).items()}
        return {**shape, "properties": members, "additionalProperties": False}
    return shape


def _named() -> list[tuple[str, Shape]]:
    found = [(name, getattr(bodies, word)) for name, word in _NAMED.items()]
    found += [(name, getattr(bodies_admin, word)) for name, word in _NAMED_ADMIN.items()]
    return found + [(name, getattr(bodies_portal, word)) for name, word in _NAMED_PORTAL.items()]


def _refer(shape: Shape) -> Shape:
    """Replace the shapes that have a name by references to them."""
    for name, named in _named():
        if shape is named:
            return {"$ref": f"#/components/schemas/{name}"}
    return _members_referred(shape)


def _members_referred(shape: Shape) -> Shape:
    if "properties" in shape:
        shape = {**shape, "properties": {name: _refer(part) for name, part in _members(shape).items()}}
    if "items" in shape and isinstance(shape["items"], dict):
        shape = {**shape, "items": _refer(shape["items"])}
    return shape


def _members(shape: Shape) -> dict[str, Shape]:
    members = shape.get("properties", {})
    assert isinstance(members, dict)
    return members


def yaml(value: object, indent: str = "") -> str:
    """Block-style YAML of plain data; scalars are JSON, which YAML contains."""
    if isinstance(value, dict) and value:
        lines = []
        for key, part in value.items():
            name = key if key.replace("-", "").replace("_", "").isalnum() and not key[0].isdigit() else json.dumps(key)
            lines.append(f"{indent}{name}:{_nested(part, indent)}")
        return "\n".join(lines)
    if isinstance(value, list) and value:
        return "\n".join(f"{indent}-{_nested(part, indent)}" for part in value)
    return indent + json.dumps(value, ensure_ascii=False)


def written() -> str:
    """The text of docs/openapi.yaml."""
    note = "# Made by `python -m meshd.localapi.openapi`: edit meshd/localapi/routes.py and bodies.py instead.\n"
    return note + yaml(document()) + "\n"


def _nested(value: object, indent: str) -> str:
    if isinstance(value, str) and "\n" in value:
        body = "\n".join(f"{indent}  {line}".rstrip() for line in value.rstrip("\n").split("\n"))
        return f" |\n{body}"
    if isinstance(value, list) and all(not isinstance(part, (dict, list)) for part in value):
        return " " + json.dumps(value, ensure_ascii=False)
    if isinstance(value, (dict, list)) and value:
        return "\n" + yaml(value, indent + "  ")
    return " " + json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(written())
