"""Shares that a person types, given to the daemon one by one: each is mended where it is wrong, and waits there."""

from __future__ import annotations

from meshctl import shares
from meshctl.answers import counted, number, records, text, texts
from meshctl.client import path
from meshctl.terminal import shown
from meshd.errors import BadRequest, MeshError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from meshctl.answers import Json
    from meshctl.session import Session


def one_share(session: Session, *where: str) -> Json:
    """What the daemon says of a share that a person types and mends; `where` it takes it."""
    terminal = session.terminal
    if not terminal.stdin.isatty():
        raise BadRequest("there is nobody to type a share", hint="--share-file F reads it")
    shares.no_core()
    with terminal.aside():
        words = shares.typed(terminal)
        if not words:
            raise Refused("no share was given")
        while True:
            answer = session.client.post(path("recovery", *where), {"words": words})
            if answer.get("fault") not in ("words", "checksum"):
                return answer
            mended = shares.corrected(terminal, words, answer)
            if not mended:
                return answer
            words = mended


def enough_shares(session: Session, command: str, given: int, lacking: str) -> None:
    """Have a person type shares until they are enough for a `drill` or a `restore`. MeshError where they stop before:
    what they gave waits."""
    terminal = session.terminal
    if given:
        terminal.talk(f"{counted(given, 'share')} given so far")
    while lacking:
        answer = one_share(session, command, "shares")
        tell_fault(session, answer)
        if answer.get("fault") == "other-set":
            terminal.talk(f"  to begin anew: meshctl recovery {command} --forget")
        lacking = text(answer, "lacking")
        if lacking:
            terminal.talk(f"{counted(number(answer, 'given'), 'share')} given, needed: {lacking}")
            if not terminal.agrees("Another one now?"):
                raise not_enough(lacking)


def not_enough(lacking: str) -> MeshError:
    return MeshError(
        f"not enough shares yet: {lacking}",
        hint="those given wait here, in the memory of meshd, until it ends; go on any day",
    )


def tell_fault(session: Session, answer: Json, file: str = "") -> None:
    """What is said of a share. It names places and no words: it stays in the scrollback."""
    session.terminal.talk(f"{file}: {text(answer, 'message')}" if file else text(answer, "message"))


def show_likely(session: Session, answer: Json) -> None:
    """The words that may be right, of a share out of a file, to somebody who is there, and gone afterwards."""
    terminal = session.terminal
    likely = [(number(one, "place"), ", ".join(texts(one, "likely"))) for one in records(answer, "misread")]
    if terminal.rich and terminal.stdin.isatty() and any(words for _, words in likely):
        with terminal.aside():
            for place, words in likely:
                terminal.styled(shown(f"word {place}: perhaps {words}" if words else f"word {place}"))
            shares.line(terminal, "\nPress Enter when you have seen it: ")
