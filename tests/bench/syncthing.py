"""Syncthing: files over TLS; discovery, relays and updates off. It moves files and is no store of entries."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.peers import folder, free_port, program, running, wait_for_port

HINT = "apt-get install syncthing"
SECONDS = 600.0
PAUSE = 0.4  # between changes: it gathers for 250 ms after each
OFF = ("globalAnnounceEnabled", "localAnnounceEnabled", "relaysEnabled", "natEnabled", "startBrowser")


class Instance:
    """One Syncthing with one folder."""

    def __init__(self, path: Path) -> None:
        self.files = path / "files"
        self.home = path / "home"
        self.port, self.api = free_port(), free_port()
        (self.files / ".stfolder").mkdir(parents=True)
        subprocess.run(
            [program("syncthing", HINT), "generate", "--home", str(self.home), "--no-default-folder"],
            check=True,
            capture_output=True,
        )
        self.key = self._configure(self.home / "config.xml")
        self.id = ""

    def _configure(self, path: Path) -> str:
        text = path.read_text()
        settings = dict.fromkeys(OFF, "false") | {
            "listenAddress": f"tcp://127.0.0.1:{self.port}",
            "reconnectionIntervalS": "5",  # in its favour; the default is 60
            "urAccepted": "-1",
            "autoUpgradeIntervalH": "0",
            "crashReportingEnabled": "false",
            "setLowPriority": "false",
        }
        for name, value in settings.items():
            text, found = re.subn(rf"<{name}>[^<]*</{name}>", f"<{name}>{value}</{name}>", text)
            if not found:
                text = text.replace("</options>", f"<{name}>{value}</{name}></options>")
        text = re.sub(r"(<gui[^>]*>\s*<address>)[^<]*", rf"\g<1>127.0.0.1:{self.api}", text)
        path.write_text(text)
        match = re.search("<apikey>([^<]*)", text)
        assert match is not None
        return match.group(1)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        argv = ["syncthing", "serve", "--home", str(self.home), "--no-browser", "--no-restart", "--no-upgrade"]
        with running(argv):
            wait_for_port(self.api)
            while not self.id:
                with contextlib.suppress(OSError, KeyError, ValueError, TypeError):
                    self.id = self.ask("GET", "/rest/system/status")["myID"]
            yield

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        link = http.client.HTTPConnection("127.0.0.1", self.api, timeout=60)
        try:
            link.request(method, path, None if body is None else json.dumps(body), {"X-API-Key": self.key})
            answer = link.getresponse()
            data = answer.read()
            if answer.status != 200:
                raise ValueError(f"{method} {path}: {answer.status}")
            return json.loads(data) if data.startswith((b"{", b"[")) else data
        finally:
            link.close()

    def share(self, other: Instance) -> None:
        """One folder with another instance; changes are seen when a scan is asked for."""
        self.ask(
            "PUT",
            f"/rest/config/devices/{other.id}",
            {"deviceID": other.id, "addresses": [f"tcp://127.0.0.1:{other.port}"]},
        )
        setting = self.ask("GET", "/rest/config/defaults/folder")
        setting |= {"id": "f", "path": str(self.files), "fsWatcherEnabled": False, "rescanIntervalS": 0}
        setting["devices"] = [{"deviceID": self.id}, {"deviceID": other.id}]
        self.ask("PUT", "/rest/config/folders/f", setting)

    def write(self, count: int) -> None:
        for place in range(count):
            (self.files / f"{place & 255:02x}").mkdir(exist_ok=True)
            (self.files / f"{place & 255:02x}" / f"e{place}").write_bytes(secrets.token_bytes(1024))

    def complete(self, count: int) -> bool:
        state = self.ask("GET", "/rest/db/status?folder=f")
        return bool(state["state"] == "idle" and state["localFiles"] == count and state["needFiles"] == 0)


@contextlib.contextmanager
def pair(count: int) -> Iterator[tuple[Instance, Instance]]:
    """Two instances; the first has `count` files, and neither knows the other yet."""
    with folder() as path:
        one, two = Instance(path / "one"), Instance(path / "two")
        one.write(count)
        with one.serving(), two.serving():
            yield one, two


def first_sync(count: int) -> float:
    """Files per second from the moment they are connected; Missing."""
    with pair(count) as (one, two):
        one.share(two)
        _until(lambda: one.complete(count))
        two.share(one)
        _until(lambda: _connected(one, two))
        start = time.monotonic()
        _until(lambda: two.complete(count))
        return count / (time.monotonic() - start)


def changes(count: int) -> list[float]:
    """Seconds from a file written and its scan asked for to the same bytes on the other side; Missing."""
    found = []
    with pair(100) as (one, two):
        one.share(two)
        two.share(one)
        _until(lambda: _connected(one, two) and two.complete(100))
        for place in range(count):
            data = secrets.token_bytes(1024)
            name = f"new{place}"
            start = time.monotonic()
            (one.files / name).write_bytes(data)
            one.ask("POST", f"/rest/db/scan?folder=f&sub={name}")
            there = two.files / name
            _until(lambda there=there, data=data: there.exists() and there.read_bytes() == data, pause=0.001)
            found.append(time.monotonic() - start)
            time.sleep(PAUSE)
    return found


def _connected(one: Instance, two: Instance) -> bool:
    found = one.ask("GET", "/rest/system/connections")["connections"].get(two.id)
    return bool(found and found["connected"])


def _until(true: Any, *, pause: float = 0.02) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("Syncthing did not come to an end")
        time.sleep(pause)
