"""The hybrid logical clock of an item's edits (formats.md F5): 48-bit milliseconds, 16-bit counter, as 16 hex digits.

Only two edits made apart are ordered by it, and only to decide which of them is shown first. An edit that knew
another is always later than it, whatever the clocks say, so a clock that is years off loses nothing and spreads to no
other item.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from meshd.errors import FormatError

_HEX = re.compile(r"[0-9a-f]{16}\Z")
_MAX = 2**64 - 1


def read(text: str) -> int:
    """The number behind its text; FormatError."""
    if type(text) is not str or not _HEX.match(text):
        raise FormatError("a T that is not 16 hex digits")
    return int(text, 16)


def write(value: int) -> str:
    return f"{value:016x}"


def tick(now_ms: int, parents: Iterable[int]) -> int:
    """The time of an edit made at `now_ms` that replaces edits of these times."""
    physical = min(max(now_ms, 0), 2**48 - 1) << 16
    return min(max(physical, *(parent + 1 for parent in parents), 0), _MAX)
