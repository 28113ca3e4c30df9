"""`meshctl undo`: roles, grants and names of the last 24 hours, and taking one of them back."""

from __future__ import annotations

from meshctl import passphrases, table
from meshctl.answers import day, inner, records, text
from meshctl.client import path

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.session import Session

SHORT = 12  # characters of an id that stand for it


def undo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("change", metavar="ID", nargs="?", default="list", help="default: list what can be taken back")
    passphrases.wanted_arguments(parser)


def undo(args: argparse.Namespace, session: Session) -> int:
    if args.change == "list":
        return _list(session)
    where = path("undo", args.change)
    answer = passphrases.with_master(args, session, {}, lambda body: session.client.post(where, body))
    return session.done(answer, f"taken back: {text(inner(answer, 'undone'), 'text')}")


def _list(session: Session) -> int:
    answer = session.client.get(path("undo"))
    if session.as_json:
        session.json(answer)
        return 0
    rows = [
        (
            text(one, "id")[:SHORT],
            text(one, "text"),
            text(one, "by"),
            day(text(one, "time")),
            "master passphrase" if one.get("needs_master") else "",
        )
        for one in records(answer, "undo")
    ]
    table.show(session.terminal, ("ID", "WHAT", "BY", "AT", "NEEDS"), rows)
    return 0
