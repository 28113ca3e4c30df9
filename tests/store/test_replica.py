from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.mesh_world import Device, device_keys, found, seeded, verified
from meshd.crypto import cbor
from meshd.crypto.keys import RecipientKey, SigningKey
from meshd.daemon import membership, vaults
from meshd.errors import Denied, FormatError, TrustError
from meshd.profile import author, device, escrow, master, personal, vault, version
from meshd.profile.apps import NOTE, PASSWORD, password
from meshd.profile.claim import Kind, Role, State
from meshd.profile.links import Cut, Links
from meshd.profile.vault import Container, EpochKey
from meshd.profile.version import Parsed, Version
from meshd.store import versions
from meshd.store.replica import Draft, Outcome, Replica
from meshd.store.waiting import Limits

MESHD = Path(__file__).parents[2] / "meshd"


@pytest.fixture
def laptop() -> Device:
    """The first device, an admin."""
    return found()


@pytest.fixture
def desktop(laptop: Device) -> Device:
    """A member that holds everything."""
    return laptop.admit("desktop")


def links(by: Device, **changes: Any) -> Links:
    """What `by` would say of its next version; `changes` are the lies."""
    link = by.replica._book.next_link(by.connection, by.udf)
    honest = Links(g=1, n=link.n, q=link.tips, a=by.replica.authority.heads(Kind.PERSONAL))
    return dataclasses.replace(honest, **changes)


def item_body(by: Device) -> dict[str, Any]:
    opened = by.keyring.find("password")
    item = password.new(["example.org"], "eve", "x", time=1, made="2025-06-15T00:00:00Z")
    return vault.seal_item(item, opened.container.keys[0], by.rng)


def an_item(by: Device, identifier: str | None = None, key: SigningKey | None = None, **changes: Any) -> Version:
    """A version of an item, not written in any store."""
    identifier = identifier or vault.new_item_identifier(by.vault(), by.rng)
    body = item_body(by)
    return author.sign(
        key or by.keys.dsk, Kind.ITEM, identifier, PASSWORD.tag, body, links(by, **changes), 1_750_000_000
    )


def a_container(
    by: Device,
    recipients: list[RecipientKey] | None = None,
    keys: tuple[EpochKey, ...] | None = None,
    tag: str = PASSWORD.tag,
    key: SigningKey | None = None,
    **changes: Any,
) -> Version:
    """The next version of the password vault's container, as `by` would write it but for what is asked."""
    opened = by.keyring.find("password")
    if recipients is None:
        recipients = membership.recipients_of(by.pen(by.connection, Outcome()), opened.application)
    container = Container(opened.container.keys if keys is None else keys, "", {}, {})
    body = vault.seal_container("PasswordProfilePrivate", container, recipients, by.rng)
    heads = tuple(sorted(head.claim.vid for head in opened.heads))
    stated = {"p": heads, "g": 1 + max(head.claim.links.g for head in opened.heads)} | changes
    return author.sign(
        key or by.keys.dsk, Kind.CONTAINER, by.vault(), tag, body, links(by, **stated), by.now_ms // 1000
    )


def state(where: Device, one: Parsed) -> State | None:
    return where.states().get(one.claim.vid)


def refused(where: Device, one: Version, why: str) -> None:
    """Malformed by itself: nothing of it stays."""
    before = where.connection.execute("SELECT count(*) FROM versions").fetchone()
    outcome = where.accept([one])
    assert [vid for vid, _ in outcome.rejected] == [one.vid]
    assert why in outcome.rejected[0][1]
    assert where.connection.execute("SELECT count(*) FROM versions").fetchone() == before
    same_memory(where)


def misfit(where: Device, one: Version, why: str) -> None:
    """It does not fit what it names: kept, counted, never applied."""
    outcome = where.accept([one])
    assert [(vid, why in text) for vid, text in outcome.rejected] == [(one.vid, True)], outcome.rejected
    assert state(where, one) is State.QUARANTINED
    assert why in versions.misfits(where.connection)[one.vid][1]
    assert one.vid not in versions.heads(where.connection, *one.claim.entry)
    assert not outcome.quarantined, "quarantine is for authority"
    same_memory(where)


def same_memory(where: Device) -> None:
    assert where.replica.memory() == Replica(where.connection, seeded("fresh")).memory()


# --- what never gets so far -------------------------------------------------------------------------------------------


