"""Reading members of the daemon's answers: the value in its type, or FormatError instead of a traceback.

The daemon is the user's own, so this guards against another release rather than against an attacker; `Terminal` escapes
what is shown.
"""

from __future__ import annotations

from meshd.errors import FormatError

Json = dict[str, object]


def text(answer: Json, name: str) -> str:
    """A string; "" when the member is absent or null."""
    value = answer.get(name)
    if value is None:
        return ""
    return value if isinstance(value, str) else _wrong(name)


def number(answer: Json, name: str) -> int:
    """A whole number; 0 when the member is absent or null."""
    value = answer.get(name)
    if value is None:
        return 0
    return int(value) if isinstance(value, int | float) else _wrong_number(name)


def records(answer: Json, name: str) -> list[Json]:
    """A list of objects; empty when the member is absent or null."""
    value = answer.get(name)
    if value is None:
        return []
    if isinstance(value, list):
        return [part for part in value if isinstance(part, dict)]
    return _wrong_list(name)


def texts(answer: Json, name: str) -> list[str]:
    value = answer.get(name)
    if value is None:
        return []
    if isinstance(value, list):
        return [part for part in value if isinstance(part, str)]
    _wrong(name)
    return []


def inner(answer: Json, name: str) -> Json:
    """An object; empty when the member is absent or null."""
    value = answer.get(name)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    _wrong(name)
    return {}


def day(moment: str) -> str:
    """2026-11-24T06:41:00Z as 2026-11-24 06:41: for people, in UTC as it came."""
    return moment[:16].replace("T", " ")


def _wrong(name: str) -> str:
    raise FormatError(
        f"the daemon's answer has a malformed member: {name}", hint="are meshd and meshctl of one release?"
    )


def _wrong_number(name: str) -> int:
    _wrong(name)
    return 0


def _wrong_list(name: str) -> list[Json]:
    _wrong(name)
    return []
