"""`connect`: find the device that shows the code, prove it, and join its mesh (formats.md F10, F11).

Anybody may announce the same slot, so every candidate is tried in turn, and every try with the code is paid for before
it leaves, over all candidates and all runs. A wrong answer of one candidate says nothing about the next; only when none
is left is the worst of what happened told. Keys made for an attempt go again unless a request has left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from meshd.crypto.sealing import DEVICE_KDF, KdfParameters
from meshd.daemon import newcomer as newcomers
from meshd.daemon import pairing_wire
from meshd.daemon.candidates import Candidate, Sightings, of_uri, reach
from meshd.daemon.context import Daemon, wait
from meshd.daemon.newcomer import Newcomer
from meshd.daemon.pairing_joiner import Busy, Connection, Joining, move
from meshd.daemon.progress import Progress
from meshd.errors import (
    BadRequest,
    CodeError,
    Exists,
    FormatError,
    MeshError,
    NetworkError,
    NotFound,
    PossibleAttack,
    RemoteProtocolError,
)
from meshd.net import tls
from meshd.net.lan import Network, parse_address
from meshd.net.streams import STREAM_ERRORS, stream_error
from meshd.pairing.code import Code, PairingSecret, PairingUri, parse_code, parse_uri
from meshd.pairing.limits import TRIES, TypedCodes
from meshd.profile.apps import group

SEARCH_SECONDS = 60.0  # for the first candidate: the other device may show its code only now
GRACE_SECONDS = 1.0  # for a further candidate, after one that did not do
TOKEN_SECONDS = 1.5  # to hear the token of a link whose address a person typed
BUSY_RETRIES, BUSY_SECONDS = 5, 2.0
SYNC_SECONDS = 20.0
KEPT = 16
TYPED = "typed"  # where the tries with typed codes are saved


@dataclass(slots=True)
class _Job:
    connection: Connection
    secret: PairingSecret = field(repr=False)
    code: Code | None = field(repr=False)
    uri: PairingUri | None = field(repr=False)
    address: str | None
    passphrase: str | None = field(repr=False)
    newcomer: Newcomer | None = None
    asked: bool = False  # a request left in this run
    rejected: bool = False
    admin: str = ""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    over: trio.Event = field(default_factory=trio.Event)


class Connections:
    """The joining of a mesh; one at a time.

    `conversations` gives the sync connections by device, to follow the first sync; without it nobody waits for that.
    `kdf` is what the passphrase of the new keystore costs.
    """

    def __init__(
        self,
        daemon: Daemon,
        network: Network,
        conversations: Callable[[], Mapping[str, Progress]] | None = None,
        *,
        kdf: KdfParameters = DEVICE_KDF,
    ) -> None:
        self._daemon = daemon
        self._network = network
        self._conversations = conversations
        self._kdf = kdf
        self._nursery: trio.Nursery | None = None
        self._jobs: dict[str, _Job] = {}
        self._typed = _saved_tries(daemon)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    # --- what the local API asks for ----------------------------------------------------------------------------------

    async def create(self, request: Mapping[str, Any]) -> Connection:
        """Begin to join, as `localapi.bodies.CONNECTION_REQUEST` wants it.

        Exists: this device is in a mesh, or joining one. BadRequest. PossibleAttack: this code had all its tries here.
        """
        if self._daemon.snapshot.connected:
            raise Exists("This device is in a mesh already.", hint="see: meshctl whoami")
        if any(not job.connection.ended for job in self._jobs.values()):
            raise Exists("This device is joining a mesh already.", hint="wait, or stop the other meshctl connect")
        job = self._plan(request)
        if self._nursery is None:
            raise NetworkError("This device does not take part in the network now.")
        self._jobs[job.connection.id] = job
        for id in list(self._jobs)[:-KEPT]:
            del self._jobs[id]
        await pairing_wire.record(self._daemon, "connection", job.connection.to_json())
        self._nursery.start_soon(self._run, job)
        return job.connection

    def get(self, id: str) -> Connection:
        """NotFound."""
        return self._job(id).connection

    async def wait(self, id: str, state: str | None, seconds: float) -> Connection:
        """The connection once its state is another than `state`, and anyhow after `seconds`."""
        connection = self.get(id)
        await connection.past(state, seconds)
        return connection

    async def cancel(self, id: str) -> Connection:
        """Give up. What is committed already stays: then the connection is done, only not waited for."""
        job = self._job(id)
        job.scope.cancel()
        await job.over.wait()
        return job.connection

    def _job(self, id: str) -> _Job:
        job = self._jobs.get(id)
        if job is None:
            raise NotFound("There is no such connection.")
        return job

    def _plan(self, request: Mapping[str, Any]) -> _Job:
        passphrase = request.get("passphrase")
        if (passphrase is None) != (request.get("no_passphrase") is True):
            raise BadRequest("Joining takes a passphrase, or the word that there shall be none.")
        if ("code" in request) == ("uri" in request):
            raise BadRequest("Joining takes a code or a URI.")
        try:
            name = group.check_name(request["name"])
            code = parse_code(request["code"]) if "code" in request else None
            uri = parse_uri(request["uri"]) if "uri" in request else None
        except FormatError as exc:
            raise BadRequest(str(exc), hint=exc.hint) from exc
        address = request.get("address")
        if address is not None:
            parse_address(address)
        secret = code.secret if code is not None else uri.pairing_secret if uri is not None else None
        assert secret is not None  # one of the two was given
        left = self._typed.left(secret.password, self._now())
        if not left:
            self._typed.spend(secret.password, self._now())  # says so
        connection = Connection(self._daemon.rng(8).hex(), name, left)
        return _Job(connection, secret, code, uri, address, passphrase)

    # --- one joining --------------------------------------------------------------------------------------------------

    async def _run(self, job: _Job) -> None:
        error: MeshError | None = None
        try:
            with job.scope:
                with trio.CancelScope(shield=True):  # a second or two, and then it is known what there is to clear away
                    job.newcomer = await newcomers.prepare(self._daemon, job.passphrase, self._kdf)
                job.passphrase = None
                await self._search(job)
                await self._follow_sync(job)
        except MeshError as exc:
            error = exc
        except STREAM_ERRORS as exc:
            error = stream_error(exc)
        except Exception as exc:  # a fault of ours ends this joining and not the daemon
            self._daemon.log.error("a fault while joining", exc_info=exc)
            error = NetworkError("Joining failed by a fault of meshd; its log says more.")
        finally:
            with trio.CancelScope(shield=True):
                await self._finish(job, error)
            job.over.set()

    async def _finish(self, job: _Job, error: MeshError | None) -> None:
        daemon, connection = self._daemon, job.connection
        if daemon.snapshot.connected:
            if error is not None:
                daemon.log.warning("joined, but: %s", error)
            self._describe(job)
            await move(daemon, connection, "done")
            return
        await newcomers.give_up(daemon, job.newcomer, rejected=job.rejected)
        await move(daemon, connection, "cancelled" if error is None else "failed", error)

    async def _search(self, job: _Job) -> None:
        """Try one candidate after the other; the worst of what happened if none does."""
        failures: list[MeshError] = []
        sightings = Sightings(self._network.discovery.subscribe(), job.code, job.uri)
        try:
            direct = await self._direct(job, sightings)
            while True:
                if direct is not None:
                    candidate, direct = direct, None
                elif job.address is not None:
                    break
                else:
                    found = await sightings.next(GRACE_SECONDS if failures else SEARCH_SECONDS)
                    if found is None:
                        break
                    candidate = found
                try:
                    await self._try(job, candidate)
                    return
                except MeshError as exc:
                    self._daemon.log.info("connecting: %s", exc)
                    if job.asked:
                        raise  # nobody else can help
                    failures.append(exc)
                    if not self._left(job):
                        if len(failures) >= TRIES:
                            self._typed.spend(job.secret.password, self._now())  # says what that may mean
                        break
                    await move(self._daemon, job.connection, "searching")
        finally:
            sightings.close()
        if not failures:
            raise NetworkError(
                f"No device on this network shows an invitation with the number {job.code.slot if job.code else '?'}.",
                hint="look at the code again; from another network use the URI, or --address HOST:PORT",
            )
        raise max(reversed(failures), key=_gravity)

    async def _direct(self, job: _Job, sightings: Sightings) -> Candidate | None:
        """The candidate whose address a person or the URI gave. The link's token may have to be heard."""
        uri = job.uri
        if job.address is None:
            return None if uri is None or not uri.addresses else of_uri(uri, uri.addresses)
        if uri is not None:
            return of_uri(uri, (job.address,))
        heard = await sightings.next(TOKEN_SECONDS)
        return Candidate((job.address,), heard.token if heard is not None else b"")

    async def _try(self, job: _Job, candidate: Candidate) -> None:
        """One candidate, more than once where it is busy, or where it was lost after it was asked."""
        for tries in range(BUSY_RETRIES + 1):
            try:
                return await self._converse(job, candidate)
            except Busy:
                if tries == BUSY_RETRIES:
                    raise
                await trio.sleep(BUSY_SECONDS)
            except NetworkError as exc:
                if not job.asked:
                    raise
                # The answer may be waiting there: only the device that asked gets it, for the price of a try.
                if tries == BUSY_RETRIES or not self._left(job):
                    hint = "it may have admitted this device: run meshctl connect again with a new code"
                    raise NetworkError(f"The other device was lost after it was asked: {exc}", hint=hint) from exc
                await trio.sleep(BUSY_SECONDS)
        raise AssertionError("unreachable")

    async def _converse(self, job: _Job, candidate: Candidate) -> None:
        assert job.newcomer is not None  # prepared before the search
        stream = await reach(self._network, candidate)
        certificate = tls.peer_certificate(stream)
        assert certificate is not None  # a TLS server always shows one
        await move(self._daemon, job.connection, "found")

        async def spend() -> None:
            await self._spend(job)

        joining = Joining(
            self._daemon, job.connection, job.newcomer, job.secret, spend, stream, certificate, candidate.token
        )
        try:
            job.admin = await joining.run()
        finally:
            job.asked = job.asked or joining.asked
            job.newcomer, job.rejected = joining.newcomer, joining.rejected

    def _left(self, job: _Job) -> int:
        return self._typed.left(job.secret.password, self._now())

    async def _spend(self, job: _Job) -> None:
        """Pay for a try, on disk; PossibleAttack if there is none left."""
        self._typed.spend(job.secret.password, self._now())
        job.connection.attempts_left = min(job.connection.attempts_left, self._left(job))
        state = self._typed.to_dict()
        await wait(self._daemon.writer.submit(lambda connection: pairing_wire.save(connection, TYPED, state)))

    def _now(self) -> float:
        return self._daemon.now_ms() / 1000

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _follow_sync(self, job: _Job) -> None:
        """Wait for the first conversation to catch up; not for long, since everything works without."""
        daemon, connection = self._daemon, job.connection
        await move(daemon, connection, "syncing")
        if self._conversations is None:
            return
        with trio.move_on_after(SYNC_SECONDS):
            while True:
                seen = daemon.changed.count
                running = list(self._conversations().values())
                connection.received = max(connection.received, sum(progress.received for progress in running))
                if any(one.connected and one.caught_up and one.ours >= one.theirs for one in running):
                    return
                with trio.move_on_after(1):
                    await daemon.changed.after(seen)

    def _describe(self, job: _Job) -> None:
        """Say who we are now, in the names that the mesh uses if they have come."""
        daemon, connection = self._daemon, job.connection
        snapshot = daemon.snapshot
        names = pairing_wire.device_names(daemon.reader.connection, daemon.keyring) if daemon.keyring else {}
        name = names.get(snapshot.own, connection.name)
        role = snapshot.roles.get(snapshot.own)
        connection.mesh = snapshot.mesh
        connection.admin = names.get(job.admin)
        connection.device = {"id": snapshot.own, "name": name, "role": str(role)} if role is not None else None


def _gravity(exc: MeshError) -> int:
    """What is told of several failures: an attack before a wrong code before a refusal before a network that failed."""
    if isinstance(exc, PossibleAttack):
        return 3
    if isinstance(exc, CodeError):
        return 2
    return 0 if isinstance(exc, (NetworkError, RemoteProtocolError)) else 1


def _saved_tries(daemon: Daemon) -> TypedCodes:
    saved = pairing_wire.load(daemon.reader.connection, TYPED)
    try:
        return TypedCodes.from_dict(saved) if saved is not None else TypedCodes(daemon.rng)
    except FormatError as exc:
        daemon.log.warning("the saved tries with codes can't be read and begin anew: %s", exc)
        return TypedCodes(daemon.rng)
