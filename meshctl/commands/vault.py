"""`meshctl vault …` and `meshctl rotate`: several vaults of one application, and new keys for them."""

from __future__ import annotations

from meshctl import table
from meshctl.answers import counted, number, records, text
from meshctl.client import path
from meshctl.commands.removal import vault_name
from meshd.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.session import Session


def vault_list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deleted", action="store_true", help="deleted ones too")


def vault_list(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("applications"), {"deleted": True} if args.deleted else None)
    vaults = records(answer, "applications")
    if session.as_json:
        session.json({"vaults": vaults})
        return 0
    rows = []
    for vault in vaults:
        right = "write" if vault.get("writable") else "read"
        state = "deleted" if vault.get("deleted") else right if vault.get("readable") else "not readable here"
        items = str(number(vault, "items")) if vault.get("readable") else "?"
        rows.append((vault_name(vault), items, state, text(vault, "id")))
    table.show(session.terminal, ("VAULT", "ITEMS", "THIS DEVICE", "ID"), rows)
    return 0


def vault_create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="[APP/]NAME", help="work, or password/work")
    parser.add_argument("--application", metavar="APP", help="default: password")


def vault_create(args: argparse.Namespace, session: Session) -> int:
    application, slash, name = args.name.partition("/")
    if not slash or args.application is not None:
        application, name = args.application or "password", args.name
    answer = session.client.post(path("vaults"), {"application": application, "name": name})
    return session.done(answer, f"made {vault_name(answer)}; whoever may read all vaults reads it")


def vault_rename_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vault", metavar="VAULT", help="password/work, its name alone, or its id")
    parser.add_argument("name", metavar="NAME", help="the new name")


def vault_rename(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.patch(path("vaults", args.vault), {"name": args.name})
    return session.done(answer, f"renamed to {vault_name(answer)}")


def vault_delete_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vault", metavar="VAULT")
    parser.add_argument("--yes", action="store_true", help="don't ask (nor is asked where stdin is no terminal)")


def vault_delete(args: argparse.Namespace, session: Session) -> int:
    terminal = session.terminal
    if (
        not args.yes
        and terminal.stdin.isatty()
        and not terminal.agrees(f"Hide the vault {args.vault} and everything in it on every device?")
    ):
        raise Refused("nothing was deleted")
    answer = session.client.delete(path("vaults", args.vault))
    return session.done(answer, f"deleted {vault_name(answer)}; to take it back: meshctl vault restore {args.vault}")


def vault_restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vault", metavar="VAULT", help="see: meshctl vault list --deleted")


def vault_restore(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.patch(path("vaults", args.vault), {"deleted": False})
    return session.done(answer, f"{vault_name(answer)} is back with {counted(number(answer, 'items'), 'item')}")


def rotate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vault", metavar="VAULT", help="this one alone (default: all)")


def rotate(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.post(path("rotations"), {} if args.vault is None else {"vault": args.vault})
    vaults = records(answer, "rotated")
    names = ", ".join(map(vault_name, vaults))
    return session.done(answer, f"new keys for {counted(len(vaults), 'vault')}: {names}")
