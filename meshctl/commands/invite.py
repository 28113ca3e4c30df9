"""`meshctl invite`: a code, a QR, a countdown, and who joined."""

from __future__ import annotations

from meshctl import passphrases
from meshctl.answers import inner, number, text
from meshctl.client import path
from meshctl.terminal import shown
from meshctl.waiting import follow
from meshd.errors import BadRequest, MeshError, NotSynced, PossibleAttack
from meshd.localapi.errors import ApiError, from_body

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from meshctl.answers import Json
    from meshctl.session import Session

ENDS = ("admitted", "burned", "expired", "cancelled", "failed")


def invite_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--role", choices=("admin", "member", "relay"), default="member", help="default: member")
    parser.add_argument("--ttl", type=int, metavar="S", help="seconds until the code expires (default 300)")
    parser.add_argument("--words", type=int, metavar="N", help="words in the code (default 2)")
    parser.add_argument("--remote", action="store_true", help="let a device join that is not on this network")
    parser.add_argument(
        "--portal", action="store_true", help="make a URI that works at any distance, through the portal"
    )
    parser.add_argument("--account", metavar="ACCOUNT", help="with --portal, where the mesh has several")
    parser.add_argument("--confirm", action="store_true", help="ask before the device is admitted")
    parser.add_argument(
        "--grant", action="append", metavar="APP:RIGHT", help="narrow a member's rights, e.g. password:read; repeatable"
    )
    parser.add_argument(
        "--replaces", metavar="DEVICE", help="the new device takes this one's place, role and rights; it leaves"
    )
    parser.add_argument("--force", action="store_true", help="allow an admin without a passphrase")
    parser.add_argument("--no-wait", action="store_true", help="return at once; the code stays valid until it expires")
    parser.add_argument("--no-qr", action="store_true", help="don't draw the QR code")
    passphrases.master_arguments(parser)


def invite(args: argparse.Namespace, session: Session) -> int:
    if args.portal:
        return _through_portal(args, session)
    body: dict[str, object] = {"role": args.role}
    for name in ("ttl", "words", "grant", "replaces"):
        if getattr(args, name) is not None:
            body[name] = getattr(args, name)
    for name in ("remote", "confirm", "force"):
        if getattr(args, name):
            body[name] = True
    needed = args.role == "admin" or args.master_passphrase_file is not None
    where = path("invitations")
    first = passphrases.with_master(args, session, body, lambda body: session.client.post(where, body), needed=needed)
    where = path("invitations", text(first, "id"))
    if session.as_json:
        session.json(first)
    else:
        _show(session, first, qr=not args.no_qr)
    if args.no_wait:
        return 0

    left = number(first, "attempts_left")

    def changed(now: Json) -> None:
        nonlocal left
        before, left = left, number(now, "attempts_left")
        session.terminal.redraw("")
        if session.as_json:
            session.json(now)
        elif text(now, "state") == "proving":
            session.terminal.talk("a device is trying the code")
        elif text(now, "state") == "open":
            went = "the code was wrong" if left < before else "it went away again"
            session.terminal.talk(f"{went}: {left} tries left")
        if text(now, "state") == "asked":
            accept = _asked(session, inner(now, "device"))
            session.client.post(where + "/answer", {"accept": accept})

    end = follow(session, where, first, ends=ENDS, changed=changed, tick=_countdown(session))
    session.terminal.redraw("")
    return _outcome(session, end)


def _through_portal(args: argparse.Namespace, session: Session) -> int:
    """A secret that nobody can guess, in place of a code and a comparison."""
    if args.words is not None or args.remote or args.confirm:
        raise BadRequest("--portal makes a secret of its own: --words, --remote and --confirm do not go with it")
    body: dict[str, object] = {"role": args.role}
    for name in ("ttl", "grant", "account"):
        if getattr(args, name) is not None:
            body[name] = getattr(args, name)
    if args.force:
        body["force"] = True
    if args.role == "admin":
        body["master_passphrase"] = passphrases.master(args, session.terminal)
    first = session.client.post(path("remote-invitations"), body)
    if session.as_json:
        session.json(first)
    else:
        if session.terminal.rich and not args.no_qr:
            _draw(session, text(first, "uri"))
        session.terminal.data(text(first, "uri"))
        session.terminal.talk("On the other device: meshctl connect 'THIS LINE', in quotes. Who sees it can join.")
    if args.no_wait:
        return 0
    end = follow(
        session,
        path("remote-invitations", text(first, "id")),
        first,
        ends=ENDS,
        changed=lambda now: session.json(now) if session.as_json else None,
        tick=_countdown(session),
    )
    session.terminal.redraw("")
    return _outcome(session, end)


def _outcome(session: Session, end: Json) -> int:
    state = text(end, "state")
    if state == "admitted":
        device = inner(end, "device")
        if not session.as_json:
            session.terminal.data(f"{text(device, 'name')} joined as {text(end, 'role')}")
            if text(device, "fingerprint"):
                session.terminal.data(f"fingerprint {text(device, 'fingerprint')}")
        return 0
    told = inner(end, "error")
    if state == "burned":
        raise PossibleAttack(
            "the code was guessed wrongly too often, so it is void", hint="run meshctl invite for another one"
        )
    if state == "expired":
        raise NotSynced("nobody joined before the code expired", hint="run meshctl invite for another one")
    if state == "failed":
        raise from_body({"error": told}) if told else MeshError("the device could not join")
    raise ApiError("refused", "the invitation was cancelled", None)


def _show(session: Session, invitation: Json, *, qr: bool) -> None:
    terminal = session.terminal
    if not terminal.rich:
        terminal.data(text(invitation, "code"))
        return
    if qr and text(invitation, "uri"):
        _draw(session, text(invitation, "uri"))
    terminal.styled(f"\n    {terminal.bold(text(invitation, 'code'))}\n")
    terminal.styled(f"On the other device:  meshctl connect {shown(text(invitation, 'code'))}")


def _draw(session: Session, uri: str) -> None:
    from io import StringIO

    import segno  # 60 ms: only when something is drawn

    try:
        picture = StringIO()
        segno.make(uri, error="l", micro=False).terminal(picture, compact=True, border=2)
    except ValueError:
        return  # too long for a QR: the code is enough
    lines = picture.getvalue().splitlines()
    if lines and max(map(len, lines)) <= session.terminal.width:  # a broken QR is worse than none
        session.terminal.styled("\n".join(lines))


def _asked(session: Session, device: Json) -> bool:
    fingerprint = text(device, "fingerprint") or text(device, "id")
    question = f"{text(device, 'name')} wants to join (fingerprint {fingerprint}). Admit it?"
    return session.terminal.agrees(question)


def _countdown(session: Session) -> Callable[[Json], None] | None:
    """A function that shows the time left, where that can be shown."""
    if session.as_json or not session.terminal.stderr.isatty():
        return None
    from datetime import UTC, datetime

    def tick(now: Json) -> None:
        try:
            left = datetime.fromisoformat(text(now, "expires")) - datetime.now(UTC)
        except (ValueError, TypeError):
            raise BadRequest("the daemon tells no time of expiry") from None
        seconds = max(0, int(left.total_seconds()))
        session.terminal.redraw(f"waiting for it … {seconds // 60}:{seconds % 60:02} left, Ctrl-C cancels")

    return tick
