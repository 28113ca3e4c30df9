"""`meshctl recovery …`: shares that bring the mesh back when every device is lost."""

from __future__ import annotations

from meshctl import giving, passphrases, shares, table
from meshctl.answers import ago, counted, day, inner, number, records, text, texts
from meshctl.client import path
from meshd.errors import BadRequest, MeshError, Refused
from meshd.localapi.errors import ATTACK, OK, ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session


# --- create, refresh, revoke ------------------------------------------------------------------------------------------


def recovery_create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threshold", metavar="T", type=int, help="shares that are needed (default 3; as before)")
    parser.add_argument("--shares", metavar="N", type=int, help="shares that are made (default 5; as before)")
    parser.add_argument("--label", metavar="A,B,…", help="for whom they are, in order")
    parser.add_argument(
        "--group", metavar="NAME:TofN", action="append", help="a group of shares, instead of these; repeat it"
    )
    parser.add_argument("--group-threshold", metavar="T", type=int, help="groups that are needed (default all)")
    parser.add_argument("--strength", type=int, choices=(256, 128), help="bits: 33 words a share, or 20 (default 256)")
    parser.add_argument("--out", metavar="DIR", help="write one file for each share, readable by you alone")
    parser.add_argument("--pages", metavar="DIR", help="write one page to print for each share")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--html", action="store_true", help="pages in HTML, with a QR (default)")
    form.add_argument("--text", action="store_true", help="pages in plain text")
    passphrases.share_arguments(parser)
    passphrases.wanted_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="they count without asking whether they are written down")


recovery_refresh_arguments = recovery_create_arguments


def recovery_create(args: argparse.Namespace, session: Session) -> int:
    """Shares, told first and then made to count: whatever happens between, nothing is lost."""
    return _create(args, session, replace=False)


def recovery_refresh(args: argparse.Namespace, session: Session) -> int:
    """New shares in place of those that there are, with what stands in the entry and the keys of vaults made anew."""
    return _create(args, session, replace=True)


def _create(args: argparse.Namespace, session: Session, *, replace: bool) -> int:
    terminal = session.terminal
    on_screen = args.out is None and args.pages is None
    if on_screen and (session.as_json or not (terminal.rich and terminal.stdin.isatty())):
        raise BadRequest("there is no terminal to show shares on", hint="write them: --out DIR, or --pages DIR")
    wish = _wish(args, replace=replace)
    proof: Json = {"master_passphrase": passphrases.master(args, terminal)}
    if args.master_file is not None:
        proof["master_file"] = passphrases.whole_file(args.master_file)
    if (secret := passphrases.of_shares(args, terminal, new=True)) is not None:
        wish["share_passphrase"] = secret
    shares.no_core()
    if on_screen:
        terminal.talk("making the shares …")
    told = session.client.post(path("recovery", "shares"), wish | proof)
    about = _about(session, told, passphrase=secret is not None)
    files: list[str] = []
    if args.out is not None:
        files += shares.write(args.out, told, about, form="text")
    if args.pages is not None:
        try:
            files += shares.write(args.pages, told, about, form="text" if args.text else "html")
        except MeshError:
            shares.remove(files)
            raise
    if on_screen:
        shares.show(terminal, told, about)
        terminal.discard()
        if not args.yes and not terminal.agrees("Is every share written down? From now on they count."):
            raise Refused("nothing was changed; throw away what you wrote down")
    try:
        answer = session.client.post(path("recovery", "commit"), {"token": text(told, "token")} | proof)
    except ApiError:
        shares.remove(files)
        raise
    except MeshError as exc:
        raise MeshError(
            f"it is not known whether these shares count ({exc})",
            hint=f"see whether they are listed: meshctl recovery status, set {text(told, 'set')}",
        ) from None
    answer |= {"check": text(told, "check"), "files": files}
    many = counted(len(records(told, "shares")), "share")
    more = f", in {counted(len(files), 'file')}: give them away, and delete these" if files else ""
    return session.done(answer, f"{many} of the set {text(told, 'set')} count now{more}; then: meshctl recovery drill")


def _wish(args: argparse.Namespace, *, replace: bool) -> Json:
    wish: Json = {"replace": replace}
    if args.group:
        if args.threshold is not None or args.shares is not None:
            raise BadRequest("either --group, or --threshold and --shares")
        wish["groups"] = [_group(spec) for spec in args.group]
    names = {"threshold": args.threshold, "shares": args.shares, "strength": args.strength}
    names["group_threshold"] = args.group_threshold
    wish |= {name: value for name, value in names.items() if value is not None}
    if args.label:
        wish["labels"] = [label.strip() for label in args.label.split(",")]
    return wish


def _group(spec: str) -> Json:
    name, _, counts = spec.rpartition(":")
    needed, _, made = counts.partition("of")
    if not needed.isdecimal() or not made.isdecimal():
        raise BadRequest("a group is NAME:TofN, as in family:2of3")
    return {"name": name, "threshold": int(needed), "shares": int(made)}


def _about(session: Session, told: Json, *, passphrase: bool) -> Json:
    """What stands on a share besides its words."""
    status = session.client.get(path("status"))
    groups = records(told, "groups")
    listed = ", ".join(
        f"{number(one, 'threshold')} of {number(one, 'shares')} {text(one, 'name')}".rstrip() for one in groups
    )
    some = f"{number(told, 'group_threshold')} of these groups: " if len(groups) > 1 else ""
    needed = f"needed: {some}{listed}{', and their passphrase' if passphrase else ''}"
    accounts = [text(portal, "account") for portal in records(status, "portals")]
    return {"mesh": text(status, "mesh"), "accounts": accounts, "needed": needed}


