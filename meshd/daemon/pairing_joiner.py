"""One conversation of the device that joins: from the greeting to the mesh in its store (docs/specs/pairing.md).

What the host shows is believed in steps: the code proves the host, the offered profile proves itself, the answer is
signed by an admin of that profile, and the versions that come along are verified like any. They and the membership are
one transaction, and the host hears a proper end of the conversation only after it.
"""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Awaitable, Callable

import trio

from meshd.daemon import newcomer as newcomers
from meshd.daemon import pairing_wire
from meshd.daemon.context import Daemon
from meshd.daemon.newcomer import Newcomer
from meshd.daemon.pairing_wire import PROOF_SECONDS, Followed, Talk
from meshd.daemon.verifying import verify
from meshd.errors import CodeError, Denied, MeshError, NetworkError, Refused, RemoteProtocolError, TrustError
from meshd.localapi.bodies import CONNECTION_ENDS
from meshd.pairing.code import PairingSecret
from meshd.pairing.events import (
    Closed,
    CodeRefused,
    Decided,
    Entries,
    Event,
    Offered,
    ProfileOffered,
    Proven,
    Started,
    TryReserved,
    TurnedAway,
    Welcome,
)
from meshd.pairing.machine import Joiner
from meshd.pairing.states import State
from meshd.profile import connection as connections
from meshd.profile import version
from meshd.profile.version import Version
from meshd.store import peers, versions
from meshd.store.replica import Directory, Outcome

PROFILE_SECONDS = 30.0
DECIDE_SECONDS = 180.0  # a person may be asked
ENTRIES_SECONDS = 60.0  # for each batch
_NOT_ADMITTED = ("rejected", "unsealed")  # reasons that say that nothing came of a request


class Busy(Refused):
    """The other device is talking to others about this code."""


class Connection(Followed):
    """The joining of a mesh, as the person sees it."""

    def __init__(self, id: str, name: str, attempts_left: int) -> None:
        super().__init__(id, "searching", CONNECTION_ENDS)
        self.name = name
        self.attempts_left = attempts_left
        self.mesh: str | None = None
        self.device: dict[str, str] | None = None
        self.admin: str | None = None
        self.received = 0

    def to_json(self) -> dict[str, object]:
        """As `localapi.bodies.CONNECTION` says."""
        return {
            "id": self.id,
            "state": self.state,
            "mesh": self.mesh,
            "device": self.device,
            "admin": self.admin,
            "attempts_left": self.attempts_left,
            "received": self.received,
            "error": self.problem(),
        }


async def move(daemon: Daemon, connection: Connection, state: str, error: MeshError | None = None) -> None:
    """Go over to a state, and tell it."""
    if connection.move(state, error):
        await pairing_wire.record(daemon, "connection", connection.to_json())


