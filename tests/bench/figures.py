"""Figures as they are told: each with what it is measured against, the aim, and what bounds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured number. `met` is None where there is no aim."""

    what: str
    value: float
    unit: str
    aim: str = ""
    met: bool | None = None
    beside: dict[str, float] = field(default_factory=dict)  # what → how many times as good or as long; as it says
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """The figures of one bench. `missing` names peers that could not be measured here, and why."""

    name: str
    bounded_by: str
    figures: Sequence[Figure]
    foreign_cores: float = 0.0
    seconds: float = 0.0
    missing: tuple[str, ...] = ()


def table(section: Section) -> str:
    """A section as lines of text."""
    lines = [f"\n{section.name}  ({section.seconds:.0f} s, other processes used {section.foreign_cores} cores)"]
    for figure in section.figures:
        mark = {None: " ", True: "✓", False: "✗"}[figure.met]
        lines.append(f" {mark} {figure.what:<52} {_number(figure.value):>10} {figure.unit:<9} {figure.aim}".rstrip())
        lines += [f"     {_number(ratio)} × {name}" for name, ratio in figure.beside.items()]
        if figure.more:
            lines.append("     " + ", ".join(f"{name} {_short(value)}" for name, value in figure.more.items()))
    lines += [f"   not measured: {reason}" for reason in section.missing]
    lines.append(f"   bounded by: {section.bounded_by}")
    return "\n".join(lines)


def document(machine: dict[str, Any], floors: dict[str, float], sections: Sequence[Section]) -> str:
    """Everything as JSON."""
    found = {"schema": 1, "machine": machine, "floors_ms": floors, "sections": [asdict(part) for part in sections]}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _short(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value)
    if isinstance(value, list):
        return " ".join(_short(part) for part in value)
    return str(value)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
