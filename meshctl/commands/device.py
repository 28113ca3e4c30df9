"""`meshctl device …`: the devices of the mesh. A device is named by its name, its id, or the id's unique beginning."""

from __future__ import annotations

from meshctl import table
from meshctl.answers import day, number, records, text, texts
from meshctl.client import path
from meshctl.commands.device_rights import rights
from meshd.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session


def device_list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--removed", action="store_true", help="the removed ones instead, and who has heard of it")


def device_list(args: argparse.Namespace, session: Session) -> int:
    if args.removed:
        return _removed(session)
    answer = session.client.get(path("devices"))
    if session.as_json:
        session.json(answer)
        return 0
    rows = [
        (text(device, "name"), text(device, "role"), _presence(device), text(device, "id"))
        for device in records(answer, "devices")
    ]
    table.show(session.terminal, ("NAME", "ROLE", "LAST SEEN", "ID"), rows)
    return 0


def _removed(session: Session) -> int:
    answer = session.client.get(path("removals"))
    if session.as_json:
        session.json(answer)
        return 0
    rows = [
        (
            text(device, "name"),
            day(text(device, "removed")),
            ", ".join(texts(device, "acknowledged")) or "nobody",
            ", ".join(texts(device, "pending")) or "nobody",
            text(device, "id"),
        )
        for device in records(answer, "removed")
    ]
    table.show(session.terminal, ("NAME", "REMOVED", "ACKNOWLEDGED BY", "PENDING", "ID"), rows)
    return 0


def device_show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE")


def device_show(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("devices", args.device))
    lines = [
        f"{text(answer, 'name')} ({text(answer, 'role')})",
        f"id          {text(answer, 'id')}",
        f"last seen   {_presence(answer)}",
    ]
    if text(answer, "role") == "member":
        lines.append(f"may         {rights(answer) or 'read no vault'}")
    if text(answer, "fingerprint"):
        lines.append(f"fingerprint {text(answer, 'fingerprint')}")
    if text(answer, "address"):
        lines.append(f"address     {text(answer, 'address')} (by hand)")
    lines += [f"address     {address}" for address in texts(answer, "addresses")]
    if text(answer, "through"):
        lines.append(f"in step     by {text(answer, 'through')}")
    elif number(answer, "behind"):
        lines.append(f"behind      {number(answer, 'behind')} versions")
    if text(answer, "last_error"):
        lines.append(f"last error  {text(answer, 'last_error')}")
    return session.give(answer, "\n".join(lines))


def device_rename_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE")
    parser.add_argument("name", metavar="NAME", help="the new name")


def device_rename(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.patch(path("devices", args.device), {"name": args.name})
    return session.done(answer, f"renamed to {text(answer, 'name')}")


def device_address_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE")
    parser.add_argument("address", metavar="HOST:PORT", nargs="?")
    parser.add_argument("--forget", action="store_true", help="forget the address given before")


def device_address(args: argparse.Namespace, session: Session) -> int:
    if args.forget == (args.address is not None):
        raise BadRequest("either HOST:PORT or --forget is expected", hint="see: meshctl device address --help")
    answer = session.client.patch(path("devices", args.device), {"address": args.address})
    if args.forget:
        return session.done(answer, f"{text(answer, 'name')} is found by discovery alone again")
    return session.done(answer, f"{text(answer, 'name')} is also tried at {text(answer, 'address')}")


def _presence(device: Json) -> str:
    if device.get("this"):
        return "this device"
    if device.get("connected"):
        return "connected"
    return day(max(text(device, "last_seen"), text(device, "heard"))) or "never"
