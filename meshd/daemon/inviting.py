"""`invite`: pairing windows, from the code on the screen to the device that joined (formats.md F11).

One task a window: it listens on a port of its own under a certificate of its own, is announced only while it is open,
and wipes its secrets when it ends. Conversations are in `pairing_host`; what they share is in `pairing_window`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from meshd.crypto import base64url, certs
from meshd.crypto.keys import SigningKey
from meshd.daemon import membership, names, pairing_wire
from meshd.daemon.candidates import read_slot
from meshd.daemon.context import Daemon
from meshd.daemon.keyring import Keyring
from meshd.daemon.pairing_host import ASK_SECONDS, DELIVER_SECONDS, OFFERS, Hosting
from meshd.daemon.pairing_window import Invitation, Terms, Window, move, tell
from meshd.daemon.roles import parse_grants
from meshd.errors import BadRequest, Denied, FormatError, MeshError, NetworkError, NotFound, Refused, TrustError
from meshd.localapi.errors import with_details
from meshd.net import tls
from meshd.net.discovery import PAIR_TYPE, Seen, Service
from meshd.net.lan import Network, format_address
from meshd.net.streams import STREAM_ERRORS
from meshd.pairing.code import MAX_ADDRESSES, MAX_SLOT, PairingSecret, PairingUri, new_code, parse_code
from meshd.pairing.limits import TRIES, OfferBackoff
from meshd.profile import escrow
from meshd.profile.claim import Role

MAX_TTL = 900  # seconds; a short code is not made to be written down
MAX_OPEN = 4  # windows at once
KEPT = 32  # ended invitations that can still be asked about
TOKEN_BYTES = 8
MAX_WELCOME_ADDRESSES = 16
TLS_SECONDS = 10.0


class Invitations:
    """The pairing windows of this device. `siblings_port` gives where others reach it for syncing, 0 if nowhere."""

    def __init__(self, daemon: Daemon, network: Network, siblings_port: Callable[[], int]) -> None:
        self._daemon = daemon
        self._network = network
        self._siblings_port = siblings_port
        self._nursery: trio.Nursery | None = None
        self._windows: dict[str, Window] = {}  # by id, oldest first; ended ones too
        self._slots: dict[str, int] = {}  # instance → slot that another device announces
        self._callers: list[str] = []  # hosts with a conversation under way
        self._backoff = _saved_backoff(daemon)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; windows close with it."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._watch_slots)
            task_status.started()

    # --- what the local API asks for ----------------------------------------------------------------------------------

    async def create(self, request: Mapping[str, Any]) -> Invitation:
        """Open a window, as `localapi.bodies.INVITATION_REQUEST` wants it.

        NotConnected, Locked; Denied on a device that is no admin; Refused while the back-off lasts; WrongPassphrase;
        BadRequest.
        """
        daemon = self._daemon
        keyring = daemon.unlocked()
        if daemon.snapshot.own not in daemon.snapshot.admins:
            raise Denied(
                "This device is no admin, and only admins invite.", hint="run meshctl invite on an admin device"
            )
        terms = _terms(request, keyring)
        if request.get("replaces"):
            terms = await self._in_place_of(terms, request["replaces"])
        if sum(not window.invitation.ended for window in self._windows.values()) >= MAX_OPEN:
            raise Refused(f"{MAX_OPEN} invitations are open already.", hint="wait for one to end, or cancel it")
        self._backoff.check(daemon.now_ms() / 1000, force=terms.force)
        master_key = None
        if terms.role is Role.ADMIN:
            master_key = await self._open_master(request.get("master_passphrase"))
        if self._nursery is None:
            raise NetworkError("This device does not take part in the network now.")
        invitation: Invitation = await self._nursery.start(self._open, terms, master_key)
        return invitation

    def get(self, id: str) -> Invitation:
        """NotFound."""
        return self._window(id).invitation

    async def wait(self, id: str, state: str | None, seconds: float) -> Invitation:
        """The invitation once its state is another than `state`, and anyhow after `seconds`."""
        invitation = self.get(id)
        await invitation.past(state, seconds)
        return invitation

    async def cancel(self, id: str) -> Invitation:
        """Close the window. A device that is being admitted at this moment stays admitted."""
        window = self._window(id)
        async with window.lock:
            await move(self._daemon, window, "cancelled")
            window.closing.set()
        return window.invitation

    async def answer(self, id: str, accept: bool) -> Invitation:
        """Admit or refuse the device that asks; BadRequest if none does."""
        window = self._window(id)
        if window.question is None:
            raise BadRequest("No device asks to be admitted now.")
        window.question.answer(accept)
        await window.invitation.past("asked", DELIVER_SECONDS)
        return window.invitation

    def _window(self, id: str) -> Window:
        window = self._windows.get(id)
        if window is None:
            raise NotFound("There is no such invitation.")
        return window

    async def _in_place_of(self, terms: Terms, name: str) -> Terms:
        """The new device takes the place, role, rights and name of one that is in the mesh. NotFound, BadRequest."""
        daemon = self._daemon
        old = await names.resolve(daemon, name)
        if old == daemon.snapshot.own:
            raise BadRequest("A device can't invite its own replacement.", hint="do this on another admin device")
        if terms.grants is not None:
            raise BadRequest("The new device has the rights of the one that it replaces.")
        return replace(terms, role=daemon.snapshot.roles[old], replaces=old)

    # --- a window -----------------------------------------------------------------------------------------------------

    async def _open_master(self, passphrase: object) -> SigningKey:
        """The master key, before the window opens, so that a wrong passphrase is noticed while somebody is there."""
        if not isinstance(passphrase, str) or not passphrase:
            error = BadRequest("Inviting an admin takes the master passphrase.")
            raise with_details(error, needs="master_passphrase")
        blob = await self._daemon.write(membership.sealed_master)
        key = await trio.to_thread.run_sync(escrow.open_master, blob, passphrase)
        if key.udf != self._daemon.snapshot.mesh:
            raise TrustError("the sealed master key is not this mesh's")
        return key

    async def _open(
        self, terms: Terms, master_key: SigningKey | None, *, task_status: trio.TaskStatus[Invitation]
    ) -> None:
        """A window's life. NetworkError before it has begun; afterwards nothing is raised."""
        rng = self._daemon.rng
        slot = self._free_slot()
        code = parse_code(new_code(rng, slot, terms.words))
        secret = PairingSecret.random(rng)
        certificate, key_pem = certs.ephemeral_certificate(rng)
        token = None if terms.remote else rng(TOKEN_BYTES)
        expires = self._daemon.now_ms() + int(terms.ttl * 1000)
        invitation = Invitation(rng(8).hex(), code.text, slot, terms.role, expires, TRIES)
        window = Window(invitation, terms, (code.secret, secret), certificate, token, master_key)
        trust = tls.pairing_server_context(certificate, key_pem)
        name = f"pair-{invitation.id}"
        opened = False
        try:
            async with trio.open_nursery() as nursery:
                port = await self._listen(nursery, partial(self._take, window, trust))
                invitation.uri = PairingUri(
                    secret=secret.password,
                    addresses=self._addresses(port, MAX_ADDRESSES),
                    token=token or b"",
                    certificate_hash=hashlib.sha256(certificate).digest(),
                ).text
                await self._network.discovery.announce(name, _service(rng(10).hex(), port, slot, token))
                self._keep(window)
                await tell(self._daemon, invitation)
                opened = True
                task_status.started(invitation)
                await self._until_over(window)
                await self._network.discovery.withdraw(name)
                nursery.cancel_scope.cancel()
        except ExceptionGroup as group:
            network, rest = group.split((MeshError, OSError))
            if rest is not None or network is None:
                raise
            if not opened:
                raise _first(network) from None
            await move(self._daemon, window, "failed", NetworkError(f"The window had to close: {_first(network)}"))
        finally:
            window.wipe()
            with trio.CancelScope(shield=True):
                await self._network.discovery.withdraw(name)
                if opened:
                    await move(self._daemon, window, "cancelled")  # the daemon stops with the window open

    async def _listen(self, nursery: trio.Nursery, handler: Callable[..., Any]) -> int:
        """Beside the fixed port if there is one, for the sake of firewalls; else anywhere."""
        fixed = self._daemon.config.lan.port
        if 0 < fixed < 65535:
            try:
                return int(await nursery.start(self._network.serve, handler, fixed + 1))
            except NetworkError as exc:
                self._daemon.log.info("pairing on any free port: %s", exc)
        return int(await nursery.start(self._network.serve, handler, 0))

    async def _until_over(self, window: Window) -> None:
        with trio.move_on_at(window.deadline):
            await window.closing.wait()
        with trio.move_on_after(ASK_SECONDS + DELIVER_SECONDS):  # who knew the code in time is served to the end
            while window.deciding and not window.closing.is_set():
                await window.closing.wait()
        async with window.lock:
            if window.device:
                gone = NetworkError("The device that knew the code went away before it was admitted.")
                await move(self._daemon, window, "failed", gone)
            else:
                await move(self._daemon, window, "expired")

    async def _take(self, window: Window, trust: tls.Trust, stream: trio.abc.Stream, address: str) -> None:
        """One caller. Never raises: its mistakes end its connection and nothing else."""
        caller = address.rpartition(":")[0]
        same = self._callers.count(caller)  # one exchange an address; a second is told so, more are not answered
        if same > 1 or len(self._callers) >= self._daemon.config.limits.pairing_connections:
            await trio.aclose_forcefully(stream)
            return
        self._callers.append(caller)
        try:
            secured = await tls.wrap_server(stream, trust, within=TLS_SECONDS)
            hosting = Hosting(self._daemon, window, self._backoff, secured, self._sync_addresses)
            await hosting.run(busy=same > 0)
        except (MeshError, *STREAM_ERRORS) as exc:
            self._daemon.log.info("pairing with %s: %s", address, exc)
        except Exception as exc:
            self._daemon.log.error("a fault while pairing with %s", address, exc_info=exc)
        finally:
            self._callers.remove(caller)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    def _keep(self, window: Window) -> None:
        self._windows[window.invitation.id] = window
        ended = [id for id, old in self._windows.items() if old.invitation.ended]
        for id in ended[: max(0, len(ended) - KEPT)]:
            del self._windows[id]

    # --- places -------------------------------------------------------------------------------------------------------

    def _free_slot(self) -> int:
        """A random slot that nobody here or on this network uses, as far as that is known."""
        own = {window.invitation.slot for window in self._windows.values() if not window.finished}
        free = sorted(set(range(1, MAX_SLOT + 1)) - own - set(self._slots.values())) or list(range(1, MAX_SLOT + 1))
        return free[int.from_bytes(self._daemon.rng(4), "big") % len(free)]

    async def _watch_slots(self) -> None:
        subscription = self._network.discovery.subscribe()
        try:
            async for sighting in subscription:
                if sighting.service_type != PAIR_TYPE:
                    continue
                slot = read_slot(sighting) if isinstance(sighting, Seen) else None
                if slot is None:
                    self._slots.pop(sighting.instance, None)
                else:
                    self._slots[sighting.instance] = slot
        finally:
            subscription.close()

    def _sync_addresses(self) -> tuple[str, ...]:
        port = self._siblings_port()
        return self._addresses(port, MAX_WELCOME_ADDRESSES) if port else ()

    def _addresses(self, port: int, most: int) -> tuple[str, ...]:
        # A link-local address with its scope means something on this machine alone.
        return tuple(format_address(host, port) for host in self._network.hosts() if "%" not in host)[:most]


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _service(instance: str, port: int, slot: int, token: bytes | None) -> Service:
    txt = {"v": b"1", "s": str(slot).encode()}
    if token is not None:
        txt["at"] = base64url.encode(token).encode()
    return Service(PAIR_TYPE, instance, port, txt)


