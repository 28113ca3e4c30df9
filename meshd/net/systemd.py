"""What a service says to systemd and takes from it: readiness and watchdog (sd_notify(3)).

The environment comes in as an argument, so that nothing here depends on how the tests were started.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


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
