"""Devices that ask to join through a portal, as an admin sees them: who waits, letting one in, refusing one; and
invitations whose secret does the comparing.

Admitting writes the profile, the containers and the signed answer in one transaction; the portal gets them in that
order, and the answer is delivered whatever crashes. A device that is in the mesh already and asks again, since it never
heard, is answered by the next look.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from meshd.crypto import fingerprint, udf
from meshd.crypto.keys import SigningKey
from meshd.daemon import authoring, membership, pairing_wire
from meshd.daemon.context import Daemon
from meshd.daemon.pairing_wire import Followed
from meshd.daemon.pen import Pen
from meshd.daemon.portals.roster import Portals
from meshd.daemon.portals.state import Portal
from meshd.errors import Ambiguous, BadRequest, Denied, FormatError, MeshError, NotFound, Refused
from meshd.localapi.bodies_portal import REMOTE_INVITATION_ENDS
from meshd.pairing import remote
from meshd.pairing.remote import RemoteUri
from meshd.portal.messages import ConnectPendingRequest, ConnectPendingResponse
from meshd.profile import connection as connections
from meshd.profile import payload
from meshd.profile.apps import group
from meshd.profile.claim import Kind, Role
from meshd.profile.connection import ConnectionRequest
from meshd.store import portals_client as store
from meshd.store import versions
from meshd.store.db import store_errors

DELIVER_SECONDS = 30.0
MAX_SHOWN = 64
POLL_FIRST, POLL_LAST = 1.0, 5.0  # seconds between looks while an invitation is open
LOOK_SECONDS = 30.0  # between looks for who asks uninvited
LEAST_TYPED = 4  # characters of an abbreviated id
MAX_TTL = 900
KEPT = 16


@dataclass(frozen=True, slots=True)
class Asking:
    """A device that waits at an account."""

    portal: Portal
    request: ConnectionRequest
    asked: str | None = None  # as the portal says

    @property
    def udf(self) -> str:
        return self.request.device.identifier


class RemoteInvitation(Followed):
    """An open invitation through a portal."""

    def __init__(self, id: str, uri: RemoteUri, role: Role, grants: dict[str, str] | None, expires: int) -> None:
        super().__init__(id, "open", REMOTE_INVITATION_ENDS)
        self.uri = uri
        self.role = role
        self.grants = grants
        self.expires = expires  # ms
        self.device: dict[str, str] | None = None
        self.master_key: SigningKey | None = None
        self.force = False  # an admin without a passphrase, too
        self.scope = trio.CancelScope()

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "account": self.uri.account,
            "uri": self.uri.text,
            "state": self.state,
            "role": str(self.role),
            "expires": payload.write_date(self.expires // 1000),
            "device": self.device,
            "error": self.problem(),
        }


class Requests:
    """What an admin can do about devices that ask at the portals of the mesh."""

    def __init__(self, daemon: Daemon, portals: Portals) -> None:
        self._daemon = daemon
        self._portals = portals
        self._seen: dict[tuple[str, bytes], int] = {}  # (account, vid of the profile) → ms since 1970
        self._listed: set[bytes] = set()  # vids of renewed device profiles
        self._told: set[tuple[str, bytes]] = set()
        self._invitations: dict[str, RemoteInvitation] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            while True:
                await self.tell_of_askers()
                await trio.sleep(LOOK_SECONDS)

    async def tell_of_askers(self) -> None:
        """Whoever began to ask since the last look is told to the watchers of events and to the log."""
        daemon = self._daemon
        if daemon.snapshot.own not in daemon.snapshot.admins:
            return
        for portal in list(self._portals.running.values()):
            if not portal.reached or portal.error is not None:
                continue
            try:
                with store_errors():
                    found = await self._at(portal)
                    await self._unanswered(found)
            except MeshError as exc:
                daemon.log.info("looking for devices that ask at %s: %s", portal.name, exc)
                continue
            before = self._told
            self._told = {one for one in before if one in self._seen}
            for one in found:
                key = (portal.name, one.request.device.vid)
                self._told.add(key)
                if key in before or one.udf in daemon.snapshot.devices:
                    continue
                daemon.log.info("a device asks to join through %s: %s; see: meshctl pending", portal.name, one.udf)
                await pairing_wire.record(daemon, "asking", {"device": one.udf, "name": portal.name[:64]})

    # --- who waits ----------------------------------------------------------------------------------------------------

    async def pending(self) -> dict[str, Any]:
        """Who waits, and the accounts that could not be asked. Denied on a device that is no admin; NotFound without
        a portal; the error of the portal where none could be asked."""
        found, failed = await self._look()
        return {"pending": [self._view(one) for one in found], "unreached": sorted(failed)}

    async def _look(self) -> tuple[list[Asking], dict[str, MeshError]]:
        if self._daemon.snapshot.own not in self._daemon.snapshot.admins:
            raise Denied("This device is no admin, and only admins let devices in.", hint="run this on an admin device")
        if not self._portals.running:
            raise NotFound("This mesh has no portal.", hint="meshctl portal add NAME@PORTAL; on one network: invite")
        found: dict[str, Asking] = {}
        failed: dict[str, MeshError] = {}
        for name, portal in sorted(self._portals.running.items()):
            try:
                for one in await self._at(portal):
                    found.setdefault(one.udf, one)
            except MeshError as exc:
                failed[name] = exc
        if failed and len(failed) == len(self._portals.running):
            raise next(iter(failed.values()))
        return await self._unanswered(list(found.values())), failed

    async def _at(self, portal: Portal) -> list[Asking]:
        asked = ConnectPendingRequest(account_id=portal.name)
        answer = await portal.link.ask("ConnectPending", asked, ConnectPendingResponse)
        found, vids = [], set()
        times: list[str | None] = [*(answer.asked or ())]
        wires = (answer.pending or [])[:MAX_SHOWN]
        for number, wire in enumerate(wires):
            try:
                request = connections.read_request(wire)
            except (MeshError, KeyError, TypeError) as exc:
                self._daemon.log.info("portal %s shows a request that can't be read: %s", portal.name, exc)
                continue
            if request.parent == self._daemon.snapshot.mesh:
                vids.add(request.device.vid)
                self._seen.setdefault((portal.name, request.device.vid), self._daemon.now_ms())
                found.append(Asking(portal, request, _time(times[number] if number < len(times) else None)))
        for key in [key for key in self._seen if key[0] == portal.name and key[1] not in vids]:
            del self._seen[key]
        return found

    async def _unanswered(self, found: list[Asking]) -> list[Asking]:
        """Those that are not in the mesh yet; the others are told so again."""
        waiting = []
        for one in found:
            if one.udf not in self._daemon.snapshot.devices:
                waiting.append(one)
            elif not self._daemon.locked and await self._knows(one):
                answer = self._answer(one, connections.ACCEPTED)
                await self._daemon.write(
                    lambda pen, one=one, answer=answer: store.put_answer(  # type: ignore[misc]
                        pen.connection, one.portal.name, one.udf, answer
                    )
                )
                one.portal.nudge()
        return waiting

    async def _knows(self, one: Asking) -> bool:
        """Is the profile that a device of the mesh asks with known here? One with new keys is taken in, and listed: so
        the portal learns them."""
        profile, daemon = one.request.device, self._daemon
        if not profile.links.p or profile.vid in self._listed:
            return bool(versions.known(daemon.reader.connection, [profile.vid]))

        def write(pen: Pen) -> bool:
            pen.replica.accept(pen.connection, [profile], pen.now_ms, pen.outcome)
            if profile.vid not in versions.heads(pen.connection, Kind.DEVICE, profile.identifier):
                return bool(versions.known(pen.connection, [profile.vid]))
            heads = pen.load(pen.replica.authority.heads(Kind.PERSONAL))
            if not any(part.claim.vid == profile.vid for head in heads for part in head.embedded[1:]):
                authoring.write_profile(pen, authoring.state(pen))
            return True

        known = await daemon.write(write)
        if known:
            self._listed.add(profile.vid)  # once: who replays a request makes no work
        return known

    def _view(self, one: Asking) -> dict[str, Any]:
        seen = self._seen.get((one.portal.name, one.request.device.vid), 0)
        return {
            "id": one.udf,
            "fingerprint": one.udf,
            "fingerprint_words": fingerprint.text(one.udf),
            "account": one.portal.name,
            "seen": payload.write_date(seen // 1000),
            "asked": one.asked,
            "sealed": not remote.is_unsealed(one.request.block_token),
            "keys_made": payload.write_date(one.request.device.updated),
            "proof": self._proof(one.request),
        }

    def _proof(self, request: ConnectionRequest) -> str:
        """What the request itself shows. That it *says* that it was invited is nothing: anybody can write so."""
        kind = request.block_token.partition(".")[0] or "none"
        if kind != remote.PIN:
            return kind
        mesh, vid = self._daemon.snapshot.mesh, request.device.vid
        invited = any(
            remote.proves(request.block_token, made.uri.secret, mesh, vid)
            for made in self._invitations.values()
            if not made.ended
        )
        return remote.PIN if invited else "unproved"

    async def _find(self, text: str) -> Asking:
        if len(text.replace("-", "").strip()) < LEAST_TYPED:
            raise BadRequest(
                f"An id is abbreviated to {LEAST_TYPED} characters or more.", hint="as in meshctl accept MCHU3"
            )
        found, _ = await self._look()
        fitting = [one for one in found if udf.equal(one.udf, text)] or [
            one for one in found if udf.matches(text, one.udf)
        ]
        if len(fitting) > 1:
            raise Ambiguous(f"more than one fits: {', '.join(one.udf for one in fitting)}", hint="give more of its id")
        if not fitting:
            raise NotFound("No such device asks to join.", hint="see: meshctl pending")
        return fitting[0]

    # --- deciding -----------------------------------------------------------------------------------------------------

    async def accept(
        self,
        id: str,
        role: Role,
        name: str | None,
        grants: Mapping[str, str] | None,
        master_key: SigningKey | None,
        *,
        force: bool = False,
    ) -> dict[str, Any]:
        """Let a device in. The caller has compared its fingerprint. NotFound, Ambiguous, Denied, Locked …

        `force`: as an admin even if it says that it keeps its keys without a passphrase."""
        one = await self._find(id)
        _check_sealed(one, role, force)
        return await self._admit(one, role, name, grants, master_key)

    async def reject(self, id: str) -> dict[str, Any]:
        """Tell a device no."""
        one = await self._find(id)
        await self._say_no(one)
        return {"id": one.udf, "account": one.portal.name, "delivered": await self._delivered(one)}

    async def _say_no(self, one: Asking) -> None:
        answer = self._answer(one, connections.REJECTED)
        await self._daemon.write(lambda pen: store.put_answer(pen.connection, one.portal.name, one.udf, answer))
        one.portal.nudge()

    async def _admit(
        self,
        one: Asking,
        role: Role,
        name: str | None,
        grants: Mapping[str, str] | None,
        master_key: SigningKey | None,
    ) -> dict[str, Any]:
        wanted = name or f"new {one.udf[:5]}"
        try:
            group.check_name(wanted)
        except FormatError as exc:
            raise BadRequest(str(exc)) from exc
        answer, joiner = self._answer(one, connections.ACCEPTED), one.request.device

        def write(pen: Pen) -> str:
            listed = joiner.identifier in pen.replica.authority.devices()
            if listed and versions.get(pen.connection, joiner.vid) is None:
                raise Denied("a device of this mesh asks again with another profile")
            called = pairing_wire.name_for(pen, wanted, joiner.identifier)
            membership.admit(pen, joiner, role, called, grants, master_key)
            store.put_answer(pen.connection, one.portal.name, joiner.identifier, answer)
            return called

        with trio.CancelScope(shield=True):
            called = await self._daemon.write(write)
        one.portal.nudge()
        return {
            "id": one.udf,
            "name": called,
            "role": str(role),
            "account": one.portal.name,
            "delivered": await self._delivered(one),
        }

    def _answer(self, one: Asking, result: str) -> str:
        dsk = self._daemon.unlocked().device.dsk
        return json.dumps(connections.write_result(dsk, one.request.device, result), separators=(",", ":"))

    async def _delivered(self, one: Asking) -> bool:
        """Wait until the portal has the answer; it goes on being delivered when that takes longer."""
        daemon = self._daemon
        with trio.move_on_after(DELIVER_SECONDS):
            while True:
                seen = daemon.changed.count
                left = store.answers(daemon.reader.connection, one.portal.name)
                if all(device != one.udf for device, _ in left):
                    return True
                await daemon.changed.after(seen)
        return False

    # --- invitations --------------------------------------------------------------------------------------------------

    async def invite(
        self,
        account: str | None,
        role: Role,
        ttl: float,
        grants: dict[str, str] | None,
        master_key: SigningKey | None,
        *,
        force: bool = False,
    ) -> RemoteInvitation:
        """Open an invitation: whoever shows that it knows the secret is let in. NotFound, Denied, Locked, Refused."""
        daemon = self._daemon
        daemon.unlocked()
        if daemon.snapshot.own not in daemon.snapshot.admins:
            raise Denied("This device is no admin, and only admins invite.", hint="run this on an admin device")
        running = self._portals.running
        if account is None and len(running) > 1:
            raise Ambiguous(
                "This mesh has several portals.", hint=f"say which with --account: {', '.join(sorted(running))}"
            )
        if not running:
            raise NotFound("This mesh has no portal.", hint="meshctl portal add NAME@PORTAL; on one network: invite")
        portal = self._portals.get(account) if account is not None else next(iter(running.values()))
        if portal.plain:
            raise Refused("That portal is one of 2016: let the device connect by fingerprint.")
        if self._nursery is None:
            raise Refused("This daemon is stopping.")
        where = portal.link.where
        secret = daemon.rng(remote.SECRET_BYTES)
        try:
            uri = RemoteUri(portal.name, daemon.snapshot.mesh, secret, where.address, where.plain)
        except FormatError:  # an address that means something on this machine only
            uri = RemoteUri(portal.name, daemon.snapshot.mesh, secret, plain=where.plain)
        expires = daemon.now_ms() + int(min(ttl, MAX_TTL) * 1000)
        made = RemoteInvitation(daemon.rng(8).hex(), uri, role, grants, expires)
        made.master_key, made.force = master_key, force
        self._invitations[made.id] = made
        for id in [id for id, one in self._invitations.items() if one.ended][:-KEPT]:
            del self._invitations[id]
        self._nursery.start_soon(self._serve, made, portal, min(ttl, MAX_TTL))
        return made

    def invitation(self, id: str) -> RemoteInvitation:
        """NotFound."""
        if id not in self._invitations:
            raise NotFound("There is no such invitation.")
        return self._invitations[id]

    async def cancel(self, id: str) -> RemoteInvitation:
        """Close it. A device that is being let in at this moment stays in."""
        found = self.invitation(id)
        found.scope.cancel()
        found.move("cancelled")
        return found

    async def _serve(self, made: RemoteInvitation, portal: Portal, ttl: float) -> None:
        pause = POLL_FIRST
        with made.scope, trio.move_on_after(ttl):
            while not made.ended:
                try:
                    await self._look_for(made, portal)
                except MeshError as exc:
                    if self._daemon.locked:
                        made.move("failed", exc)
                        break
                    self._daemon.log.info("looking for invited devices: %s", exc)
                if not made.ended:
                    await trio.sleep(pause)
                    pause = min(pause * 1.2, POLL_LAST)
        made.master_key = None
        made.move("expired")

    async def _look_for(self, made: RemoteInvitation, portal: Portal) -> None:
        for one in await self._at(portal):
            device = one.request.device
            if remote.proves(one.request.block_token, made.uri.secret, self._daemon.snapshot.mesh, device.vid):
                try:
                    _check_sealed(one, made.role, made.force)
                except MeshError as exc:
                    await self._say_no(one)
                    made.move("failed", exc)
                    return
                with trio.CancelScope(shield=True):
                    found = await self._admit(one, made.role, None, made.grants, made.master_key)
                    made.device = {"id": one.udf, "name": str(found["name"]), "fingerprint": one.udf}
                    made.move("admitted")
                return


def _check_sealed(one: Asking, role: Role, force: bool) -> None:
    """Denied for an admin that says that it keeps its keys without a passphrase, unless that is insisted on."""
    if role is Role.ADMIN and not force and remote.is_unsealed(one.request.block_token):
        raise Denied(
            "That device keeps its keys without a passphrase, and can't be an admin.",
            hint="connect it anew with a passphrase, or insist with --force",
        )


def _time(text: str | None) -> str | None:
    """A time that a portal tells, in the one spelling; None for what is none."""
    try:
        return None if text is None else payload.write_date(payload.read_date(text))
    except FormatError:
        return None
