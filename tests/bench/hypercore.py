"""hypercore (npm): an append-only log over Noise, signed as a Merkle tree; the peer that is closest in kind.

It signs one tree head for each append, not every entry, and does not fsync. Entries are 1,024 random bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.peers import Missing, folder, free_port, program, running

SCRIPT = Path(__file__).with_name("hypercore.js")
HINT = "npm install --global hypercore"


def first_sync(entries: int) -> float:
    """Entries per second that an empty core gets from a full one, two processes over loopback; Missing."""
    env = _environment()
    with folder() as path:
        port = free_port()
        node = program("node", HINT)
        with running([node, str(SCRIPT), "serve", str(path / "a"), str(port), str(entries)], env=env) as server:
            key = _line(server)
            done = subprocess.run(
                [node, str(SCRIPT), "fetch", str(path / "b"), str(port), str(entries), key],
                env=env,
                capture_output=True,
                text=True,
                timeout=600,
                check=True,
            )
    return entries / float(json.loads(done.stdout)["seconds"])


def changes(count: int) -> list[float]:
    """Seconds from an append on one process to its block downloaded and verified on the other; Missing."""
    env = _environment()
    with folder() as path:
        argv = [program("node", HINT), str(SCRIPT), "live", str(path / "a"), str(free_port()), str(count)]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=True)
    return [float(seconds) for seconds in json.loads(done.stdout.splitlines()[-1])["seconds"]]


def _environment() -> Mapping[str, str]:
    """Where node finds hypercore: NODE_PATH, or the globally installed packages."""
    node = program("node", HINT)
    npm = program("npm", HINT)
    everywhere = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, check=True).stdout.strip()
    env = {**os.environ, "NODE_PATH": os.pathsep.join(filter(None, [os.environ.get("NODE_PATH", ""), everywhere]))}
    if subprocess.run([node, "-e", "require.resolve('hypercore')"], env=env, capture_output=True).returncode:
        raise Missing(f"hypercore is not installed ({HINT})")
    return env


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
