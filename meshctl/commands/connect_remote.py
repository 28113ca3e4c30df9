"""`meshctl connect NAME@PORTAL`: join at any distance, comparing fingerprints on both sides."""

from __future__ import annotations

from meshctl.answers import inner, text
from meshctl.client import path
from meshctl.commands.mesh import device_name, device_passphrase
from meshctl.waiting import LONG_POLL, giving_up
from meshd.errors import BadRequest, MeshError
from meshd.localapi.errors import ApiError, from_body

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

ENDS = ("done", "failed", "cancelled")
_SAID = {
    "searching": "asking the portal …",
    "requested": "waiting to be let in: on an admin device, meshctl pending",
    "syncing": "let in; fetching what the mesh holds …",
}


def connect(args: argparse.Namespace, session: Session) -> int:
    """Ask, show both fingerprints, have the person confirm, and follow to the end."""
    body: dict[str, object] = {"name": device_name(args.name)}
    body["uri" if args.code.lower().startswith("mesh-pair:") else "account"] = args.code
    for option, member in (("address", "address"), ("fingerprint", "fingerprint")):
        if getattr(args, option) is not None:
            body[member] = getattr(args, option)
    if args.insecure_http:
        body["plain"] = True
    if (session.as_json or args.no_wait) and args.fingerprint is None and "account" in body:
        option = "--json" if session.as_json else "--no-wait"
        raise BadRequest(f"with {option} nobody can compare fingerprints", hint="give the mesh's with --fingerprint")
    passphrase = device_passphrase(args, session)
    if passphrase is None:
        body["no_passphrase"] = True
    else:
        body["passphrase"] = passphrase
    first = session.client.post(path("remote-connections"), body)
    _say(session, first)
    if args.no_wait:
        return 0
    where = path("remote-connections", text(first, "id"))
    return giving_up(session, where, lambda: _outcome(session, _follow(session, where, first)))


def _follow(session: Session, where: str, now: Json) -> Json:
    asked = False  # once: what was answered may take the daemon a moment
    while (state := text(now, "state")) not in ENDS:
        if state == "comparing" and not asked and not session.as_json:
            asked = True
            now = session.client.post(where + "/answer", {"accept": _compared(session, now)})
        else:
            now = session.client.get(where, {"wait": LONG_POLL, "state": state}, wait=LONG_POLL)
        if text(now, "state") != state:
            _say(session, now)
            if text(now, "state") == "requested" and not asked and not session.as_json:
                _show_own(session, now)
    return now


def _compared(session: Session, now: Json) -> bool:
    terminal = session.terminal
    terminal.talk(f"The portal shows the mesh {text(now, 'mesh')}")
    terminal.talk(f"  {text(now, 'mesh_words')}")
    _show_own(session, now)
    terminal.talk("On an admin device, meshctl pending shows both. Let it be the same there, word by word.")
    return terminal.agrees("Is that your mesh?")


def _show_own(session: Session, now: Json) -> None:
    """What the person at the admin's compares; also where nothing is to be compared here."""
    if text(now, "own"):
        session.terminal.talk(f"This device is {text(now, 'own')}")
        session.terminal.talk(f"  {text(now, 'own_words')}")


def _say(session: Session, now: Json) -> None:
    if session.as_json:
        session.json(now)
    elif text(now, "state") in _SAID:
        session.terminal.talk(_SAID[text(now, "state")])


def _outcome(session: Session, end: Json) -> int:
    if text(end, "state") == "failed":
        told = inner(end, "error")
        raise from_body({"error": told}) if told else MeshError("joining failed")
    if text(end, "state") == "cancelled":
        raise ApiError("refused", "joining was cancelled", None)
    if not session.as_json:
        device = inner(end, "device")
        session.terminal.data(f"connected as {text(device, 'name')} ({text(device, 'role')})")
        session.terminal.data(f"mesh {text(end, 'mesh')}")
    return 0