def test_a_version_whose_bytes_were_changed_does_not_verify(laptop: Device, desktop: Device) -> None:
    one = an_item(desktop)
    fields = cbor.decode(one.raw)
    changes = {
        "the signature": [*fields[:4], fields[4][:-1] + bytes([fields[4][-1] ^ 1])],
        "the payload": [*fields[:3], fields[3].replace(b'"Updated":"2025', b'"Updated":"2026'), fields[4]],
        "the signer": [*fields[:2], fields[2].replace(desktop.udf.encode(), laptop.udf.encode()), *fields[3:]],
        "the identifier": [8, one.identifier[:-1] + ("a" if one.identifier[-1] != "a" else "b"), *fields[2:]],
        "the kind": [2, *fields[1:]],
    }
    for what, changed in changes.items():
        good, bad = verified([cbor.encode(changed)], laptop.replica.directory)
        assert (good, len(bad)) == ([], 1), what


def test_a_signer_whom_nobody_lists_is_not_believed(laptop: Device) -> None:
    stranger = found("stranger", seed="other")
    one = an_item(laptop, key=stranger.keys.dsk)
    assert verified([one.raw], laptop.replica.directory)[1][0][1].startswith("signed by")


# --- what is malformed by itself --------------------------------------------------------------------------------------


def test_a_profile_of_another_mesh_is_refused_with_all_that_it_embeds(laptop: Device) -> None:
    other = found("stranger", seed="other")
    profile = version.verify(version.parse(other.feed()[[k for (k,) in kinds(other)].index(1)]))
    refused(laptop, profile, "another mesh")
    assert laptop.replica.device(laptop.connection, other.udf) is None


def kinds(where: Device) -> list[tuple[int]]:
    return where.connection.execute("SELECT kind FROM versions ORDER BY seq").fetchall()


def a_profile(by: Device, key: SigningKey, body: Mapping[str, Any] | None = None, **changes: Any) -> Version:
    heads = by.pen(by.connection, Outcome()).load(by.replica.authority.heads(Kind.PERSONAL))
    stated = {"a": (), "p": tuple(head.claim.vid for head in heads), "g": heads[0].claim.links.g + 1} | changes
    body = heads[0].body if body is None else body
    return author.sign(key, Kind.PERSONAL, by.mesh, "PersonalProfile", body, links(by, **stated), by.now_ms // 1000)


def test_a_strangers_profile_without_parents_is_refused(laptop: Device, desktop: Device) -> None:
    stranger = device_keys("stranger")
    refused(laptop, a_profile(laptop, stranger.dsk, p=(), g=1, n=1, q=()), "master key did not sign")
    refused(laptop, a_profile(desktop, desktop.keys.dsk, p=(), g=1), "master key did not sign")


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ({"n": 7, "q": ()}, "contradicts its predecessors"),
        ({"n": 1}, "contradicts its predecessors"),
        ({"g": 2}, "generation contradicts its parents"),
        ({"g": 1, "p": (b"p" * 32,)}, "generation contradicts its parents"),
        ({"e": (("MAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA", b"e" * 32),)}, "links of another kind"),
        ({"k": ("D:MAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA",)}, "links of another kind"),
    ],
)
def test_an_item_with_links_that_contradict_themselves_is_refused(
    laptop: Device, desktop: Device, lie: dict[str, Any], why: str
) -> None:
    refused(laptop, an_item(desktop, **lie), why)


def test_an_item_that_cuts_somebody_is_refused(laptop: Device, desktop: Device) -> None:
    refused(laptop, an_item(desktop, x=(Cut(laptop.udf, ()),)), "links of another kind")


def test_a_device_profile_with_the_certificate_of_another_key_is_refused(laptop: Device, desktop: Device) -> None:
    body = dict(device.create(desktop.keys, 1, desktop.rng).body)
    other = device.create(device_keys("other"), 1, desktop.rng).body["DeviceAuthenticationKey"]["X509Certificate"]
    body["DeviceAuthenticationKey"] = body["DeviceAuthenticationKey"] | {"X509Certificate": other}
    first = versions.heads(desktop.connection, Kind.DEVICE, desktop.udf)
    stated = links(desktop, a=(), p=first, g=2)
    refused(
        laptop, author.sign(desktop.keys.dsk, Kind.DEVICE, desktop.udf, "DeviceProfile", body, stated, 1), "certificate"
    )
    # … and so is a profile that embeds one
    heads = laptop.pen(laptop.connection, Outcome()).load(laptop.replica.authority.heads(Kind.PERSONAL))
    bad = author.sign(desktop.keys.dsk, Kind.DEVICE, desktop.udf, "DeviceProfile", body, stated, 1)
    listing = [entry for entry in heads[0].body["Devices"] if entry["Identifier"] != desktop.udf]
    body = dict(heads[0].body) | {"Devices": [*listing, version.bare_json(bad)]}
    refused(laptop, a_profile(laptop, laptop.keys.dsk, body), "certificate")


