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


def ago(moment: str) -> str:
    """How long a time of the daemon's is past, for people: "2 h ago"; "never" for none."""
    if not moment:
        return "never"
    from datetime import UTC, datetime

    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    except (ValueError, TypeError):
        return day(moment)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 vault`, `2 vaults`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


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
