"""`meshctl connect`: join a mesh with the code or the URI that `meshctl invite` shows, or through its account."""

from __future__ import annotations

from meshctl import passphrases
from meshctl.answers import inner, text
from meshctl.client import path
from meshctl.commands.mesh import device_name, device_passphrase
from meshctl.waiting import follow
from meshd.errors import BadRequest, MeshError
from meshd.localapi.errors import ApiError, from_body

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

ENDS = ("done", "failed", "cancelled")
_SAID = {
    "searching": "looking for the device that shows the code …",
    "found": "found it",
    "proving": "proving that both know the code …",
    "requested": "waiting to be admitted …",
    "syncing": "admitted; fetching what the mesh holds …",
}


def connect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "code", metavar="CODE|ACCOUNT", help="as shown by meshctl invite, or the URI of its QR; or NAME@PORTAL"
    )
    parser.add_argument("--name", metavar="NAME", help="name of this device (default: the host's)")
    parser.add_argument("--address", metavar="HOST:PORT", help="where the other device is, when discovery can't tell")
    parser.add_argument("--fingerprint", metavar="UDF", help="of the mesh: with an account, confirms it without asking")
    parser.add_argument("--insecure-http", action="store_true", help="reach the portal without TLS (for tests)")
    parser.add_argument("--no-passphrase", action="store_true", help="keep this device's keys unsealed")
    parser.add_argument("--no-wait", action="store_true", help="return at once; meshctl whoami tells that it joined")
    passphrases.device_arguments(parser)


def connect(args: argparse.Namespace, session: Session) -> int:
    if session.client.get(path("status")).get("mesh"):
        raise BadRequest("this device is in a mesh already", hint="see: meshctl whoami")
    if "@" in args.code or args.code.lower().startswith("mesh-pair:?a="):
        from meshctl.commands import connect_remote

        return connect_remote.connect(args, session)
    if args.fingerprint is not None or args.insecure_http:
        raise BadRequest("--fingerprint and --insecure-http go with an account")
    body: dict[str, object] = {"name": device_name(args.name)}
    passphrase = device_passphrase(args, session)
    if passphrase is None:
        body["no_passphrase"] = True
    else:
        body["passphrase"] = passphrase
    return join(session, args.code, body, address=args.address, wait=not args.no_wait)


def join(session: Session, code: str, body: Json, *, address: str | None, wait: bool) -> int:
    """Join with a code or URI, and say how it goes. `body` has the name and the passphrase of the new device."""
    body = body | {"uri" if code.lower().startswith("mesh-pair:") else "code": code}
    if address is not None:
        body["address"] = address
    first = session.client.post(path("connections"), body)
    _say(session, first)
    if not wait:
        return 0
    end = follow(
        session,
        path("connections", text(first, "id")),
        first,
        ends=ENDS,
        changed=lambda now: _say(session, now),
    )
    return _outcome(session, end)


def _say(session: Session, now: Json) -> None:
    if session.as_json:
        session.json(now)
    elif text(now, "state") in _SAID:
        session.terminal.talk(_SAID[text(now, "state")])


def _outcome(session: Session, end: Json) -> int:
    state = text(end, "state")
    if state == "failed":
        told = inner(end, "error")
        raise from_body({"error": told}) if told else MeshError("joining failed")
    if state == "cancelled":
        raise ApiError("refused", "joining was cancelled", None)
    if not session.as_json:
        device = inner(end, "device")
        admin = text(end, "admin") or "an admin"
        session.terminal.data(f"connected as {text(device, 'name')} ({text(device, 'role')}), admitted by {admin}")
        session.terminal.data(f"mesh {text(end, 'mesh')}")
    return 0
