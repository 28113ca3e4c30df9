"""Errors on their way through the socket: class → body in the daemon, body → exit code in meshctl, in two dicts."""

from __future__ import annotations

from meshd.errors import MeshError
from meshd.localapi import SCHEMA

OK, ERROR, USAGE, NOT_RUNNING, NOT_CONNECTED, LOCKED, CONFLICTS, NOT_SYNCED, DENIED, MISMATCH, ATTACK = range(11)
INTERRUPTED = 130  # Ctrl-C, as shells have it

# Codes that are not named here are plain errors: 1.
EXIT_CODES: dict[str, int] = {
    "usage": USAGE,
    "not-running": NOT_RUNNING,
    "not-connected": NOT_CONNECTED,
    "locked": LOCKED,
    "conflicts": CONFLICTS,
    "not-synced": NOT_SYNCED,
    "denied": DENIED,
    "refused": DENIED,
    "wrong-code": DENIED,
    "wrong-passphrase": DENIED,
    "removed": DENIED,
    "version-mismatch": MISMATCH,
    "store-too-new": MISMATCH,
    "possible-attack": ATTACK,
    "trust": ATTACK,
    "signature": ATTACK,
    "proof": ATTACK,
    "unknown-signer": ATTACK,
    "interrupted": INTERRUPTED,
}

# Codes that are not named here are faults of the daemon's side: 500.
HTTP_STATUS: dict[str, int] = {
    "usage": 400,
    "format": 422,
    "share": 422,
    "denied": 403,
    "refused": 403,
    "wrong-code": 403,
    "wrong-passphrase": 403,
    "removed": 403,
    "trust": 403,
    "signature": 403,
    "proof": 403,
    "unknown-signer": 403,
    "not-found": 404,
    "ambiguous": 409,
    "exists": 409,
    "not-connected": 409,
    "decrypt": 409,
    "possible-attack": 409,
    "locked": 423,
    "version-mismatch": 426,
    "error": 500,
    "store": 500,
    "store-damaged": 500,
    "store-too-new": 500,
    "store-busy": 500,
    "protocol": 502,
    "local-protocol": 500,
    "remote-protocol": 502,
    "network": 502,
    "not-synced": 504,
    "disk-full": 507,
}


class NotRunning(MeshError):
    """meshd is not running."""

    code = "not-running"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or "start it: systemctl --user start meshd (or: meshd &)")


class ApiError(MeshError):
    """The daemon answered with an error. `code` is the daemon's, `details` the further members of its error."""

    def __init__(self, code: str, message: str, hint: str | None, details: dict[str, object] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.details = details or {}


def with_details(exc: MeshError, **details: object) -> MeshError:
    """The error with further members for its body: `raise with_details(Ambiguous(…), candidates=[…])`."""
    exc.details = details  # type: ignore[attr-defined]
    return exc


def http_status(exc: MeshError) -> int:
    return HTTP_STATUS.get(exc.code, 500)


def exit_code(code: str) -> int:
    return EXIT_CODES.get(code, ERROR)


def error_body(exc: MeshError) -> dict[str, object]:
    """The body that tells of an error."""
    details = getattr(exc, "details", {})
    return {"schema": SCHEMA, "error": {"code": exc.code, "message": str(exc), "hint": exc.hint, **details}}


def from_body(body: object) -> ApiError:
    """The error that a body tells of; whatever the body is, an ApiError comes out."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return ApiError("error", "the daemon answered with an error that can't be read", None)
    code, message, hint = error.get("code"), error.get("message"), error.get("hint")
    details = {name: value for name, value in error.items() if name not in ("code", "message", "hint")}
    return ApiError(
        code if isinstance(code, str) and code else "error",
        message if isinstance(message, str) and message else "something went wrong",
        hint if isinstance(hint, str) and hint else None,
        details,
    )