class Joining:
    """One attempt at one host. `spend` pays for a try with the code, durably, or raises.

    Afterwards `asked` says whether a request may have left, and `rejected` whether nothing came of any for certain.
    """

    def __init__(
        self,
        daemon: Daemon,
        connection: Connection,
        newcomer: Newcomer,
        secret: PairingSecret,
        spend: Callable[[], Awaitable[None]],
        stream: trio.abc.Stream,
        certificate: bytes,
        token: bytes,
    ) -> None:
        self.newcomer = newcomer
        self.asked = False
        self.rejected = False
        self._asked_before = newcomer.asked
        self._daemon = daemon
        self._connection = connection
        self._spend = spend
        self._core = Joiner(secret, newcomer.udf, certificate, daemon.rng, token)
        self._talk = Talk(self._core, stream)

    async def run(self) -> str:
        """Join; returns the UDF of the admin. CodeError, PossibleAttack, Busy, Refused, TrustError, NetworkError …"""
        try:
            with trio.move_on_after(PROOF_SECONDS) as scope:
                await self._prove()
            if scope.cancelled_caught:
                raise NetworkError("the other device did not finish the proof in time")
            offered = await self._offered()
            await self._ask(offered)
            admin = await self._decided(offered)
            raws, welcome = await self._entries()
            await self._join(offered, admin, raws, welcome)
            return admin
        except BaseException:
            if self._core.state in (State.DECIDED, State.DONE):  # admitted, and not stored: the host keeps the answer
                await self._talk.drop()
            raise
        finally:
            await self._talk.part()

    async def _prove(self) -> None:
        self._core.begin()
        while True:
            match await self._talk.next():
                case Offered(left=left):
                    self._connection.attempts_left = min(self._connection.attempts_left, left)
                    await move(self._daemon, self._connection, "proving")
                case TryReserved():
                    try:
                        await self._spend()
                    except BaseException:
                        self._core.abandon()
                        raise
                case Proven():
                    return
                case event:
                    raise self._end(event)

    async def _offered(self) -> Version:
        """The mesh that the host shows: a profile that proves itself. TrustError, FormatError."""
        event = await self._talk.next(PROFILE_SECONDS)
        if not isinstance(event, ProfileOffered):
            raise self._end(event)
        parsed = pairing_wire.read_profile(event.profile)
        if not parsed.claim.links.p and parsed.claim.signer != parsed.claim.identifier:
            raise TrustError("the other device shows a mesh that its own master key never signed")
        return version.verify(parsed)  # by the master key in it, or by an admin that it lists

    async def _ask(self, offered: Version) -> None:
        self.newcomer = newcomer = await newcomers.asks(self._daemon, self.newcomer)
        self.asked = True
        request = connections.write_request(
            newcomer.keys.dsk, newcomer.profile, offered.identifier, self._core.block_token
        )
        message = pairing_wire.write_start(request, unsealed=newcomer.unsealed)
        self._core.request(message, self._connection.name, platform.system())
        self._connection.mesh = offered.identifier
        await move(self._daemon, self._connection, "requested")

    async def _decided(self, offered: Version) -> str:
        """The admin who signed that we are admitted."""
        while isinstance(event := await self._talk.next(DECIDE_SECONDS), Started):
            pass
        if not isinstance(event, Decided):
            raise self._end(event)
        signed = pairing_wire.read_status(event.message)
        admin = connections.result_signer(signed)
        key = version.online_keys(offered.embedded[0].body).get(admin)
        if key is None:
            raise TrustError("the answer is not signed by an admin of the mesh that was shown")
        result = connections.read_result(signed, key, self.newcomer.udf)
        if result.result != connections.ACCEPTED:
            self.rejected = not self._asked_before
            raise Refused("The person at the other device said no.")
        if result.device is not None and result.device.claim.vid != self.newcomer.profile.vid:
            raise TrustError("the answer is about another profile of this device")
        return admin

    async def _entries(self) -> tuple[list[bytes], Welcome]:
        raws: list[bytes] = []
        while isinstance(event := await self._talk.next(ENTRIES_SECONDS), Entries):
            raws += event.entries
        if not isinstance(event, Welcome):
            raise self._end(event)
        return raws, event

    async def _join(self, offered: Version, admin: str, raws: list[bytes], welcome: Welcome) -> None:
        """Membership and versions in one transaction; then unlocked. What is committed can't be cancelled half-way."""
        daemon, newcomer = self._daemon, self.newcomer
        listed = pairing_wire.read_profile(welcome.profile)
        if listed.claim.identifier != offered.identifier or newcomer.udf not in listed.claim.devices:
            raise TrustError("the other device admitted this one, but shows no profile that says so")
        verified = await verify(raws, [None] * len(raws), Directory())
        if verified.refused or verified.unknown:
            reason = verified.refused[0] if verified.refused else "a version by an unknown device"
            raise TrustError(f"the other device sent what can't be believed: {reason}")

        def commit(connection: sqlite3.Connection, outcome: Outcome) -> None:
            replica, now = daemon.replica, daemon.now_ms()
            replica.introduce(connection, offered.identifier, newcomer.udf)
            replica.accept(connection, verified.versions, now, outcome)
            if newcomer.udf not in replica.authority.devices():
                raise TrustError("the versions that came along do not make this device one of the mesh")
            if not versions.known(connection, [offered.vid]):
                raise TrustError("the profile that was shown first is no part of what came along")
            peers.seen(connection, admin, now)
            peers.set_addresses(connection, admin, welcome.addresses[: peers.MAX_ADDRESSES])

        await newcomers.enter(daemon, newcomer, commit, self._talk.part)  # the last tells the host that we have it

    def _end(self, event: Event) -> MeshError:
        """What an event that is not the next step says."""
        match event:
            case CodeRefused(left=0):
                return CodeError("The code was wrong, and is void now.", hint="make a new one with: meshctl invite")
            case CodeRefused(left=left):
                self._connection.attempts_left = min(self._connection.attempts_left, left)
                more = "one more try" if left == 1 else f"{left} more tries"
                return CodeError(f"The code was wrong: the other device allows {more}.", hint="look at the code again")
            case TurnedAway(reason=reason):
                if reason in _NOT_ADMITTED and self.asked:
                    self.rejected = not self._asked_before
                if reason == "busy":
                    return Busy(str(event.error()))
                if reason == "unsealed":
                    return Denied(
                        "An admin's device needs a passphrase.",
                        hint="connect again without --no-passphrase, or invite with --force",
                    )
                return event.error()
            case Closed():
                return NetworkError("the other device ended the conversation")
            case _:
                return RemoteProtocolError(f"{type(event).__name__} out of turn")
