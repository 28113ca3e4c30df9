"""What a portal holds of recovery: given to who can name it, and forgotten when the mesh gives it up."""

from __future__ import annotations

from pathlib import Path

from harness.portal_people import NOW, Person, tagged
from harness.portal_server import portal_server
from meshd.crypto.keys import DecryptKey
from meshd.daemon.portals import receipts
from meshd.portal import messages as m
from meshd.portal import structures as s
from meshd.profile import master, recovery, shares
from meshd.profile.recovery import Escrowed, Info
from meshd.profile.version import Version

NAME = "alice@example.net"


def entry(alice: Person, key: bytes) -> tuple[Version, DecryptKey]:
    escrow = DecryptKey.generate(alice.rng)
    info = Info(alice.mesh, NOW, shares.Scheme.simple(2, 3))
    return recovery.entry(key, Escrowed(alice.key, (escrow,), info), alice.rng), escrow


def listing(alice: Person, made: Version | None, escrow: DecryptKey | None) -> Version:
    """A PersonalProfile whose MasterProfile lists this recovery entry, and no other."""
    alice.master = master.write(
        alice.key,
        [alice.first.keys.dsk.verify_key],
        parents=[alice.master],
        escrow={made.identifier: made.vid} if made is not None else {},
        recovery={made.identifier: escrow.recipient} if made is not None and escrow is not None else None,
        now=NOW,
    )
    alice.head = alice.profile(None, [alice.head])
    return alice.head


async def test_an_entry_that_counts_no_more_is_erased_and_does_not_come_back(home: Path) -> None:
    alice = Person("alice")
    (old, old_key), (new, new_key) = entry(alice, bytes(32)), entry(alice, bytes(range(32)))
    async with portal_server(home) as running:
        client = running.client(alice.first)
        stranger = running.client(None)
        await client.ask("CreateAccount", m.CreateRequest(account=NAME, profile=tagged(alice.root)))
        for one in (old, listing(alice, old, old_key)):
            assert (await client.ask("Publish", m.PublishRequest(entry=tagged(one)))).status == 201
        found = await stranger.ask("Get", m.GetRequest(identifier=old.identifier))
        assert found.entries == [tagged(old)]
        shown = await stranger.ask("GetRecords", m.GetRequest(identifier=old.identifier), mesh_extensions="log, auth")
        (receipt,) = shown.receipts  # who comes back holds it to the log
        assert receipts.read(receipt)[1].vid == old.vid
        for one in (new, listing(alice, new, new_key)):
            assert (await client.ask("Publish", m.PublishRequest(entry=tagged(one)))).status == 201
        for _ in range(2):
            assert not (await stranger.ask("Get", m.GetRequest(identifier=old.identifier))).entries
            found = await stranger.ask("Get", m.GetRequest(identifier=new.identifier))
            assert found.entries == [tagged(new)]
            again = await client.ask("Publish", m.PublishRequest(entry=tagged(old)))
            assert again.status == 201
        feed = m.GetRequest(
            key_values=[s.KeyValue(key="UserProfile", value=alice.mesh)], search_constraints=s.SearchConstraints()
        )
        records = await client.ask("GetRecords", feed)
        held = [bytes(item.data or b"") for item in records.data_items]
        assert old.raw not in held
        assert new.raw in held
    assert not [path for path in home.rglob("*") if path.is_file() and old.raw[80:] in path.read_bytes()]