# --- what does not fit what it names ----------------------------------------------------------------------------------


def test_an_item_whose_parent_is_another_entry_is_never_applied(laptop: Device, desktop: Device) -> None:
    other = laptop.add("other.example")
    desktop.pull(laptop)
    head = versions.heads(desktop.connection, Kind.ITEM, other)
    misfit(laptop, an_item(desktop, p=head, g=2), "parent of another entry")


def test_an_item_whose_generation_is_not_one_after_its_parents_is_never_applied(
    laptop: Device, desktop: Device
) -> None:
    item = laptop.add("example.org")
    desktop.pull(laptop)
    head = versions.heads(desktop.connection, Kind.ITEM, item)
    misfit(laptop, an_item(desktop, item, p=head, g=9), "generation 9 over parents of generation 1")
    assert versions.heads(laptop.connection, Kind.ITEM, item) == head


def test_an_item_out_of_its_place_in_the_chain_is_never_applied(laptop: Device, desktop: Device) -> None:
    honest = links(desktop)
    misfit(laptop, an_item(desktop, n=honest.n + 3), "place in its author's chain")


def test_an_item_that_follows_another_signers_version_is_never_applied(laptop: Device, desktop: Device) -> None:
    misfit(laptop, an_item(desktop, q=laptop.tips(), n=links(laptop).n), "place in its author's chain")


def test_a_wrong_place_shows_when_the_predecessor_comes(laptop: Device, desktop: Device) -> None:
    first = an_item(desktop)
    second = an_item(desktop, q=(first.vid,), n=first.links.n + 5)
    third = an_item(desktop, q=(second.vid,), n=second.links.n + 1)
    assert laptop.accept([second, third]).rejected == []
    assert state(laptop, second) is state(laptop, third) is State.APPLIED
    outcome = laptop.accept([first])
    assert [vid for vid, _ in outcome.rejected] == [second.vid]
    assert (state(laptop, first), state(laptop, second), state(laptop, third)) == (
        State.APPLIED,
        State.QUARANTINED,
        State.APPLIED,
    )
    assert versions.heads(laptop.connection, *second.claim.entry) == ()
    assert second.claim.entry in outcome.entries
    same_memory(laptop)


def test_a_profile_with_a_wrong_place_is_told_and_stands(laptop: Device, desktop: Device) -> None:
    """Else a thief who shows it before its predecessor here, and after it there, splits the mesh for ever."""
    one = a_profile(laptop, laptop.keys.dsk, n=links(laptop).n + 4)
    outcome = desktop.accept([one])
    assert outcome.forks == [(laptop.udf, one.links.n)]
    assert state(desktop, one) is State.APPLIED
    assert desktop.replica.authority.heads(Kind.PERSONAL) == (one.vid,)


def test_a_master_profile_that_drops_an_admin_without_cutting_him_is_never_applied(laptop: Device) -> None:
    work = laptop.admit("work", Role.ADMIN)
    assert laptop.master_key is not None
    heads = laptop.pen(laptop.connection, Outcome()).load(laptop.replica.authority.heads(Kind.MASTER))
    bad = master.write(laptop.master_key, [laptop.keys.dsk.verify_key], parents=heads, escrow={}, now=1)
    outcome = work.accept([bad])
    assert [(vid, why) for vid, why in outcome.rejected] == [
        (bad.vid, "a master profile drops an admin without cutting his chain")
    ]
    assert work.replica.authority.admins() == {laptop.udf, work.udf}
    same_memory(work)


# --- authority --------------------------------------------------------------------------------------------------------


