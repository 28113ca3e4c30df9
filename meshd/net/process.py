"""What a process that holds keys does to itself before it reads the first of them."""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def harden() -> list[str]:
    """Private files only, no core dump, no debugger of the same user, no /proc/PID/mem. Returns what did not work.

    Memory is not locked (mlockall): an ordinary user may lock 8 MiB or less, an interpreter with OpenSSL needs several
    times that, and locking only future pages would make later allocations fail instead of being swapped. Swap is
    documented as out of scope; encrypted swap is the answer to it.
    """
    problems = []
    os.umask(0o077)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as exc:
        problems.append(f"core dumps stay possible: {exc}")
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            problems.append(f"the process stays open to debuggers: {os.strerror(ctypes.get_errno())}")
    except (OSError, AttributeError) as exc:
        problems.append(f"the process stays open to debuggers: {exc}")
    return problems
