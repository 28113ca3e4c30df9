"""`meshctl recovery restore`: the mesh comes back to this device, from shares and whoever holds its ciphertext."""

from __future__ import annotations

from meshctl import giving, passphrases, shares
from meshctl.answers import counted, inner, number, records, text
from meshctl.client import path
from meshctl.commands.mesh import device_name, device_passphrase, new_master
from meshd.errors import BadRequest, Locked, MeshError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session

ALL = "all"


def recovery_restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--account", metavar="NAME@PORTAL", help="look for the mesh at this account")
    parser.add_argument("--lan", action="store_true", help="look for a device or relay of it on this network")
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="where the portal is reached, or without --account the device"
    )
    parser.add_argument("--unproved", action="store_true", help="take what the portal's log does not prove")
    parser.add_argument("--insecure-http", action="store_true", help="reach the portal without TLS, for a test")
    parser.add_argument("--share-file", metavar="F", action="append", help="a file that holds a share; repeat it")
    parser.add_argument("--forget", action="store_true", help="forget the shares that were typed so far, and stop")
    passphrases.share_arguments(parser)
    parser.add_argument("--check", metavar="LETTERS", help="what stands beside the shares")
    parser.add_argument("--name", metavar="NAME", help="name of this device (default: the host's)")
    passphrases.device_arguments(parser)
    passphrases.master_arguments(parser)
    parser.add_argument("--no-passphrase", action="store_true", help="keep this device's keys unsealed (needs --force)")
    parser.add_argument("--force", action="store_true", help="allow an admin without a passphrase")
    parser.add_argument(
        "--lost", metavar="NAME", action="append", help="remove this device of the mesh, or all; repeat it"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing: devices not named lost stay")


def recovery_restore(args: argparse.Namespace, session: Session) -> int:
    terminal = session.terminal
    if args.forget:
        return session.done(session.client.delete(path("recovery", "restore")), "forgotten")
    status = session.client.get(path("status"))
    inside = bool(status.get("mesh"))
    if inside and status.get("locked"):
        raise Locked(
            "this device is of a mesh, and locked",
            hint="meshctl unlock; where its passphrase is forgotten, restore in another home (--home DIR) or on another"
            " computer while this one runs (--lan), and wipe this one afterwards",
        )
    if not inside and args.account is None and not args.lan:
        raise BadRequest(
            "where is the mesh to be looked for?",
            hint="at a portal: --account NAME@PORTAL; on this network: --lan; or both",
        )
    body: dict[str, object] = {"name": device_name(args.name)}
    if given := _given(args, session):
        body["shares"] = given
    for member in ("account", "address", "check"):
        if getattr(args, member) is not None:
            body[member] = getattr(args, member)
    if args.lan:
        body["lan"] = True
    if args.unproved:
        body["unproved"] = True
    if args.insecure_http:
        body["plain"] = True
    if (secret := passphrases.of_shares(args, terminal)) is not None:
        body["share_passphrase"] = secret
    if not inside:
        device = device_passphrase(args, session)
        body |= {"no_passphrase": True, "force": args.force} if device is None else {"passphrase": device}
    master = new_master(args, session)
    terminal.talk("looking for the mesh, and taking it back; this may take a minute …")
    answer = session.client.post(path("recovery", "restore"), body | {"master_passphrase": master})
    terminal.talk(f"this device is {text(answer, 'name')}, an admin of the mesh {text(answer, 'mesh')}")
    if proof := inner(answer, "proof"):
        terminal.talk(f"the portal: {text(proof, 'why')}")
    missing, complete = number(answer, "missing"), answer.get("complete") is True
    removed = _remove(session, _lost(args, session, answer), master) if complete else []
    lines = [f"restored the mesh {text(answer, 'mesh')}", *(f"removed {name}" for name in removed)]
    if missing:
        lines.append(
            f"{counted(missing, 'vault')} did not come yet; when what holds them is reached, run this command again"
        )
    elif not complete:
        lines.append("not everything has come yet: when meshctl status says so, meshctl device remove what is lost")
    lines.append("the shares that you used may have been seen: make new ones now, meshctl recovery refresh")
    return session.done(answer | {"removed": removed}, "\n".join(lines))


def _given(args: argparse.Namespace, session: Session) -> list[str]:
    """The shares in files; empty where a person typed them, today or before, and the daemon has them."""
    if args.share_file:
        return [shares.from_file(name) for name in args.share_file]
    before = session.client.get(path("recovery", "restore"))
    given, lacking = number(before, "given"), text(before, "lacking")
    if lacking and (session.as_json or not session.terminal.stdin.isatty()):
        raise BadRequest("there is nobody to type shares", hint="give them in files: --share-file F, for each")
    giving.enough_shares(session, "restore", given, lacking)
    return []


def _lost(args: argparse.Namespace, session: Session, answer: Json) -> list[str]:
    others = {text(one, "name"): text(one, "id") for one in records(answer, "others")}
    if args.lost:
        return sorted(others) if ALL in args.lost else list(args.lost)
    if not others or args.yes or session.as_json or not session.terminal.stdin.isatty():
        return []
    return [name for name in sorted(others) if session.terminal.agrees(f"Is {name} lost? It is removed then.")]


def _remove(session: Session, lost: list[str], master: str) -> list[str]:
    """The mesh is back already: what can't be removed is told, and left to `device remove`."""
    if not lost:
        return []
    body: Json = {"devices": lost, "wait": 0, "master_passphrase": master}
    try:
        session.client.post(path("removals"), body)
    except MeshError as exc:
        session.terminal.talk(f"nothing was removed: {exc}; later: meshctl device remove {' '.join(lost)}")
        return []
    return lost
