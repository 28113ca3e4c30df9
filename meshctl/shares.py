"""Recovery shares on their way between people and the daemon: typed, read from files, shown one by one, written.

What a terminal shows of a share is on its alternate screen, which is wiped before it is left, so nothing stays in the
scrollback. Files are new, readable by their owner alone, and durable before the shares count.
"""

from __future__ import annotations

import os
import sys

from meshctl.answers import number, records, text, texts
from meshctl.terminal import shown
from meshd.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshctl.answers import Json
    from meshctl.terminal import Terminal

LENGTHS = (20, 33)
MAX_FILE = 65536
_COLUMNS = 3


def no_core() -> None:
    """From here on this process leaves no core: it has seen a share."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# --- in ---------------------------------------------------------------------------------------------------------------


def from_file(name: str, *, most: int = MAX_FILE) -> str:
    """A file that holds one share, its first `most` characters; BadRequest."""
    try:
        with open(name, encoding="utf-8") as file:
            content = file.read(most)
    except UnicodeDecodeError:
        raise BadRequest(f"{name} is no text") from None
    except OSError as exc:
        raise BadRequest(f"{name}: {exc.strerror}") from None
    if "\0" in content:
        raise BadRequest(f"{name} is no text")
    if not content.strip():
        raise BadRequest(f"{name} is empty")
    return content


def typed(terminal: Terminal, words: list[str] | None = None) -> str:
    """One share as a person types it, after these words; empty when they give up. Words that can't be right
    are named at once."""
    terminal.styled(
        "The words of one share, as many a line as you like. Four letters of a word are enough, Tab completes."
    )
    terminal.styled("- takes the last word back, NUMBER WORD puts another in its place, NUMBER - takes one out,")
    terminal.styled("an empty line ends.\n")
    words = words or []
    while not _whole(words):
        of = f"{LENGTHS[0]} or {LENGTHS[1]}" if len(words) < LENGTHS[0] else str(LENGTHS[1])
        given = line(terminal, f"word {len(words) + 1} of {of}: ").split()
        if not given:
            break
        if given == ["-"]:
            terminal.styled(f"taken back: word {len(words)}" if words else "there is none")
            words = words[:-1]
        elif given[1:] == ["-"] and given[0].rstrip(".").isdecimal():
            _drop(terminal, words, int(given[0].rstrip(".")))
        else:
            _take(terminal, words, given)
    return " ".join(words)


def corrected(terminal: Terminal, words: str, answer: Json) -> str:
    """The share after its person looked at what is wrong; empty when they give up."""
    listed = words.split()
    misread = records(answer, "misread")
    terminal.styled(shown(text(answer, "message")))
    for one in misread:
        place = number(one, "place")
        if 1 <= place <= len(listed):
            likely = ", ".join(texts(one, "likely"))
            terminal.styled(
                f"  word {place} is {shown(listed[place - 1])}" + (f"; perhaps {shown(likely)}?" if likely else "")
            )
    if not misread:
        terminal.styled("\n".join(_rows(listed)))
    while given := line(terminal, "NUMBER WORD mends, NUMBER - takes a word out, an empty line gives up: ").split():
        mended = list(listed)
        if given[1:] == ["-"] and given[0].rstrip(".").isdecimal():
            if _drop(terminal, mended, int(given[0].rstrip("."))):
                return typed(terminal, mended)
        elif _take(terminal, mended, given, mend=True):
            return " ".join(mended)
    return ""


def _drop(terminal: Terminal, words: list[str], place: int) -> bool:
    """Take a word out that was typed too much; those after it move up."""
    if not 1 <= place <= len(words):
        terminal.styled(f"{place} is the number of no word from 1 to {len(words)}")
        return False
    del words[place - 1]
    terminal.styled("\n".join(_rows(words)))
    return True


def _take(terminal: Terminal, words: list[str], given: list[str], *, mend: bool = False) -> bool:
    """Put what was typed at its place: next, or where the number before it says; numbers may stand there as they are
    printed. False where something can't be meant so; what was before it is taken."""
    place = 0
    for word in given:
        last = len(words) if mend else min(len(words) + 1, LENGTHS[1])
        if word.rstrip(".").isdecimal():
            place = int(word.rstrip("."))
            if not 1 <= place <= last:
                terminal.styled(f"{shown(word)} is the number of no word from 1 to {last}")
                return False
            continue
        if not place and (mend or len(words) == LENGTHS[1]):
            terminal.styled(f"{shown(word)}: for which word? Put its number before it")
            return False
        at = place or len(words) + 1
        found = _fitting(word)
        if len(found) != 1:
            why = f"may be {', '.join(found[:6])}" if found else "is not in the list"
            terminal.styled(f"word {at}, {shown(word)}, {why}: go on from it")
            return False
        words[at - 1 : at] = found
        place = 0
    return True


