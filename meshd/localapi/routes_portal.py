"""The routes about portals: rows of the table in `routes`."""

from __future__ import annotations

from meshd.localapi import bodies as b
from meshd.localapi import bodies_portal as p
from meshd.localapi.route import CONNECTED, RUNNING, UNLOCKED, Route
from meshd.localapi.shapes import record

PORTAL_ROUTES: tuple[Route, ...] = (
    Route("portals", "GET", "/v1/portals", "The accounts of the mesh, and how they stand", CONNECTED, p.PORTALS),
    Route(
        "add-portal",
        "POST",
        "/v1/portals",
        "Open an account at a portal, and have the mesh use it",
        UNLOCKED,
        p.PORTAL,
        p.PORTAL_REQUEST,
        status=201,
    ),
    Route(
        "remove-portal",
        "DELETE",
        "/v1/portals/{account}",
        "No device uses the account any more; at the portal it stays as it is",
        UNLOCKED,
        p.PORTAL,
    ),
    Route("pending", "GET", "/v1/pending", "Devices that ask at a portal to join", CONNECTED, p.PENDING),
    Route(
        "accept-pending",
        "POST",
        "/v1/pending/{device}/accept",
        "Let a device in, whose fingerprint was compared",
        UNLOCKED,
        p.ACCEPTED,
        p.ACCEPT_REQUEST,
    ),
    Route(
        "reject-pending",
        "POST",
        "/v1/pending/{device}/reject",
        "Tell a device no",
        UNLOCKED,
        p.REJECTED,
        record({}),
    ),
    Route(
        "invite-remote",
        "POST",
        "/v1/remote-invitations",
        "Open an invitation that works through a portal",
        UNLOCKED,
        p.REMOTE_INVITATION,
        p.REMOTE_INVITATION_REQUEST,
        status=201,
    ),
    Route(
        "remote-invitation",
        "GET",
        "/v1/remote-invitations/{invitation}",
        "Such an invitation; waits for its state to change",
        CONNECTED,
        p.REMOTE_INVITATION,
        query=record({}, b.LONG_POLL),
    ),
    Route(
        "cancel-remote-invitation",
        "DELETE",
        "/v1/remote-invitations/{invitation}",
        "Close it",
        CONNECTED,
        p.REMOTE_INVITATION,
    ),
    Route(
        "connect-remote",
        "POST",
        "/v1/remote-connections",
        "Join a mesh through its portal",
        RUNNING,
        p.REMOTE_CONNECTION,
        p.REMOTE_CONNECTION_REQUEST,
        status=201,
    ),
    Route(
        "remote-connection",
        "GET",
        "/v1/remote-connections/{connection}",
        "Such a connection under way; waits for its state to change",
        RUNNING,
        p.REMOTE_CONNECTION,
        query=record({}, b.LONG_POLL),
    ),
    Route(
        "answer-remote-connection",
        "POST",
        "/v1/remote-connections/{connection}/answer",
        "Confirm the mesh whose fingerprint was compared, or refuse it",
        RUNNING,
        p.REMOTE_CONNECTION,
        b.ANSWER_REQUEST,
    ),
    Route(
        "cancel-remote-connection",
        "DELETE",
        "/v1/remote-connections/{connection}",
        "Give up joining",
        RUNNING,
        p.REMOTE_CONNECTION,
    ),
)
