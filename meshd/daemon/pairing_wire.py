"""What both ends of a pairing share: a conversation over a stream, the draft's messages in it, and what is kept of it.

A `Talk` joins a pairing core and a stream. It never sends what a core wants said before its event was handled: that is
what lets a try be paid for before the bytes that make it can leave (formats.md F11).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import trio

from meshd.daemon import vaults
from meshd.daemon.context import Daemon, Wakeup
from meshd.daemon.keyring import Keyring
from meshd.daemon.pen import Pen
from meshd.errors import FormatError, MeshError, NetworkError, NotFound
from meshd.net import streams
from meshd.pairing.events import Event
from meshd.pairing.machine import Host, Joiner
from meshd.profile import payload, version
from meshd.profile.apps import GROUP, group
from meshd.profile.version import Parsed

STEP_SECONDS = 10.0  # for one answer of the other side
PROOF_SECONDS = 30.0  # from the connection to the proof
FAREWELL_SECONDS = 2.0
SHORT = 64 * 1024  # bytes
MAX_PROFILE = 4 * 1024 * 1024  # bytes of a SignedPersonalProfile in JSON

CoreT = TypeVar("CoreT", bound=Host | Joiner)


class Talk(Generic[CoreT]):
    """One conversation: a core over a stream, an event at a time. One task at a time may use it."""

    def __init__(self, core: CoreT, stream: trio.abc.Stream) -> None:
        self.core = core
        self._stream = stream

    async def next(self, within: float = STEP_SECONDS) -> Event:
        """Send what is to be said, then wait for the next event, both together at most `within` seconds.

        NetworkError when it does not come in time; otherwise what the core raises.
        """
        with trio.move_on_after(within):
            while (event := self.core.next_event()) is None:
                await self.flush(within)
                self.core.receive_data(await self._receive())
            return event
        raise NetworkError("the other device did not answer in time")

    async def flush(self, within: float = STEP_SECONDS) -> None:
        """Send what is to be said; NetworkError if the other side does not take it in time."""
        data = self.core.data_to_send()
        if not data:
            return
        # Half a frame is the end of a conversation. A short one is sent whole even where we are cancelled, so that a
        # word of farewell can follow.
        short = len(data) <= SHORT
        with trio.move_on_after(FAREWELL_SECONDS if short else within) as scope:
            scope.shield = short
            await streams.send(self._stream, data)
            return
        raise NetworkError("the other device did not listen")

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(streams.MAX_READ))
        except streams.STREAM_ERRORS as exc:
            raise streams.stream_error(exc) from exc

    async def part(self, *, hear_out: bool = False) -> None:
        """Say what is left to say and close, in any case within a few seconds.

        `hear_out`: the other side closes first. Bytes that nobody read would reset the connection, and our last word
        would be lost with it.
        """
        with trio.move_on_after(FAREWELL_SECONDS) as scope:
            scope.shield = True
            try:
                await self.flush()
                while hear_out and await self._receive():
                    pass
                await self._stream.aclose()
            except (MeshError, *streams.STREAM_ERRORS):
                pass  # it is gone, and needs no farewell
        await self.drop()

    async def drop(self) -> None:
        """Close without a farewell, so that the other side does not think that everything went well."""
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)


class Followed:
    """Something under way that a person follows: an id, a state, and a counter that moves with the state."""

    def __init__(self, id: str, state: str, ends: tuple[str, ...]) -> None:
        self.id = id
        self.state = state
        self.error: MeshError | None = None
        self.moved = Wakeup()
        self._ends = ends

    @property
    def ended(self) -> bool:
        return self.state in self._ends

    def move(self, state: str, error: MeshError | None = None) -> bool:
        """Go over to `state`; False where it is there already. An end is for good."""
        if self.ended or state == self.state:
            return False
        self.state, self.error = state, error
        self.moved.bump()
        return True

    async def past(self, state: str | None, seconds: float) -> None:
        """Return when the state is another than `state`, and anyhow after `seconds`."""
        with trio.move_on_after(seconds):
            while self.state == state and not self.ended:
                await self.moved.after(self.moved.count)

    def problem(self) -> dict[str, object] | None:
        """The error as the local API shows it."""
        if self.error is None:
            return None
        return {"code": self.error.code, "message": str(self.error), "hint": self.error.hint}


async def record(daemon: Daemon, type: str, data: Mapping[str, Any]) -> None:
    """Tell the watchers of events; a store that can't write is no reason to stop."""
    try:
        await daemon.event(type, data)
    except MeshError as exc:
        daemon.log.warning("an event of %s was not recorded: %s", type, exc)


