"""What must be true of a simulated mesh when everybody has met, compared with what the world knows.

1. A removed device opens no version by an author who had learned of the removal.
2. Everybody holds the same versions, in the same states, with the same heads, and as the definition says.
3. Who is said to have acknowledged a removal holds it and its keys.
4. The exposure list is what the removed device could read.
5. No promise is broken: what a person wrote is there, and nothing is unreadable for who may read it.
6. The mesh is at rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.authority_spec import MESH, Spec
from harness.simulated_deeds import attempt
from harness.simulation import Node, World
from meshd.daemon import drafts, exposure, removing, rotation, vaults
from meshd.errors import DecryptError, FormatError
from meshd.profile import vault
from meshd.profile.apps import PASSWORD, of_tag, password
from meshd.profile.claim import Claim, Kind, State
from meshd.profile.trust import REMOVAL_UNDONE
from meshd.profile.vault import Item
from meshd.store import peers, versions

SAID = (
    "SELECT vid, state FROM versions",
    "SELECT kind, identifier, vid FROM heads",
    "SELECT need, vid FROM waits",
    "SELECT need, vid FROM holes",
    "SELECT signer, vid FROM tips",
    "SELECT vid, final FROM misfits",
)


def check(world: World) -> None:
    """All of it; AssertionError says what is wrong, and where."""
    members = members_of(world)
    for node in members:
        node.restart()  # from here on what is on disk must be enough
    same(members)
    if not members:
        return
    as_defined(world, members[0])
    opened = Opened(world)
    nothing_is_read(world)
    readable(world, members, opened)
    kept(world, members, opened)
    for node in members:
        exposed(world, node)
    acknowledged(world, members)
    afterwards(world, members)


def members_of(world: World) -> list[Node]:
    """The devices that are of the mesh and know it. One that an admin took in who was none any more, and that the
    others refuse, may not know what became of it: that is shown by `status`, and for a person to settle."""
    return [node for node in world.honest if node.is_member and node.udf not in node.snapshot.undecided]


# --- 2 ----------------------------------------------------------------------------------------------------------------


def same(members: list[Node]) -> None:
    for node in members[1:]:
        for sql in SAID:
            here, there = (set(one.connection.execute(sql)) for one in (members[0], node))
            assert here == there, f"{members[0].name} and {node.name} differ in {sql}: {_some(here ^ there)}"
        one, other = members[0].replica.authority, node.replica.authority
        for name in ("admins", "devices", "removed", "grants", "applications", "escrow", "health"):
            assert getattr(one, name)() == getattr(other, name)(), f"{members[0].name} and {node.name}: {name}"


def as_defined(world: World, node: Node) -> None:
    """The states are those of formats.md F7, by its executable definition."""
    misfits = versions.misfits(node.connection)
    claims: list[Claim] = []
    for (raw,) in node.connection.execute("SELECT raw FROM versions WHERE kind IN (1, 2, 3, 4, 8)"):
        claim = world.parse(raw).claim
        name = {"identifier": MESH} if claim.identifier == node.mesh else {}
        name |= {"signer": MESH} if claim.signer == node.mesh else {}
        claims.append(replace(claim, **name))  # type: ignore[arg-type]
    states = node.states()
    wrong = {
        vid: (states[vid], state)
        for vid, state in Spec(claims).states.items()
        if states[vid] is not state and vid not in misfits
    }
    assert not wrong, f"states that are not as defined: {_rows(node, wrong)} {wrong}"


# --- 1 ----------------------------------------------------------------------------------------------------------------


class Opened:
    """Which vault keys each device was ever handed, by anybody: found by opening containers with its own keys."""

    def __init__(self, world: World) -> None:
        self.parsed = {vid: world.parse(raw) for vid, raw in world.raws.items()}
        for thief in world.thieves:
            self.parsed |= {one.vid: one for one in thief.made}
        self.keys: dict[str, dict[str, bytes]] = {}
        containers = [one for one in self.parsed.values() if one.claim.kind is Kind.CONTAINER]
        for udf, held in world.keys.items():
            deks = {dek.recipient.udf: dek for keys in held for dek in keys.deks}
            found: dict[str, bytes] = {}
            for one in containers:
                try:
                    mine = [deks[name] for name in vault.container_recipients(one) if name in deks]
                    if mine and not vault.container_kids(one) <= found.keys():
                        found |= {key.kid: key.key for key in vault.open_container(one, mine[0]).keys}
                except (DecryptError, FormatError):
                    continue
            self.keys[udf] = found
        for thief in world.thieves:
            self.keys[thief.udf] |= {key.kid: key.key for key in thief.secrets}
        self.every = {kid: key for keys in self.keys.values() for kid, key in keys.items()}

    def secret(self, vid: bytes) -> str | None:
        """The password in a version, by whatever key anybody has."""
        try:
            item = vault.open_item(self.parsed[vid], vault.key_ring(self.every))
        except (DecryptError, FormatError):
            return None
        return "" if item.deleted else str(password.view(item)["password"])


def nothing_is_read(world: World) -> None:
    assert not world.leaks, "; ".join(world.leaks)


# --- 5 ----------------------------------------------------------------------------------------------------------------


def readable(world: World, members: list[Node], opened: Opened) -> None:
    """Who may read a vault opens it, and everything in it that an honest device wrote. What nobody who is left was ever
    given the key of is lost with the devices that were: a person removed the last that could read it."""
    honest = {one.udf for one in world.honest}
    given = {kid for node in members if node.udf not in world.bad() for kid in opened.keys[node.udf]}
    authority = members[0].replica.authority
    undone = {udf for code, udf, _ in authority.health() if code == REMOVAL_UNDONE}
    undone |= authority.devices() - authority.devices_at(authority.heads(Kind.PERSONAL)).keys()
    for container in sorted(members[0].replica.authority.applications()):
        opens = [node for node in members if container in node.keyring.vaults]
        if not any(node.udf in node.replica.authority.admins() for node in opens):
            continue  # nobody is left who could wrap it for others
        for node in members:
            if not node.replica.authority.can_read(node.udf, container) or node.udf in world.bad():
                continue  # a thief with its keys may have renewed them in its name
            if node.udf in undone and node not in opens:
                continue  # whoever removed it fell: a person says whether it is taken back
            assert node in opens, f"{node.name} may read a vault that it can't open"
            for identifier, vid in vaults.heads_in(node.connection, container):
                raw = versions.raw(node.connection, vid)
                assert raw is not None
                parsed = world.parse(raw)
                if parsed.claim.signer in honest and vid in world.written and vault.item_key_id(parsed) in given:
                    try:
                        vault.open_item(parsed, node.keyring.key)
                    except DecryptError as exc:
                        raise AssertionError(
                            f"{node.name} can't open {identifier[-6:]} by {_name(world, parsed.claim.signer)}: {exc}"
                        ) from exc


def kept(world: World, members: list[Node], opened: Opened) -> None:
    """What a person was told is kept is in the item's history, or waits as a draft for a reason."""
    said: dict[str, set[str]] = {}
    rows = members[0].connection.execute("SELECT vid, identifier FROM versions WHERE kind = 8 AND state <> 2")
    for vid, identifier in rows:
        secret = opened.secret(vid)
        if secret is not None:
            said.setdefault(identifier, set()).add(secret)
    for one in world.promises:
        if one.void or one.node not in members or one.secret in said.get(one.identifier, ()):
            continue
        node, container = one.node, one.identifier.partition("/")[0]
        waits = any(each.identifier == one.identifier for each in drafts.every(node.connection, node.keyring))
        assert one.draft and waits, f"{one.secret!r} by {node.name} is lost (a draft: {one.draft})"
        admins = [each for each in members if each.udf in each.replica.authority.admins()]
        hopeful = any(container in each.keyring.vaults for each in admins)
        assert not hopeful or not node.replica.authority.can_write(node.udf, container), f"{one.secret!r} waits"