def test_an_item_in_a_vault_that_was_not_granted_is_quarantined(laptop: Device) -> None:
    narrow = laptop.admit("narrow", grants={laptop.vault("note"): "write"})
    one = an_item(laptop, key=narrow.keys.dsk, q=narrow.tips(), n=links(narrow).n)
    outcome = laptop.accept([one])
    assert outcome.quarantined == {one.vid} and outcome.rejected == []
    assert state(laptop, one) is State.QUARANTINED
    assert versions.heads(laptop.connection, *one.claim.entry) == ()


def test_a_container_that_a_member_wrote_is_quarantined(laptop: Device, desktop: Device) -> None:
    before = versions.heads(laptop.connection, Kind.CONTAINER, laptop.vault())
    one = a_container(desktop)
    assert laptop.accept([one]).quarantined == {one.vid}
    assert versions.heads(laptop.connection, Kind.CONTAINER, laptop.vault()) == before


def test_what_this_device_may_not_write_is_denied_and_leaves_nothing(laptop: Device, desktop: Device) -> None:
    relay = laptop.admit("relay", Role.RELAY)
    before = relay.connection.execute("SELECT count(*) FROM versions").fetchone()
    body = item_body(laptop)
    draft = Draft(Kind.ITEM, vault.new_item_identifier(laptop.vault(), relay.rng), PASSWORD.tag, body)
    with pytest.raises(Denied):
        relay.write(lambda pen: pen.write(draft))
    with pytest.raises(Denied):
        desktop.write(lambda pen: membership.admit(pen, device.create(device_keys("x"), 1, pen.rng), Role.MEMBER, "x"))
    assert relay.connection.execute("SELECT count(*) FROM versions").fetchone() == before
    for one in (relay, desktop):
        same_memory(one)


def test_every_applied_container_and_item_may_be_written_when_asked_again(laptop: Device, desktop: Device) -> None:
    """The insert has no other way in than the question."""
    desktop.add("example.org")
    laptop.pull(desktop)
    narrow = laptop.admit("narrow", grants={laptop.vault("note"): "write"})
    laptop.accept([an_item(laptop, key=narrow.keys.dsk, q=narrow.tips(), n=links(narrow).n), a_container(desktop)])
    assert versions.count_states(laptop.connection)[State.QUARANTINED] == 2
    for row in versions.judged(laptop.connection):
        assert (row.state is State.APPLIED) == laptop.replica.authority.may_write(row.claim())


def test_what_a_late_link_connects_to_a_cut_is_applied_also_after_the_store_was_opened_anew(
    laptop: Device, desktop: Device
) -> None:
    watcher = laptop.admit("watcher")
    item = desktop.add("example.org")
    head = versions.heads(desktop.connection, Kind.ITEM, item)
    end = a_container(desktop)  # nothing that a member may write: no cut is asked about it
    heads = laptop.pen(laptop.connection, Outcome()).load(laptop.replica.authority.heads(Kind.PERSONAL))
    draft = Draft(
        Kind.PERSONAL,
        laptop.mesh,
        "PersonalProfile",
        heads[0].body,
        parents=(heads[0].claim.vid,),
        cuts=(Cut(desktop.udf, (end.vid,)),),
    )
    cut = laptop.write(lambda pen: pen.write(draft))
    watcher.take([raw for raw in desktop.feed() if version.parse(raw).claim.vid in head])
    watcher.accept([cut])
    assert watcher.states()[head[0]] is State.QUARANTINED, "the end that the cut names has not come"
    watcher.replica = Replica(watcher.connection, watcher.rng)
    watcher.accept([end])
    assert watcher.states()[head[0]] is State.APPLIED and state(watcher, end) is State.QUARANTINED
    assert versions.heads(watcher.connection, Kind.ITEM, item) == head


# --- what waits -------------------------------------------------------------------------------------------------------


def test_an_unknown_parent_or_authority_parks_a_version_until_it_comes(laptop: Device, desktop: Device) -> None:
    item = desktop.add("example.org")
    later = [desktop.edit(item, f"{number}") for number in range(5)]
    profile = laptop.write(
        lambda pen: membership.write_personal(pen, membership.master_to_embed(pen), membership.effective(pen))
    )
    desktop.take([profile.raw])
    under = desktop.add("later.example")
    watcher = Device("watcher", device_keys("watcher"), seeded("watcher"))
    watcher.join(laptop.mesh)
    everything = desktop.feed()
    watcher.take(raw for raw in everything if version.parse(raw).claim.kind is not Kind.ITEM and raw != profile.raw)
    for raw in reversed([raw for raw in everything if version.parse(raw).claim.kind is Kind.ITEM]):
        watcher.take([raw])
    assert versions.heads(watcher.connection, Kind.ITEM, under) == ()
    assert versions.count_states(watcher.connection) == {State.PENDING: 1}
    watcher.take([profile.raw])
    assert versions.heads(watcher.connection, Kind.ITEM, item) == (later[-1],)
    assert len(versions.heads(watcher.connection, Kind.ITEM, under)) == 1
    assert watcher.connection.execute("SELECT count(*) FROM waits").fetchone() == (0,)
    same_memory(watcher)


