"""Real devices: `meshd` processes on homes of their own, and `meshctl` to drive them.

    with Household() as house:
        laptop, desktop = house.device("laptop"), house.device("desktop")
        laptop.start(); laptop.init(); desktop.start()
        laptop.admits(desktop)

One idea: nothing here waits for a while. A start is over when the daemon says so (it is given a NOTIFY_SOCKET, as by
systemd), an end when the kernel says so, and everything else when `meshctl wait` or an event of the daemon says so.
What goes wrong is told with the last lines of every daemon's log.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from meshctl.answers import text
from meshctl.client import Client, path

Json = dict[str, Any]
Enter = Callable[[Sequence[str | Path]], list[str]]  # a command as it is run from outside: in a namespace, say

PROGRAMS = Path(sys.executable).parent  # meshd and meshctl stand beside the interpreter that runs this
START_SECONDS = 60.0
STOP_SECONDS = 20.0
ANSWER_SECONDS = 200.0
EVENT_SECONDS = 60.0
LOG_LINES = 40
PASSPHRASE = "a master passphrase of five words"


class DaemonError(AssertionError):
    """A daemon or a command did not do what it should. The message holds what was said."""


class Device:
    """One device: its home, its daemon while that runs, and its `meshctl`."""

    def __init__(self, name: str, home: Path, *, enter: Enter | None, options: Sequence[str]) -> None:
        self.name = name
        self.home = home
        self.options = tuple(options)
        self.log = home.with_name(f"{home.name}.log")
        self.process: subprocess.Popen[bytes] | None = None
        self._ready: socket.socket
        self._enter: Enter = enter or (lambda argv: [str(word) for word in argv])

    # --- the daemon ---------------------------------------------------------------------------------------------------

    def start(self, *options: str) -> None:
        """Start meshd with the device's options and these; return once it listens. DaemonError if it ends instead."""
        self.launch(*options)
        code = self.until_ready()
        if code is not None:
            raise DaemonError(f"meshd of {self.name} ended with {code}\n{self.last_log()}")

    def refuses_to_start(self, *options: str) -> tuple[int, str]:
        """Start meshd where it should not start: its exit code and what it said."""
        said = self.log.stat().st_size if self.log.exists() else 0
        self.launch(*options)
        code = self.until_ready()
        if code is None:
            self.kill()
            raise DaemonError(f"meshd of {self.name} started, and should not have")
        self.process = None
        return code, self.log.read_text()[said:]

    def launch(self, *options: str) -> None:
        """Start meshd without waiting for it."""
        assert self.process is None, f"{self.name} runs already"
        self._ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        where = self.home.with_name(f"{self.home.name}.ready")
        where.unlink(missing_ok=True)
        self._ready.bind(str(where))
        argv = self._enter([PROGRAMS / "meshd", "--home", self.home, *self.options, *options])
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(where)},
                start_new_session=True,  # Ctrl-C in the terminal is for the one who tests, who then stops this one
            )

    def until_ready(self) -> int | None:
        """None once the daemon is ready; its exit code if it ended."""
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        ended = os.pidfd_open(self.process.pid)
        try:
            while True:
                left = deadline - time.monotonic()
                readable, _, _ = select.select([self._ready.fileno(), ended], [], [], max(left, 0))
                if self._ready.fileno() in readable and b"READY=1" in self._ready.recv(4096):
                    return None
                if ended in readable:
                    return self.process.wait()
                if left <= 0:
                    self.kill()
                    raise DaemonError(f"meshd of {self.name} is not ready\n{self.last_log()}")
        finally:
            os.close(ended)
            self._ready.close()

    def stop(self) -> None:
        """As a service manager stops it; DaemonError if it takes too long or ends with an error."""
        process, self.process = self.process, None
        assert process is not None, f"{self.name} does not run"
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise DaemonError(f"meshd of {self.name} does not stop\n{self.last_log()}") from None
        if code:
            raise DaemonError(f"meshd of {self.name} stopped with {code}\n{self.last_log()}")

    def kill(self) -> None:
        """kill -9; returns once it is gone."""
        process, self.process = self.process, None
        assert process is not None, f"{self.name} does not run"
        process.kill()
        process.wait()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def last_log(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"--- {self.log.name}, its last lines:", *lines[-LOG_LINES:]])

    # --- meshctl ------------------------------------------------------------------------------------------------------

    def command(self, *words: str | Path) -> list[str]:
        """`meshctl` on this home with these words, as a command to run from outside."""
        return self._enter([PROGRAMS / "meshctl", "--home", self.home, *words])

    def run(self, *words: str | Path, given: str = "", code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run meshctl to its end, `given` on its stdin. DaemonError for another exit code than `code` (None: any)."""
        done = subprocess.run(self.command(*words), input=given, capture_output=True, text=True, timeout=ANSWER_SECONDS)
        if code is not None and done.returncode != code:
            raise DaemonError(
                f"{self.name}$ meshctl {' '.join(map(str, words))}: exit {done.returncode}, not {code}\n"
                f"{done.stdout}{done.stderr}{self.last_log()}"
            )
        return done

    def json(self, *words: str | Path, given: str = "") -> Json:
        """The last object that the command prints with --json."""
        found: Json = json.loads(self.run("--json", *words, given=given).stdout.splitlines()[-1])
        return found

    def fails(self, code: int, *words: str | Path, given: str = "") -> Json:
        """Run a command that must end with `code`; its error: code, message, hint."""
        done = self.run("--json", *words, given=given, code=code)
        try:
            found: Json = json.loads(done.stderr.splitlines()[-1])["error"]
        except (ValueError, IndexError, KeyError) as exc:
            raise DaemonError(f"{words}: no error object on stderr but: {done.stderr}") from exc
        return found

    def background(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start meshctl and leave it running: a command that waits for somebody else."""
        return subprocess.Popen(
            self.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @property
    def client(self) -> Client:
        """The local API without a process of its own for each request."""
        return Client(str(self.home / "meshd.sock"), warn=lambda sentence: None)

    # --- what tests say often -----------------------------------------------------------------------------------------

    def init(self) -> None:
        """Make a mesh of this device, with a keystore that opens by itself, so that a restart needs nobody."""
        self.run(
            *("init", "--name", self.name, "--no-passphrase", "--force", "--master-passphrase-file", "-"),
            given=f"{PASSPHRASE}\n",
        )

    def admits(self, other: Device, *connect: str, invite: Sequence[str] = (), wait: bool = True) -> None:
        """Invite here, connect there by the code, and wait until both are in step."""
        code = self.json("invite", "--no-wait", *invite)["code"]
        end = other.json("connect", code, "--name", other.name, "--no-passphrase", *connect)
        if end["state"] != "done":
            raise DaemonError(f"{other.name} did not connect: {end}")
        if wait:
            other.in_step_with(self)

    def status(self) -> Json:
        return self.json("status")

    def peer(self, other: Device | str) -> Json:
        """What this device's status says of another one."""
        name = other if isinstance(other, str) else other.name
        found: Json = next(peer for peer in self.status()["peers"] if peer["name"] == name)
        return found

    def health(self) -> set[str]:
        """The codes of what status says is wrong."""
        return {problem["code"] for problem in self.status()["health"]}

    def add(self, site: str, password: str, username: str = "alice") -> str:
        """Add a login; its id."""
        found: str = self.json("password", "add", "--site", site, "--username", username, given=f"{password}\n")["id"]
        return found

    def edit(self, site: str, password: str) -> None:
        self.run("password", "edit", site, given=f"{password}\n")

    def password(self, site: str) -> str:
        return self.run("password", "get", site).stdout.removesuffix("\n")

    def titles(self) -> dict[str, str]:
        """Every login's title, by its id."""
        return {item["id"]: item["title"] for item in self.json("password", "list")["items"]}

    def passwords(self) -> dict[str, str]:
        """Every login's password, by its id."""
        return {id: text(self.client.get(path("items", id)), "password") for id in self.titles()}

    def in_step_with(self, *others: Device, seconds: float = EVENT_SECONDS) -> None:
        """Until each of the others is connected and both have what the other has."""
        for other in others:
            self.run("wait", "--peer", other.name, "--timeout", str(seconds))

    def until(self, condition: Callable[[], bool], what: str, *, seconds: float = EVENT_SECONDS) -> None:
        """Until `condition` holds, asked again after each event of this daemon."""
        since = self.status()["events"]
        with Events(self, since) as events:
            deadline = time.monotonic() + seconds
            while not condition():
                if events.next(deadline) is None:
                    raise DaemonError(f"{self.name}: not in {seconds:.0f} s: {what}\n{self.last_log()}")


class Events:
    """`meshctl events --since N`, read with patience that ends."""

    def __init__(self, device: Device, since: int) -> None:
        self._process = subprocess.Popen(
            device.command("--json", "events", "--since", str(since)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._stdout: IO[bytes] = self._process.stdout
        self._buffer = b""

    def next(self, deadline: float) -> Json | None:
        """The next event; None when the deadline (of time.monotonic) passes or the daemon ends."""
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._stdout], [], [], left)[0]:
                return None
            data = os.read(self._stdout.fileno(), 65536)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: Json = json.loads(line)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._stdout.close()


class Household:
    """Devices in one temporary directory; when it closes nothing of them is left, neither process nor file."""

    def __init__(self, *, options: Sequence[str] = ("--interface", "lo")) -> None:
        # A Unix socket's path has room for 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="mesh-"))
        self.devices: list[Device] = []
        self.options = tuple(options)

    def device(self, name: str, *, enter: Enter | None = None, options: Sequence[str] | None = None) -> Device:
        """A device with an empty home; not started. `enter` puts its programs somewhere else, `options` are meshd's."""
        made = Device(name, self.directory / name, enter=enter, options=self.options if options is None else options)
        self.devices.append(made)
        return made

    def pair(self, names: Sequence[str] = ("one", "two")) -> list[Device]:
        """Devices of one mesh, running and in step; the first is its admin."""
        made = [self.device(name) for name in names]
        for device in made:
            device.start()
        made[0].init()
        for device in made[1:]:
            made[0].admits(device)
        return made

    def close(self) -> None:
        for device in self.devices:
            if device.process is not None:
                device.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None and not isinstance(value, KeyboardInterrupt):
            for device in self.devices:
                value.add_note(device.last_log())
        self.close()


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """What a background command prints, a line at a time, without line feeds."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")
