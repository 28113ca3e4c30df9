"""Settings: read whole or refused with the place and the fix; the page about them leaves none out."""

from __future__ import annotations

import argparse
import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon import config
from meshd.daemon.config import Address, Config
from meshd.errors import BadRequest

OPS = Path(__file__).parents[2] / "docs/ops"


def test_no_file_means_the_defaults(home):
    assert config.load(home / "meshd.toml") == Config()


def test_what_is_set_is_set_and_the_rest_is_as_before(home):
    (home / "meshd.toml").write_text(
        '[lan]\nport = 4321\ninterfaces = ["eth0", "eth0", "wlan0"]\nlisten = "192.0.2.1"\n'
        '[peers]\ndesktop = "desktop.home:4321"\n"old laptop" = "[2001:db8::1]:99"\n'
        '[lock]\ntimeout = 0\n[log]\nlevel = "debug"\n'
    )
    found = config.load(home / "meshd.toml")
    assert found.lan == config.Lan(port=4321, interfaces=("eth0", "wlan0"), listen="192.0.2.1")
    assert found.peers == {"desktop": Address("desktop.home", 4321), "old laptop": Address("2001:db8::1", 99)}
    assert found.lock == config.Lock(timeout=0)
    assert found.log.level == "debug"
    assert found.limits == config.Limits()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[lan]\nlisen = ''", r"\[lan\] has no setting 'lisen'; did you mean 'listen'\?"),
        ("[lann]\n", r"there is no table \['lann'\]; did you mean 'lan'\?"),
        ("lan = 3", r"lan is a table"),
        ("port = 3", r"there is no table \['port'\]"),
        ("[lan]\nport = '4321'", "lan.port is a whole number"),
        ("[lan]\nport = true", "lan.port is a whole number"),
        ("[lan]\nport = 70000", "lan.port is a number from 0 to 65535"),
        ("[lan]\nenabled = 1", "lan.enabled is true or false"),
        ("[lan]\nlisten = 'a b'", "not a host name"),
        ("[lan]\ninterfaces = 'lo'", "lan.interfaces is a list"),
        ("[lan]\ninterfaces = ['../lo']", "not the name of a network interface"),
        ("[lan]\ninterfaces = [1]", "lan.interfaces is a list"),
        ("[lock]\ntimeout = -1", "lock.timeout is a number"),
        ("[limits]\nmax_frame = 10", "limits.max_frame is a number from 65536"),
        ("[log]\nlevel = 'loud'", "log.level is one of debug, info, warning, error"),
        ("[peers]\ndesktop = 4321", "peers.desktop is an address"),
        ("[peers]\ndesktop = 'desktop'", "not HOST:PORT"),
        ("[peers]\ndesktop = 'desktop:0'", "needs a port"),
        ("[peers]\ndesktop = '2001:db8::1:99'", "not HOST:PORT"),
        ("[lan", "not TOML"),
        ("[lan]\nport = 1\nport = 2", "not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(home, text, said):
    (home / "meshd.toml").write_text(text)
    with pytest.raises(BadRequest, match=said) as caught:
        config.load(home / "meshd.toml")
    assert str(caught.value).startswith(str(home / "meshd.toml"))


def test_a_file_that_is_no_text_too_large_or_out_of_reach_is_refused(home):
    path = home / "meshd.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadRequest):
        config.load(path)
    path.write_bytes(b"#" * (config.MAX_FILE + 1))
    with pytest.raises(BadRequest, match="larger"):
        config.load(path)
    with pytest.raises(BadRequest, match="can't be read"):
        config.load(home)


@given(st.text())
def test_any_text_is_settings_or_refused(text):
    try:
        assert isinstance(config.parse(text), Config)
    except BadRequest:
        pass


@given(st.one_of(st.text(), st.from_regex(r"\A(\[?[a-z0-9.:]*\]?):[0-9]{1,6}\Z")))
def test_any_text_is_an_address_that_prints_as_it_was_read_or_refused(text):
    try:
        found = config.address(text)
    except BadRequest:
        return
    assert config.address(str(found)) == found


def test_the_command_line_overrules_the_file():
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    written = config.parse('[lan]\nport = 1\ninterfaces = ["eth0"]\n[log]\nlevel = "error"')
    assert config.overrule(written, parser.parse_args([])) == written
    given = "--interface lo --interface wlan0 --listen [::1]:0 --no-lan --log-level debug".split()
    assert config.overrule(written, parser.parse_args(given)) == dataclasses.replace(
        written,
        lan=config.Lan(enabled=False, listen="::1", port=0, interfaces=("lo", "wlan0")),
        log=config.Log("debug"),
    )


def shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def test_the_page_about_settings_names_each_with_its_default():
    page = (OPS / "config.md").read_text()
    for table, kind in config.TABLES.items():
        section = re.search(rf"^## `\[{table}\]`\n(.*?)(?=^## |\Z)", page, re.M | re.S)
        assert section, f"no section about [{table}]"
        rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", section[1], re.M))
        assert rows == {one.name: shown(one.default) for one in dataclasses.fields(kind)}
    assert re.search(r"^## `\[peers\]`$", page, re.M)
    assert re.search(r"^## `\[policies\]`$", page, re.M)
    parser = argparse.ArgumentParser(add_help=False)
    config.add_arguments(parser)
    for action in parser._actions:
        assert all(f"`{option}" in page for option in action.option_strings if option.startswith("--"))


def test_the_example_shows_every_setting_at_its_default():
    text = (OPS / "meshd.toml").read_text()
    assert config.parse(text) == Config()
    opened = tomllib.loads(re.sub(r"^# (?=[a-z_.\"]+ = )", "", text, flags=re.M))
    peers, policies = opened.pop("peers"), opened.pop("policies")
    assert peers and policies
    for table, kind in config.TABLES.items():
        assert set(opened[table]) == {one.name for one in dataclasses.fields(kind)}
    opened_again = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.M)
    assert dataclasses.replace(config.parse(opened_again), peers={}) == Config()
