"""What a route of the local API is: method, path, what it needs, what goes in and what comes out."""

from __future__ import annotations

from typing import NamedTuple

from meshd.localapi.shapes import Shape, record

RUNNING, CONNECTED, UNLOCKED = "running", "connected", "unlocked"

MAX_BODY = 256 * 1024

_NOTHING = record({})


class Route(NamedTuple):
    """`needs`: what must be true of the daemon first; otherwise the errors not-connected and locked."""

    name: str
    method: str
    path: str  # parameters in braces
    summary: str
    needs: str
    answer: Shape
    body: Shape | None = None
    query: Shape = _NOTHING
    status: int = 200
    stream: bool = False  # the answer is NDJSON, one `answer` a line; empty lines keep the connection alive
    most: int = MAX_BODY  # bytes of body
