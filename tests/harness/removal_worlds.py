"""Random meshes whose devices come and go: real stores and keys, one seed, everything that people do to a mesh.

Devices edit, meet, are admitted, removed (also as of an earlier moment), promoted, demoted, granted and denied vaults,
renew their keys, and put right what they see. Who knows that another was removed does not meet it any more; who does
not know passes its writes on. In the end everybody who is left meets until nothing moves, and `check` says what must
hold.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from harness.mesh_world import Device, found
from meshd.crypto.keys import DecryptKey, SigningKey
from meshd.daemon import fallen, removal, renewal, repair, roles, rotation, vault_admin, vaults
from meshd.daemon.pen import Pen
from meshd.errors import DecryptError, FormatError, MeshError
from meshd.profile import links, vault, version
from meshd.profile.claim import ALL, READ, WRITE, Kind, Role, State
from meshd.profile.device import DeviceKeys
from meshd.profile.trust import REMOVAL_UNDONE
from meshd.store import versions

MOST_DEVICES = 7


class World:
    """One mesh, from its founding to the day on which everybody meets."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        first = found(seed=f"removals {seed}")
        self.devices = [first]
        assert first.master_key is not None
        self.master_key = first.master_key
        self.written: list[tuple[bytes, dict[str, set[bytes]]]] = []  # (vid, the removals that its author knew)
        self.deks: dict[str, list[DecryptKey]] = {first.udf: [first.keys.dek]}
        self.log: list[str] = []
        self._admit(first, Role.ADMIN)
        self._admit(first, Role.MEMBER)

    # what happens

    def step(self) -> None:
        one = self.random.choice(self.devices)
        deed = self.random.choices([self._write, self._meet, self._govern, self._mend], weights=[5, 6, 2, 1])[0]
        try:
            deed(one)
        except MeshError as exc:
            self.log.append(f"  refused: {exc}")

    def _say(self, one: Device, what: str) -> None:
        self.log.append(f"{one.name}: {what}")

    def _write(self, one: Device) -> None:
        knew = removals(one)
        known = list(one.passwords())
        act = self.random.random()
        secret = str(self.random.randrange(1000))
        if act < 0.4 or not known:
            vid = versions.heads(one.connection, Kind.ITEM, one.add(f"{secret}.example", secret=secret))[0]
        elif act < 0.9:
            vid = one.edit(self.random.choice(known), secret)
        else:
            vid = one.delete(self.random.choice(known))
        self._say(one, "writes")
        self.written.append((vid, knew))

    def _meet(self, one: Device) -> None:
        other = self.random.choice(self.devices)
        if other is not one and knows(one, other) and knows(other, one):
            self._say(one, f"meets {other.name}")
            one.meet(other)

    def _mend(self, one: Device) -> None:
        self._say(one, "mends")
        one.write(repair.Watch().mend)

    def _govern(self, one: Device) -> None:
        others = [other for other in self.devices if other is not one and knows(one, other)]
        if not others:
            return
        other = self.random.choice(others)
        ssh = one.keyring.find("ssh").application.identifier
        password = one.vault()
        level = self.random.choice((READ, WRITE))
        act = self.random.choice(
            ["admit", "remove", "remove", "since", "role", "grant", "revoke", "vault", "rotate", "renew"]
        )
        self._say(one, f"{act} {other.name}")
        deeds: dict[str, Callable[[Pen], object]] = {
            "remove": partial(removal.remove, devices=[other.udf], master_key=self._key(one, other)),
            "since": partial(self._remove_since, udf=other.udf),
            "role": partial(
                roles.set_role,
                device=other.udf,
                role=self.random.choice(list(Role)),
                master_key=self.master_key,
            ),
            "grant": partial(roles.grant, device=other.udf, wishes={self.random.choice((ssh, password, ALL)): level}),
            "revoke": partial(
                roles.revoke,
                device=other.udf,
                containers=[self.random.choice((ssh, password, ALL))],
                keep_read=self.random.random() < 0.3,
            ),
            "vault": partial(vault_admin.create, application="note", name=f"v{len(self.log)}"),
            "rotate": rotation.rotate,
        }
        if act == "admit":
            if len(self.devices) < MOST_DEVICES:
                self._admit(one, self.random.choice((Role.ADMIN, Role.MEMBER, Role.MEMBER, Role.RELAY)))
        elif act == "renew":
            self._renew(one)
        else:
            one.write(deeds[act])

    def _key(self, one: Device, other: Device) -> SigningKey | None:
        return self.master_key if other.udf in one.replica.authority.admins() else None

    def _remove_since(self, pen: Pen, udf: str) -> object:
        since = pen.now_ms - self.random.randrange(1, 60_000)
        plan = removal.plan(pen, [udf], since_ms=since)
        keep = [each.victim for each in plan.undone if self.random.random() < 0.5]
        back = [each.victim for each in plan.undone if each.victim not in keep]
        sure = [key for key in plan.adds if key.startswith("D:") and self.random.random() < 0.5]
        return removal.remove(
            pen, [udf], since_ms=since, master_key=self.master_key, keep_removed=keep, readmit=back, confirm=sure
        )

    def _admit(self, one: Device, role: Role) -> None:
        name = f"{one.name[:1]}{len(self.deks)}"
        new = one.admit(name, role)
        self.devices.append(new)
        self.deks[new.udf] = [new.keys.dek]

    def _renew(self, one: Device) -> None:
        old = one.keys
        fresh = DeviceKeys(old.dsk, SigningKey.generate(one.rng), DecryptKey.generate(one.rng), (old.dek, *old.older))
        one.keyring.device = replace(fresh, dak=old.dak)
        one.write(partial(renewal.write, keys=fresh))
        one.keyring.device = one.keys = fresh
        self.deks[one.udf].append(fresh.dek)

    # the end

    def settle(self) -> list[Device]:
        """Everything comes to everybody; those who are left after that meet and mend until nothing moves."""
        for _ in range(2):
            for one in self.devices:
                one.meet(self.devices[0])
        authority = self.devices[0].replica.authority
        left = [one for one in self.devices if one.udf in authority.devices()]
        if left and not authority.admins():  # the passphrase mends it
            heir = left[0]
            heir.write(partial(roles.set_role, device=heir.udf, role=Role.ADMIN, master_key=self.master_key))
        for _ in range(12):
            before = [one.states() for one in left]
            self._take_back(left)
            for one in left:
                one.write(repair.Watch().mend)
            for _ in range(2):
                for one in left:
                    one.meet(left[0])
            if [one.states() for one in left] == before:
                return left
        raise AssertionError(f"seed {self.seed} never comes to rest\n" + "\n".join(self.log))

    def _take_back(self, left: list[Device]) -> None:
        """Who is back because his remover fell gets keys again once a person says so."""
        for admin in [one for one in left if one.udf in one.replica.authority.admins()][:1]:
            undone = [f"D:{udf}" for code, udf, _ in admin.replica.authority.health() if code == REMOVAL_UNDONE]
            if undone:
                admin.write(partial(fallen.confirm, keys=undone))

    def check(self) -> None:
        left = self.settle()
        if not left:
            return
        first = left[0]
        told = "\n".join([f"seed {self.seed}", *self.log])
        for one in left[1:]:
            assert one.states() == first.states(), f"{told}\n{one.name} and {first.name} differ"
        authority = first.replica.authority
        for one in left:
            assert one.udf in authority.devices(), f"{told}\n{one.name} is gone"
            if one.udf in authority.admins():
                assert one.write(rotation.unsettled) == (), f"{told}\n{one.name} has vaults to settle"
                assert not one.write(repair.unmerged), f"{told}\n{one.name} has profiles to merge"
            self._reads(one, left, told)
        stored = first.connection
        for udf, deks in self.deks.items():
            if udf in authority.admins():
                continue  # removed by an admin while the master key made it one, apart: only the master key ends that
            held = keys(first, deks)
            for vid, knew in self.written:
                raw = versions.raw(stored, vid)
                # A removal that fell in the end had given nobody's keys up.
                if raw is not None and knew.get(udf, set()) & removals(first).get(udf, set()):
                    assert not opens(raw, held), told + f"\n{udf} reads what was written in knowledge of its removal"

    def _reads(self, one: Device, left: list[Device], told: str) -> None:
        """What stands in a vault that a device reads opens there, if any of those who are left can open it."""
        authority = one.replica.authority
        held = keys(one, [dek for other in left for dek in self.deks[other.udf]])
        for container, opened in one.keyring.vaults.items():
            if authority.can_read(one.udf, container):
                for identifier, vid in vaults.heads_in(one.connection, container):
                    raw = versions.raw(one.connection, vid)
                    assert raw is not None
                    if not opens(raw, held):
                        continue
                    try:
                        vault.open_item(version.parse(raw), one.keyring.key)
                    except (DecryptError, FormatError) as exc:
                        raise AssertionError(f"{told}\n{one.name} can't read {identifier} in {opened.name}") from exc