def test_a_thousand_edits_that_come_newest_first_are_judged_when_the_first_comes(laptop: Device) -> None:
    item = laptop.add("example.org")
    for number in range(1200):  # more than Python's stack is deep
        laptop.edit(item, f"{number}")
    watcher = Device("watcher", device_keys("watcher"), seeded("watcher"))
    watcher.join(laptop.mesh)
    feed = laptop.feed()
    profiles = [raw for raw in feed if version.parse(raw).claim.kind is not Kind.ITEM]
    watcher.take(profiles)
    edits = [raw for raw in feed if version.parse(raw).claim.identifier == item]
    watcher.take(reversed(edits[1:]))
    assert versions.count_states(watcher.connection)[State.PENDING] == 1200
    assert watcher.connection.execute("SELECT count(*) FROM holes").fetchone()[0] <= 2
    watcher.take(edits[:1])
    assert State.PENDING not in versions.count_states(watcher.connection)
    assert versions.heads(watcher.connection, Kind.ITEM, item) == versions.heads(laptop.connection, Kind.ITEM, item)
    same_memory(watcher)


def test_one_signer_who_floods_what_waits_takes_nobody_elses_place(laptop: Device, desktop: Device) -> None:
    laptop.replica = Replica(laptop.connection, laptop.rng, Limits(parked=20))
    flood = [an_item(desktop, p=(bytes([number]) * 32,), g=2) for number in range(30)]
    outcome = laptop.accept(flood)
    assert outcome.deferred == [one.vid for one in flood[20:]], "what has no place is to be asked for again"
    work = laptop.admit("work")
    honest = an_item(work, p=(b"\xff" * 32,), g=2)
    assert laptop.accept([honest]).deferred == []
    assert state(laptop, honest) is State.PENDING
    same_memory(laptop)


def test_escrow_entries_that_nobody_lists_make_room_for_newer_ones(laptop: Device) -> None:
    laptop.replica = Replica(laptop.connection, laptop.rng, Limits(escrow=3))
    entries = [escrow.entry(b"blob", [laptop.keys.dek.recipient], laptop.rng) for _ in range(5)]
    for entry in entries:
        laptop.accept([entry])
    assert [state(laptop, entry) for entry in entries] == [None, None, *[State.PENDING] * 3]
    assert laptop.connection.execute("SELECT count(*) FROM waits").fetchone() == (3,)
    same_memory(laptop)
    assert laptop.master_key is not None
    heads = laptop.pen(laptop.connection, Outcome()).load(laptop.replica.authority.heads(Kind.MASTER))
    listed = {entries[4].identifier: entries[4].vid}
    laptop.accept([master.write(laptop.master_key, [laptop.keys.dsk.verify_key], parents=heads, escrow=listed, now=1)])
    assert state(laptop, entries[4]) is State.APPLIED
    same_memory(laptop)


def test_a_stranger_is_remembered_until_the_profile_that_lists_it_comes(laptop: Device, desktop: Device) -> None:
    new = laptop.admit("new")
    new.add("example.org")
    feed = [version.parse(raw) for raw in new.feed()]
    known = verified(new.feed(), laptop.replica.directory)[0]
    item = next(one for one in known if one.signer == new.udf and one.kind is Kind.ITEM)
    own = next(one for one in known if one.kind is Kind.DEVICE and one.signer == new.udf)
    outcome = desktop.accept([item, own])
    assert outcome.strangers == [item.vid, own.vid] and outcome.rejected == [] and state(desktop, item) is None
    desktop.accept([one for one in known if one.kind is Kind.PERSONAL and new.udf in one.claim.devices])
    assert state(desktop, item) is state(desktop, own) is State.APPLIED
    assert len(feed) == len(known)
    same_memory(desktop)


