"""What every test may ask for: seeded randomness, private homes, and how hard the properties are tried."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# A deadline per example measures the machine's other load, not the code. `make soak` asks for the full counts.
hypothesis.settings.register_profile("test", deadline=None, max_examples=60, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=5000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("MESHD_PROPERTIES", "test"))

# Files that a test makes are as private as the daemon's own.
os.umask(0o077)

# No test sees the home, the socket or the service manager of whoever runs it.
for name in ("MESHD_HOME", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM"):
    os.environ.pop(name, None)


def seeded(seed: str) -> Callable[[int], bytes]:
    """Random-looking bytes that are the same in every run; a stand-in for `secrets.token_bytes`."""
    count = 0

    def rng(length: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}".encode()).digest(length)

    return rng


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Callable[[int], bytes]:
    """Seeded by the test's name."""
    return seeded(request.node.nodeid)


@pytest.fixture
def home() -> Iterator[Path]:
    """A private directory with a short name: a Unix socket's path has room for 107 bytes, less than tmp_path takes."""
    path = Path(tempfile.mkdtemp(prefix="mesh-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `soak` run only where they are asked for: `pytest -m soak`."""
    if "soak" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="long counts: run make soak, or pytest -m soak")
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(skip)
