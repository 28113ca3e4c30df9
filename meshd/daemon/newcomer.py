"""The keys of a device that is about to join a mesh: made, kept, used again after a crash, or thrown away.

They are on disk before a request leaves, with the DeviceProfile that they signed: a device that was admitted and never
heard of it asks again with the same keys and the same profile, under any code, and gets the same answer. A second
profile from the same key would be a fork of its chain (formats.md F1). So there are three ways in which `prepare` ends:

    keystore and profile of an earlier attempt, and the passphrase opens it     they are used again
    … and the passphrase is another one                                         they are deleted, and made anew
    a keystore that no attempt is known to have made                            it is set aside, and one is made anew
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from meshd.crypto import base64url
from meshd.crypto.keys import DecryptKey, SigningKey
from meshd.crypto.sealing import KEY_BYTES, KdfParameters
from meshd.daemon import pairing_wire
from meshd.daemon.context import Daemon, wait
from meshd.daemon.tiers import Tier1, tier2_map
from meshd.errors import MeshError
from meshd.profile import device, version
from meshd.profile.device import DeviceKeys
from meshd.profile.version import Version
from meshd.store.files import file_error, sync_directory
from meshd.store.keystore import Keystore
from meshd.store.outcome import Outcome

NEWCOMER = "newcomer"  # where profile and progress are saved


@dataclass(frozen=True, slots=True)
class Newcomer:
    """This device before it belongs to a mesh. `asked`: a request has left, so it may have been admitted already."""

    keys: DeviceKeys = field(repr=False)
    cache_key: bytes = field(repr=False)
    profile: Version
    keystore: Keystore
    asked: bool = False

    @property
    def udf(self) -> str:
        return self.keys.udf

    @property
    def tier1(self) -> Tier1:
        return Tier1(self.keys.dak, ())

    @property
    def unsealed(self) -> bool:
        """The keys open without a passphrase."""
        return not self.keystore.needs_passphrase


async def prepare(daemon: Daemon, passphrase: str | None, kdf: KdfParameters) -> Newcomer:
    """The keys to join with, on disk when this returns; the keystore is unlocked. `None`: no passphrase. StoreError."""
    saved = pairing_wire.load(daemon.reader.connection, NEWCOMER) or {}
    found = await trio.to_thread.run_sync(_again_or_anew, daemon, saved, passphrase, kdf)
    state = _state(found)
    if state != saved:
        await _save(daemon, state)
    return found


async def asks(daemon: Daemon, newcomer: Newcomer) -> Newcomer:
    """Note, before a request leaves, that this device may be admitted from now on."""
    if newcomer.asked:
        return newcomer
    newcomer = replace(newcomer, asked=True)
    await _save(daemon, _state(newcomer))
    return newcomer


async def enter(
    daemon: Daemon,
    newcomer: Newcomer,
    commit: Callable[[sqlite3.Connection, Outcome], None],
    told: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Make this device one of the mesh by `commit`, in one transaction, and unlock it; whatever happens to the caller,
    all of it or nothing. `told` runs once that is durable."""

    def run(connection: sqlite3.Connection, outcome: Outcome) -> None:
        commit(connection, outcome)
        pairing_wire.forget(connection, NEWCOMER)

    with trio.CancelScope(shield=True):
        # Before the commit: whoever wakes up from it finds keys beside the mesh.
        daemon.keystore, daemon.tier1 = newcomer.keystore, newcomer.tier1
        try:
            await daemon.transact(run)
        except BaseException:
            daemon.keystore = daemon.tier1 = None
            raise
        if told is not None:
            await told()
        await daemon.install(newcomer.keys, newcomer.cache_key)


async def give_up(daemon: Daemon, newcomer: Newcomer | None, *, rejected: bool) -> None:
    """The joining ended without a mesh: the keys go, unless somebody may still admit this device."""
    if newcomer is not None and (not newcomer.asked or rejected):
        try:
            await discard(daemon)
        except MeshError as exc:
            daemon.log.warning("the keys of a device that did not join were not deleted: %s", exc)


