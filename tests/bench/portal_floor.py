"""What one Python process can do at least: hand-parsed HTTP, one Ed25519 check a write, SQLite with group commit.

No product, but a floor to stand beside: `python portal_floor.py PORT FILE` answers PUT and GET until it is ended. The
key of the signatures is the first line that it prints. With a third argument, `signed`, each request costs one more
check, as an HTTP signature would: then both sides verify as many, and the floor still
has no nonces, rights, links or log.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import sys

from nacl import bindings

PENDING: list[tuple[str, bytes, asyncio.WriteTransport]] = []


class Floor(asyncio.Protocol):
    def __init__(self, database: sqlite3.Connection, public: bytes, request: bytes) -> None:
        self._database, self._public, self._request = database, public, request
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            at = head.lower().find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + size:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + size], self._buffer[end + 4 + size :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
        if self._request:
            bindings.crypto_sign_open(self._request, self._public)
        if method == b"GET":
            row = self._database.execute("SELECT v FROM e WHERE k = ?", (target.decode(),)).fetchone()
            value = row[0] if row else b"null"
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(value) + value)
            return
        entry = json.loads(body)
        bindings.crypto_sign_open(base64.b64decode(entry["sig"]) + base64.b64decode(entry["data"]), self._public)
        PENDING.append((target.decode(), body, self._transport))
        if len(PENDING) == 1:
            asyncio.get_running_loop().call_soon(self._commit)

    def _commit(self) -> None:
        rows, PENDING[:] = list(PENDING), []
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO e VALUES (?, ?)", [(key, value) for key, value, _ in rows])
        self._database.execute("COMMIT")
        for _, _, transport in rows:
            transport.write(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}')


async def main(port: int, path: str, *signed: str) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS e (k TEXT PRIMARY KEY, v BLOB)")
    public, secret = bindings.crypto_sign_keypair()
    print(secret.hex(), flush=True)
    request = bindings.crypto_sign(bytes(400), secret) if signed else b""
    server = await asyncio.get_running_loop().create_server(lambda: Floor(database, public, request), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
