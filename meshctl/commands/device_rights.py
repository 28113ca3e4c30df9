"""`meshctl device role|grant|revoke`: who is an admin, and which vaults a member reads and writes."""

from __future__ import annotations

from meshctl import passphrases
from meshctl.answers import counted, records, text
from meshctl.client import path
from meshctl.commands.removal import vault_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.answers import Json
    from meshctl.session import Session


def device_role_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE")
    parser.add_argument("role", metavar="ROLE", choices=("admin", "member", "relay"), help="admin, member or relay")
    parser.add_argument(
        "--grant", action="append", metavar="VAULT:RIGHT", help="narrow a member's rights, e.g. ssh:read; repeatable"
    )
    parser.add_argument("--leave-no-admin", action="store_true", help="even where nobody is an admin then")
    parser.add_argument("--yes", action="store_true", help="for scripts: nothing is asked here but a passphrase")
    passphrases.wanted_arguments(parser)


def device_role(args: argparse.Namespace, session: Session) -> int:
    body: dict[str, object] = {"role": args.role}
    if args.grant:
        body["grant"] = args.grant
    if args.leave_no_admin:
        body["leave_no_admin"] = True
    where = path("devices", args.device, "role")
    answer = passphrases.with_master(args, session, body, lambda body: session.client.put(where, body))
    return session.done(answer, f"{text(answer, 'name')} is {_role(answer)}{_rights(answer)}")


def device_grant_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE")
    parser.add_argument(
        "grant",
        metavar="VAULT:RIGHT",
        nargs="+",
        help="ssh:read, ssh/work:write, or *:read for all vaults, future ones too; sets that right exactly",
    )
    passphrases.wanted_arguments(parser)


def device_grant(args: argparse.Namespace, session: Session) -> int:
    return _changed(args, session, {"grant": args.grant})


def device_revoke_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE")
    parser.add_argument("revoke", metavar="VAULT", nargs="+", help="ssh, ssh/work, or * for all")
    parser.add_argument("--keep-read", action="store_true", help="take the writing alone")
    passphrases.wanted_arguments(parser)


def device_revoke(args: argparse.Namespace, session: Session) -> int:
    return _changed(args, session, {"revoke": args.revoke} | ({"keep_read": True} if args.keep_read else {}))


def _changed(args: argparse.Namespace, session: Session, body: dict[str, object]) -> int:
    where = path("devices", args.device, "rights")
    answer = passphrases.with_master(args, session, body, lambda body: session.client.patch(where, body))
    return session.done(answer, f"{text(answer, 'name')}{_rights(answer)}")


def _role(answer: Json) -> str:
    return {"admin": "an admin", "member": "a member", "relay": "a relay"}.get(text(answer, "role"), "of another role")


def _rights(answer: Json) -> str:
    """What a device may do now, and which vaults got new keys for that."""
    said = []
    if text(answer, "role") == "member":
        said.append(f"may {rights(answer) or 'read no vault'}")
    elif text(answer, "role") == "relay":
        said.append("carries what it can't read")
    rotated = records(answer, "rotated")
    if rotated:
        said.append(f"new keys for {counted(len(rotated), 'vault')}: {', '.join(map(vault_name, rotated))}")
    return "".join(f" · {part}" for part in said)


def rights(answer: Json) -> str:
    """`write all vaults`, `read ssh, write password`."""
    found = []
    for grant in records(answer, "grants"):
        name = "all vaults" if text(grant, "vault") == "*" else vault_name(grant)
        found.append(f"{text(grant, 'level')} {name}")
    return ", ".join(found)