async def discard(daemon: Daemon) -> None:
    """Delete the keys of a device that nobody admitted."""
    _delete(daemon.paths.keystore)
    await wait(daemon.writer.submit(lambda connection: pairing_wire.forget(connection, NEWCOMER)))


def _state(newcomer: Newcomer) -> dict[str, Any]:
    return {"profile": base64url.encode(newcomer.profile.raw), "asked": newcomer.asked}


async def _save(daemon: Daemon, state: dict[str, Any]) -> None:
    await wait(daemon.writer.submit(lambda connection: pairing_wire.save(connection, NEWCOMER, state)))


def _again_or_anew(daemon: Daemon, saved: dict[str, Any], passphrase: str | None, kdf: KdfParameters) -> Newcomer:
    path = daemon.paths.keystore
    if path.exists():
        profile = _saved_profile(saved)
        keystore = _opened(daemon)
        if profile is None or keystore is None or keystore[1].udf != device.read(profile).dak.udf:
            _set_aside(daemon)
        else:
            found = _again(daemon, profile, *keystore, passphrase, kdf)
            if found is not None:
                return replace(found, asked=saved.get("asked") is True)
            _delete(path)
    keys, cache_key = DeviceKeys.generate(daemon.rng), daemon.rng(KEY_BYTES)
    new = device.create(keys, daemon.now_ms() // 1000, daemon.rng)
    tier1, tier2 = Tier1(keys.dak, ()).to_map(), tier2_map(keys, cache_key)
    return Newcomer(keys, cache_key, new, Keystore.create(path, tier1, tier2, passphrase, daemon.rng, kdf=kdf))


def _saved_profile(saved: dict[str, Any]) -> Version | None:
    try:
        profile = version.verify(version.parse(base64url.decode(str(saved.get("profile", "")))))
        device.read(profile)
    except MeshError:
        return None
    return profile


def _opened(daemon: Daemon) -> tuple[Keystore, SigningKey] | None:
    """The keystore that is there, and the authentication key in it; None where it does not open."""
    try:
        keystore = Keystore.open(daemon.paths.keystore)
        return keystore, Tier1.from_map(keystore.open_tier1()).dak
    except (MeshError, KeyError, TypeError) as exc:
        daemon.log.warning("the keystore that is here can't be used: %s", exc)
        return None


def _again(
    daemon: Daemon, profile: Version, keystore: Keystore, dak: SigningKey, passphrase: str | None, kdf: KdfParameters
) -> Newcomer | None:
    """The newcomer of an earlier attempt; None where the passphrase does not open its keys."""
    sealed = keystore.needs_passphrase
    if sealed and passphrase is None:
        return None
    try:
        fields = keystore.unlock(passphrase if sealed else None)
        keys = DeviceKeys(SigningKey.from_private(fields["dsk"]), dak, DecryptKey.from_private(fields["dek"]))
        if keys.udf != profile.identifier:
            return None
        if passphrase is not None and not sealed:
            keystore.change_passphrase(None, passphrase, kdf=kdf)
        return Newcomer(keys, fields["cache"], profile, keystore)
    except (MeshError, KeyError, TypeError) as exc:
        daemon.log.info("the keys of an earlier attempt to connect are not used again: %s", exc)
        return None


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as exc:
        raise file_error(exc, path, "deleted") from exc


def _set_aside(daemon: Daemon) -> None:
    """Rename a keystore of unknown origin: it may belong to a store that was lost, and open what nothing else does."""
    path = daemon.paths.keystore
    aside = path.with_name(f"{path.name}.unused-{daemon.now_ms()}")
    try:
        path.rename(aside)
        sync_directory(path.parent)
    except OSError as exc:
        raise file_error(exc, path, "set aside") from exc
    daemon.log.warning("a keystore without a mesh was set aside as %s", aside.name)