def test_strangers_are_few(laptop: Device) -> None:
    laptop.replica = Replica(laptop.connection, laptop.rng, Limits(strangers=4))
    strangers = [device.create(device_keys(f"s{number}"), 1, laptop.rng) for number in range(9)]
    laptop.accept(strangers)
    assert laptop.replica._strangers.vids() == [one.vid for one in strangers[5:]]
    assert all(state(laptop, one) is None for one in strangers)


# --- containers -------------------------------------------------------------------------------------------------------


def test_a_container_that_its_author_wrote_rightly_is_applied(laptop: Device, desktop: Device) -> None:
    one = a_container(laptop)
    outcome = desktop.accept([one])
    assert outcome.rejected == [] and versions.heads(desktop.connection, *one.claim.entry) == (one.vid,)


def test_a_container_without_keys_of_its_parents_is_never_applied(laptop: Device, desktop: Device) -> None:
    fresh = EpochKey.generate(laptop.rng, 1)
    misfit(desktop, a_container(laptop, keys=(fresh,)), "without keys of a version that it replaces")
    misfit(desktop, a_container(laptop, keys=()), "without keys")


def test_a_container_that_leaves_a_reader_out_is_never_applied(laptop: Device, desktop: Device) -> None:
    misfit(desktop, a_container(laptop, recipients=[laptop.keys.dek.recipient]), "all of its readers")


def test_a_container_for_somebody_who_is_no_reader_is_never_applied(laptop: Device, desktop: Device) -> None:
    relay = laptop.admit("relay", Role.RELAY)
    desktop.pull(laptop)
    right = [laptop.keys.dek.recipient, desktop.keys.dek.recipient]
    misfit(desktop, a_container(laptop, recipients=[*right, relay.keys.dek.recipient]), "no reader's")
    misfit(desktop, a_container(laptop, recipients=[*right, device_keys("nobody").dek.recipient]), "no reader's")


def test_a_container_of_another_type_than_its_vault_is_never_applied(laptop: Device, desktop: Device) -> None:
    misfit(desktop, a_container(laptop, tag="DiscoveryProfile"), "another type")
    relay = laptop.admit("relay", Role.RELAY)
    desktop.pull(laptop)
    everybody = [one.keys.dek.recipient for one in (laptop, desktop, relay)]
    root = a_container(laptop, tag="DiscoveryProfile", recipients=everybody, p=(), g=1)
    misfit(desktop, root, "another type than its mesh gives it")


def test_discovery_is_for_every_device_and_the_group_for_all_but_relays(laptop: Device, desktop: Device) -> None:
    relay = laptop.admit("relay", Role.RELAY)
    desktop.pull(laptop)
    assert [opened.application.tag for opened in relay.keyring.vaults.values()] == ["DiscoveryProfile"]
    assert "GroupProfile" in {opened.application.tag for opened in desktop.keyring.vaults.values()}
    for where in (laptop, desktop, relay):
        assert versions.misfits(where.connection) == {}


def test_a_narrowed_member_gets_its_vaults_alone_and_all_agree(laptop: Device, desktop: Device) -> None:
    narrow = laptop.admit("narrow", grants={laptop.vault("note"): "read"})
    desktop.pull(laptop)
    assert {opened.application.tag for opened in narrow.keyring.vaults.values()} == {
        NOTE.tag,
        "DiscoveryProfile",
        "GroupProfile",
    }
    for where in (laptop, desktop, narrow):
        assert versions.misfits(where.connection) == {}


def renewed(by: Device, name: str) -> tuple[Version, RecipientKey]:
    """A device profile of `by` with another DEK, not written in any store."""
    keys = dataclasses.replace(by.keys, dek=device_keys(name).dek)
    body = device.create(keys, 1, by.rng).body
    first = versions.heads(by.connection, Kind.DEVICE, by.udf)
    stated = links(by, a=(), p=first, g=2)
    return author.sign(by.keys.dsk, Kind.DEVICE, by.udf, "DeviceProfile", body, stated, 2), keys.dek.recipient


