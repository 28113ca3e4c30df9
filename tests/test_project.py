"""What ships is whole: the lock pins what the project asks for, the unit is sound, the export is what it says."""

from __future__ import annotations

import configparser
import csv
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import meshd

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNIT = ROOT / "systemd/meshd.service"
EXPORT = ROOT / "tests/data/chrome-export.csv"


def wanted(requirements: list[str]) -> set[str]:
    return {re.match(r"[a-z0-9-]+", name.lower())[0] for name in requirements}


def locked(name: str) -> dict[str, str]:
    """Package → the lines that belong to it."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / name).read_text()):
        found[block.partition("==")[0]] = block
    return found


def test_the_locks_pin_everything_that_the_project_asks_for():
    assert wanted(PROJECT["dependencies"]) <= locked("requirements.lock").keys()
    assert wanted(PROJECT["optional-dependencies"]["dev"]) <= locked("requirements-dev.lock").keys()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_package_has_its_hashes_and_no_address(name):
    for package, lines in locked(name).items():
        assert re.match(r"[a-z0-9-]+==[0-9a-z.]+", lines), package
        assert "--hash=sha256:" in lines, package
        assert "://" not in lines, package


def test_both_locks_agree():
    versions = [
        {name: lines.split()[0] for name, lines in locked(lock).items()}
        for lock in ("requirements.lock", "requirements-dev.lock")
    ]
    assert versions[0].items() <= versions[1].items()


def test_the_version_is_said_once_more_where_starting_fast_needs_it():
    assert meshd.__version__ == PROJECT["version"]


def test_the_demonstration_export_is_what_chrome_writes():
    with EXPORT.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "url", "username", "password", "note"]
    assert len(rows) >= 320
    assert all(None not in row and None not in row.values() for row in rows)
    urls = [row["url"] for row in rows]
    for start in ("https://", "http://", "android://"):
        assert any(url.startswith(start) for url in urls)
    assert any("\n" in row["note"] for row in rows)
    assert any('"' in row["password"] and "," in row["password"] for row in rows)
    assert any(not row["username"] for row in rows)
    assert any(not row["password"].isascii() for row in rows)
    assert [row["username"] for row in rows if row["url"] == "https://github.com/session"] == ["alice"]


def test_the_demonstration_export_is_made_by_the_script_beside_it(tmp_path):
    made = tmp_path / "made.csv"
    subprocess.run([sys.executable, EXPORT.with_name("make_chrome_export.py"), made], check=True)
    assert made.read_bytes() == EXPORT.read_bytes()


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str
    parser.read(UNIT)
    return parser


def test_the_unit_says_when_it_is_ready_and_hides_the_home():
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert service["TemporaryFileSystem"].startswith("%h")
    assert service["BindPaths"] == "%h/.local/state/meshd"
    assert service["LimitCORE"] == "0"
    assert unit()["Install"]["WantedBy"] == "default.target"


def test_both_units_are_in_the_wheel():
    shared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    given = shared["shared-data"]
    assert {ROOT / source for source in given} == set((ROOT / "systemd").iterdir())
    assert sorted(given.values()) == [
        "share/systemd/system/meshd-portal.service",
        "share/systemd/user/meshd.service",
    ]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
def test_systemd_takes_the_unit_and_calls_it_safe(home):
    program = home / ".local/bin/meshd"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    environ = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}

    def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemd-analyze", "--user", "--no-pager", *arguments], env=environ, capture_output=True, text=True
        )

    verify = analyze("verify", str(UNIT))
    if "Unknown" in verify.stderr and "option" in verify.stderr:
        pytest.skip(f"an old systemd-analyze: {verify.stderr.strip()}")
    assert (verify.returncode, verify.stderr) == (0, "")
    security = analyze("security", "--offline=true", "--threshold=20", str(UNIT))
    assert security.returncode == 0, security.stdout[-400:] + security.stderr


def test_every_link_between_the_pages_leads_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []
