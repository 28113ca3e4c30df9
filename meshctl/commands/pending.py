"""`meshctl pending`, `accept` and `reject`: devices that ask through a portal to join."""

from __future__ import annotations

from meshctl import passphrases
from meshctl.answers import ago, records, text, texts
from meshctl.client import path
from meshd.errors import BadRequest, NotFound
from meshd.localapi.errors import ApiError

LEAST_TYPED = 4

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session


def pending_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def pending(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("pending"))
    if session.as_json:
        session.json(answer)
        return 0
    for account in texts(answer, "unreached"):
        session.terminal.talk(f"{account} could not be asked: meshctl portal status")
    waiting = records(answer, "pending")
    if not waiting:
        session.terminal.talk("no device asks to join")
        return 0
    whoami = session.client.get(path("whoami"))
    session.terminal.data(f"this mesh  {text(whoami, 'mesh')}")
    if text(whoami, "fingerprint_words"):
        session.terminal.data(f"           {text(whoami, 'fingerprint_words')}")
    for one in waiting:
        _show(session, one)
    session.terminal.talk("Compare with what the device shows, then: meshctl accept ID [--role ROLE]; or reject ID")
    return 0


def _show(session: Session, one: Json) -> None:
    how = "knows the secret of an open invitation" if text(one, "proof") == "pin1" else "to be compared"
    since = f"asked {ago(text(one, 'asked'))}" if text(one, "asked") else f"seen {ago(text(one, 'seen'))}"
    session.terminal.data(f"{text(one, 'id')}  at {text(one, 'account')}, {since}; {how}")
    session.terminal.data(f"           {text(one, 'fingerprint_words')}")
    if one.get("sealed") is False:
        session.terminal.data("           keeps its keys without a passphrase")


def accept_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="of the device; its beginning is enough")
    parser.add_argument("--role", choices=("admin", "member", "relay"), default="member", help="default: member")
    parser.add_argument("--name", metavar="NAME", help="what to call it until it says its own name")
    parser.add_argument(
        "--grant", action="append", metavar="VAULT:RIGHT", help="narrow a member's rights, e.g. ssh:read; repeatable"
    )
    parser.add_argument("--yes", action="store_true", help="the fingerprints were compared: don't ask")
    parser.add_argument("--force", action="store_true", help="allow an admin without a passphrase")
    passphrases.master_arguments(parser)


def accept(args: argparse.Namespace, session: Session) -> int:
    wanted = args.id
    if not args.yes:
        wanted = _compared(args, session)
    body: dict[str, object] = {"role": args.role}
    for name in ("name", "grant"):
        if getattr(args, name) is not None:
            body[name] = getattr(args, name)
    if args.force:
        body["force"] = True
    if args.role == "admin":
        body["master_passphrase"] = passphrases.master(args, session.terminal)
    answer = session.client.post(path("pending", wanted, "accept"), body)
    told = "" if answer.get("delivered") else "; the portal will tell it as soon as it is reached"
    return session.done(answer, f"{text(answer, 'name')} joined as {text(answer, 'role')}{told}")


def _compared(args: argparse.Namespace, session: Session) -> str:
    """Show the one device that is meant and have the person say that it is the one; its whole id."""
    if session.as_json:
        raise BadRequest("with --json nobody can compare fingerprints", hint="compare them, then say --yes")
    waiting = records(session.client.get(path("pending")), "pending")
    typed = args.id.replace("-", "").strip().upper()
    if len(typed) < LEAST_TYPED:
        raise BadRequest(
            f"an id is abbreviated to {LEAST_TYPED} characters or more", hint="as in: meshctl accept MCHU3"
        )
    fitting = [one for one in waiting if text(one, "id").replace("-", "").startswith(typed)]
    if len(fitting) != 1:
        raise NotFound("no such device asks to join, or more than one fits", hint="see: meshctl pending")
    _show(session, fitting[0])
    if not session.terminal.agrees(f"Does that device show the same? Let it in as {args.role}?"):
        raise ApiError("refused", "nothing was changed", "to tell it no: meshctl reject ID")
    return text(fitting[0], "id")


def reject_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="of the device; its beginning is enough")


def reject(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.post(path("pending", args.id, "reject"), {})
    return session.done(answer, f"{text(answer, 'id')} is told no")
