"""`meshctl conflicts list|show`: logins that were changed on two devices apart.

Every version is there, and the same one counts on every device.
"""

from __future__ import annotations

from meshctl import table
from meshctl.answers import day, number, records, text
from meshctl.client import path
from meshctl.commands.password_read import show_item

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.session import Session


def conflicts_list_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def conflicts_list(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("conflicts"))
    if session.as_json:
        session.json(answer)
        return 0
    rows = [
        (
            text(item, "title"),
            text(item, "username"),
            str(number(item, "conflicts") + 1),
            text(item, "device"),
            day(text(item, "updated")),
            text(item, "id"),
        )
        for item in records(answer, "conflicts")
    ]
    table.show(session.terminal, ("TITLE", "USER NAME", "VERSIONS", "WINNER BY", "AT", "ID"), rows)
    return 0


def conflicts_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--reveal", action="store_true", help="print passwords too")


def conflicts_show(args: argparse.Namespace, session: Session) -> int:
    return show_item(session, session.client.get(path("items", args.id)), reveal=args.reveal)