# --- 4 ----------------------------------------------------------------------------------------------------------------


def exposed(world: World, node: Node) -> None:
    """Against what the removed device's own keys open, of everything in this store."""
    for udf in sorted(node.snapshot.removed & world.keys.keys()):
        deks = [dek for keys in world.keys[udf] for dek in keys.deks]
        held: set[str] = set()
        rows = node.connection.execute("SELECT raw FROM versions WHERE kind = 2")
        for (raw,) in rows:
            parsed = world.parse(raw)
            for dek in deks:
                if dek.recipient.udf in vault.container_recipients(parsed):
                    try:
                        held |= {key.kid for key in vault.open_container(parsed, dek).keys}
                    except (DecryptError, FormatError):
                        held |= vault.container_kids(parsed)  # a thief's lie about what is inside
        wanted: dict[str, bool] = {}
        for container in node.keyring.vaults:
            for identifier in vaults.items_of(node.connection, container):
                if (changed := _truth(world, node, identifier, udf, held)) is not None:
                    wanted[identifier] = changed
        found = {one.id: one.changed for one in exposure.exposure(node.connection, node.keyring, udf)}
        assert found == wanted, f"exposure of {_name(world, udf)} on {node.name}: {found} is not {wanted}"


def _truth(world: World, node: Node, identifier: str, udf: str, held: set[str]) -> bool | None:
    """Was it readable there, and is it changed? None: nothing of it was, or there is nothing to change."""
    shown = vaults.open_heads(node.connection, node.keyring, identifier)
    if not shown or not of_tag(shown[0].tag).vault:
        return None
    before: set[str] = set()
    last: tuple[int, bytes, str] | None = None
    readable_vids = set()
    rows = node.connection.execute(
        "SELECT vid, signer, raw, state FROM versions WHERE kind = 8 AND identifier = ? AND state <> 2", (identifier,)
    )
    for vid, signer, raw, state in rows:
        parsed = world.parse(raw)
        readable = vault.item_key_id(parsed) in held or signer == udf
        if readable:
            readable_vids.add(vid)
        try:
            item = vault.open_item(parsed, node.keyring.key)
        except (DecryptError, FormatError):
            continue
        if item.deleted:
            continue
        if readable and (secret := _secret(parsed.tag, item)):  # a thief may have put here what is no login
            before.add(secret)
        if state == State.APPLIED and (last is None or (item.time, vid) > last[:2]):
            last = item.time, vid, _secret(parsed.tag, item)
    if not before:
        return None
    now = {head.vid: _secret(head.tag, head.item) for head in shown if not head.item.deleted}
    if not now and last is not None:  # deleted: what it held last may still be valid
        now = {last[1]: last[2]}
    return not (now.keys() & readable_vids or before & {*now.values()})