@pytest.mark.parametrize("profile_first", [True, False])
def test_a_device_renews_its_key_without_an_admin_whatever_comes_first(
    laptop: Device, desktop: Device, profile_first: bool
) -> None:
    work = laptop.admit("work")
    laptop.pull(desktop)
    profile, key = renewed(desktop, "renewed")
    container = a_container(laptop, recipients=[laptop.keys.dek.recipient, work.keys.dek.recipient, key])
    work.accept([profile, container] if profile_first else [container])
    if not profile_first:
        assert state(work, container) is State.QUARANTINED
        outcome = work.accept([profile])
        assert container.claim.entry in outcome.entries
    assert state(work, container) is State.APPLIED
    assert versions.heads(work.connection, *container.claim.entry) == (container.vid,)
    assert versions.misfits(work.connection) == {}
    # the key from before is the reader's as well
    again = a_container(work, key=laptop.keys.dsk, q=(container.vid,), n=container.links.n + 1)
    assert work.accept([again]).rejected == []
    same_memory(work)


def test_a_device_that_claims_anothers_key_shuts_nobody_out(laptop: Device, desktop: Device) -> None:
    relay = laptop.admit("relay", Role.RELAY)
    keys = dataclasses.replace(relay.keys, dek=desktop.keys.dek)
    first = versions.heads(relay.connection, Kind.DEVICE, relay.udf)
    stated = links(relay, a=(), p=first, g=2)
    body = device.create(keys, 1, relay.rng).body
    claim = author.sign(relay.keys.dsk, Kind.DEVICE, relay.udf, "DeviceProfile", body, stated, 2)
    for where in (laptop, desktop):
        where.pull(relay)
        where.accept([claim])
    laptop.write(membership.rewrap)
    one = a_container(laptop)
    assert desktop.accept([one]).rejected == [] and state(desktop, one) is State.APPLIED


def test_the_master_escrow_key_is_a_reader_of_every_container(laptop: Device, desktop: Device) -> None:
    from meshd.crypto.keys import DecryptKey, public_key_json

    assert laptop.master_key is not None
    key = laptop.master_key
    escrow_key = DecryptKey.generate(seeded("escrow key"))
    heads = laptop.pen(laptop.connection, Outcome()).load(laptop.replica.authority.heads(Kind.MASTER))
    body = dict(heads[0].body) | {"MasterEscrowKeys": [public_key_json(escrow_key.recipient)]}
    top = author.sign(
        key, Kind.MASTER, key.udf, "MasterProfile", body,
        Links(g=2, p=(heads[0].claim.vid,), e=heads[0].claim.links.e), 3,
    )  # fmt: skip
    without = a_container(laptop)
    laptop.write(lambda pen: membership.write_personal(pen, top, membership.effective(pen), master_key=key))
    desktop.pull(laptop)
    assert desktop.accept([without]).rejected == [], "it was written before there was one"
    misfit(desktop, a_container(laptop, recipients=[laptop.keys.dek.recipient, desktop.keys.dek.recipient]), "escrow")
    laptop.write(membership.rewrap)
    desktop.pull(laptop)
    for opened in laptop.keyring.vaults.values():
        assert escrow_key.recipient.udf in vault.container_recipients(opened.heads[0])
        assert state(desktop, opened.heads[0]) is State.APPLIED


# --- kinds of later releases ------------------------------------------------------------------------------------------


def carried(number: int, kind: int = 9) -> Version:
    return version.verify(version.parse(cbor.encode([kind, b"of a later release", number])))


def test_entries_of_odd_kinds_are_carried_and_handed_on(laptop: Device, desktop: Device) -> None:
    entries = [carried(1), carried(2), carried(1, kind=7), version.verify(version.parse(cbor.encode([11])))]
    outcome = laptop.accept([*entries, entries[0]])
    assert len(outcome.added) == 4 and outcome.rejected == []
    desktop.pull(laptop)
    assert {one.vid for one in entries} <= desktop.states().keys()
    feed = versions.changes(desktop.connection, 0, 1000)
    assert {change.kind for change in feed} >= {7, 9, 11}
    same_memory(desktop)


def test_even_kinds_and_large_entries_are_not_carried() -> None:
    for bad in ([10, b"x"], [9, b"x" * 70_000], [65_537, b""], [-1], [True, b""], {9: 1}):
        with pytest.raises(FormatError):
            version.parse(cbor.encode(bad))


def test_carried_entries_are_bounded(laptop: Device) -> None:
    laptop.replica = Replica(laptop.connection, laptop.rng, Limits(carried=2))
    outcome = laptop.accept([carried(number) for number in range(5)])
    assert len(outcome.added) == 2 and len(outcome.deferred) == 3


