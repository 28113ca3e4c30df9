"""meshctl run in this process against one home: arguments in, text or JSON out, an exit code."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshctl.__main__ import main
from meshctl.terminal import Terminal


class Screen(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, text: str = "", *, tty: bool = False) -> None:
        super().__init__(text)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


@dataclass
class Run:
    code: int
    out: str
    err: str
    asked: list[str]

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


class Shell:
    """Runs meshctl against one home."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(
        self,
        *argv: str,
        stdin: str = "",
        types: tuple[str, ...] = (),
        tty: bool = False,
        environ: dict[str, str] | None = None,
    ) -> Run:
        """`types` is what the person answers to prompts for secrets; `tty` makes all streams terminals."""
        asked: list[str] = []
        answers = iter(types)

        def ask(prompt: str) -> str:
            asked.append(prompt)
            return next(answers)

        out, err = Screen(tty=tty), Screen(tty=tty)
        environ = {"MESHD_HOME": str(self.home)} if environ is None else environ
        terminal = Terminal(Screen(stdin, tty=tty), out, err, environ, ask)
        code = main(list(argv), terminal=terminal, environ=environ)
        assert next(answers, None) is None, "a prepared answer was not asked for"
        return Run(code, out.getvalue(), err.getvalue(), asked)


def secret_file(home: Path, name: str, text: str) -> str:
    path = home / name
    path.write_text(text)
    path.chmod(0o600)
    return str(path)
