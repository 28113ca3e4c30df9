"""`meshctl portal add|list|status|remove|close`: the accounts of the mesh."""

from __future__ import annotations

from meshctl.answers import ago, counted, inner, number, records, text
from meshctl.client import path
from meshd.errors import NotFound
from meshd.localapi.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session


def portal_add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", metavar="ACCOUNT", help="NAME@PORTAL, as in alice@example.net")
    parser.add_argument("--address", metavar="HOST:PORT", help="where the portal is, when DNS does not tell")
    parser.add_argument("--insecure-http", action="store_true", help="reach it without TLS (for tests)")
    parser.add_argument("--invite", metavar="TOKEN", help="where the portal wants an invitation")


def portal_add(args: argparse.Namespace, session: Session) -> int:
    body: dict[str, object] = {"account": args.account}
    for name in ("address", "invite"):
        if getattr(args, name) is not None:
            body[name] = getattr(args, name)
    if args.insecure_http:
        body["plain"] = True
    answer = session.client.post(path("portals"), body)
    text_ = f"{text(answer, 'account')} is open; publishing goes on by itself: meshctl portal status"
    return session.done(answer, text_)


def portal_list_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def portal_list(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("portals"))
    if session.as_json:
        session.json(answer)
        return 0
    found = records(answer, "portals")
    if not found:
        session.terminal.talk("no portals: meshctl portal add NAME@PORTAL")
        return 0
    from meshctl import table

    rows = [(text(one, "account"), text(one, "state"), _step(one), text(one, "address")) for one in found]
    table.show(session.terminal, ("ACCOUNT", "STATE", "SYNC", "ADDRESS"), rows)
    return 0


def portal_status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", metavar="ACCOUNT", nargs="?", help="one account; all without it")


def portal_status(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("portals"))
    found = [one for one in records(answer, "portals") if args.account in (None, text(one, "account"))]
    if args.account is not None and not found:
        raise NotFound("this mesh has no such account", hint="see: meshctl portal list")
    if session.as_json:
        session.json({"portals": found})
        return 0
    for one in found:
        session.terminal.data(f"{text(one, 'account')}: {text(one, 'state')}, {_step(one)}")
        session.terminal.data(f"  last reached: {ago(text(one, 'last_success'))}")
        problem = inner(one, "error")
        if problem:
            session.terminal.data(f"  {text(problem, 'message')}")
            if text(problem, "hint"):
                session.terminal.data(f"  {text(problem, 'hint')}")
        if text(one, "state") == "plain":
            session.terminal.data("  a portal of 2016: it keeps the profile and connects devices, and syncs no items")
    return 0


def portal_remove_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", metavar="ACCOUNT")
    parser.add_argument("--yes", action="store_true", help="don't ask")


def portal_remove(args: argparse.Namespace, session: Session) -> int:
    answer = _given_up(args, session)
    return session.done(answer, f"{text(answer, 'account')} is used no more; what it holds stays there")


def portal_close_arguments(parser: argparse.ArgumentParser) -> None:
    portal_remove_arguments(parser)


def portal_close(args: argparse.Namespace, session: Session) -> int:
    answer = _given_up(args, session)
    account = text(answer, "account")
    return session.done(
        answer,
        f"{account} is used no more. The protocol has no word for closing it: ask who runs the portal, "
        f"who does it with: meshd portal admin account close {account}",
    )


def _given_up(args: argparse.Namespace, session: Session) -> Json:
    if not args.yes and not session.terminal.agrees(f"Use {args.account} no more, on all devices?"):
        raise ApiError("refused", "nothing was changed", None)
    return session.client.delete(path("portals", args.account))


def _step(one: Json) -> str:
    behind = number(one, "behind")
    return f"{counted(behind, 'version')} to publish" if behind else "holds everything"