def _secret(tag: str, item: Item) -> str:
    return str(password.view(item)["password"]) if tag == PASSWORD.tag else str(item.private)


# --- 3 ----------------------------------------------------------------------------------------------------------------


def acknowledged(world: World, members: list[Node]) -> None:
    """Everybody has heard, so everybody has acknowledged; and nobody is said to have who has not."""
    for line in list(world.net.lines.values()):
        line.close()
    for node in members:
        for other in members:
            their_ack = peers.get(node.connection, other.udf).their_ack
            truly = world.net.acks.get((other.udf, node.udf, node.store_id()), 0)
            assert node is other or their_ack <= truly, f"{other.name} never acknowledged {their_ack} of {node.name}"
        for udf in sorted(node.snapshot.removed):
            try:
                seq = removing.finished(node.connection, udf)
            except Exception as exc:
                raise AssertionError(f"removed and no cut: {_name(world, udf)}") from exc
            for other in members:
                if seq is not None and node is not other:
                    acked = peers.get(node.connection, other.udf).their_ack
                    assert acked >= seq, f"{other.name} has not acknowledged that {_name(world, udf)} is removed"


# --- 6, and life goes on ----------------------------------------------------------------------------------------------


def afterwards(world: World, members: list[Node]) -> None:
    """Everybody writes once more: nobody who is gone reads it, everybody else does."""
    from harness.simulated_deeds import add

    world.promises.clear()
    for node in members:
        attempt(world, node, add)
    for node in members:
        assert not node.write(rotation.unsettled), f"{node.name} has something to settle at rest"
    world.settle()
    opened = Opened(world)
    nothing_is_read(world)
    same(members)
    readable(world, members, opened)
    kept(world, members, opened)


# --- words ------------------------------------------------------------------------------------------------------------


def _name(world: World, udf: str) -> str:
    return next((node.name for node in world.nodes if node.udf == udf), f"a rogue {udf[:6]}")


def _some(found: Iterable[object]) -> str:
    listed = list(found)
    return f"{len(listed)}, such as {listed[:3]}"


def _rows(node: Node, vids: Iterable[bytes]) -> list[object]:
    return [versions.get(node.connection, vid) for vid in list(vids)[:3]]