def knows(one: Device, other: Device) -> bool:
    """Would `one` talk with `other`?"""
    authority = one.replica.authority
    return other.udf in authority.devices() and one.udf in authority.devices()


def removals(one: Device) -> dict[str, set[bytes]]:
    """Whom the versions that stand for `one` remove, and which do."""
    found: dict[str, set[bytes]] = {}
    for kind in (Kind.MASTER, Kind.PERSONAL):
        for row in versions.of_kind(one.connection, kind):
            for cut in links.parse(row.token).x:
                if not cut.scope:
                    found.setdefault(cut.udf, set()).add(row.vid)
    return found


def keys(holder: Device, deks: list[DecryptKey]) -> dict[str, bytes]:
    """Every vault key that these encryption keys unwrap from what `holder` stores."""
    found: dict[str, bytes] = {}
    for row in versions.of_kind(holder.connection, Kind.CONTAINER, tuple(State)):
        raw = versions.raw(holder.connection, row.vid)
        assert raw is not None
        for dek in deks:
            try:
                found |= {key.kid: key.key for key in vault.open_container(version.parse(raw), dek).keys}
            except (DecryptError, FormatError):
                continue
    return found


def opens(raw: bytes, held: dict[str, bytes]) -> bool:
    try:
        vault.open_item(version.parse(raw), vault.key_ring(held))
    except (DecryptError, FormatError):
        return False
    return True
