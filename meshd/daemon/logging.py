"""What the daemon tells on standard error: for a person in a terminal, or for the journal with its priorities.

One idea: secrets stay out by construction, not by search and replace.

* We log sentences with identifiers in them — names, UDFs, vids, addresses — never payloads, messages or requests.
* Values that hold secrets have no text form (`field(repr=False)`), so that formatting one by mistake shows nothing.
* An exception's text is written only where it is ours or the system's (MeshError, OSError, …). For any other — a bug,
  or a library's ValueError that may quote the very value it choked on — the type and the places are told.
* What a peer sent reaches a line only with control characters made visible: it can't forge lines or drive a terminal.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from typing import TextIO

from meshd.errors import MeshError

# Syslog priorities, as sd-daemon(3) reads them from the start of a line.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))
_TELLING = (MeshError, OSError, AssertionError, ImportError, RecursionError, MemoryError)
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))} | {
    code: f"\\u{code:04x}" for code in (0x2028, 0x2029, 0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2069)
}
EACH = 60  # lines of one kind in a minute
_MAX_LINE = 2000
_MAX_DEPTH = 8  # causes and groups within groups


def start(level: str, *, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Send everything that is logged in this process to `stream` (standard error), from `level` on.

    `level` is one of config.LOG_LEVELS and counts for meshd; libraries are heard from "warning" on.
    """
    stream = sys.stderr if stream is None else stream
    handler = _Handler(stream)
    handler.addFilter(Measured())
    handler.setFormatter(JournalFormatter() if is_journal(stream, environ) else TerminalFormatter())
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger("meshd").setLevel(level.upper())
    logging.captureWarnings(True)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` goes to the journal: systemd names the device and inode that it connected (systemd.exec(5))."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def visible(text: str) -> str:
    """`text` in one line of bounded length, control characters and changes of direction written out."""
    text = text if len(text) <= _MAX_LINE else text[:_MAX_LINE] + "…"
    return text.translate(_VISIBLE)


def told(exc: BaseException) -> str:
    """What may be said of an exception: its type, and its text where that can't quote a value of somebody's."""
    name = type(exc).__name__
    text = visible(str(exc)) if isinstance(exc, _TELLING) else ""
    return f"{name}: {text}" if text else name


def places(exc: BaseException, depth: int = 0) -> list[str]:
    """A traceback in lines: where, not with what. Causes and members of groups follow, indented."""
    lines = ["  " * depth + told(exc)]
    for frame in traceback.extract_tb(exc.__traceback__):
        lines.append("  " * depth + f"  {frame.filename}:{frame.lineno} in {frame.name}")
    if depth == _MAX_DEPTH:
        return lines
    for one in exc.exceptions if isinstance(exc, BaseExceptionGroup) else ():
        lines += places(one, depth + 1)
    before = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    if before is not None:
        lines += ["  " * depth + "after", *places(before, depth + 1)]
    return lines


class TerminalFormatter(logging.Formatter):
    """`06:41:12 warning sync: sentence`, local time."""

    def format(self, record: logging.LogRecord) -> str:
        start = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower()} {_area(record.name)}: "
        return "\n".join([start + visible(record.getMessage()), *_trace(record)])


class JournalFormatter(logging.Formatter):
    """`<4>sync: sentence`: the journal adds the time; every line carries the priority, or a traceback would lose it."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for least, number in _PRIORITIES if record.levelno >= least)
        lines = [f"{_area(record.name)}: {visible(record.getMessage())}", *_trace(record)]
        return "\n".join(f"<{priority}>{line}" for line in lines)


def _area(name: str) -> str:
    return name.removeprefix("meshd.")


def _trace(record: logging.LogRecord) -> list[str]:
    if not record.exc_info or record.exc_info[1] is None:
        return []
    return ["  " + line for line in places(record.exc_info[1])]


class Measured(logging.Filter):
    """At most EACH lines of one kind in a minute, below errors: whoever knocks all day fills no disk."""

    def __init__(self) -> None:
        super().__init__()
        self._minute = 0
        self._said: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        minute = int(record.created // 60)
        if minute != self._minute:
            self._minute, self._said = minute, {}
        if record.levelno >= logging.ERROR:
            return True
        kind = str(record.msg)
        count = self._said[kind] = self._said.get(kind, 0) + 1
        if count == EACH:
            record.msg = f"{kind} (more like this in this minute is left out)"
        return count <= EACH


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """A line that can't be written: the standard one would print the arguments."""
        try:
            self.stream.write(f"a log line could not be written ({record.pathname}:{record.lineno})\n")
        except (OSError, ValueError):
            pass  # standard error itself is gone: there is nobody left to tell
