"""A portal as a process of its own, and blocking clients: for what only a real end of a process shows."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

from harness.portal_people import Person
from harness.portal_server import request_bytes, signed
from meshd.portal import codec
from meshd.portal.codec import Dialect
from meshd.portal.messages import Request, Response

PROGRAM = Path(sys.executable).parent / "meshd"
START_SECONDS = 60.0


class PortalProcess:
    """`meshd portal` over a directory; `start` returns when it says that it is ready, and on which port."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data, self.options = data, options
        self.log = data.with_name(data.name + ".log")
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self, *options: str) -> int | None:
        """None once it is ready; its exit code if it ended instead."""
        where = self.data.with_name(self.data.name + ".ready")
        where.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self.log.open("ab") as log:
            ready.bind(str(where))
            argv = [PROGRAM, "portal", "--data", self.data, "--domain", "example.net", "--listen", "127.0.0.1:0"]
            argv += [*(self.options or ("--insecure-http",)), *options]
            self.process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(where)},
                start_new_session=True,
            )
            ended = os.pidfd_open(self.process.pid)
            try:
                readable, _, _ = select.select([ready, ended], [], [], START_SECONDS)
                if ready in readable:
                    told = ready.recv(4096).decode()
                    self.port = int(told.rpartition(":")[2])
                    return None
                assert ended in readable, f"the portal is not ready\n{self.log.read_text()[-2000:]}"
                return self.process.wait()
            finally:
                os.close(ended)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Caller:
    """A blocking client; ConnectionError once the portal is gone."""

    def __init__(self, portal: PortalProcess, person: Person) -> None:
        self._sock = socket.create_connection(("127.0.0.1", portal.port), timeout=60)
        self._person = person
        self._buffer = b""

    def ask(self, transaction: str, message: Request) -> Response:
        body = codec.encode_request(transaction, message, Dialect.OURS)
        self._sock.sendall(request_bytes(body, signed(body, self._person.first, host="example.net")))
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._more()
        head = self._buffer[:end].decode("latin-1").lower()
        size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        while len(self._buffer) < end + 4 + size:
            self._more()
        answer, self._buffer = self._buffer[end + 4 : end + 4 + size], self._buffer[end + 4 + size :]
        return codec.decode_response(answer, transaction, codec.JSON)

    def _more(self) -> None:
        data = self._sock.recv(65536)
        if not data:
            raise ConnectionError("the portal closed")
        self._buffer += data

    def close(self) -> None:
        self._sock.close()
