"""`meshctl password add|edit|rm|generate`. Passwords are asked for, made, or read from stdin; never arguments."""

from __future__ import annotations

from meshctl.answers import text
from meshctl.client import path
from meshctl.commands.password_read import choice_arguments, chosen, vault_argument
from meshd.errors import BadRequest, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

MAX_NOTE = 65536


def password_add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", metavar="S", action="append", required=True, help="host or URL; repeatable")
    parser.add_argument("--username", metavar="U", default="")
    vault_argument(parser)
    _more_arguments(parser)
    _generate_arguments(parser, alone=False)


def password_add(args: argparse.Namespace, session: Session) -> int:
    body: dict[str, object] = {"application": "password", "sites": args.site, "username": args.username}
    if args.vault is not None:
        body["vault"] = args.vault
    _more(args, session, body)
    _password(args, session, body)
    answer = session.client.post(path("items"), body)
    return session.done(answer, f"added {args.site[0]} · {args.username}{_pending(answer)}")


def password_edit_arguments(parser: argparse.ArgumentParser) -> None:
    choice_arguments(parser)
    parser.add_argument(
        "--password", action="store_true", help="the password too (the default when nothing else is changed)"
    )
    parser.add_argument("--new-username", metavar="U")
    parser.add_argument("--site", metavar="S", action="append", dest="sites", help="replaces the sites; repeatable")
    parser.add_argument("--no-note", action="store_true", help="remove the note")
    parser.add_argument("--no-totp", action="store_true", help="remove the TOTP secret")
    _more_arguments(parser)
    _generate_arguments(parser, alone=False)


def password_edit(args: argparse.Namespace, session: Session) -> int:
    item = chosen(args, session)
    body: dict[str, object] = {}
    if args.new_username is not None:
        body["username"] = args.new_username
    if args.sites is not None:
        body["sites"] = args.sites
    _more(args, session, body)
    if args.no_note:
        body["note"] = None
    if args.no_totp:
        body["totp"] = None
    if args.password or args.generate or not body:
        _password(args, session, body)
    answer = session.client.patch(path("items", text(item, "id")), body)
    name = f"{text(item, 'title')} · {body.get('username', text(item, 'username'))}"
    return session.done(answer, f"changed {name}{_pending(answer)}")


def password_rm_arguments(parser: argparse.ArgumentParser) -> None:
    choice_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="don't ask (nor is asked where stdin is no terminal)")


def password_rm(args: argparse.Namespace, session: Session) -> int:
    item = chosen(args, session)
    name = f"{text(item, 'title')} · {text(item, 'username')}"
    if (
        not args.yes
        and session.terminal.stdin.isatty()
        and not session.terminal.agrees(f"Delete {name} on every device?")
    ):
        raise Refused("nothing was deleted")
    answer = session.client.delete(path("items", text(item, "id")))
    return session.done(answer, f"deleted {name}{_pending(answer)}")


def _pending(answer: Json) -> str:
    """What is said of a write that no key is fit for yet."""
    return " · pending: it is kept here until an admin makes new keys" if answer.get("pending") else ""


def password_generate_arguments(parser: argparse.ArgumentParser) -> None:
    _generate_arguments(parser, alone=True)


def password_generate(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.post(path("generate"), _recipe(args))
    return session.give(answer, text(answer, "password"))


def _generate_arguments(parser: argparse.ArgumentParser, *, alone: bool) -> None:
    if not alone:
        parser.add_argument("--generate", action="store_true", help="let meshd make the password")
    parser.add_argument("--length", metavar="N", type=int, help="characters of a generated password (default 20)")
    parser.add_argument("--no-symbols", action="store_true", help="letters and digits only")
    parser.add_argument("--words", metavar="N", type=int, help="generate a phrase of N words")


def _more_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--title", metavar="T")
    note = parser.add_mutually_exclusive_group()
    note.add_argument(
        "--note", metavar="TEXT", help="others on this machine can see arguments: secrets go into --note-file"
    )
    note.add_argument("--note-file", metavar="F", help="read the note from F")
    parser.add_argument("--tag", metavar="T", action="append", help="repeatable")
    parser.add_argument(
        "--totp", action="store_true", help="ask for a TOTP secret, or read it after the password from stdin"
    )


def _recipe(args: argparse.Namespace) -> dict[str, object]:
    recipe: dict[str, object] = {}
    if args.length is not None:
        recipe["length"] = args.length
    if args.no_symbols:
        recipe["symbols"] = False
    if args.words is not None:
        recipe["words"] = args.words
    return recipe


def _password(args: argparse.Namespace, session: Session, body: dict[str, object]) -> None:
    """Put the password into the body: made by the daemon, stdin's first line, or asked for twice."""
    recipe = _recipe(args)
    if args.generate:
        body["generate"] = recipe
    elif recipe:
        raise BadRequest("--length, --no-symbols and --words go with --generate")
    elif session.terminal.stdin.isatty():
        body["password"] = session.terminal.ask_new("Password")
    else:
        body["password"] = session.terminal.line()
    if args.totp:
        body["totp"] = (
            session.terminal.ask("TOTP secret: ") if session.terminal.stdin.isatty() else session.terminal.line()
        )


def _more(args: argparse.Namespace, session: Session, body: dict[str, object]) -> None:
    if args.title is not None:
        body["title"] = args.title
    if args.note is not None:
        body["note"] = args.note
    if args.note_file is not None:
        body["note"] = _read_note(args.note_file)
    if args.tag is not None:
        body["tags"] = args.tag


def _read_note(name: str) -> str:
    try:
        with open(name, encoding="utf-8") as file:
            note = file.read(MAX_NOTE + 1)
    except UnicodeDecodeError:
        raise BadRequest(f"{name}: not UTF-8") from None
    except OSError as exc:
        raise BadRequest(f"{name}: {exc.strerror}") from None
    if len(note) > MAX_NOTE:
        raise BadRequest(f"{name}: longer than {MAX_NOTE} characters")
    return note
