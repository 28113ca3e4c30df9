"""`meshctl init` and `meshctl whoami`."""

from __future__ import annotations

from meshctl import passphrases
from meshctl.answers import inner, text
from meshctl.client import path
from meshd.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from meshctl.session import Session


def init_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", metavar="NAME", help="name of this device (default: the host's)")
    passphrases.device_arguments(parser)
    passphrases.master_arguments(parser)
    parser.add_argument("--no-passphrase", action="store_true", help="keep this device's keys unsealed (needs --force)")
    parser.add_argument("--force", action="store_true", help="allow an admin without a passphrase")


def init(args: argparse.Namespace, session: Session) -> int:
    terminal = session.terminal
    # First of all: nobody should think of two passphrases in vain.
    if session.client.get(path("status")).get("mesh"):
        raise BadRequest("this device is in a mesh already", hint="see: meshctl whoami")
    body: dict[str, object] = {"name": device_name(args.name)}
    device = device_passphrase(args, session)
    if device is None:
        body["no_passphrase"] = True
    else:
        body["passphrase"] = device
    if args.force:
        body["force"] = True
    master = new_master(args, session)
    if master == device:
        terminal.talk(
            "warning: both passphrases are the same, so whoever learns this device's can replace the mesh's admins"
        )
    body["master_passphrase"] = master
    answer = session.client.post(path("mesh"), body)
    words = text(answer, "fingerprint_words")
    lines = [
        f"made mesh {text(answer, 'mesh')}",
        *([f"in words: {words}"] if words else []),
        f"this device is {text(inner(answer, 'device'), 'name')}; let another one join with: meshctl invite",
    ]
    return session.done(answer, "\n".join(lines))


def whoami_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def whoami(args: argparse.Namespace, session: Session) -> int:
    answer = session.client.get(path("whoami"))
    device = inner(answer, "device")
    lines = [
        f"{text(device, 'name')} ({text(device, 'role')})",
        f"device {text(device, 'id')}",
        f"mesh   {text(answer, 'mesh')}",
    ]
    if text(answer, "fingerprint_words"):
        lines.append(f"       {text(answer, 'fingerprint_words')}")
    return session.give(answer, "\n".join(lines))


def device_name(given: str | None) -> str:
    """The name given, or the host's."""
    if given is not None:
        return given
    import socket

    return socket.gethostname().partition(".")[0][:64] or "device"


def device_passphrase(args: argparse.Namespace, session: Session) -> str | None:
    """The new device's passphrase from the options or asked for twice; None with --no-passphrase."""
    given = passphrases.given(args, session.terminal)
    if args.no_passphrase:
        if given is not None:
            raise BadRequest("--no-passphrase beside a passphrase")
        return None
    return passphrases.ask_new(session.terminal, "Passphrase for this device") if given is None else given


def new_master(args: argparse.Namespace, session: Session) -> str:
    """A master passphrase to be: from the option, or a phrase that is offered, or what is typed instead of it."""
    terminal = session.terminal
    if args.master_passphrase_file is not None:
        return passphrases.from_file(args.master_passphrase_file, terminal)
    phrase = text(session.client.post(path("phrase"), {"words": 6}), "phrase")
    with terminal.aside():
        terminal.talk(
            "\nThe master passphrase is asked for when an admin is added or removed. Write this one down and\n"
            f"keep it apart from your devices, or type one of your own:\n\n    {phrase}\n"
        )
        own = terminal.ask("Master passphrase (Enter takes the one above, once it is written down): ")
    if not own:
        return phrase
    if terminal.ask("Master passphrase, once more: ") != own:
        raise BadRequest("the two differ")
    return own
