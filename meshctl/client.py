"""One blocking request over the Unix socket.

A connection serves one request. Right after start the daemon's socket may exist a moment before it listens: that much
patience is here. So is the check that both programs speak the same API.
"""

from __future__ import annotations

# What `socket` wraps. The wrapper imports selectors and makes enumerations of its constants, which takes a quarter of
# what an empty Python takes to start.
import _socket
import time

from meshd import __version__
from meshd.errors import Denied, FormatError, MeshError, VersionMismatch
from meshd.localapi import API
from meshd.localapi.errors import ApiError, NotRunning, from_body
from meshd.localapi.http import AnswerReader, quote, request, target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GRACE = 1.0  # seconds that a socket which exists may refuse
PATIENCE = 180.0  # seconds for an ordinary answer: Argon2id on a small machine, an import of 10⁵ rows
_BLOCK = 256 * 1024


def path(*segments: str) -> str:
    """/v1/ and the quoted segments."""
    return "/v1/" + "/".join(quote(segment) for segment in segments)


class Client:
    """`where` is the path of the socket; `warn` gets a sentence when the daemon is of another release."""

    def __init__(self, where: str, *, warn: Callable[[str], None]) -> None:
        self.where = where
        self._warn = warn
        self._warned = False

    def get(self, path: str, query: dict[str, object] | None = None, *, wait: float = 0) -> dict[str, object]:
        """GET; `wait` is how long the daemon may hold the answer. ApiError for an error that the daemon tells."""
        return self._call("GET", target(path, query), None, PATIENCE + wait)

    def post(self, path: str, body: dict[str, object], *, wait: float = 0) -> dict[str, object]:
        """POST; `wait` is how much longer than usual the answer may take."""
        return self._call("POST", path, body, PATIENCE + wait)

    def put(self, path: str, body: dict[str, object]) -> dict[str, object]:
        return self._call("PUT", path, body, PATIENCE)

    def patch(self, path: str, body: dict[str, object]) -> dict[str, object]:
        return self._call("PATCH", path, body, PATIENCE)

    def delete(self, path: str) -> dict[str, object]:
        return self._call("DELETE", path, None, PATIENCE)

    def lines(self, path: str, query: dict[str, object] | None = None) -> Iterator[dict[str, object]]:
        """GET a stream: each object as it comes, until the daemon ends it."""
        link = self._connect()
        try:
            link.settimeout(None)
            reader = AnswerReader()
            self._send(link, request("GET", target(path, query)))
            while not reader.done:
                self._receive(link, reader)
                if reader.status and not reader.chunked:
                    continue
                for line in reader.lines():
                    if not isinstance(line, dict):
                        raise FormatError("the daemon sent a line that is no object")
                    yield line
            if not reader.chunked:
                self._judge(reader)
        finally:
            link.close()

    def _call(self, method: str, target: str, body: dict[str, object] | None, patience: float) -> dict[str, object]:
        link = self._connect()
        try:
            link.settimeout(patience)
            reader = AnswerReader()
            self._send(link, request(method, target, body))
            while not reader.done:
                self._receive(link, reader)
            return self._judge(reader)
        finally:
            link.close()

    def _connect(self) -> _socket.socket:
        deadline = time.monotonic() + GRACE
        while True:
            link = _socket.socket(_socket.AF_UNIX)
            try:
                link.connect(self.where)
                return link
            except ConnectionRefusedError:
                link.close()
                if time.monotonic() > deadline:
                    raise NotRunning(f"meshd is not running: nobody listens on {self.where}") from None
                time.sleep(0.02)  # there is nothing to wait on: the daemon that will listen may not exist yet
            except (FileNotFoundError, NotADirectoryError):
                link.close()
                raise NotRunning(f"meshd is not running: there is no {self.where}") from None
            except PermissionError:
                link.close()
                raise Denied(
                    f"{self.where} belongs to another user", hint="run meshctl as the user that runs meshd"
                ) from None
            except OSError as exc:
                link.close()
                raise MeshError(f"{self.where} can't be opened: {exc.strerror}") from None

    def _send(self, link: _socket.socket, data: bytes) -> None:
        try:
            link.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before it was read to the end: the answer says why

    def _receive(self, link: _socket.socket, reader: AnswerReader) -> None:
        before = reader.status
        try:
            data = link.recv(_BLOCK)
        except TimeoutError:
            raise MeshError("meshd does not answer", hint="see what it says: journalctl --user -u meshd") from None
        except ConnectionResetError:
            data = b""
        if not data:
            raise NotRunning("meshd stopped in the middle of the request")
        reader.feed(data)
        if reader.status and not before:
            self._check_release(reader)

    def _check_release(self, reader: AnswerReader) -> None:
        if reader.api is not None and reader.api != API:
            raise VersionMismatch(
                f"meshd speaks API {reader.api}, this meshctl API {API}",
                hint="update both, then: systemctl --user restart meshd",
            )
        if reader.version not in (None, __version__) and not self._warned:
            self._warned = True
            self._warn(f"meshctl is {__version__}, meshd still {reader.version}: restart meshd")

    def _judge(self, reader: AnswerReader) -> dict[str, object]:
        body = reader.json()
        if not 200 <= reader.status < 300:
            raise from_body(body)
        if not isinstance(body, dict):
            raise FormatError("the daemon's answer is no object")
        return body


__all__ = ["ApiError", "Client", "path"]
