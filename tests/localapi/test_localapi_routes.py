"""The table of routes, the document made of it, and the two dicts that say what an error becomes."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest
import yaml
from openapi_spec_validator import validate

from meshd import errors
from meshd.errors import Ambiguous, BadRequest, Denied, Locked, MeshError, NotFound
from meshd.localapi.errors import (
    EXIT_CODES,
    HTTP_STATUS,
    NotRunning,
    error_body,
    exit_code,
    from_body,
    http_status,
    with_details,
)
from meshd.localapi.openapi import document, written
from meshd.localapi.paths import socket_path
from meshd.localapi.routes import CONNECTED, ROUTES, RUNNING, UNLOCKED, by_name, check_body, find

OPENAPI = Path(__file__).parents[2] / "docs/openapi.yaml"


# ---------------------------------------------------------------- routes


def test_names_and_addresses_are_unique_and_every_need_is_one_of_three() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    assert {route.needs for route in ROUTES} == {RUNNING, CONNECTED, UNLOCKED}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_is_found_by_its_address(route) -> None:
    target = route.path.replace("{", "").replace("}", "")
    match = find(route.method, target)
    assert match.route is route
    assert match.query == {}
    assert all(match.params.values())


def test_a_slash_in_an_identifier_is_escaped() -> None:
    assert find("GET", "/v1/items/MB2GK%2FNDX").params == {"item": "MB2GK/NDX"}
    assert find("POST", "/v1/items/lookup").route.name == "lookup"
    assert find("PATCH", "/v1/devices/my%20big%20one").params == {"device": "my big one"}


def test_queries_are_typed() -> None:
    assert find("GET", "/v1/events?since=7&follow=0").query == {"since": 7, "follow": False}
    assert find("GET", "/v1/wait?synced=1&peer=d&timeout=2.5").query == {"synced": True, "peer": "d", "timeout": 2.5}


@pytest.mark.parametrize(
    "target",
    ["/", "", "/v1", "/v1/", "/v1/status/", "/v1/nothing", "/v2/status", "//v1/status", "/v1/items/" + "x" * 300],
)
def test_an_unknown_path_is_not_found(target: str) -> None:
    with pytest.raises(NotFound):
        find("GET", target)


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "/v1/status"), ("GET", "/v1/status?verbose=1"), ("GET", "/v1/items?limit=0"), ("GET", "/v1/items/%zz")],
)
def test_a_method_or_query_that_does_not_fit_is_refused(method: str, target: str) -> None:
    with pytest.raises(BadRequest):
        find(method, target)


def test_bodies_are_checked_where_there_should_be_one() -> None:
    assert check_body(by_name("status"), None) == {}
    with pytest.raises(BadRequest):
        check_body(by_name("status"), {"a": 1})
    with pytest.raises(BadRequest):
        check_body(by_name("unlock"), None)
    with pytest.raises(BadRequest):
        check_body(by_name("init"), {"name": "laptop"})
    assert check_body(by_name("unlock"), {"passphrase": "x"}) == {"passphrase": "x"}


# ---------------------------------------------------------------- openapi


def test_the_document_is_valid_openapi_and_the_one_that_ships() -> None:
    assert OPENAPI.read_text() == written(), "make it again: python -m meshd.localapi.openapi > docs/openapi.yaml"
    shipped = yaml.safe_load(OPENAPI.read_text())
    assert shipped == document()
    validate(shipped)


def test_the_document_has_every_route_with_its_required_members() -> None:
    paths = yaml.safe_load(OPENAPI.read_text())["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == {
        (route.method, route.path) for route in ROUTES
    }
    for route in ROUTES:
        operation = paths[route.path][route.method.lower()]
        assert operation["x-needs"] == route.needs
        assert str(route.status) in operation["responses"]
        if route.body is not None:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert schema.get("required", []) == route.body.get("required", [])
            assert schema["additionalProperties"] is False


# ---------------------------------------------------------------- errors


def every_error() -> list[type[MeshError]]:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MeshError)]
    assert len(found) > 20
    return [*found, NotRunning]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_comes_back_with_code_message_and_hint(kind: type[MeshError]) -> None:
    error = kind("so it is", hint="do that")
    assert kind is NotRunning or kind.code in HTTP_STATUS
    assert 400 <= http_status(error) < 600
    back = from_body(error_body(error))
    assert (back.code, str(back), back.hint) == (kind.code, "so it is", "do that")
    assert 1 <= exit_code(back.code) <= 10


def test_the_exit_codes_are_the_documented_ones() -> None:
    wanted = {
        "usage": 2,
        "not-running": 3,
        "not-connected": 4,
        "locked": 5,
        "conflicts": 6,
        "not-synced": 7,
        "denied": 8,
        "version-mismatch": 9,
        "possible-attack": 10,
    }
    assert {code: EXIT_CODES[code] for code in wanted} == wanted
    assert exit_code("whatever comes later") == 1


def test_details_ride_along() -> None:
    body = error_body(with_details(Ambiguous(), candidates=[{"id": "a"}]))
    assert from_body(body).details == {"candidates": [{"id": "a"}]}
    assert error_body(Locked())["error"]["hint"] == "run: meshctl unlock"


@pytest.mark.parametrize("body", [None, [], {}, {"error": 1}, {"error": {"code": 3, "message": None, "hint": []}}])
def test_an_error_that_is_malformed_is_still_an_error(body: object) -> None:
    assert from_body(body).code == "error"
    assert str(from_body(body))


# ---------------------------------------------------------------- paths


def test_the_socket_is_in_the_home_or_the_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert socket_path("/h", {"MESHD_HOME": "/other"}) == "/h/meshd.sock"
    assert socket_path(None, {"MESHD_HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/7"}) == "/h/meshd.sock"
    assert socket_path(None, {"XDG_RUNTIME_DIR": "/run/user/7"}) == "/run/user/7/meshd/meshd.sock"
    assert os.path.isabs(socket_path("relative", {}))


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(BadRequest):
        socket_path("/" + "x" * 100, {})


def test_a_runtime_directory_that_others_could_have_made_is_refused(tmp_path: Path) -> None:
    if os.path.exists(f"/run/user/{os.geteuid()}"):
        pytest.skip("this user has a runtime directory, so the fallback is not used")
    environ = {"TMPDIR": str(tmp_path)}
    fallback = tmp_path / f"runtime-{os.geteuid()}"
    expected = str(fallback / "meshd" / "meshd.sock")
    if len(expected) > 107:
        pytest.skip("the temporary directory's path is too long for a socket")
    assert socket_path(None, environ) == expected
    fallback.mkdir(mode=0o700)
    assert socket_path(None, environ) == expected
    fallback.chmod(0o755)
    with pytest.raises(Denied):
        socket_path(None, environ)
    fallback.rmdir()
    fallback.symlink_to(tmp_path)
    with pytest.raises(Denied):
        socket_path(None, environ)