def _whole(words: list[str]) -> bool:
    """As many words as the longer kind of share has, or as the shorter one, and they fit together."""
    if len(words) != LENGTHS[0]:
        return len(words) >= LENGTHS[1]
    from shamir_mnemonic.rs1024 import verify_checksum
    from shamir_mnemonic.wordlist import WORD_INDEX_MAP

    indices = [WORD_INDEX_MAP[word] for word in words]
    return any(verify_checksum(indices, string) for string in (b"shamir_extendable", b"shamir"))


def _fitting(word: str) -> list[str]:
    from shamir_mnemonic.wordlist import WORDLIST

    word = word.lower()
    return [word] if word in WORDLIST else [one for one in WORDLIST if one.startswith(word)]


def line(terminal: Terminal, prompt: str) -> str:
    """A line that somebody types, words of the list completed by Tab; empty at the end of input."""
    if terminal.stdin is not sys.stdin:
        return terminal.stdin.readline(1024)
    import readline

    readline.set_auto_history(False)
    readline.set_completer(lambda start, at: dict(enumerate(_fitting(start) if start else [])).get(at))
    readline.parse_and_bind("tab: complete")
    try:
        return input(prompt)
    except EOFError:
        return ""


# --- out --------------------------------------------------------------------------------------------------------------


def show(terminal: Terminal, told: Json, about: Json) -> None:
    """One share a screen, each until its person has it."""
    listed = records(told, "shares")
    for share in listed:
        with terminal.aside():
            terminal.styled(shown(page(told, share, about), keep="\n"))
            terminal.discard()
            last = "the last one" if share is listed[-1] else "the next one follows"
            line(terminal, f"Write it down, then press Enter ({last}): ")
            if terminal.stdin is not sys.stdin and terminal.rich:
                terminal.stdout.write("\n")


def page(told: Json, share: Json, about: Json) -> str:
    """A share as text: what it is, its words in order, and what to do with it. It can be read back whole."""
    count, accounts = len(records(told, "shares")), texts(about, "accounts")
    lines = [
        f"# RECOVERY SHARE {number(share, 'number')} of {count}: {text(share, 'label')}",
        f"# Mesh {text(about, 'mesh')}",
        *(f"# Account {account}" for account in accounts),
        f"# Set {text(told, 'set')} of {text(told, 'made')[:10]}, check {text(told, 'check')}; {text(about, 'needed')}",
        "",
        *_rows(text(share, "words").split()),
        "",
        "# Keep it where nobody else reads it. Try whether it is right: meshctl recovery check-share",
        "# When every device is lost, with enough shares, on a new device:",
        f"#   meshctl recovery restore {f'--account {accounts[0]}' if accounts else '--lan'}",
    ]
    return "\n".join(lines) + "\n"


def html(told: Json, share: Json, about: Json) -> str:
    """The same as a page to print, with a QR of the words."""
    from html import escape
    from io import BytesIO

    import segno

    picture = BytesIO()
    segno.make(text(share, "words"), error="m").save(picture, kind="svg", scale=3, xmldecl=False, svgns=True)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Recovery share</title>'
        "<style>body{font:16px/1.5 monospace;margin:3em}svg{display:block;margin-top:2em}</style>"
        f"<pre>{escape(page(told, share, about))}</pre>{picture.getvalue().decode()}</html>\n"
    )


def _rows(words: list[str]) -> Iterator[str]:
    """The words, numbered, in the order in which they are read."""
    for start in range(0, len(words), _COLUMNS):
        row = enumerate(words[start : start + _COLUMNS], start + 1)
        yield "  ".join(f"{place:>3}. {word:<10}" for place, word in row).rstrip()


def write(folder: str, told: Json, about: Json, *, form: str) -> list[str]:
    """A new file for each share in a folder, which is made if missing; all of them or none. BadRequest."""
    written: list[str] = []
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for share in records(told, "shares"):
            content = html(told, share, about) if form == "html" else page(told, share, about)
            label = "".join(letter if letter.isalnum() else "-" for letter in text(share, "label"))[:32]
            name = os.path.join(folder, f"share-{text(told, 'set')}-{number(share, 'number')}-{label}.{_ENDINGS[form]}")
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            written.append(name)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        remove(written)
        raise BadRequest(f"{exc.filename or folder} can't be written: {exc.strerror}") from None
    return written


_ENDINGS = {"text": "txt", "html": "html"}


def remove(names: list[str]) -> None:
    """Take files of shares back that never counted."""
    for name in names:
        try:
            os.unlink(name)
        except OSError:
            pass  # worthless, but the person is told