# --- edits keep what they do not know ---------------------------------------------------------------------------------


def test_members_and_applications_that_this_release_does_not_know_survive_every_edit(
    laptop: Device, desktop: Device
) -> None:
    heads = laptop.pen(laptop.connection, Outcome()).load(laptop.replica.authority.heads(Kind.PERSONAL))
    body = dict(heads[0].body)
    body["Later"] = {"A": [1]}
    body["Applications"] = [
        *({**entry, "Colour": "blue"} for entry in body["Applications"]),
        {"Identifier": "MAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA", "Type": "LaterProfile", "Size": 3},
    ]
    later = laptop.write(lambda pen: pen.write(Draft(
        Kind.PERSONAL, laptop.mesh, "PersonalProfile", body, parents=(heads[0].claim.vid,)
    )))  # fmt: skip
    unknown = "MAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AAAAA"
    assert unknown in laptop.replica.authority.applications() and state(laptop, later) is State.APPLIED
    laptop.admit("tablet")
    (head,) = laptop.pen(laptop.connection, Outcome()).load(laptop.replica.authority.heads(Kind.PERSONAL))
    assert head.body["Later"] == {"A": [1]}
    entries = {entry["Identifier"]: entry for entry in head.body["Applications"]}
    assert entries[unknown]["Type"] == "LaterProfile" and entries[unknown]["Size"] == 3
    assert all(entry["Colour"] == "blue" for udf, entry in entries.items() if udf != unknown)
    assert personal.application_entries(head)[unknown].tag == "LaterProfile"


# --- the door ---------------------------------------------------------------------------------------------------------


def calls(tree: ast.AST) -> set[str]:
    return {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and named(node.func.value) == "versions"
    }


def named(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def test_the_replica_alone_inserts_and_judges_versions() -> None:
    """`versions.insert`, what changes a state or a head, and every SQL that does: in the replica or nowhere."""
    doors = {
        "insert", "set_state", "set_states", "add_edges", "replace_heads", "recompute_heads", "set_misfit",
        "clear_misfit",
    }  # fmt: skip
    for path in MESHD.rglob("*.py"):
        where = path.relative_to(MESHD).as_posix()
        tree = ast.parse(path.read_text())
        if where != "store/replica.py":
            assert not calls(tree) & doors, f"{where} goes around the replica"
        # A portal has a database of its own, and its own door.
        if where not in ("store/versions.py", "store/db.py") and "portal" not in where:
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = " ".join(node.value.split()).lower()
                    for verb in ("into versions", "update versions", "from versions where vid", "into heads"):
                        written = verb in text and ("insert" in text or "update" in text or "delete" in text)
                        assert not written, f"{where} writes versions by itself"


def test_the_question_is_asked_wherever_a_container_or_item_gets_a_state() -> None:
    tree = ast.parse((MESHD / "store" / "replica.py").read_text())
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    setters = {name for name, node in functions.items() if calls(node) & {"insert", "set_state", "set_states"}}
    # `_insert` writes what `_admit` decided; `_park` writes PENDING; `_follow` writes what authority says of profiles;
    # `_judge_again` asks; `_miscounted` can only take a state away.
    assert setters == {"_insert", "_park", "_follow", "_judge_again", "_miscounted"}
    asks = {
        name
        for name, node in functions.items()
        if any(isinstance(one, ast.Attribute) and one.attr == "may_write" for one in ast.walk(node))
    }
    assert {"_admit", "_judge_again", "write"} <= asks


def test_a_forged_escrow_entry_cannot_come_in_by_another_kind(laptop: Device) -> None:
    with pytest.raises((FormatError, TrustError)):
        version.parse(cbor.encode([4, laptop.udf, b"", b"", b""]))


def test_adding_items_reads_no_container_twice(laptop: Device) -> None:
    """What costs nothing once is asked ten thousand times in one import."""
    statements: list[str] = []
    laptop.add("first.example")
    laptop.connection.set_trace_callback(statements.append)
    laptop.write(lambda pen: [add(pen) for _ in range(3)])
    laptop.connection.set_trace_callback(None)
    assert not any("raw" in sql and "SELECT" in sql for sql in statements)


def add(pen: Any) -> Version:
    opened = pen.keyring.find("password")
    return vaults.add(pen, opened, lambda t, made: password.new(["example.org"], "a", "b", time=t, made=made))
