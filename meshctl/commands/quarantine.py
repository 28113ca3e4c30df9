"""`meshctl quarantine …`: what was written by who was not entitled to; nothing applied, nothing lost."""

from __future__ import annotations

from meshctl import table
from meshctl.answers import counted, day, inner, number, records, text
from meshctl.client import path
from meshctl.commands.password_read import described, without_secrets
from meshd.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

SHORT = 12  # characters of an id that stand for it


def quarantine_list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all", action="store_true", help="profiles and vaults, older versions of one item and imported ones too"
    )


def quarantine_list(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("quarantine"), {"all": True} if args.all else None)
    if session.as_json:
        session.json(answer)
        return 0
    entries = records(answer, "quarantine")
    rows = [
        (
            text(entry, "id")[:SHORT],
            text(entry, "device"),
            text(entry, "title") or _kind(entry),
            day(text(entry, "received")),
            "imported" if entry.get("imported") else text(entry, "why"),
        )
        for entry in entries
        if args.all or text(entry, "kind") == "item"
    ]
    table.show(session.terminal, ("ID", "DEVICE", "WHAT", "RECEIVED", "WHY"), rows)
    if len(rows) < len(entries):
        rest = counted(len(entries) - len(rows), "profile or vault", "profiles and vaults")
        session.terminal.talk(f"and {rest}, which can't be imported (--all)")
    fell = records(answer, "fell")
    if fell:
        session.terminal.talk(f"fell with the admin who had added it: {', '.join(text(one, 'text') for one in fell)}")
        session.terminal.talk("  to take it back: meshctl quarantine confirm NAME")
    return 0


def _kind(entry: Json) -> str:
    """What it is, where it has no title: `profile`, `ssh item`."""
    application, kind = text(entry, "application"), text(entry, "kind")
    return f"{application} {kind}" if application and kind == "item" else kind


def quarantine_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="of a version, its beginning, or of an item")
    parser.add_argument("--reveal", action="store_true", help="print passwords too")


def quarantine_show(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("quarantine", args.id))
    content, now = inner(answer, "content"), inner(answer, "now")
    if session.as_json:
        if not args.reveal:
            clean = {"content": without_secrets(content), "now": without_secrets(now) if now else None}
            answer = answer | clean
        session.json(answer)
        return 0
    terminal = session.terminal
    terminal.data(f"{text(answer, 'title') or _kind(answer)}\nid         {text(answer, 'id')}")
    terminal.data(f"item       {text(answer, 'item')}")
    terminal.data(f"received   {day(text(answer, 'received'))}")
    terminal.data(f"why        {text(answer, 'why')}")
    terminal.data("\nin quarantine")
    terminal.data(
        _content(content | {"updated": text(answer, "updated"), "device": text(answer, "device")}, args.reveal)
    )
    terminal.data("\napplied now")
    terminal.data(_content(now, args.reveal) if now else "nothing")
    return 0


def _content(content: Json, reveal: bool) -> str:
    return "deleted" if content.get("deleted") else described(content, reveal)


def quarantine_confirm_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="a device or vault, as quarantine list names it")


def quarantine_confirm(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.post(path("quarantine", "confirm"), {"names": args.names})
    said = ", ".join(text(one, "text") for one in records(answer, "confirmed"))
    return session.done(answer, f"taken back: {said}; what was written there so far: meshctl quarantine import")


def quarantine_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="*", help="as quarantine list shows them")
    parser.add_argument("--device", metavar="DEVICE", help="instead: everything that this device wrote")


def quarantine_import(args: argparse.Namespace, session: Session) -> int:
    if bool(args.ids) == (args.device is not None):
        raise BadRequest("either ID or --device is expected")
    body: dict[str, object] = {"ids": args.ids} if args.ids else {"device": args.device}
    answer = session.client.post(path("quarantine", "import"), body)
    rejected = records(answer, "rejected")
    if session.as_json:
        session.json(answer)
    else:
        for one in rejected:
            session.terminal.talk(f"{text(one, 'id')[:SHORT]}: {text(one, 'reason')}")
        unchanged = number(answer, "unchanged")
        same = f", {unchanged} that the vault says already" if unchanged else ""
        session.terminal.talk(f"imported {counted(len(records(answer, 'imported')), 'item')}{same}")
    return 1 if rejected else 0
