"""Where the socket is: one function for the daemon that binds it and the meshctl that calls it.

The directory agrees with platformdirs' user_runtime_dir, computed here because importing platformdirs would be a
quarter of meshctl's start-up time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from meshd.errors import BadRequest, Denied

HOME_VARIABLE = "MESHD_HOME"
RUNTIME_VARIABLE = "XDG_RUNTIME_DIR"
MAX_PATH = 107  # sun_path holds 108 bytes with the NUL


def socket_path(home: str | None, environ: Mapping[str, str]) -> str:
    """`HOME/meshd.sock`, where HOME is `home` or MESHD_HOME; else `$XDG_RUNTIME_DIR/meshd/meshd.sock`.

    Without XDG_RUNTIME_DIR it is `/run/user/UID/meshd/meshd.sock`, or, where the system makes no such directory,
    `/tmp/runtime-UID/meshd/meshd.sock`. Nothing is created. Denied when that last directory belongs to somebody else
    or is open to others (anybody may make one in /tmp), BadRequest when the path is too long for a socket.
    """
    chosen = home or environ.get(HOME_VARIABLE)
    if chosen:
        path = os.path.join(os.path.abspath(os.path.expanduser(chosen)), "meshd.sock")
    else:
        path = os.path.join(runtime_directory(environ), "meshd", "meshd.sock")
    if len(os.fsencode(path)) > MAX_PATH:
        raise BadRequest(f"the socket's path is longer than {MAX_PATH} bytes: {path}", hint="choose a shorter --home")
    return path


def runtime_directory(environ: Mapping[str, str]) -> str:
    """The user's runtime directory, 0700 and the user's own; not created."""
    given = environ.get(RUNTIME_VARIABLE)
    if given and os.path.isabs(given):  # a relative path is to be ignored, says the XDG specification
        return given
    uid = os.geteuid()
    usual = f"/run/user/{uid}"
    try:
        if os.stat(usual).st_uid == uid:
            return usual
    except OSError:
        pass
    fallback = os.path.join(environ.get("TMPDIR") or "/tmp", f"runtime-{uid}")  # noqa: S108 - checked below
    try:
        found = os.lstat(fallback)
    except OSError:
        return fallback  # not there yet: the daemon makes it 0700
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
        raise Denied(
            f"{fallback} is not a private directory of this user", hint=f"set {RUNTIME_VARIABLE}, or use --home"
        )
    return fallback
