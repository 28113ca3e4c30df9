"""One open invitation: what the person sees of it, and what its conversations share.

The tries, the one success and the one decision belong to the window, not to a connection, so parallel callers cost as
much as serial ones. The code is used up by the first device that proves it; that device, and no other, may come back
within the window for its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio

from meshd.crypto.keys import SigningKey
from meshd.daemon import notices, pairing_wire
from meshd.daemon.context import Daemon
from meshd.daemon.pairing_wire import Followed
from meshd.errors import MeshError
from meshd.localapi.bodies import INVITATION_ENDS
from meshd.pairing.code import PairingSecret
from meshd.pairing.limits import Attempts
from meshd.pairing.machine import Host
from meshd.profile import payload
from meshd.profile.claim import Role

# Why a window that is over turns a caller away, in the words of the protocol.
_OVER = {
    "admitted": "used",
    "burned": "burned",
    "expired": "expired",
    "cancelled": "cancelled",
    "failed": "unavailable",
}


class Invitation(Followed):
    """A pairing window as the person sees it. The code is in `to_json` and nowhere else."""

    def __init__(self, id: str, code: str, slot: int, role: Role, expires_ms: int, tries: int) -> None:
        super().__init__(id, "open", INVITATION_ENDS)
        self.slot = slot
        self.role = role
        self.expires_ms = expires_ms
        self.attempts_left = tries
        self.device: dict[str, str] | None = None  # who asks, or was admitted
        self.uri = ""
        self._code = code

    def __repr__(self) -> str:
        return f"<Invitation {self.id} {self.state}>"

    @property
    def code(self) -> str:
        return self._code

    def to_json(self) -> dict[str, object]:
        """As `localapi.bodies.INVITATION` says."""
        return {
            "id": self.id,
            "code": self._code,
            "slot": self.slot,
            "expires": payload.write_date(self.expires_ms // 1000),
            "uri": self.uri,
            "state": self.state,
            "attempts_left": self.attempts_left,
            "role": str(self.role),
            "device": self.device,
            "error": self.problem(),
        }


@dataclass(frozen=True, slots=True)
class Terms:
    """What the person who invites has decided beforehand."""

    role: Role
    ttl: float = 300.0
    words: int = 2
    remote: bool = False
    confirm: bool = False
    force: bool = False
    grants: Mapping[str, str] | None = None  # container → "read" | "write"; None: everything
    replaces: str = ""  # UDF of the device that leaves as the new one comes


@dataclass(frozen=True, slots=True)
class Decision:
    device: bytes  # vid of the DeviceProfile that was decided on
    message: bytes = field(repr=False)  # ConnectStatusResponse


class Question:
    """What the person is asked, once."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.accepted = False

    def answer(self, accepted: bool) -> None:
        if not self.answered.is_set():
            self.accepted = accepted
            self.answered.set()


class Window:
    """One open invitation, as its conversations share it."""

    def __init__(
        self,
        invitation: Invitation,
        terms: Terms,
        secrets: Sequence[PairingSecret],
        certificate: bytes,
        token: bytes | None,
        master_key: SigningKey | None,
    ) -> None:
        self.invitation = invitation
        self.terms = terms
        self.secrets = tuple(secrets)
        self.certificate = certificate
        self.token = token  # None: whoever has the code may come from anywhere
        self.master_key = master_key
        self.deadline = trio.current_time() + terms.ttl
        self.attempts = Attempts()
        self.again = Attempts()  # of the device that proved the code and was cut off
        self.device = ""  # who proved the code
        self.decision: Decision | None = None
        self.question: Question | None = None
        self.deciding = 0  # conversations with the device that proved the code
        self.delivered = False  # the joiner has stored what it was given
        self.closing = trio.Event()
        self.lock = trio.Lock()  # an admission and a withdrawal exclude each other
        self.cores: set[Host] = set()

    def __repr__(self) -> str:
        return f"<Window {self.invitation.id} {self.invitation.state}>"

    @property
    def finished(self) -> bool:
        """Nobody has anything to expect here any more."""
        return self.invitation.ended and (self.delivered or self.invitation.state != "admitted")

    @property
    def word(self) -> str:
        """Why a caller is turned away when the window is over."""
        return _OVER.get(self.invitation.state, "unavailable")

    def turns_away(self, udf: str) -> str | None:
        """The reason why this caller gets no try, if there is one."""
        if self.device and udf != self.device:
            return "used"
        if self.invitation.ended and self.invitation.state != "admitted":
            return self.word
        if self.device:
            return None  # cut off, and back for its answer
        return "expired" if trio.current_time() >= self.deadline else self.attempts.refusal

    def counter(self) -> Attempts:
        return self.again if self.device else self.attempts

    def count_left(self) -> None:
        """Show what is left to the person and to everybody who is trying."""
        self.invitation.attempts_left = self.counter().left
        for core in self.cores:
            core.left = self.counter().left

    def wipe(self) -> None:
        """Forget what opens anything."""
        self.secrets = ()
        self.master_key = None


async def move(daemon: Daemon, window: Window, state: str, error: MeshError | None = None) -> None:
    """Go over to a state, and tell it."""
    if window.invitation.move(state, error):
        await tell(daemon, window.invitation)
        if state == notices.BURNED:
            await notices.burnt(daemon)


async def tell(daemon: Daemon, invitation: Invitation) -> None:
    """Record how an invitation stands, without what opens it."""
    told = {name: value for name, value in invitation.to_json().items() if name not in ("code", "uri")}
    await pairing_wire.record(daemon, "invitation", told)
