"""The architecture as a test: imports go one way (docs/architecture.md), and every package has its place in it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {contract["id"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
PACKAGES = {f"meshd.{path.parent.name}" for path in (ROOT / "meshd").glob("*/__init__.py")}


def test_imports_go_one_way():
    run = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_package_has_its_place_in_the_layers():
    layers = {name.strip(" ()") for line in CONTRACTS["layers"]["layers"] for name in line.split("|")}
    assert layers >= PACKAGES


def test_every_package_is_either_kept_from_the_network_or_belongs_to_the_two_that_are_not():
    assert set(CONTRACTS["sans-io"]["source_modules"]) >= PACKAGES - {"meshd.net", "meshd.daemon"}


def test_every_package_but_localapi_is_out_of_meshctls_reach():
    assert set(CONTRACTS["meshctl"]["forbidden_modules"]) >= PACKAGES - {"meshd.localapi"}


def test_starting_meshctl_imports_nothing_heavy():
    heavy = {"trio", "cryptography", "cbor2", "msgspec", "rich", "segno", "asyncio", "zeroconf", "sqlite3", "ssl"}
    if not (ROOT / "meshctl/__main__.py").exists():
        pytest.skip("meshctl is not here yet")
    code = "import sys, meshctl.__main__; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not heavy & set(run.stdout.split())