def _saved_backoff(daemon: Daemon) -> OfferBackoff:
    saved = pairing_wire.load(daemon.reader.connection, OFFERS)
    try:
        return OfferBackoff.from_dict(saved) if saved is not None else OfferBackoff()
    except FormatError as exc:
        daemon.log.warning("the saved limits of pairing can't be read and begin anew: %s", exc)
        return OfferBackoff()


def _terms(request: Mapping[str, Any], keyring: Keyring) -> Terms:
    """The wishes of a request, checked; BadRequest, NotFound for a vault that is not there."""
    try:
        role = Role(request.get("role", Role.MEMBER))
    except ValueError:
        raise BadRequest("A role is admin, member or relay.") from None
    ttl = request.get("ttl", 300)
    if not 0 < ttl <= MAX_TTL:
        raise BadRequest(f"An invitation lives for at most {MAX_TTL} seconds.")
    grants = request.get("grant")
    if grants and role is not Role.MEMBER:
        raise BadRequest("Only a member's rights can be narrowed: admins read everything, relays nothing.")
    return Terms(
        role=role,
        ttl=float(ttl),
        words=request.get("words", 2),
        remote=request.get("remote", False),
        confirm=request.get("confirm", False),
        force=request.get("force", False),
        grants=parse_grants(grants, keyring) if grants else None,
    )
