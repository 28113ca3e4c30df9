"""What meshctl reads and prints: data on stdout, talk on stderr, secrets asked on the terminal.

Whatever is shown to a person passes through `shown`, so that a device's name or a site's title can't move the cursor,
recolour the screen or reverse the line. What goes into a pipe is left as it is.
"""

from __future__ import annotations

import json
import os
import sys

from meshd.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

MAX_SECRET = 65536  # characters: as long as an imported password may be

# Not printed as they are: C0, DEL, C1, and what changes the direction of text or ends a line elsewhere.
_FORMATTING = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def shown(text: str, *, keep: str = "") -> str:
    """The text with control and direction characters escaped, `keep` (say, line feeds) left alone."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter in keep or not _hidden(letter) else _escaped(letter) for letter in text)


def _hidden(letter: str) -> bool:
    code = ord(letter)
    return code < 32 or 127 <= code < 160 or letter in _FORMATTING or 0xD800 <= code <= 0xDFFF


def _escaped(letter: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(letter)
    code = ord(letter)
    return named or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


class Aside:
    """The alternate screen, for as long as the block lasts: wiped before it is left, so that nothing of it stays in the
    scrollback. Nothing at all where there is no terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def __enter__(self) -> None:
        self._say("\x1b[?1049h\x1b[2J\x1b[H")

    def __exit__(self, *error: object) -> None:
        self._say("\x1b[2J\x1b[H\x1b[?1049l")

    def _say(self, code: str) -> None:
        if self._terminal.rich:
            self._terminal.stdout.write(code)
            self._terminal.stdout.flush()


class Terminal:
    """The three streams. `ask` is how a secret is asked for; tests give their own."""

    def __init__(
        self,
        stdin: TextIO,
        stdout: TextIO,
        stderr: TextIO,
        environ: Mapping[str, str],
        ask: Callable[[str], str] | None = None,
    ) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.rich = stdout.isatty() and environ.get("TERM") != "dumb"  # may redraw a line, may draw a QR
        self.colour = self.rich and not environ.get("NO_COLOR")
        self._ask = ask

    @classmethod
    def of_process(cls, environ: Mapping[str, str]) -> Terminal:
        return cls(sys.stdin, sys.stdout, sys.stderr, environ)

    # ---- out

    def data(self, text: str, *, end: str = "\n") -> None:
        """Print data: verbatim into a pipe, escaped (line feeds and tabs apart) on a terminal."""
        self.stdout.write((shown(text, keep="\n\t") if self.stdout.isatty() else text) + end)

    def json(self, value: dict[str, object]) -> None:
        """Print one JSON object on a line of its own, at once: somebody may be reading a stream."""
        self.stdout.write(json.dumps(value) + "\n")
        self.stdout.flush()

    def talk(self, text: str) -> None:
        """Tell a person something on stderr, after what was printed so far."""
        try:
            self.stdout.flush()
        except OSError:
            pass  # told where the data is printed
        self.stderr.write(shown(text, keep="\n") + "\n")
        self.stderr.flush()

    def talk_json(self, value: dict[str, object]) -> None:
        self.stdout.flush()
        self.stderr.write(json.dumps(value) + "\n")

    def redraw(self, text: str) -> None:
        """Show a line of progress on a terminal in place of the one before; "" removes it."""
        if self.stderr.isatty():
            self.stderr.write("\r\x1b[K" + shown(text))
            self.stderr.flush()

    def bold(self, text: str) -> str:
        return f"\x1b[1m{shown(text)}\x1b[0m" if self.colour else text

    def styled(self, text: str) -> None:
        """Print text whose parts have been through `shown` or `bold` already."""
        self.stdout.write(text + "\n")

    def flush(self) -> None:
        """Make sure that everything was written: a full disk shows here."""
        self.stdout.flush()
        self.stderr.flush()

    def aside(self) -> Aside:
        """`with terminal.aside():` what is shown meanwhile is gone afterwards."""
        return Aside(self)

    @property
    def width(self) -> int:
        try:
            return os.get_terminal_size(self.stdout.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    # ---- in

    def line(self) -> str:
        """The first line of stdin without its line end; BadRequest when it is empty or absurdly long."""
        text = self.stdin.readline(MAX_SECRET + 2)
        if text.endswith("\n"):
            text = text[:-1].removesuffix("\r")
        if not text:
            raise BadRequest("nothing on stdin")
        if len(text) > MAX_SECRET:
            raise BadRequest(f"the first line of stdin is longer than {MAX_SECRET} characters")
        return text

    def discard(self) -> None:
        """Forget what was typed so far: what comes next is to be seen before it is answered."""
        if self.stdin is sys.stdin and self.stdin.isatty():
            import termios

            termios.tcflush(self.stdin, termios.TCIFLUSH)

    def ask(self, prompt: str) -> str:
        """Ask for a secret on the controlling terminal, without echo. BadRequest where there is none."""
        if self._ask is not None:
            return self._ask(prompt)
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        except OSError:
            raise BadRequest("there is no terminal to ask on", hint="see --help for options that read a file") from None
        import getpass  # only here: it costs as much as argparse

        return getpass.getpass(shown(prompt))

    def ask_new(self, what: str) -> str:
        """Ask twice for a new secret; BadRequest when the two differ or are empty."""
        first = self.ask(f"{what}: ")
        if not first:
            raise BadRequest("an empty answer")
        if self.ask(f"{what}, once more: ") != first:
            raise BadRequest("the two differ")
        return first

    def agrees(self, question: str) -> bool:
        """Ask yes or no on stderr, read a line of stdin; anything but y or yes is no."""
        self.stdout.flush()
        self.stderr.write(shown(question, keep="\n") + " [y/N] ")
        self.stderr.flush()
        return self.stdin.readline(16).strip().lower() in ("y", "yes")
