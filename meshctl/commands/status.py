"""`meshctl status`: one line of state, then what is wrong with its fix, then the other devices."""

from __future__ import annotations

from meshctl.answers import ago, counted, day, inner, number, records, text
from meshctl.client import path
from meshd.localapi.errors import ATTACK, CONFLICTS, LOCKED, NOT_CONNECTED, NOT_SYNCED, OK, exit_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

# Health codes that say that somebody may be cheating, beside the codes of errors that mean the same.
_ALARMING = frozenset(
    "equivocation fork cloned removal-undone admin-removed store-damaged portal-contradiction intrusion".split()
)
_CHECKED = (ATTACK, NOT_CONNECTED, LOCKED, CONFLICTS, NOT_SYNCED)  # the gravest first


def status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check",
        action="store_true",
        help="tell by the exit code: 4 not connected, 5 locked, 6 conflicts, 7 not in step, 10 possible attack",
    )


def status(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("status"))
    if session.as_json:
        session.json(answer)
    else:
        _show(session, answer)
    return check(answer) if args.check else OK


def check(answer: Json) -> int:
    """The gravest of what a status says is wrong, as an exit code; 0 when nothing is."""
    if not answer.get("mesh"):
        return NOT_CONNECTED
    if _removed(answer):
        return NOT_CONNECTED
    found = {exit_code(text(problem, "code")) for problem in records(answer, "health")}
    if any(text(problem, "code") in _ALARMING for problem in records(answer, "health")):
        found.add(ATTACK)
    if answer.get("locked"):
        found.add(LOCKED)
    if number(answer, "conflicts"):
        found.add(CONFLICTS)
    if answer.get("synced") is False or any(_apart(peer) for peer in records(answer, "peers")):
        found.add(NOT_SYNCED)
    return next((code for code in _CHECKED if code in found), OK)


def _show(session: Session, answer: Json) -> None:
    terminal = session.terminal
    terminal.data(_headline(answer))
    for problem in records(answer, "health"):
        terminal.data(f"! {text(problem, 'message')}")
        if text(problem, "hint"):
            terminal.data(f"  {text(problem, 'hint')}")
    conflicts = number(answer, "conflicts")
    if conflicts and all(text(problem, "code") != "conflicts" for problem in records(answer, "health")):
        terminal.data(f"! {conflicts} changed on two devices apart: the newest counts, the others are kept")
        terminal.data("  meshctl conflicts list")
    if number(answer, "stale"):
        count = counted(number(answer, "stale"), "item")
        terminal.data(f"· {count} written by who had not heard of a removal: under the new keys now")
    for one in records(answer, "announcements"):
        terminal.data(f"· {text(one, 'text')} ({ago(text(one, 'time'))})")
    for portal in records(answer, "portals"):
        terminal.data(_portal(portal))
        problem = inner(portal, "error")
        if problem:
            terminal.data(f"  {text(problem, 'message')}")
    peers = records(answer, "peers")
    if peers and not _removed(answer):
        from meshctl import table

        rows = [
            (text(peer, "name"), text(peer, "role"), _connection(peer), _behind(peer), text(peer, "address"))
            for peer in peers
        ]
        table.show(terminal, ("DEVICE", "ROLE", "LAST SEEN", "SYNC", "ADDRESS"), rows)


def _portal(portal: Json) -> str:
    behind = number(portal, "behind")
    step = f"{counted(behind, 'version')} to publish" if behind else "holds everything that is here"
    last = f"last reached {ago(text(portal, 'last_success'))}"
    parts = [f"{text(portal, 'account')}: {text(portal, 'state')}", step]
    return "· " + " · ".join(parts if text(portal, "state") == "connected" else [*parts, last])


def _headline(answer: Json) -> str:
    if not answer.get("mesh"):
        return "not connected to a mesh: run meshctl init, or meshctl connect CODE"
    device, peers = inner(answer, "device"), records(answer, "peers")
    if _removed(answer):
        return f"{text(device, 'name')} · removed from its mesh: meshctl wipe"
    here = sum(bool(peer.get("connected")) for peer in peers)
    parts = [
        f"{text(device, 'name')} ({text(device, 'role')})",
        "locked" if answer.get("locked") else "unlocked",
        f"{here} of {len(peers)} other devices connected" if peers else "no other devices yet: meshctl invite",
    ]
    behind = sum(_apart(peer) for peer in peers)
    if behind:
        parts.append(f"{behind} not in step")
    elif peers:
        parts.append("in step")
    conflicts = number(answer, "conflicts")
    if conflicts:
        parts.append(f"{conflicts} in conflict")
    return " · ".join(parts)


def _removed(answer: Json) -> bool:
    """Was this device removed? Then nothing else matters any more."""
    return any(text(problem, "code") == "removed" for problem in records(answer, "health"))


def _connection(peer: Json) -> str:
    if peer.get("connected"):
        return "connected"
    return day(max(text(peer, "last_seen"), text(peer, "heard"))) or "never"


def _apart(peer: Json) -> bool:
    """Does it lack something, and finds it nowhere?"""
    return bool(number(peer, "behind")) and not text(peer, "through")


def _behind(peer: Json) -> str:
    if text(peer, "through"):
        return f"by {text(peer, 'through')}"
    behind = number(peer, "behind")
    return f"{behind} behind" if behind else "in step"
