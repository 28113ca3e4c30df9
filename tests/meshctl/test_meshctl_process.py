"""meshctl as a real process: signals, pipes, a terminal of its own, and what it imports before it answers."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.fake_daemon import FakeDaemon, item

MESHCTL = [sys.executable, "-m", "meshctl"]
HEAVY = set(
    "asyncio bz2 cbor2 cryptography csv dataclasses datetime getpass http inspect lzma msgspec rich segno shtab shutil "
    "ssl subprocess tempfile trio typing urllib".split()
)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def daemon(home: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(str(home / "meshd.sock")) as running:
        yield running


def environment(home: Path, **more: str) -> dict[str, str]:
    return {"MESHD_HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **more}


def run(home: Path, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Without a controlling terminal, so that no prompt can wait for whoever runs the tests."""
    return subprocess.run(
        [*MESHCTL, *argv],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(home),
        start_new_session=True,
        check=False,
    )


def test_a_password_goes_in_by_stdin_and_comes_out_on_stdout(daemon: FakeDaemon, home: Path) -> None:
    assert run(home, "password", "add", "--site", "a.test", "--username", "u", stdin="pä ss\n").returncode == 0
    got = run(home, "password", "get", "a.test")
    assert (got.returncode, got.stdout, got.stderr) == (0, "pä ss\n", "")
    assert json.loads(run(home, "status", "--json").stdout)["items"] == {"password": 1}


def test_where_there_is_no_terminal_a_passphrase_is_not_waited_for(daemon: FakeDaemon, home: Path) -> None:
    daemon.locked = True
    done = run(home, "unlock")
    assert done.returncode == 2
    assert "no terminal to ask on" in done.stderr
    daemon.mesh = False
    assert run(home, "init", "--name", "laptop").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["invite", "connect"])
def test_a_command_that_is_broken_off_closes_its_window(
    command: str, number: signal.Signals, daemon: FakeDaemon, home: Path
) -> None:
    argv = ["invite"] if command == "invite" else ["connect", "7-orbit-walnut", "--name", "d", "--no-passphrase"]
    daemon.mesh = command == "invite"
    with subprocess.Popen(
        [*MESHCTL, *argv], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert daemon.polled.wait(20)
        process.send_signal(number)
        assert process.wait(20) == 130
    assert daemon.deleted == ["invitation" if command == "invite" else "connection"]


def test_events_end_quietly_on_ctrl_c(daemon: FakeDaemon, home: Path) -> None:
    daemon.events = [{"schema": 1, "id": 1, "time": "2026-11-24T06:41:00Z", "type": "mesh"}]
    with subprocess.Popen(
        [*MESHCTL, "events", "--since", "0"],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"1\t")
        assert daemon.polled.wait(20)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_a_reader_that_goes_away_is_no_traceback(daemon: FakeDaemon, home: Path) -> None:
    for place in range(3000):
        daemon.items[str(place)] = item(str(place), f"site{place}.test", "u", "p")
    with subprocess.Popen(
        [*MESHCTL, "password", "list"],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 1


def test_output_that_can_not_be_written_is_an_error(daemon: FakeDaemon, home: Path) -> None:
    daemon.items["a"] = item("a", "a.test", "u", "p")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*MESHCTL, "password", "get", "a.test"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(home),
            start_new_session=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def test_passphrases_are_asked_on_the_terminal_without_echo(daemon: FakeDaemon, home: Path) -> None:
    daemon.mesh = False
    screen, code = on_a_terminal(home, ["init", "--name", "laptop"], ["device pw", "device pw", ""])
    assert code == 0
    assert daemon.passphrase == "device pw"
    assert daemon.master == "acid beam civil dive echo fact"
    assert "device pw" not in screen
    assert daemon.master in screen


def on_a_terminal(home: Path, argv: list[str], answers: list[str]) -> tuple[str, int]:
    """Run meshctl on a terminal of its own and type an answer to each prompt."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*MESHCTL, *argv], environment(home, TERM="xterm"))
    screen = ""
    left = list(answers)
    asked = 0
    with contextlib.suppress(OSError):  # the terminal goes away with the process
        while select.select([master], [], [], 20)[0]:
            data = os.read(master, 4096)
            if not data:
                break
            screen += data.decode()
            if left and screen[asked:].rstrip(" ").endswith((":", "above):")):
                asked = len(screen)
                os.write(master, left.pop(0).encode() + b"\n")
    os.close(master)
    return screen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("argv", [["status"], ["password", "get", "a.test"]])
def test_nothing_heavy_is_imported_on_the_way_to_an_answer(argv: list[str], daemon: FakeDaemon, home: Path) -> None:
    daemon.items["a"] = item("a", "a.test", "u", "p")
    script = (
        "import sys\nfrom meshctl.__main__ import main\n"
        f"code = main({argv!r})\nprint(*sorted(sys.modules), file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=30,
        start_new_session=True,
        check=True,
    )
    loaded = set(done.stderr.split())
    assert not loaded & HEAVY
    ours = {name for name in loaded if name.startswith("meshd.")}
    assert {name.split(".")[1] for name in ours} == {"errors", "localapi"}
    commands = {name for name in loaded if name.startswith("meshctl.commands.")}
    assert commands == {"meshctl.commands.status" if argv == ["status"] else "meshctl.commands.password_read"}
