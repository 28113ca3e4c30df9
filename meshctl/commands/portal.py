"""`meshctl portal add|list|status|verify|trust|remove|close`: the accounts of the mesh; see `portal_proof` too."""

from __future__ import annotations

import base64

from meshctl.answers import ago, counted, inner, number, records, text, texts
from meshctl.client import path
from meshd.errors import BadRequest, NotFound
from meshd.localapi.errors import ApiError

_NONE = "no portals: meshctl portal add NAME@PORTAL"
MOST_WAIT = 24 * 3600.0  # seconds: a portal's whole feed is read

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
        session.terminal.talk(_NONE)
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
    if not found:
        session.terminal.talk(_NONE)
    for one in found:
        session.terminal.data(f"{text(one, 'account')}: {text(one, 'state')}, {_step(one)}")
        session.terminal.data(f"  last reached: {ago(text(one, 'last_success'))}")
        problem = inner(one, "error")
        if problem:
            session.terminal.data(f"  {text(problem, 'message')}")
            if text(problem, "hint"):
                session.terminal.data(f"  {text(problem, 'hint')}")
        session.terminal.data(f"  {_log(inner(one, 'log'))}")
        for key in texts(inner(one, "log"), "keys") if args.account is not None else ():
            session.terminal.data(f"  key: {key}")
        if text(one, "state") == "plain":
            session.terminal.data("  a portal of 2016: it keeps the profile and connects devices, and syncs no items")
    return 0


def portal_verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", metavar="ACCOUNT", nargs="?", help="one account; all without it")
    parser.add_argument("--evidence", metavar="FILE", help="write what shows that a portal contradicted itself")
    parser.add_argument("--proof", metavar="FILE", help="write a proof that others can check: portal check-proof")
    parser.add_argument("--item", metavar="ID", help="… of this item; else of what this device published last")


def portal_verify(args: argparse.Namespace, session: Session) -> int:
    accounts = [text(one, "account") for one in records(session.client.get(path("portals")), "portals")]
    if args.account is not None:
        accounts = [args.account]
    body: Json = {}
    if args.item is not None and args.proof is None:
        raise BadRequest("--item says of what the proof is: give --proof FILE too")
    if args.proof is not None:
        if len(accounts) != 1:
            raise BadRequest("a proof is of one portal", hint="name the account: meshctl portal list")
        body = {"proof": True} | ({"item": args.item} if args.item is not None else {})
    found = [_verified(session, account, body) for account in accounts]
    shown = [one for one in found if text(one, "evidence")]
    if args.evidence is not None:
        if len(shown) != 1:
            raise NotFound(
                "there is no evidence", hint="no portal has contradicted itself, or several: name the account"
            )
        _write(args.evidence, base64.urlsafe_b64decode(text(shown[0], "evidence") + "=="))
        session.terminal.talk(f"{args.evidence} shows it to whoever has the log's key: meshctl portal check-proof")
    if args.proof is not None:
        if not text(found[0], "proof"):
            raise NotFound(f"the portal has proved nothing of that: {text(found[0], 'message')}")
        _write(args.proof, text(found[0], "proof").encode())
    if session.as_json:
        session.json({"portals": found})
    elif not found:
        session.terminal.talk(_NONE)
    for one in found if not session.as_json else ():
        session.terminal.data(f"{text(one, 'account')}: {text(one, 'verdict')}: {text(one, 'message')}")
        proved, siblings = number(one, "proved"), number(one, "siblings")
        if proved:
            session.terminal.data(f"  {counted(proved, 'version')} proved; {counted(siblings, 'other device')} agreed")
        if text(one, "proof"):
            session.terminal.data(f"{args.proof} proves that it has {text(one, 'entry')}; to check it:")
            keys = " ".join(f"--key '{key}'" for key in texts(inner(one, "log"), "keys"))
            session.terminal.data(f"  meshctl portal check-proof {args.proof} {keys}")
    bad = [one for one in found if text(one, "verdict") in ("uncosigned", "suspect", "contradicted", "intrusion")]
    if bad:
        return 10
    return 1 if any(text(one, "verdict") == "unreachable" for one in found) else 0


def _verified(session: Session, account: str, body: Json) -> Json:
    """The verdict. On a terminal it is shown how far it is, which another request tells."""
    if session.as_json or not session.terminal.rich:
        return session.client.post(path("portals", account, "verify"), body, wait=MOST_WAIT)
    from concurrent.futures import Future, wait
    from threading import Thread

    came: Future[Json] = Future()

    def ask() -> None:
        try:
            came.set_result(session.client.post(path("portals", account, "verify"), body, wait=MOST_WAIT))
        except BaseException as exc:  # for who waits
            came.set_exception(exc)

    Thread(target=ask, daemon=True).start()
    told = False
    while not wait([came], timeout=1.0).done:
        for one in records(session.client.get(path("portals")), "portals"):
            done, of = (number(inner(one, "verifying"), name) for name in ("done", "of"))
            if of and text(one, "account") == account:
                session.terminal.redraw(f"{account}: {done} of about {of} versions proved")
                told = True
    if told:
        session.terminal.redraw("")
    return came.result()


def _write(name: str, data: bytes) -> None:
    """Never over what is there."""
    try:
        with open(name, "xb") as file:
            file.write(data)
    except OSError as exc:
        raise ApiError("bad-request", f"{name} can't be written: {exc.strerror}", "give another file") from exc


def portal_trust_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", metavar="ACCOUNT")
    parser.add_argument("--anew", action="store_true", required=True, help="forget what was held against it")
    parser.add_argument("--yes", action="store_true", help="don't ask")


def portal_trust(args: argparse.Namespace, session: Session) -> int:
    if not args.yes and not session.terminal.agrees(f"Forget what {args.account} proved, and believe it anew?"):
        raise ApiError("refused", "nothing was changed", None)
    answer = session.client.post(path("portals", args.account, "trust"), {})
    return session.done(answer, f"{text(answer, 'account')}: its log is taken as at a first contact, on this device")


def portal_remove_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", metavar="ACCOUNT")
    parser.add_argument("--yes", action="store_true", help="don't ask")


def portal_remove(args: argparse.Namespace, session: Session) -> int:
    _asked(args, session, f"Use {args.account} no more, on all devices?")
    answer = session.client.delete(path("portals", args.account))
    return session.done(answer, f"{text(answer, 'account')} is used no more; what it holds stays there")


def portal_close_arguments(parser: argparse.ArgumentParser) -> None:
    portal_remove_arguments(parser)


def portal_close(args: argparse.Namespace, session: Session) -> int:
    _asked(args, session, f"Close {args.account} for ever? Nobody gets that name again.")
    answer = session.client.post(path("portals", args.account, "close"), {})
    return session.done(answer, f"{text(answer, 'account')} is closed, and used no more on any device")


def _asked(args: argparse.Namespace, session: Session, question: str) -> None:
    if not args.yes and not session.terminal.agrees(question):
        raise ApiError("refused", "nothing was changed", None)


def _log(log: Json) -> str:
    if text(log, "state") in ("", "none"):
        return "keeps no log: what it shows or withholds can't be verified"
    size, checked = counted(number(log, "size"), "entry", "entries"), ago(text(log, "checked"))
    return f"its log: {text(log, 'state')}, {size}, looked at {checked}"


def _step(one: Json) -> str:
    behind = number(one, "behind")
    return f"{counted(behind, 'version')} to publish" if behind else "holds everything"
