"""Homes are private, and one daemon's at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from meshd.daemon import paths
from meshd.errors import BadRequest, Denied, StoreBusy, StoreError


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_holds_everything(home):
    found = paths.resolve(str(home), {})
    assert found.config == home / "meshd.toml"
    assert found.socket == home / "meshd.sock"
    assert {found.store.parent, found.keystore.parent, found.lock.parent, found.state} == {home}


def test_the_environment_may_name_the_home_and_the_command_line_overrules_it(home):
    environ = {"MESHD_HOME": str(home)}
    assert paths.resolve(None, environ).state == home
    assert paths.resolve(str(home / "other"), environ).state == home / "other"


def test_without_a_home_the_files_are_where_xdg_says(home, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "s"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "r"))
    found = paths.resolve(None)
    assert found.config == home / "c/meshd/meshd.toml"
    assert found.store == home / "s/meshd/meshd.db"
    assert found.socket == home / "r/meshd/meshd.sock"
    paths.prepare(found)
    assert mode(home / "s/meshd") == mode(home / "r/meshd") == mode(home / "r") == 0o700


def test_directories_are_private_even_under_a_careless_umask(home):
    old = os.umask(0)
    try:
        paths.prepare(paths.resolve(str(home / "a/b"), {}))
    finally:
        os.umask(old)
    assert mode(home / "a") == mode(home / "a/b") == 0o700


def test_a_home_that_others_could_read_is_closed_to_them(home):
    home.chmod(0o755)
    paths.prepare(paths.resolve(str(home), {}))
    assert mode(home) == 0o700


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o1777])
def test_a_home_that_others_could_write_is_refused(home, bits):
    home.chmod(bits)
    with pytest.raises(Denied, match="written by other users"):
        paths.prepare(paths.resolve(str(home), {}))


def test_a_home_that_is_a_link_is_refused(home):
    (home / "real").mkdir()
    (home / "link").symlink_to("real")
    with pytest.raises(Denied, match="symbolic link"):
        paths.prepare(paths.resolve(str(home / "link"), {}))


def test_a_link_to_nowhere_is_refused_and_not_followed(home):
    (home / "link").symlink_to("nowhere")
    with pytest.raises(Denied, match="symbolic link"):
        paths.prepare(paths.resolve(str(home / "link"), {}))
    assert not (home / "nowhere").exists()


def test_a_home_that_is_a_file_is_refused(home):
    (home / "file").write_text("")
    with pytest.raises(Denied, match="not a directory"):
        paths.prepare(paths.resolve(str(home / "file"), {}))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_home_of_another_user_is_refused(home):
    (home / "theirs").mkdir()
    os.chown(home / "theirs", 12345, 12345)
    with pytest.raises(Denied, match="belongs to user 12345"):
        paths.prepare(paths.resolve(str(home / "theirs"), {}))


def test_a_path_too_long_for_a_socket_is_refused_with_what_to_do(home):
    with pytest.raises(BadRequest, match="longer than") as caught:
        paths.resolve(str(home / ("x" * 100)), {})
    assert "--home" in caught.value.hint


def test_a_home_is_one_daemons_at_a_time(home):
    lock = paths.resolve(str(home), {}).lock
    with paths.hold(lock), pytest.raises(StoreBusy, match=f"process {os.getpid()}"):
        paths.hold(lock)
    paths.hold(lock).close()
    assert mode(lock) == 0o600


def test_a_killed_daemon_leaves_its_home_free(home):
    lock = paths.resolve(str(home), {}).lock
    code = (
        "import sys, pathlib; from meshd.daemon import paths; held = paths.hold(pathlib.Path(sys.argv[1]));"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreBusy, match=f"process {other.pid}"):
            paths.hold(lock)
        other.kill()
    paths.hold(lock).close()


def test_a_lock_that_is_a_link_is_refused(home):
    (home / "meshd.lock").symlink_to("elsewhere")
    with pytest.raises(StoreError):
        paths.hold(home / "meshd.lock")
    assert not (home / "elsewhere").exists()
