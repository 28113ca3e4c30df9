"""Rows of text as a table on a terminal, tab-separated everywhere else."""

from __future__ import annotations

from meshctl.terminal import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshctl.terminal import Terminal

_GAP = "  "
_LEAST = 8  # columns are not squeezed below this


def show(terminal: Terminal, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print the rows. For a pipe: no head, tabs between fields, control characters escaped so that a row is a line."""
    clean = [tuple(shown(field) for field in row) for row in rows]
    if not terminal.stdout.isatty():
        for row in clean:
            terminal.styled("\t".join(row))
        return
    if clean:
        for line in lines(head, clean, terminal.width):
            terminal.styled(line)


def lines(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """The table's lines, the widest columns cut with … until it fits."""
    table = [head, *rows]
    widths = [max(_width(row[place]) for row in table) for place in range(len(head))]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
    return [_GAP.join(_fit(field, size) for field, size in zip(row, widths, strict=True)).rstrip() for row in table]


def _fit(text: str, size: int) -> str:
    while _width(text) > size:
        text = text[: -2 if text.endswith("…") else -1] + "…"
    return text + " " * (size - _width(text))


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)
