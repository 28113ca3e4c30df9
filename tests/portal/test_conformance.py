"""The conformance page is what the classes and the markers say."""

from __future__ import annotations

import pytest

from harness import conformance

PAGE = conformance.ROOT / "docs" / "conformance.md"


def test_the_page_is_made_of_the_classes_and_the_markers(pytestconfig: pytest.Config) -> None:
    # A second collection inside this one would load every test module twice: another process does it.
    import subprocess
    import sys

    made = subprocess.run(
        [sys.executable, "-m", "harness.conformance"],
        cwd=conformance.ROOT / "tests",
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    assert made == PAGE.read_text(), "from tests/: python -m harness.conformance > ../docs/conformance.md"
