"""`meshctl device remove` and `meshctl exposure`: what will happen is said first; then it happens everywhere."""

from __future__ import annotations

from meshctl import passphrases, table
from meshctl.answers import ago, counted, day, number, records, text, texts
from meshctl.client import path
from meshd.errors import BadRequest, NotFound, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session


def device_remove_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("devices", metavar="DEVICE", nargs="+", help="name, id, or the id's beginning")
    parser.add_argument(
        "--since",
        metavar="DATE",
        help="what they wrote after this date or time falls too (asks the master passphrase); also for devices that"
        " were removed before",
    )
    parser.add_argument("--yes", action="store_true", help="don't ask")
    parser.add_argument(
        "--keep", metavar="NAME", action="append", default=[], help="confirm what a removed admin added; repeatable"
    )
    parser.add_argument(
        "--readmit", metavar="NAME", action="append", default=[], help="take back a device that it removed; repeatable"
    )
    parser.add_argument("--leave-no-admin", action="store_true", help="even where nobody is an admin then")
    parser.add_argument("--wait", metavar="S", type=float, help="seconds to wait for the others (default 10)")
    passphrases.wanted_arguments(parser)


def device_remove(args: argparse.Namespace, session: Session) -> int:
    terminal = session.terminal
    wish: dict[str, object] = {"devices": args.devices}
    if args.since is not None:
        wish["since"] = args.since
    plan = session.client.post(path("removals", "plan"), wish)
    confirmed, readmitted = _kept(args, plan), _readmitted(args, plan)
    said = _plan(plan, confirmed, readmitted)
    if not args.yes:
        if not terminal.stdin.isatty():
            raise BadRequest("there is nobody to ask", hint="--yes removes without asking")
        names = " and ".join(text(device, "name") for device in records(plan, "devices"))
        terminal.talk("\n".join(said))
        if not terminal.agrees(f"Remove {names}?"):
            raise Refused("nothing was removed")
    elif records(plan, "undone") or records(plan, "adds") or records(plan, "lost"):
        terminal.talk("\n".join(said))
    body = wish | {
        "confirm": confirmed,
        "readmit": readmitted,
        "keep_removed": [text(one, "id") for one in records(plan, "undone") if text(one, "id") not in readmitted],
    }
    if args.leave_no_admin:
        body["leave_no_admin"] = True
    if args.wait is not None:
        body["wait"] = args.wait

    def send(body: Json) -> Json:
        terminal.redraw("removing; waiting for the others to be in step, and to hear of it …")
        return session.client.post(path("removals"), body)

    try:
        answer = passphrases.with_master(args, session, body, send, needed=plan.get("needs_master") is True)
    finally:
        terminal.redraw("")
    return session.give(answer, "\n".join(_report(answer, _called(session, answer))))


def _called(session: Session, answer: Json) -> list[str]:
    """How to speak of who was removed: by name, or by the beginning of the id where one of that name was before."""
    if session.as_json:
        return []
    before = [text(one, "name") for one in records(session.client.get(path("removals")), "removed")]
    return [
        text(one, "id")[:11] if before.count(text(one, "name")) > 1 else text(one, "name")
        for one in records(answer, "devices")
    ]


def _kept(args: argparse.Namespace, plan: Json) -> list[str]:
    """The keys of what is confirmed; NotFound for a name that nothing has."""
    chosen = []
    for name in args.keep:
        fitting = [text(one, "key") for one in records(plan, "adds") if name in (text(one, "name"), text(one, "key"))]
        if not fitting:
            raise NotFound(f"nothing called {name} would fall")
        chosen += fitting
    return chosen


def _readmitted(args: argparse.Namespace, plan: Json) -> list[str]:
    chosen = []
    for name in args.readmit:
        fitting = [text(one, "id") for one in records(plan, "undone") if name in (text(one, "name"), text(one, "id"))]
        if not fitting:
            raise NotFound(f"no removal of {name} would fall")
        chosen += fitting
    return chosen


