"""What a service says to systemd and takes from it: readiness, watchdog, sockets (sd_notify(3), sd_listen_fds(3)).

The environment comes in as an argument, so that nothing here depends on how the tests were started.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from meshd.errors import BadRequest

FIRST_FD = 3  # SD_LISTEN_FDS_START
_MAX_FDS = 64


def sd_notify(environ: Mapping[str, str], *states: str) -> bool:
    """Send lines like "READY=1", "STATUS=…", "WATCHDOG=1", "STOPPING=1"; False when no manager listens.

    A manager that went away is no reason to stop, so errors of the socket count as "nobody listens".
    """
    path = environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return False
    address = "\0" + path[1:] if path[0] == "@" else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.connect(address)
            sock.sendall("\n".join(states).encode())
    except OSError:
        return False
    return True


def watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """How often to send "WATCHDOG=1": half of the time after which systemd would kill us. None without a watchdog."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isdecimal() and int(text) > 0 else None


def listen_fds(environ: Mapping[str, str]) -> dict[str, list[socket.socket]]:
    """The sockets that systemd opened for this process, by their FileDescriptorName ("unknown" where it has none).

    BadRequest if the environment contradicts itself. Call it once: every call makes new
    objects for the same descriptors.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = environ.get("LISTEN_FDS", "0")
    if not count.isdecimal() or int(count) > _MAX_FDS:
        raise BadRequest(f"LISTEN_FDS={count[:20]!r} in the environment")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[socket.socket]] = {}
    for place in range(int(count)):
        fd = FIRST_FD + place
        try:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
        except OSError as exc:
            raise BadRequest(f"LISTEN_FDS={count} in the environment, but descriptor {fd} is no socket") from exc
        name = names[place] if place < len(names) and names[place] else "unknown"
        found.setdefault(name, []).append(sock)
    return found
