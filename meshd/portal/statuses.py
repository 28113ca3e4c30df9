"""The Status numbers of responses, and what each of our errors becomes: one dict (draft §"Status codes").

The HTTP status mirrors the body's, but a 2016 client is always told 200: it throws at anything from 400 on before it
reads the body. Where HTTP has a finer number than 2016 knew, the body keeps the 2016 one.
"""

from __future__ import annotations

import enum

from meshd import errors


class Status(enum.IntEnum):
    SUCCESS = 201
    UPDATED = 202
    REDIRECT_PERMANENT = 303
    REDIRECT_TEMPORARY = 307
    MALFORMED = 400  # from here the numbers marked "ours" never reach a 2016 client in HTTP
    UNAUTHORIZED = 401
    NOT_FOUND = 404
    EXISTS = 409
    HEAD_MOVED = 412  # ours: Mesh-If-Head named other heads
    TOO_LARGE = 413
    SUSPENDED = 423  # ours: whoever runs the portal suspended the account
    LINKS_MISSING = 424  # ours: versions that this one names are not here
    INTERNAL = 500
    OVERLOAD = 503
    QUOTA = 507  # ours: the account is full


SUCCESSES = frozenset({Status.SUCCESS, Status.UPDATED})
DESCRIPTION_OF_SUCCESS = "Operation completed successfully"  # the fixed text of March 2016


class TooLarge(errors.FormatError):
    """The request or entry is too large."""


OF_ERROR: dict[type[errors.MeshError], Status] = {
    TooLarge: Status.TOO_LARGE,
    errors.FormatError: Status.MALFORMED,
    errors.BadRequest: Status.MALFORMED,
    errors.ProtocolError: Status.MALFORMED,
    errors.VersionMismatch: Status.MALFORMED,
    errors.TrustError: Status.UNAUTHORIZED,
    errors.Denied: Status.UNAUTHORIZED,
    errors.Refused: Status.UNAUTHORIZED,
    errors.PossibleAttack: Status.UNAUTHORIZED,
    errors.NotFound: Status.NOT_FOUND,
    errors.Exists: Status.EXISTS,
    errors.StoreBusy: Status.OVERLOAD,
    errors.DiskFull: Status.OVERLOAD,
    errors.MeshError: Status.INTERNAL,
}


def of_error(error: Exception) -> Status:
    """The Status of the nearest class that the dict has; 500 for what is not ours."""
    for kind in type(error).__mro__:
        if kind in OF_ERROR:
            return OF_ERROR[kind]
    return Status.INTERNAL


def http_status(status: int, *, plain: bool, throttled: bool = False) -> int:
    """What HTTP says beside a body's Status. `plain`: to a 2016 client. `throttled`: 503 because of a rate limit."""
    if plain:
        return 200
    return 429 if throttled else int(status)
