"""`connect ACCOUNT`: joining a mesh at any distance, through its portal (protocol: docs/specs/portal.md, Connecting).

The portal shows a profile; which mesh that is, is for the person to say: by a fingerprint given beforehand, by an
invitation that names it, or by comparing words with the device that lets this one in. Nothing of the mesh is stored
here before an admin of that very mesh has signed the answer *and* the person has confirmed it. After that only
profiles are fetched; the rest comes as it does for every device, by following the portal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from meshd.crypto import fingerprint, udf
from meshd.crypto.keys import SigningKey
from meshd.crypto.sealing import DEVICE_KDF, KdfParameters
from meshd.daemon import membership, pairing_wire
from meshd.daemon import names as naming
from meshd.daemon import newcomer as newcomers
from meshd.daemon.background import with_pen
from meshd.daemon.context import Daemon
from meshd.daemon.newcomer import Newcomer
from meshd.daemon.pairing_wire import Followed
from meshd.daemon.pen import Pen
from meshd.daemon.portals.account import shown_profiles
from meshd.daemon.portals.link import Link, Where, personal_profiles
from meshd.daemon.portals.renewed import ASK_AGAIN
from meshd.daemon.portals.roster import Portals, where_of
from meshd.daemon.verifying import check
from meshd.errors import (
    BadRequest,
    Exists,
    FormatError,
    MeshError,
    NetworkError,
    NotFound,
    PossibleAttack,
    Refused,
    RemoteProtocolError,
    TrustError,
)
from meshd.localapi.bodies_portal import REMOTE_CONNECTION_ENDS
from meshd.pairing import remote
from meshd.portal.codec import Dialect
from meshd.portal.messages import (
    ConnectStartRequest,
    ConnectStartResponse,
    ConnectStatusRequest,
    ConnectStatusResponse,
)
from meshd.profile import connection as connections
from meshd.profile import version
from meshd.profile.apps import group
from meshd.profile.claim import Kind
from meshd.profile.version import Version
from meshd.store import portals_client as store
from meshd.store.replica import Directory, Outcome

POLL_FIRST, POLL_LAST = 1.0, 15.0  # seconds between two questions whether somebody has answered
GIVE_UP = 3600.0
SYNC_SECONDS = 20.0
KEPT = 8


class RemoteConnection(Followed):
    """The joining of a mesh through a portal, as the person sees it."""

    def __init__(self, id: str, account: str, name: str) -> None:
        super().__init__(id, "searching", REMOTE_CONNECTION_ENDS)
        self.account = account
        self.name = name
        self.mesh: str | None = None
        self.own = ""
        self.accepted = False
        self.confirmed = False
        self.device: dict[str, str] | None = None
        self.admin = ""

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "state": self.state,
            "account": self.account,
            "mesh": self.mesh,
            "mesh_words": fingerprint.text(self.mesh) if self.mesh else None,
            "own": self.own or None,
            "own_words": fingerprint.text(self.own) if self.own else None,
            "accepted": self.accepted,
            "confirmed": self.confirmed,
            "device": self.device,
            "error": self.problem(),
        }


@dataclass(slots=True)
class _Job:
    connection: RemoteConnection
    where: Where
    expected: str | None  # the mesh that it must be
    secret: bytes | None = field(repr=False)
    passphrase: str | None = field(repr=False)
    newcomer: Newcomer | None = None
    rejected: bool = False
    answered: trio.Event = field(default_factory=trio.Event)  # the person said yes or no
    refused: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    over: trio.Event = field(default_factory=trio.Event)


class RemoteConnections:
    """The joining of a mesh through a portal; one at a time."""

    def __init__(self, daemon: Daemon, portals: Portals, *, kdf: KdfParameters = DEVICE_KDF) -> None:
        self._daemon = daemon
        self._portals = portals
        self._kdf = kdf
        self._jobs: dict[str, _Job] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    # --- what the local API asks for ----------------------------------------------------------------------------------

    async def create(self, request: Mapping[str, Any]) -> RemoteConnection:
        """Begin to join, as `bodies_portal.REMOTE_CONNECTION_REQUEST` wants it. Exists, BadRequest."""
        if self._daemon.snapshot.connected:
            raise Exists("This device is in a mesh already.", hint="see: meshctl whoami")
        job = self._plan(request)
        if self._nursery is None:
            raise NetworkError("This daemon is stopping.")
        self._jobs[job.connection.id] = job
        for id in list(self._jobs)[:-KEPT]:
            del self._jobs[id]
        self._nursery.start_soon(self._run, job)
        return job.connection

    def get(self, id: str) -> RemoteConnection:
        """NotFound."""
        return self._job(id).connection

    async def cancel(self, id: str) -> RemoteConnection:
        """Give up. What is committed already stays."""
        job = self._job(id)
        job.scope.cancel()
        await job.over.wait()
        return job.connection

    async def answer(self, id: str, accept: bool) -> RemoteConnection:
        """The person compared the mesh's fingerprint with the admin's: it is the same, or it is not."""
        job = self._job(id)
        if job.connection.mesh is None:
            raise BadRequest("There is nothing to compare yet.")
        job.refused = job.refused or not accept
        job.connection.confirmed = accept and not job.refused
        if accept:
            job.connection.move("requested")
        job.answered.set()
        return job.connection

    def _job(self, id: str) -> _Job:
        if id not in self._jobs:
            raise NotFound("There is no such connection.")
        return self._jobs[id]

    def _plan(self, request: Mapping[str, Any]) -> _Job:
        passphrase = request.get("passphrase")
        if (passphrase is None) != (request.get("no_passphrase") is True):
            raise BadRequest("Joining takes a passphrase, or the word that there shall be none.")
        if ("account" in request) == ("uri" in request):
            raise BadRequest("Joining takes an account or the URI of an invitation.")
        expected, secret, account = request.get("fingerprint"), None, request.get("account", "")
        address, plain = request.get("address", ""), request.get("plain") is True
        try:
            name = group.check_name(request["name"])
            if "uri" in request:
                uri = remote.parse(request["uri"])
                if expected is not None and not udf.equal(expected, uri.mesh):
                    raise BadRequest("The invitation is another mesh's than the fingerprint says.")
                expected, secret, account = uri.mesh, uri.secret, uri.account
                address, plain = address or uri.address, plain or uri.plain
            if expected is not None:
                expected = udf.check(expected.upper())
        except FormatError as exc:
            raise BadRequest(str(exc), hint=exc.hint) from exc
        where = where_of(account, address, plain=plain)
        connection = RemoteConnection(self._daemon.rng(8).hex(), str(where.account), name)
        return _Job(connection, where, expected, secret, passphrase)

    # --- one joining --------------------------------------------------------------------------------------------------

    async def _run(self, job: _Job) -> None:
        error: MeshError | None = None
        try:
            with job.scope:
                with trio.CancelScope(shield=True):
                    job.newcomer = await newcomers.prepare(self._daemon, job.passphrase, self._kdf)
                job.passphrase = None
                with trio.fail_after(GIVE_UP):
                    await self._ask_and_wait(job)
                await self._follow(job)
        except trio.TooSlowError:
            error = Refused("Nobody let this device in within an hour.", hint="run meshctl connect again: it goes on")
        except MeshError as exc:
            error = exc
        except Exception as exc:  # a fault of ours ends this joining and not the daemon
            self._daemon.log.error("a fault while joining", exc_info=exc)
            error = Refused("Joining failed by a fault of meshd; its log says more.")
        finally:
            with trio.CancelScope(shield=True):
                await self._finish(job, error)
            job.over.set()

    async def _finish(self, job: _Job, error: MeshError | None) -> None:
        daemon, connection = self._daemon, job.connection
        if daemon.snapshot.connected:
            if error is not None:
                daemon.log.warning("joined, but: %s", error)
            snapshot = daemon.snapshot
            role = snapshot.roles.get(snapshot.own)
            connection.device = {"id": snapshot.own, "name": connection.name, "role": str(role)} if role else None
            connection.move("done")
            return
        await newcomers.give_up(daemon, job.newcomer, rejected=job.rejected)
        connection.move("cancelled" if error is None else "failed", error)

    def _link(self, job: _Job) -> Link:
        def key() -> SigningKey | None:
            return job.newcomer.keys.dak if job.newcomer is not None else None

        return self._portals.link(job.where, key)

    async def _ask_and_wait(self, job: _Job) -> None:
        connection, link = job.connection, self._link(job)
        shown = await self._shown(job, link)
        if link.dialect is Dialect.PLAIN:
            # It keeps the newest profile alone, which can't be judged without those that it builds on.
            raise Refused("That portal is one of 2016, and keeps no history: a new device can't join through it.")
        mesh = connection.mesh = shown[0].identifier
        assert job.newcomer is not None  # prepared
        job.newcomer = newcomer = await newcomers.asks(self._daemon, job.newcomer)
        connection.own = newcomer.udf
        if job.expected is not None:
            connection.confirmed = True
            job.answered.set()
        token = (
            remote.pin_token(job.secret, mesh, newcomer.profile.vid, self._daemon.rng, unsealed=newcomer.unsealed)
            if job.secret is not None
            else remote.fingerprint_token(self._daemon.rng, unsealed=newcomer.unsealed)
        )
        request = connections.write_request(newcomer.keys.dsk, newcomer.profile, mesh, token)
        connection.move("requested" if connection.confirmed else "comparing")
        await self._both_say_yes(job, link, request)
        raws = await personal_profiles(link, mesh)
        await self._join(job, mesh, raws)

    async def _shown(self, job: _Job, link: Link) -> list[Version]:
        """The mesh that the portal shows for the account; every profile proves itself."""
        await link.hello()
        shown = await shown_profiles(link)
        if not shown:
            raise NotFound(f"{job.connection.account} is no account there.", hint="look at its spelling")
        found = []
        for parsed in shown:
            if not parsed.claim.links.p and parsed.claim.signer != parsed.claim.identifier:
                raise TrustError("the portal shows a mesh that its own master key never signed")
            found.append(version.verify(parsed))
        if len({one.identifier for one in found}) != 1:
            raise RemoteProtocolError("the portal shows several meshes for one account")
        if job.expected is not None and not udf.equal(job.expected, found[0].identifier):
            raise PossibleAttack(
                "The portal shows another mesh than the one that was named.",
                hint=f"it shows {found[0].identifier}; compare it on a device of the mesh: meshctl whoami",
            )
        return found

    async def _both_say_yes(self, job: _Job, link: Link, request: dict[str, Any]) -> None:
        """Wait until an admin let us in and the person here confirmed the mesh, in whatever order. Refused …"""
        failures: list[MeshError] = []

        async def accepted() -> None:
            try:
                job.connection.admin = await self._accepted(job, link, request)
            except MeshError as exc:
                failures.append(exc)
                nursery.cancel_scope.cancel()
                return
            job.connection.accepted = True
            job.connection.moved.bump()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accepted)
            await job.answered.wait()
            if job.refused:
                job.rejected = True
                failures.append(Refused("You said that the fingerprints differ, so nothing was joined."))
                nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]

    async def _accepted(self, job: _Job, link: Link, request: dict[str, Any]) -> str:
        """Ask, and wait for the answer of an admin; his UDF. Refused when he says no."""
        connection, pause = job.connection, POLL_FIRST
        newcomer = job.newcomer
        assert newcomer is not None
        asked_at: float | None = None
        failures = 0
        while True:
            try:
                # Asked for first: whoever was let in and never heard of it must not take the answer away by asking.
                result = await self._result(link, connection.account, newcomer.udf)
                if result is not None:
                    admin = await self._read_result(job, link, result)
                    if admin:
                        return admin
                if asked_at is None or trio.current_time() - asked_at > ASK_AGAIN:
                    start = ConnectStartRequest(account_id=connection.account, signed_request=request)
                    await link.ask("ConnectStart", start, ConnectStartResponse)
                    asked_at = trio.current_time()
                failures = 0
            except NetworkError as exc:
                failures += 1
                if asked_at is None and failures >= 3:
                    raise
                self._daemon.log.info("connecting: %s", exc)
            await trio.sleep(pause)
            pause = min(pause * 1.3, POLL_LAST)

    async def _result(self, link: Link, account: str, device: str) -> dict[str, Any] | None:
        asked = ConnectStatusRequest(account_id=account, device_id=device)
        return (await link.ask("ConnectStatus", asked, ConnectStatusResponse)).result

    async def _read_result(self, job: _Job, link: Link, result: dict[str, Any]) -> str:
        """The admin who signed that this device is let in; "" for an answer to an earlier request that was no."""
        assert job.newcomer is not None
        signer = connections.result_signer(result)
        profiles = await self._shown(job, link)
        key = next(
            (keys[signer] for one in profiles if signer in (keys := version.online_keys(one.embedded[0].body))), None
        )
        if key is None or profiles[0].identifier != job.connection.mesh:
            raise TrustError("the answer is not signed by an admin of the mesh that was shown")
        found = connections.read_result(result, key, job.newcomer.udf)
        if found.result != connections.ACCEPTED:
            job.rejected = True
            hint = "an admin's device needs a passphrase, and this one has none" if job.newcomer.unsealed else None
            raise Refused("The person at the other device said no.", hint=hint)
        if found.device is not None and found.device.claim.vid != job.newcomer.profile.vid:
            raise TrustError("the answer is about another profile of this device")
        return signer

    # --- joining ------------------------------------------------------------------------------------------------------

    async def _join(self, job: _Job, mesh: str, raws: list[bytes]) -> None:
        """Membership, profiles and the portal in one transaction; then unlocked."""
        daemon, newcomer, where = self._daemon, job.newcomer, job.where
        assert newcomer is not None
        directory = Directory()
        verified = await trio.to_thread.run_sync(check, raws, [None] * len(raws), directory)
        profiles = [one for one in verified.versions if one.kind is Kind.PERSONAL and one.identifier == mesh]

        def commit(connection: sqlite3.Connection, outcome: Outcome) -> None:
            replica, now = daemon.replica, daemon.now_ms()
            replica.introduce(connection, mesh, newcomer.udf)
            replica.accept(connection, profiles, now, outcome)
            if newcomer.udf not in replica.authority.devices():
                raise TrustError(
                    "The answer says that this device was let in, but the portal shows no profile that lists it.",
                    hint="it may show an old state: run meshctl connect again in a while",
                )
            store.put(connection, str(where.account), where.address, plain=where.plain)

        await newcomers.enter(daemon, newcomer, commit)

    async def _follow(self, job: _Job) -> None:
        """The rest of what the mesh holds, not waited for long: it comes by itself. Then say what we are called."""
        daemon, account = self._daemon, job.connection.account
        job.connection.move("syncing")
        with trio.move_on_after(SYNC_SECONDS):
            while True:
                seen, moved = daemon.changed.count, daemon.moved.count
                portal = self._portals.running.get(account)
                if portal is not None and (portal.caught_up or portal.plain):
                    break
                await naming.moved_past(daemon, moved, seen)
        try:
            job.connection.name = await with_pen(daemon, lambda pen: _call_ourselves(pen, job.connection.name))
        except MeshError as exc:
            daemon.log.info("this device goes by the name that it was given: %s", exc)


def _call_ourselves(pen: Pen, wanted: str) -> str:
    """Write our own name into the Group vault; the admin that let us in could not know it."""
    own = pen.keyring.device.udf
    called = pairing_wire.name_for(pen, wanted, own)
    if pairing_wire.device_names(pen.connection, pen.keyring).get(own) != called:
        membership.name_device(pen, own, called)
    return called
