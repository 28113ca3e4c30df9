"""`meshctl doctor`: everything that a person may want to know is right, a line each, and what to do where it is not."""

from __future__ import annotations

import os

from meshctl.answers import ago, counted, inner, number, records, text
from meshctl.client import path
from meshd import __version__
from meshd.errors import MeshError
from meshd.localapi.errors import ERROR, OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from meshctl.answers import Json
    from meshctl.session import Session

FINE, WARN, FAIL = "ok", "warn", "fail"
_ALARMING = frozenset(
    "equivocation fork cloned removal-undone admin-removed store store-damaged disk-full disk-low removed"
    " possible-attack portal-contradiction intrusion".split()
)
# Codes of what a status says is wrong, under the name of the check that they belong to; others are lines of their own.
_TOLD = {
    "locked": "locked",
    "no-network": "network",
    "clock-skew": "clock",
    "disk-low": "disk",
    "disk-full": "disk",
    "recovery": "recovery",
    "quarantine": "quarantine",
    "quarantine-full": "quarantine",
    "conflicts": "conflicts",
}
_LOGS = {
    "verified": (FINE, "its log verified"),
    "none": (WARN, "it keeps no log: what it withholds can't be seen"),
    "stale": (WARN, "its log shows nothing new: it may be withholding"),
    "suspect": (FAIL, "its log does not prove what it owes"),
    "contradicted": (FAIL, "it contradicted itself, and is believed no more"),
}
_STATES = {"connected": FINE, "connecting": WARN, "offline": WARN, "plain": WARN}


class _Findings:
    """The lines, in order."""

    def __init__(self) -> None:
        self.listed: list[dict[str, object]] = []

    def add(self, check: str, level: str, message: str, hint: str = "") -> None:
        self.listed.append({"check": check, "level": level, "message": message, "hint": hint or None})

    @property
    def worst(self) -> str:
        levels = [line["level"] for line in self.listed]
        return FAIL if FAIL in levels else WARN if WARN in levels else FINE


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def doctor(args: argparse.Namespace, session: Session) -> int:
    """1 where a line says fail."""
    found = _Findings()
    _files(session.client.where, found)
    try:
        status = session.client.get(path("status"))
    except MeshError as exc:
        found.add("daemon", FAIL, str(exc), exc.hint or "")
    else:
        _daemon(status, found)
        if status.get("mesh"):
            _network(status, found)
            for check, look in (("portal", _portals), ("recovery", _recovery)):
                try:
                    look(session, status, found)
                except MeshError as exc:
                    found.add(check, WARN, str(exc), exc.hint or "")
            _items(status, found)
            _rest(status, found)
    return _tell(session, found)


def _tell(session: Session, found: _Findings) -> int:
    if session.as_json:
        session.json({"level": found.worst, "checks": list(found.listed)})
    else:
        for line in found.listed:
            level, hint = str(line["level"]), line["hint"]
            session.terminal.data(f"{level:<5} {line['check']!s:<11} {line['message']}")
            if hint:
                session.terminal.data(f"{'':<17} {hint}")
    return ERROR if found.worst == FAIL else OK


# --- this device ------------------------------------------------------------------------------------------------------


def _files(socket: str, found: _Findings) -> None:
    """Is everything closed to others? The daemon sees to it when it starts; this is about what was done since."""
    for name in _private(socket):
        try:
            mode = os.lstat(name)
        except OSError:
            continue
        if mode.st_uid != os.geteuid():
            found.add("files", FAIL, f"{name} belongs to another user", "find out why; restore a backup if in doubt")
            return
        if mode.st_mode & 0o077:
            right = "700" if os.path.isdir(name) else "600"
            found.add("files", FAIL, f"others may get at {name}", f"chmod {right} {name}")
            return
    found.add("files", FINE, "nobody else can read this device's files")


def _private(socket: str) -> Iterator[str]:
    home = os.path.dirname(socket)
    yield home
    state = home
    if not os.path.lexists(os.path.join(home, "meshd.db")):  # not all under one --home
        given = os.environ.get("XDG_STATE_HOME", "")
        state = os.path.join(given if os.path.isabs(given) else os.path.expanduser("~/.local/state"), "meshd")
        yield state
    for name in ("meshd.db", "meshd.db-wal", "keystore.cbor"):
        yield os.path.join(state, name)


def _daemon(status: Json, found: _Findings) -> None:
    release = text(status, "version")
    if release != __version__:
        hint = "update both, then: systemctl --user restart meshd"
        found.add("daemon", WARN, f"meshd {release} runs, and this is meshctl {__version__}", hint)
    else:
        found.add("daemon", FINE, f"meshd {release} runs, of the same release as meshctl")
    if not status.get("mesh"):
        found.add("mesh", WARN, "this device is in no mesh", "meshctl init, or meshctl connect CODE")
        return
    device = inner(status, "device")
    found.add("mesh", FINE, f"this device is {text(device, 'name')}, {text(device, 'role')} of its mesh")
    if status.get("locked"):
        found.add("locked", WARN, "this device is locked: it syncs, and shows no items", "meshctl unlock")
    else:
        found.add("locked", FINE, "unlocked")
    _told(status, "disk", found, otherwise="there is room for the store")


