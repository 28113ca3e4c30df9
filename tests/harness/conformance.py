"""docs/conformance.md: every transaction, message, structure and field of the draft → code → test.

    python -m harness.conformance > docs/conformance.md        (from tests/)

The draft's side is read from the message and structure classes, whose members are held to the schema by
tests/portal. The tests' side is their markers: `@pytest.mark.draft("ConnectStart", …)` names what a test shows; on a
test parametrised by `transaction` the marker needs no name. What has no test is said to have none.
"""

from __future__ import annotations

import inspect
import io
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from harness.portal_examples import EXAMPLES
from meshd.portal import structures
from meshd.portal.structures import Structure

ROOT = Path(__file__).parents[2]

# What the profile schema names, and where it is made and read.
DOCUMENTS = {
    "DeviceProfile": "meshd/profile/device.py",
    "MasterProfile": "meshd/profile/master.py",
    "PersonalProfile": "meshd/profile/personal.py",
    "ApplicationProfileEntry": "meshd/profile/personal.py",
    "ApplicationProfile": "meshd/profile/vault.py",
    "PasswordProfile": "meshd/profile/apps/password.py",
    "ConnectionRequest": "meshd/profile/connection.py",
    "ConnectionResult": "meshd/profile/connection.py",
    "OfflineEscrowEntry": "meshd/profile/recovery.py, recovery2016.py",
    "OnlineEscrowEntry": "meshd/profile/escrow.py",
    "PublicKey": "meshd/crypto/keys.py",
    "JoseWebSignature": "meshd/crypto/jws.py",
    "JoseWebEncryption": "meshd/crypto/jwe.py",
    "UDF": "meshd/crypto/udf.py",
    "Documents of 2016": "meshd/profile/legacy2016.py, shares2016.py, recovery2016.py",
}
SCENARIOS = {
    "Service discovery": "meshd/net/srv.py",
    "Create account": "meshd/daemon/portals/roster.py",
    "Connect device": "meshd/daemon/inviting.py, connecting.py, portals/connecting.py",
    "Add and update application": "meshd/daemon/vaults.py",
    "Delete device": "meshd/daemon/removal.py",
    "Master profile recovery": "meshd/daemon/recovering.py, restoring.py",
    "Application profile recovery": "meshd/daemon/drilling.py, restoring.py",
}


class _Collector:
    """Takes down which test shows what."""

    def __init__(self) -> None:
        self.shown: dict[str, set[str]] = defaultdict(set)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for marker in item.iter_markers("draft"):
                callspec: Any = getattr(item, "callspec", None)
                topics = marker.args or ((callspec.params.get("transaction"),) if callspec is not None else ())
                test = f"{item.path.relative_to(ROOT)}::{getattr(item, 'originalname', item.name)}"
                for topic in topics:
                    self.shown[topic].add(test)


def collected() -> dict[str, set[str]]:
    """Topic → tests, from the markers."""
    collector = _Collector()
    with redirect_stdout(io.StringIO()):
        code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", str(ROOT / "tests")], plugins=[collector])
    if code != 0:
        raise SystemExit("the tests can't be collected")
    return collector.shown


def members(kind: type[Structure]) -> list[str]:
    """Wire names, in the order in which they are written."""
    return list(kind.__struct_encode_fields__)


def document(shown: dict[str, set[str]]) -> str:
    """The page."""
    return "\n".join(_lines(shown)) + "\n"


def _lines(shown: dict[str, set[str]]) -> Iterator[str]:
    yield "# Conformance"
    yield ""
    yield "Every transaction, message, structure and field of draft-hallambaker-mathematical-mesh-protocols-00 and its"
    yield "schema, where it is in the code, and which tests show it. Made by `python -m harness.conformance` from the"
    yield "message classes and the tests' markers; a test holds this page to them. Members that the draft does not have"
    yield "are those of [the portal specification](specs/portal.md)."
    yield ""
    yield "## Scenarios"
    yield ""
    yield from _table(SCENARIOS, shown)
    for transaction, (request, response) in EXAMPLES.items():
        yield ""
        yield f"## {transaction}"
        yield ""
        yield "| message | members | code |"
        yield "|---|---|---|"
        for message in (request, response):
            kind = type(message)
            yield f"| `{kind.__name__}` | {_names(members(kind))} | {_where(kind)} |"
        yield ""
        yield from _tests(shown.get(transaction, set()))
    yield ""
    yield "## Structures of the protocol"
    yield ""
    yield "| structure | members | code |"
    yield "|---|---|---|"
    for name, kind in sorted(vars(structures).items()):
        if inspect.isclass(kind) and issubclass(kind, Structure) and kind is not Structure:
            yield f"| `{name}` | {_names(members(kind))} | {_where(kind)} |"
    yield ""
    yield "Each member stands in a golden example of the messages that carry it:"
    yield ""
    yield from _tests(shown.get("structures", set()))
    yield ""
    yield "## Documents of the profile schema"
    yield ""
    yield from _table(DOCUMENTS, shown)


def _table(rows: dict[str, str], shown: dict[str, set[str]]) -> Iterator[str]:
    yield "| what | code | tests |"
    yield "|---|---|---|"
    for name, code in rows.items():
        yield f"| {name} | `{code}` | {_cell(shown.get(name, set()))} |"


def _tests(tests: set[str]) -> Iterator[str]:
    if not tests:
        yield "No test."
    for test in sorted(tests):
        yield f"* `{test}`"


def _cell(tests: set[str]) -> str:
    files = sorted({test.partition("::")[0] for test in tests})
    return "<br>".join(f"`{file}`" for file in files) or "none"


def _names(names: list[str]) -> str:
    return " ".join(f"`{name}`" for name in names) or "–"


def _where(kind: type) -> str:
    return f"`{Path(inspect.getfile(kind)).relative_to(ROOT)}`"


if __name__ == "__main__":
    sys.stdout.write(document(collected()))
