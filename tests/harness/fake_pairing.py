"""The part of the fake daemon that pairs: invitations and connections, which follow a script."""

from __future__ import annotations

import threading
from typing import Any

from meshd.errors import NotFound, WrongPassphrase
from meshd.localapi.routes import Match


class FakePairing:
    """Mixed into `FakeDaemon`, which holds the state."""

    master: str
    invitation_script: list[dict[str, Any]]
    connection_script: list[dict[str, Any]]
    deleted: list[str]
    answers: list[bool]
    polled: threading.Event
    _stopped: threading.Event
    _resources: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]

    def do_invite(self, match: Match, body: Any) -> Any:
        if body.get("role") == "admin" and body.get("master_passphrase") != self.master:
            raise WrongPassphrase("the master passphrase is wrong")
        first = {
            "id": "inv1",
            "code": "7-orbit-walnut",
            "slot": 7,
            "expires": "2126-11-24T06:46:00Z",
            "uri": "mesh-pair:?v=1&c=7-orbit-walnut&a=127.0.0.1:4711",
            "state": "open",
            "attempts_left": 3,
            "role": body.get("role", "member"),
        }
        self._resources["inv1"] = (first, [*self.invitation_script])
        return first

    def _poll(self, match: Match, name: str) -> Any:
        if name not in self._resources:
            raise NotFound
        now, script = self._resources[name]
        if match.query.get("state") == now["state"]:
            self.polled.set()
            if script:
                now.update(script.pop(0))
            else:
                self._stopped.wait(float(match.query.get("wait", 0)))  # type: ignore[arg-type]
        return now

    def do_invitation(self, match: Match, body: Any) -> Any:
        return self._poll(match, match.params["invitation"])

    def do_answer_invitation(self, match: Match, body: Any) -> Any:
        self.answers.append(body["accept"])
        return self._resources[match.params["invitation"]][0]

    def do_cancel_invitation(self, match: Match, body: Any) -> Any:
        self.deleted.append("invitation")
        now, _ = self._resources[match.params["invitation"]]
        now["state"] = "cancelled"
        return now

    def do_connect(self, match: Match, body: Any) -> Any:
        first = {"id": "con1", "state": "searching"}
        self._resources["con1"] = (first, [*self.connection_script])
        return first

    def do_connection(self, match: Match, body: Any) -> Any:
        return self._poll(match, match.params["connection"])

    def do_cancel_connection(self, match: Match, body: Any) -> Any:
        self.deleted.append("connection")
        now, _ = self._resources[match.params["connection"]]
        now["state"] = "cancelled"
        return now