# --- the draft's messages ---------------------------------------------------------------------------------------------

STARTED = payload.encode_tagged("ConnectStartResponse", {})


def write_start(signed_request: Mapping[str, Any], *, unsealed: bool) -> bytes:
    """A ConnectStartRequest. `unsealed`: the device keeps its keys without a passphrase, which an admin's must not."""
    body: dict[str, Any] = {"SignedRequest": dict(signed_request)}
    if unsealed:
        body["MeshdUnsealed"] = True
    return payload.encode_tagged("ConnectStartRequest", body)


def read_start(message: bytes) -> tuple[dict[str, Any], bool]:
    """(SignedConnectionRequest, unsealed); FormatError. Members that are not known here are left alone."""
    body = _tagged(message, "ConnectStartRequest")
    return payload.object_member(body, "SignedRequest"), body.get("MeshdUnsealed") is True


def write_status(signed_result: Mapping[str, Any]) -> bytes:
    """A ConnectStatusResponse."""
    return payload.encode_tagged("ConnectStatusResponse", {"Result": dict(signed_result)})


def read_status(message: bytes) -> dict[str, Any]:
    """The SignedConnectionResult in a ConnectStatusResponse; FormatError."""
    return payload.object_member(_tagged(message, "ConnectStatusResponse"), "Result")


def write_profile(parsed: Parsed) -> bytes:
    """A SignedPersonalProfile in JSON."""
    return payload.encode(version.to_json(parsed))


def read_profile(data: bytes) -> Parsed:
    """The PersonalProfile in the JSON of the other side, not yet believed; FormatError."""
    obj = payload.decode(data, MAX_PROFILE)
    if type(obj) is not dict or list(obj) != ["SignedPersonalProfile"]:
        raise FormatError("not a SignedPersonalProfile")
    return version.from_json(obj)


def _tagged(message: bytes, expected: str) -> dict[str, Any]:
    tag, body = payload.decode_tagged(message)
    if tag != expected:
        raise FormatError(f"{tag} where {expected} is due")
    return body


# --- what is kept in the store ----------------------------------------------------------------------------------------


def load(connection: sqlite3.Connection, name: str) -> dict[str, Any] | None:
    """What was saved under `name` in the table `pairing`; None if nothing was, or nothing that can be read."""
    row = connection.execute("SELECT state FROM pairing WHERE name = ?", (name,)).fetchone()
    try:
        state = json.loads(row[0]) if row is not None else None
    except ValueError:
        return None
    return state if type(state) is dict else None


def save(connection: sqlite3.Connection, name: str, state: Mapping[str, Any]) -> None:
    """Replace what is saved under `name`, inside the caller's transaction."""
    connection.execute(
        "INSERT INTO pairing VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET state = excluded.state",
        (name, json.dumps(state)),
    )


def forget(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM pairing WHERE name = ?", (name,))


# --- names ------------------------------------------------------------------------------------------------------------


def device_names(connection: sqlite3.Connection, keyring: Keyring) -> dict[str, str]:
    """What the devices of the mesh are called, by UDF; empty where this device may not read the Group vault."""
    try:
        opened = keyring.find(GROUP.tag)
    except NotFound:
        return {}
    found = {}
    for entry in vaults.items_of(connection, opened.application.identifier):
        heads = vaults.open_heads(connection, keyring, entry)
        said = group.read(heads[0].item) if heads and not heads[0].item.deleted else None
        if said is not None:
            found[said[0]] = said[1]
    return found


def name_for(pen: Pen, wanted: str, device: str) -> str:
    """What a device that asks to be called `wanted` is called. The name of one that was removed is free again."""
    here, said = pen.replica.authority.devices(), device_names(pen.connection, pen.keyring)
    return free_name(wanted, {udf: name for udf, name in said.items() if udf in here}, device)


def free_name(wanted: str, taken: Mapping[str, str], device: str) -> str:
    """`wanted`, or the first of "wanted 2", "wanted 3" … that no other device has; "device" where it is no name."""
    try:
        wanted = group.check_name(wanted)
    except FormatError:
        wanted = "device"
    others = {name.casefold() for udf, name in taken.items() if udf != device}
    name, number = wanted, 2
    while name.casefold() in others:
        suffix = f" {number}"
        name, number = wanted[: group.MAX_NAME - len(suffix)].rstrip() + suffix, number + 1
    return name
