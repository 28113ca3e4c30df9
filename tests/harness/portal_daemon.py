"""`meshd portal` beside the devices of an end-to-end test: on loopback, without TLS, always on one port."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.daemons import LOG_LINES, PROGRAMS, START_SECONDS, DaemonError


def free_port() -> int:
    """A port that nothing uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PortalDaemon:
    """A portal for `example.net` that can be killed and started again where it was."""

    def __init__(self, directory: Path, *options: str, domain: str = "example.net") -> None:
        self.data = directory
        self.log = directory.with_name(f"{directory.name}.log")
        self.port = free_port()
        self.domain = domain
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def reach(self) -> tuple[str, ...]:
        """The options of meshctl that lead here."""
        return "--address", self.address, "--insecure-http"

    def start(self) -> None:
        assert self.process is None
        self.data.mkdir(mode=0o700, exist_ok=True)
        where = self.data.with_name(f"{self.data.name}.ready")
        where.unlink(missing_ok=True)
        listen = ["--data", str(self.data), "--domain", self.domain, "--listen", self.address, "--insecure-http"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self.log.open("ab") as log:
            ready.bind(str(where))
            self.process = subprocess.Popen(
                [str(PROGRAMS / "meshd"), "portal", *listen, *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(where)},
                start_new_session=True,
            )
            ended = os.pidfd_open(self.process.pid)
            deadline = time.monotonic() + START_SECONDS
            try:
                while True:
                    left = max(deadline - time.monotonic(), 0)
                    readable, _, _ = select.select([ready, ended], [], [], left)
                    if ready in readable and b"READY=1" in ready.recv(4096):
                        return
                    if ended in readable or not left:
                        self.kill()
                        raise DaemonError(f"the portal does not start\n{self.last_log()}")
            finally:
                os.close(ended)

    def kill(self) -> None:
        """kill -9."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def last_log(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(["--- the portal's last lines:", *lines[-LOG_LINES:]])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None and not isinstance(value, KeyboardInterrupt):
            value.add_note(self.last_log())
        self.kill()