def _network(status: Json, found: _Findings) -> None:
    discovery, peers = inner(status, "discovery"), records(status, "peers")
    here = [peer for peer in peers if peer.get("connected")]
    if text(discovery, "state") == "off":
        found.add("network", WARN, "this daemon uses no local network", "if it should: lan.enabled in meshd.toml")
    else:
        seen = f"{len(here)} of {counted(len(peers), 'other device')} connected" if peers else "no other devices yet"
        _told(status, "network", found, otherwise=f"devices are announced and looked for: {seen}")
    for peer in peers:
        behind = number(peer, "behind")
        if behind and not text(peer, "through"):
            last = "connected" if peer.get("connected") else f"last seen {ago(text(peer, 'last_seen'))}"
            lacks = f"{text(peer, 'name')} lacks {counted(behind, 'version')}, {last}"
            found.add("in step", WARN, lacks, "switch it on near another device, or: meshctl portal add")
    otherwise = (
        "agrees with those of the devices that are connected" if here else "no device is there to compare it with"
    )
    _told(status, "clock", found, otherwise=otherwise)


# --- portals ----------------------------------------------------------------------------------------------------------


def _portals(session: Session, status: Json, found: _Findings) -> None:
    portals = records(session.client.get(path("portals")), "portals")
    if not portals:
        only = "devices meet on one network only" if records(status, "peers") else "there is no copy anywhere else"
        found.add("portal", WARN, f"no portal: {only}", "meshctl portal add NAME@PORTAL")
    for portal in portals:
        account, state, problem = text(portal, "account"), text(portal, "state"), inner(portal, "error")
        level, log = _LOGS.get(text(inner(portal, "log"), "state"), (WARN, "its log was not looked at yet"))
        reached = _STATES.get(state, FAIL)
        level = FAIL if FAIL in (level, reached) else WARN if WARN in (level, reached) else FINE
        last = "" if state == "connected" else f", last reached {ago(text(portal, 'last_success'))}"
        hint = "" if level == FINE else f"meshctl portal verify {account}"
        if problem:
            hint = f"{text(problem, 'message')} {text(problem, 'hint')}".strip()
        found.add("portal", level, f"{account}: {state}{last}; {log}", hint)


# --- recovery ---------------------------------------------------------------------------------------------------------


def _recovery(session: Session, status: Json, found: _Findings) -> None:
    if status.get("locked"):
        found.add("recovery", WARN, "can't be told while this device is locked", "meshctl unlock")
        return
    answer = session.client.get(path("recovery"))
    entries = records(answer, "entries")
    if not entries:
        lost = "there are no recovery shares: when every device is lost, all is lost"
        found.add("recovery", WARN, lost, "meshctl recovery create")
    for entry in entries:
        drill, name = inner(entry, "drill"), text(entry, "set")
        elsewhere = [
            one for one in records(entry, "held") if text(one, "kind") != "device" and one.get("holds") is True
        ]
        if not elsewhere:
            alone = f"the entry of the set {name} is on this device alone"
            found.add("recovery", WARN, alone, "connect another device, or: meshctl portal add NAME@PORTAL")
        if drill and drill.get("success") is not True:
            failed = f"the last drill with the set {name} did not go well, {ago(text(drill, 'date'))}"
            found.add("recovery", FAIL, failed, "meshctl recovery drill says what is wrong")
        elif answer.get("due") is True:
            tried = f"last tried {ago(text(drill, 'date'))}" if drill else "never tried"
            found.add("recovery", WARN, f"the shares of the set {name} were {tried}", "meshctl recovery drill")
        else:
            tried = f"tried {ago(text(drill, 'date'))}" if drill else "not tried yet: meshctl recovery drill"
            found.add("recovery", FINE, f"the shares of the set {name} count; {tried}")
    for old in records(answer, "old"):
        found.add("recovery", FINE, f"the shares of the set {text(old, 'set')} were replaced: throw them away")


# --- what else is wrong -----------------------------------------------------------------------------------------------


def _items(status: Json, found: _Findings) -> None:
    conflicts = number(status, "conflicts")
    if conflicts:
        apart = f"{counted(conflicts, 'item')} changed on two devices apart"
        found.add("conflicts", WARN, apart, "meshctl conflicts list")
    else:
        found.add("conflicts", FINE, "none")
    _told(status, "quarantine", found, otherwise="nothing was written by who was not entitled to")


def _rest(status: Json, found: _Findings) -> None:
    for problem in records(status, "health"):
        if text(problem, "code") not in _TOLD and not text(problem, "code").startswith("portal-"):
            _add(problem, text(problem, "code"), found)


def _told(status: Json, check: str, found: _Findings, *, otherwise: str) -> None:
    """What the status says is wrong under this check, or that nothing is."""
    problems = [one for one in records(status, "health") if _TOLD.get(text(one, "code")) == check]
    for problem in problems:
        _add(problem, check, found)
    if not problems:
        found.add(check, FINE, otherwise)


def _add(problem: Json, check: str, found: _Findings) -> None:
    level = FAIL if text(problem, "code") in _ALARMING else WARN
    found.add(check, level, text(problem, "message"), text(problem, "hint"))