def recovery_revoke_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="don't ask")
    passphrases.wanted_arguments(parser)


def recovery_revoke(args: argparse.Namespace, session: Session) -> int:
    terminal = session.terminal
    if not args.yes:
        if not terminal.stdin.isatty():
            raise BadRequest("there is nobody to ask", hint="--yes goes ahead without asking")
        if not terminal.agrees("Without shares a mesh whose devices are all lost is lost. Give them up?"):
            raise Refused("nothing was changed")
    answer = passphrases.with_master(
        args, session, {}, lambda body: session.client.post(path("recovery", "revoke"), body), needed=True
    )
    return session.done(answer, "no shares count any more; throw them away")


# --- check-share ------------------------------------------------------------------------------------------------------


def recovery_check_share_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--share-file", metavar="F", action="append", help="read the share from F; repeat it")


def recovery_check_share(args: argparse.Namespace, session: Session) -> int:
    """Is it a share, and does it count? 10 where it does not."""
    files = args.share_file or []
    answers = [session.client.post(path("recovery", "check"), {"words": shares.from_file(name)}) for name in files]
    if not files:
        answers.append(giving.one_share(session, "check"))
    if session.as_json:
        session.json(answers[0] if len(answers) == 1 else {"checked": answers})
    else:
        for place, answer in enumerate(answers):
            giving.tell_fault(session, answer, files[place] if len(files) > 1 else "")
            if files:
                giving.show_likely(session, answer)
    return OK if all(answer.get("ok") is True for answer in answers) else ATTACK


# --- drill ------------------------------------------------------------------------------------------------------------


def recovery_drill_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--share-file", metavar="F", action="append", help="read a share from F; repeat it")
    parser.add_argument("--forget", action="store_true", help="forget the shares that were given so far, and stop")
    parser.add_argument("--check", metavar="LETTERS", help="what stands beside the shares: tells a wrong passphrase")
    passphrases.share_arguments(parser)


def recovery_drill(args: argparse.Namespace, session: Session) -> int:
    """Rehearse a recovery; 10 where it would not work."""
    client = session.client
    if args.forget:
        return session.done(client.delete(path("recovery", "drill")), "forgotten")
    if args.share_file:
        lacking = "any share"
        for name in args.share_file:
            answer = client.post(path("recovery", "drill", "shares"), {"words": shares.from_file(name)})
            if answer.get("ok") is not True and answer.get("fault") != "duplicate":
                raise MeshError(f"{name}: {text(answer, 'message')}")
            lacking = text(answer, "lacking")
        if lacking:
            raise giving.not_enough(lacking)
    else:
        known = client.get(path("recovery"))
        if not records(known, "entries"):
            raise MeshError("this mesh has no recovery shares", hint="make some: meshctl recovery create")
        given = number(known, "drill_given")
        giving.enough_shares(session, "drill", given, "any share")
    body: Json = {}
    if (secret := passphrases.of_shares(args, session.terminal)) is not None:
        body["share_passphrase"] = secret
    if args.check:
        body["check"] = args.check
    answer = client.post(path("recovery", "drill"), body)
    _tell_drill(session, answer)
    return OK if answer.get("success") is True else ATTACK


def _tell_drill(session: Session, answer: Json) -> None:
    if session.as_json:
        session.json(answer)
        return
    rows = [(text(one, "where"), text(one, "what"), text(one, "why")) for one in records(answer, "sources")]
    table.show(session.terminal, ("FROM", "ENTRY", ""), rows)
    vaults = records(answer, "vaults")
    for one in vaults:
        if one.get("opens") is not True:
            session.terminal.talk(f"the vault {text(one, 'application')} would not open: {text(one, 'why')}")
    if text(answer, "why"):
        session.terminal.talk(text(answer, "why"))
    if answer.get("success") is True:
        session.terminal.talk(f"these shares bring back the master key and {counted(len(vaults), 'vault')}")
    else:
        session.terminal.talk("a recovery would not have gone well: see above")


# --- status -----------------------------------------------------------------------------------------------------------


def recovery_status_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing more."""


def recovery_status(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("recovery"))
    if session.as_json:
        session.json(answer)
        return OK
    terminal, entries = session.terminal, records(answer, "entries")
    if not entries:
        terminal.talk("no recovery shares: when every device is lost, all is lost; make some: meshctl recovery create")
    for entry in entries:
        if groups := records(entry, "groups"):
            scheme = ", ".join(
                f"{number(one, 'threshold')} of {number(one, 'shares')} {text(one, 'name')}".rstrip() for one in groups
            )
            terminal.data(f"set {text(entry, 'set')} of {day(text(entry, 'made'))}: {scheme}")
        else:
            terminal.data(f"entry {text(entry, 'entry')}: what was noted of its shares has not come here")
        if labels := texts(entry, "labels"):
            terminal.data(f"  shares: {', '.join(labels)}")
        drill = inner(entry, "drill")
        went = "" if not drill else ", it went well" if drill.get("success") is True else ", it did NOT go well"
        terminal.data(f"  last drill: {ago(text(drill, 'date'))}{went}")
        for one in records(entry, "held"):
            terminal.data(
                f"  {'held by' if one.get('holds') is True else 'not known to be held by'} {text(one, 'where')}"
            )
    for old in records(answer, "old"):
        terminal.data(f"set {text(old, 'set')} of {day(text(old, 'made'))} was replaced: throw its shares away")
    if answer.get("due") is True:
        terminal.talk("a drill is due: meshctl recovery drill")
    return OK