def _plan(plan: Json, confirmed: list[str], readmitted: list[str]) -> list[str]:
    """What will happen, in lines."""
    lines = []
    for device in records(plan, "devices"):
        if device.get("removed"):
            lines.append(f"{text(device, 'name')} was removed before: the moment of that is moved")
        else:
            role = text(device, "role")
            lines.append(f"{text(device, 'name')} ({role}) is cut off for good; it can come back as a new device only")
    # A vault that would fall, and is confirmed, gets new keys as well.
    kept = [one for one in records(plan, "adds") if text(one, "key") in confirmed and text(one, "key")[:2] == "X:"]
    vaults = [*map(vault_name, records(plan, "vaults")), *(text(one, "name") for one in kept)]
    if vaults:
        lines.append(f"  new keys for {counted(len(vaults), 'vault')}: {', '.join(vaults)}")
        lines.append("  what it could read so far stays readable to it; meshctl exposure lists what to change")
    if text(plan, "since"):
        lines.append(f"  what it wrote after {_local(text(plan, 'since'))} falls, by this device's record of receipt")
        if text(plan, "known_since") > text(plan, "since"):
            lines.append(
                f"  this device's record begins at {_local(text(plan, 'known_since'))}: it can't tell before that"
            )
    if number(plan, "quarantined"):
        lines.append(f"  {counted(number(plan, 'quarantined'), 'version')} that count now go into quarantine")
    for one in records(plan, "undone"):
        name, remover = text(one, "name"), text(one, "remover")
        if text(one, "id") in readmitted:
            lines.append(f"  {name}, which {remover} removed after that, is taken back")
        else:
            lines.append(f"  {name}, which {remover} removed after that, stays removed (--readmit {name})")
    for one in records(plan, "adds"):
        if text(one, "key") in confirmed:
            lines.append(f"  stays, confirmed: {text(one, 'text')}")
        else:
            lines.append(f"  falls with it: {text(one, 'text')} (--keep {text(one, 'name')})")
    for vault in records(plan, "lost"):
        lines.append(f"  nobody who stays can open {vault_name(vault)}: what is in it is lost, unless they sync first")
    if plan.get("last_admin"):
        lines.append("  nobody will be an admin any more")
    return lines


def _report(answer: Json, called: list[str]) -> list[str]:
    names = ", ".join(texts(answer, "removed"))
    parts = [f"removed {names}"]
    if number(answer, "rotated"):
        parts.append(f"new keys for {counted(number(answer, 'rotated'), 'vault')}")
    acknowledged = texts(answer, "acknowledged")
    if acknowledged:
        parts.append(f"{', '.join(acknowledged)} acknowledged")
    waiting = [other for other in records(answer, "others") if not other.get("acknowledged")]
    parts += [f"{text(other, 'name')} pending ({_seen(other)})" for other in waiting]
    lines = [" · ".join(parts)]
    if records(answer, "left"):
        vaults = ", ".join(map(vault_name, records(answer, "left")))
        lines.append(f"another admin has to make new keys for {vaults}, which this device can't open")
    exposed, unchanged = number(answer, "exposed"), number(answer, "unchanged")
    if exposed:
        hint = "; ".join(f"meshctl exposure {name}" for name in called)
        lines.append(f"{names} could read {counted(exposed, 'item')}; {unchanged} unchanged since: {hint}")
    else:
        lines.append(f"{names} could read no item")
    return lines


def _seen(other: Json) -> str:
    return "connected" if other.get("connected") else f"last seen {ago(text(other, 'last_seen'))}"


def exposure_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="name or id, of a removed device too")
    parser.add_argument("--unchanged", action="store_true", help="only what is still to be changed")


def exposure(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("devices", args.device, "exposure"))
    items = [item for item in records(answer, "items") if not (args.unchanged and item.get("changed"))]
    if session.as_json:
        session.json(answer | {"items": items})
        return 0
    rows = [
        (
            "changed" if item.get("changed") else "deleted" if item.get("deleted") else "to change",
            text(item, "title"),
            text(item, "username"),
            text(item, "id"),
        )
        for item in items
    ]
    table.show(session.terminal, ("", "TITLE", "USER NAME", "ID"), rows)
    device = answer.get("device")
    name = text(device, "name") if isinstance(device, dict) else args.device
    left = number(answer, "unchanged")
    deleted = sum(bool(item.get("deleted")) and not item.get("changed") for item in items)
    rest = "all others changed since" if deleted else "all changed since"
    session.terminal.talk(
        f"{name} could read {counted(number(answer, 'exposed'), 'item')}; "
        + (f"{left} still to change" if left else rest)
        + (f"; {deleted} deleted: is the password still valid at the site?" if deleted else "")
    )
    return 0


def vault_name(vault: Json) -> str:
    """`ssh`, or `ssh/work` where the vault has a name of its own."""
    application, name = text(vault, "application"), text(vault, "name")
    return application if name == application else f"{application}/{name}"


def _local(moment: str) -> str:
    """A time of the daemon's in the person's own time zone."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return day(moment)
