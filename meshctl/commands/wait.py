"""`meshctl wait` and `meshctl events`."""

from __future__ import annotations

from meshctl.answers import number, text
from meshctl.client import path
from meshd.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

DEFAULT_TIMEOUT = 60.0


def wait_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--synced",
        action="store_true",
        help="until every connected device has what this one has, and the other way round",
    )
    parser.add_argument("--portal", action="store_true", help="every portal of the mesh too: it must be reached")
    parser.add_argument("--peer", metavar="NAME", help="this device too: it must connect")
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=DEFAULT_TIMEOUT, help="seconds (default 60); then exit 7"
    )


def wait(args: argparse.Namespace, session: Session) -> int:
    if not 0 <= args.timeout <= 86400:
        raise BadRequest("--timeout: 0 to 86400 seconds are allowed")
    query: dict[str, object] = {"timeout": f"{args.timeout:.3f}"}
    if args.synced:
        query["synced"] = True
    if args.portal:
        query["portal"] = True
    if args.peer is not None:
        query["peer"] = args.peer
    answer = session.client.get(path("wait"), query, wait=args.timeout)
    return session.done(answer, "in step" if args.synced or args.peer or args.portal else "connected to a mesh")


def events_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="ID", type=int, help="begin after this event (default: only new ones)")
    parser.add_argument(
        "--no-follow", action="store_true", help="end with the newest event instead of waiting for more"
    )


def events(args: argparse.Namespace, session: Session) -> int:
    if args.since is not None and args.since < 0:
        raise BadRequest("--since: an event's id is expected")
    query: dict[str, object] = {"follow": not args.no_follow}
    if args.since is not None:
        query["since"] = args.since
    for event in session.client.lines(path("events"), query):
        if session.as_json:
            session.json(event)
        else:
            session.terminal.data(_line(event))
            session.terminal.flush()
    return 0


def _line(event: Json) -> str:
    shown = ("id", "time", "type", "schema", "snapshot")
    details = " ".join(
        f"{name}={value}" for name, value in event.items() if name not in shown and value not in (None, "")
    )
    return f"{number(event, 'id')}\t{text(event, 'time')}\t{text(event, 'type')}\t{details}".rstrip()
