"""Files with secrets in them: new, readable by their owner alone, durable."""

from __future__ import annotations

import os

from meshd.errors import BadRequest


def check_free(name: str) -> None:
    """BadRequest where there is a file of that name."""
    if os.path.lexists(name):
        raise BadRequest(f"{name} exists already", hint="name a new file")


def write_private(name: str, content: str) -> None:
    """Write a new file that its owner alone can read, durable when this returns. BadRequest."""
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        directory = os.open(os.path.dirname(os.path.abspath(name)), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise BadRequest(f"{name} can't be written: {exc.strerror}") from None
