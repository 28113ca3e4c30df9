"""`meshctl password get|show|list`."""

from __future__ import annotations

from meshctl.answers import day, number, records, text, texts
from meshctl.client import path
from meshd.errors import BadRequest, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

PAGE = 5000
SECRETS = ("password", "totp", "note")


def choice_arguments(parser: argparse.ArgumentParser) -> None:
    """How one login is named: by site and, where there are several, user name; or by id."""
    parser.add_argument("site", metavar="SITE", nargs="?", help="host or URL; a unique sub- or superdomain will do")
    parser.add_argument("--username", metavar="U", help="which of several logins of the site")
    parser.add_argument("--id", metavar="ID", help="instead of SITE")
    vault_argument(parser)


def vault_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vault", metavar="NAME", help="which of several vaults of logins")


def chosen(args: argparse.Namespace, session: Session) -> Json:
    """The login that the arguments name, with its secrets. ApiError not-found or ambiguous (with candidates)."""
    if (args.site is None) == (args.id is None):
        raise BadRequest("either SITE or --id is expected")
    if args.id is not None:
        return session.client.get(path("items", args.id))
    body: dict[str, object] = {"application": "password", "site": args.site}
    if args.username is not None:
        body["username"] = args.username
    if args.vault is not None:
        body["vault"] = args.vault
    return session.client.post(path("items", "lookup"), body)


def password_get_arguments(parser: argparse.ArgumentParser) -> None:
    choice_arguments(parser)
    parser.add_argument(
        "--field",
        choices=("password", "username", "totp", "note", "url", "title"),
        default="password",
        help="default: password",
    )


def password_get(args: argparse.Namespace, session: Session) -> int:
    item = chosen(args, session)
    value = (texts(item, "sites") or [""])[0] if args.field == "url" else text(item, args.field)
    if not value and args.field != "password":
        raise NotFound(f"this login has no {args.field}")
    if number(item, "conflicts"):
        session.terminal.talk(
            f"this login has {number(item, 'conflicts') + 1} versions: meshctl conflicts show {text(item, 'id')}"
        )
    return session.give({"id": text(item, "id"), "field": args.field, "value": value}, value)


def password_show_arguments(parser: argparse.ArgumentParser) -> None:
    choice_arguments(parser)
    parser.add_argument("--reveal", action="store_true", help="print password, TOTP secret and note too")


def password_show(args: argparse.Namespace, session: Session) -> int:
    return show_item(session, chosen(args, session), reveal=args.reveal)


def show_item(session: Session, item: Json, *, reveal: bool) -> int:
    """Print a login whole, every version of it in conflict; secrets only with `reveal`."""
    if session.as_json:
        session.json(item if reveal else without_secrets(item))
        return 0
    session.terminal.data(f"{text(item, 'title')}\nid         {text(item, 'id')}")
    if item.get("pending"):
        session.terminal.data("pending    it waits here until an admin makes new keys")
    versions = records(item, "versions")
    if not versions:
        session.terminal.data(described(item, reveal))
    for place, version in enumerate(versions, 1):
        counts = ", this one counts" if version.get("winner") else ""
        session.terminal.data(f"\nversion {place} of {len(versions)}{counts}")
        session.terminal.data("deleted" if version.get("deleted") else described(version, reveal))
    return 0


def without_secrets(item: Json) -> Json:
    """The item, and every version in it, without the members that hold secrets."""
    clean = {name: value for name, value in item.items() if name not in SECRETS}
    if "versions" in clean:
        clean["versions"] = [without_secrets(version) for version in records(item, "versions")]
    return clean


def described(version: Json, reveal: bool) -> str:
    """What a login holds, in lines; secrets only with `reveal`."""
    lines = [f"site       {site}" for site in texts(version, "sites")]
    lines.append(f"user name  {text(version, 'username')}")
    for name, label in (("password", "password "), ("totp", "TOTP     "), ("note", "note     ")):
        value = text(version, name)
        if value:
            value = value.replace("\n", "\n           ")
            lines.append(f"{label}  {value if reveal else '(hidden: --reveal)'}")
    if texts(version, "tags"):
        lines.append(f"tags       {', '.join(texts(version, 'tags'))}")
    lines.append(f"changed    {day(text(version, 'updated'))} on {text(version, 'device')}")
    return "\n".join(lines)


def password_list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="WORD", nargs="?", help="only what has this in title, site or user name")
    parser.add_argument("--site", metavar="S")
    parser.add_argument("--username", metavar="U")
    parser.add_argument("--deleted", action="store_true", help="deleted logins instead")
    vault_argument(parser)


def password_list(args: argparse.Namespace, session: Session) -> int:
    query: dict[str, object] = {
        "application": "password",
        "query": args.query,
        "site": args.site,
        "username": args.username,
        "vault": args.vault,
        "deleted": True if args.deleted else None,
        "limit": PAGE,
    }
    items: list[Json] = []
    while True:
        page = session.client.get(path("items"), query)
        items += [without_secrets(item) for item in records(page, "items")]
        if not text(page, "next") or text(page, "next") == query.get("after"):
            break
        query["after"] = text(page, "next")
    if session.as_json:
        session.json({"items": items})
        return 0
    from meshctl import table

    rows = [
        (
            text(item, "title"),
            text(item, "username"),
            " ".join(texts(item, "sites")),
            "pending" if item.get("pending") else day(text(item, "updated")),
            text(item, "id"),
        )
        for item in items
    ]
    table.show(session.terminal, ("TITLE", "USER NAME", "SITES", "CHANGED", "ID"), rows)
    return 0
