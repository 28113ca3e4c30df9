"""What a command is given beside its arguments: the terminal, the daemon, and how to answer."""

from __future__ import annotations

from meshd.localapi import SCHEMA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from meshctl.client import Client
    from meshctl.terminal import Terminal


class Session:
    def __init__(self, terminal: Terminal, client: Client, *, as_json: bool) -> None:
        self.terminal = terminal
        self.client = client
        self.as_json = as_json

    def give(self, answer: dict[str, object], text: str) -> int:
        """Print the answer as JSON or as text; 0."""
        if self.as_json:
            self.json(answer)
        else:
            self.terminal.data(text)
        return 0

    def done(self, answer: dict[str, object], text: str) -> int:
        """The same for a command whose result is no data: the text is talk."""
        if self.as_json:
            self.json(answer)
        else:
            self.terminal.talk(text)
        return 0

    def json(self, answer: dict[str, object]) -> None:
        self.terminal.json({"schema": SCHEMA, **{name: value for name, value in answer.items() if name != "schema"}})
