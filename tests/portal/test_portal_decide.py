"""What a portal decides for devices of ours: who may what, what is kept, what is missing, and how much of it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import msgspec
import pytest

from harness.portal_memory import DOMAIN, MemoryPortal
from harness.portal_people import NOW, PaperDevice, Person, tagged
from meshd.crypto import base64url, jws, udf
from meshd.crypto.keys import SigningKey
from meshd.portal import messages as m
from meshd.portal.names import normalise
from meshd.portal.outcomes import Accept, PeerPortal, Policy, Refuse
from meshd.portal.statuses import Status
from meshd.portal.structures import Binary, ChainRow, KeyValue, SearchConstraints
from meshd.portal.view import CLOSED, OPEN, SUSPENDED, LogPage, LogState
from meshd.profile import author, device, payload, version
from meshd.profile.claim import Kind, Role, State
from meshd.profile.device import DeviceKeys
from meshd.profile.links import Links
from meshd.profile.version import Version

ALICE = f"alice@{DOMAIN}"


def create(who: Person, account: str = ALICE, **more: Any) -> m.CreateRequest:
    return m.CreateRequest(account=account, profile=tagged(who.root), **more)


class Home:
    """Alice, her account, and her vault at a portal."""

    def __init__(self, **policy: Any) -> None:
        self.portal = MemoryPortal(Policy(DOMAIN, **policy))
        self.alice = Person("alice")
        self.portal.ask("CreateAccount", create(self.alice), self.alice.first)
        assert self.portal.http == 201
        self.vault = self.alice.container()
        assert self.put(self.vault) == 201

    def publish(self, one: Version, by: PaperDevice | None = None, **context: Any) -> m.PublishResponse:
        message = m.PublishRequest(entry=tagged(one), **context.pop("members", {}))
        reply = self.portal.ask("Publish", message, by or self.alice.first, **context)
        assert isinstance(reply, m.PublishResponse)
        return reply

    def put(self, one: Version, by: PaperDevice | None = None, **context: Any) -> int:
        return self.publish(one, by, **context).status or 0

    def get(self, by: PaperDevice | None = None, **members: Any) -> m.GetResponse:
        reply = self.portal.ask("Get", m.GetRequest(**members), by)
        assert isinstance(reply, m.GetResponse)
        return reply

    def feed(self, by: PaperDevice | None = None, **constraints: Any) -> m.GetRecordsResponse:
        message = m.GetRequest(
            key_values=[KeyValue(key="UserProfile", value=self.alice.mesh)],
            search_constraints=SearchConstraints(**constraints),
        )
        reply = self.portal.ask("GetRecords", message, by or self.alice.first)
        assert isinstance(reply, m.GetRecordsResponse)
        return reply

    def state(self, one: Version) -> State:
        return self.portal.versions[one.vid].state


@pytest.fixture
def home() -> Home:
    return Home()


@pytest.fixture
def mallory() -> Person:
    return Person("mallory")


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_hello_announces_our_extensions_and_cbor():
    reply = MemoryPortal().ask("Hello", m.HelloRequest())
    assert isinstance(reply, m.HelloResponse) and reply.version is not None and reply.alternates is not None
    assert (reply.version.major, reply.version.minor) == (0, 7)
    assert [(one.major, one.minor) for one in reply.alternates] == [(0, 100)]
    assert [one.id for one in reply.alternates[0].encodings or []] == [["application/json"], ["application/cbor"]]


def test_an_account_is_opened_once_and_the_same_again_is_no_fault(home: Home, mallory: Person):
    assert home.portal.accounts[ALICE].mesh == home.alice.mesh
    home.portal.ask("CreateAccount", create(home.alice), home.alice.first)
    assert home.portal.http == 201
    home.portal.ask("CreateAccount", create(mallory), mallory.first)
    assert home.portal.http == 409
    home.portal.ask("CreateAccount", create(home.alice, f"second@{DOMAIN}"), home.alice.first)
    assert home.portal.http == 409
    assert [*home.portal.accounts] == [ALICE]


def test_a_closed_account_is_not_opened_again_by_its_own_mesh(home: Home):
    home.portal.accounts[ALICE] = dataclasses.replace(home.portal.accounts[ALICE], status=CLOSED)
    home.portal.ask("CreateAccount", create(home.alice), home.alice.first)
    assert home.portal.http == 409


def test_an_administrator_closes_an_account_and_its_mesh_opens_another(home: Home, mallory: Person):
    phone = home.alice.device("phone")
    assert home.put(home.alice.admit(phone)) == 201
    item = home.alice.item("kept")
    assert home.put(item) == 201
    close = m.PublishRequest(close=ALICE)
    for caller, status in ((None, 404), (mallory.first, 404), (phone, 401)):
        home.portal.ask("Publish", close, caller)
        assert (home.portal.http, home.portal.accounts[ALICE].status) == (status, OPEN)
    home.portal.accounts[ALICE] = dataclasses.replace(home.portal.accounts[ALICE], status=SUSPENDED)
    home.portal.ask("Publish", close, home.alice.first)
    assert home.portal.http == 423
    home.portal.accounts[ALICE] = dataclasses.replace(home.portal.accounts[ALICE], status=OPEN)
    home.portal.ask("Publish", close, home.alice.first)
    assert (home.portal.http, home.portal.accounts[ALICE].status) == (201, CLOSED)
    home.portal.ask("Publish", close, home.alice.first)
    assert home.portal.http == 404
    late = home.alice.item("late")
    assert home.put(late) == 401
    home.feed()
    assert home.portal.http == 404
    for name, status in ((ALICE, 409), (f"again@{DOMAIN}", 201)):
        home.portal.ask("CreateAccount", create(home.alice, name), home.alice.first)
        assert home.portal.http == status
    assert home.put(late, phone) == 201
    assert home.get(phone, identifier=item.identifier).entries == [tagged(item)]


def test_an_account_is_opened_by_who_holds_a_key_of_the_profile(mallory: Person):
    portal, alice = MemoryPortal(), Person("alice")
    for caller in (None, mallory.first):
        portal.ask("CreateAccount", create(alice), caller)
        assert portal.http == 401
    assert not portal.accounts


def test_an_administrator_of_later_opens_an_account_and_brings_the_profiles_between():
    portal, alice = MemoryPortal(), Person("alice")
    tablet = alice.device("tablet")
    first = alice.admit(alice.device("phone"))
    second = alice.promote(tablet)
    third = alice.admit(alice.device("desktop"))
    portal.ask("CreateAccount", create(alice), tablet)
    assert portal.http == 401
    portal.ask("CreateAccount", create(alice, proof=tagged(third)), tablet)
    assert portal.http == 201
    for one in (first, second, third):
        portal.ask("Publish", m.PublishRequest(entry=tagged(one)), tablet)
        assert portal.http == 201
    assert portal.authorities[alice.mesh].devices() >= {tablet.udf}
    portal.ask("Publish", m.PublishRequest(entry=tagged(alice.container())), tablet)
    assert portal.http == 201
    assert not portal.notices


def test_no_proof_but_the_master_keys_makes_an_administrator(mallory: Person):
    portal, alice = MemoryPortal(), Person("alice")
    phone = alice.device("phone")
    member = alice.admit(phone)
    theirs = mallory.promote(mallory.device("laptop"))
    for proof, caller in (
        (member, phone),
        (member, mallory.first),
        (theirs, mallory.first),
        (alice.container(), phone),
    ):
        portal.ask("CreateAccount", create(alice, proof=tagged(proof)), caller)
        assert portal.http == 401
    # A MasterProfile of her own making, signed by another key under her Identifier.
    alice.key = mallory.key
    alice.mesh, true = mallory.mesh, alice.mesh
    forged = alice.promote(mallory.first)
    alice.mesh = true
    portal.ask("CreateAccount", create(alice, proof=tagged(forged)), mallory.first)
    assert portal.http == 401
    assert not portal.accounts


def test_who_opened_an_account_on_proof_sends_profiles_alone_and_nothing_once_removed():
    portal, alice = MemoryPortal(), Person("alice")
    tablet = alice.device("tablet")
    proof = alice.promote(tablet)
    portal.ask("CreateAccount", create(alice, proof=tagged(proof)), tablet)
    item = alice.container()
    portal.ask("Publish", m.PublishRequest(entry=tagged(item)), tablet)
    assert portal.http == 401
    gone = alice.dismiss(tablet)
    for one in (proof, gone):
        portal.ask("Publish", m.PublishRequest(entry=tagged(one)), tablet)
        assert portal.http == 201
    later = alice.admit(alice.device("phone"))
    portal.ask("Publish", m.PublishRequest(entry=tagged(later)), tablet)
    assert portal.http == 401


def test_who_opened_an_account_on_proof_is_a_device_as_any_other_once_a_profile_lists_it():
    portal, alice = MemoryPortal(), Person("alice")
    tablet = alice.device("tablet")
    proof = alice.promote(tablet)
    portal.ask("CreateAccount", create(alice, proof=tagged(proof)), tablet)
    assert portal.accounts[ALICE].opener == tablet.keys.dak.udf
    portal.ask("Publish", m.PublishRequest(entry=tagged(proof)), tablet)
    assert (portal.http, portal.accounts[ALICE].opener) == (201, "")
    portal.ask("Publish", m.PublishRequest(entry=tagged(alice.container())), tablet)
    assert portal.http == 201
    # Nor does it become more than that by asking again, or by what another device publishes.
    portal.ask("CreateAccount", create(alice, proof=tagged(proof)), tablet)
    assert (portal.http, portal.accounts[ALICE].opener) == (201, "")
    desktop = alice.device("desktop")
    listed = alice.promote(desktop)
    portal.ask("CreateAccount", create(alice, proof=tagged(listed)), desktop)
    assert (portal.http, portal.accounts[ALICE].opener) == (201, desktop.keys.dak.udf)
    portal.ask("Publish", m.PublishRequest(entry=tagged(listed)), tablet)
    assert (portal.http, portal.accounts[ALICE].opener) == (201, "")


def test_a_removed_administrator_opens_and_takes_over_no_account_by_an_old_proof(home: Home):
    alice, portal = home.alice, home.portal
    tablet = alice.device("tablet")
    proof = alice.promote(tablet)
    assert home.put(proof) == 201
    assert home.put(alice.dismiss(tablet)) == 201
    portal.ask("CreateAccount", create(alice, proof=tagged(proof)), tablet)
    assert (portal.http, portal.accounts[ALICE].opener) == (401, "")
    portal.ask("Publish", m.PublishRequest(close=ALICE), alice.first)
    portal.ask("CreateAccount", create(alice, f"second@{DOMAIN}", proof=tagged(proof)), tablet)
    assert (portal.http, len(portal.accounts)) == (401, 1)


def test_an_administrator_is_told_the_name_under_which_another_opened_the_account_of_the_mesh(mallory: Person):
    portal, alice = MemoryPortal(), Person("alice")
    tablet = alice.device("tablet")
    portal.ask("CreateAccount", create(alice, f"squat@{DOMAIN}", proof=tagged(alice.promote(tablet))), tablet)
    reply = portal.ask("CreateAccount", create(alice), alice.first)
    assert portal.http == 409 and f"squat@{DOMAIN}" in str(reply.status_description)  # type: ignore[union-attr]
    reply = portal.ask("CreateAccount", create(alice), mallory.first)
    assert portal.http == 401 and "squat" not in str(reply)


def test_another_administrator_takes_over_where_the_one_who_opened_the_account_did_not_go_on():
    portal, alice = MemoryPortal(), Person("alice")
    tablet, desktop = alice.device("tablet"), alice.device("desktop")
    first = alice.promote(tablet)
    portal.ask("CreateAccount", create(alice, proof=tagged(first)), tablet)
    second = alice.promote(desktop)
    portal.ask("Publish", m.PublishRequest(entry=tagged(first)), desktop)
    assert portal.http == 401
    portal.ask("CreateAccount", create(alice, proof=tagged(second)), desktop)
    assert portal.http == 201
    portal.accounts[ALICE] = dataclasses.replace(portal.accounts[ALICE], status=SUSPENDED)
    portal.ask("CreateAccount", create(alice, proof=tagged(second)), tablet)
    assert portal.http == 423
    portal.accounts[ALICE] = dataclasses.replace(portal.accounts[ALICE], status=OPEN)
    for one in (first, second):
        portal.ask("Publish", m.PublishRequest(entry=tagged(one)), desktop)
        assert portal.http == 201


def test_an_account_is_opened_with_the_root_profile():
    portal, alice = MemoryPortal(), Person("alice")
    later = alice.admit(alice.device("phone"))
    for entry in (tagged(later), tagged(alice.container())):
        portal.ask("CreateAccount", m.CreateRequest(account=ALICE, profile=entry), alice.first)
        assert portal.http == 401
    assert not portal.accounts


def test_an_account_of_another_domain_is_not_opened():
    portal, alice = MemoryPortal(), Person("alice")
    portal.ask("CreateAccount", create(alice, "alice@elsewhere.example"), alice.first)
    assert portal.http == 404


def test_accounts_are_opened_by_invitation_or_not_at_all():
    alice = Person("alice")
    portal = MemoryPortal(Policy(DOMAIN, accounts="invite"), invites={"welcome"})
    portal.ask("CreateAccount", create(alice), alice.first)
    assert portal.http == 401
    portal.ask("CreateAccount", create(alice, invite="welcome"), alice.first)
    assert portal.http == 201 and not portal.invites
    closed = MemoryPortal(Policy(DOMAIN, accounts="closed"))
    closed.ask("CreateAccount", create(alice), alice.first)
    assert closed.http == 401
    reply = closed.ask("ValidateAccount", m.ValidateRequest(account=ALICE))
    assert isinstance(reply, m.ValidateResponse) and reply.valid is False


def test_a_reserved_name_waits_for_who_reserved_it(mallory: Person):
    portal, alice = MemoryPortal(), Person("alice")
    first = portal.ask("ValidateAccount", m.ValidateRequest(account=ALICE, reserve=True))
    assert isinstance(first, m.ValidateResponse) and first.valid and first.reservation
    second = portal.ask("ValidateAccount", m.ValidateRequest(account=ALICE, reserve=True))
    assert isinstance(second, m.ValidateResponse)
    assert second.valid is False and second.reservation is None
    portal.ask("CreateAccount", create(mallory), mallory.first)
    assert portal.http == 409
    portal.ask("CreateAccount", create(alice, reservation=first.reservation), alice.first)
    assert portal.http == 201


def test_a_reservation_ends():
    portal, mallory = MemoryPortal(), Person("mallory")
    portal.ask("ValidateAccount", m.ValidateRequest(account=ALICE, reserve=True))
    portal.now += 601
    portal.ask("CreateAccount", create(mallory), mallory.first)
    assert portal.http == 201


def test_a_portal_that_has_moved_says_where():
    moved = (Status.REDIRECT_PERMANENT, "https://new.example/")
    portal = MemoryPortal(Policy(DOMAIN, moved=moved))
    reply = portal.ask("Hello", m.HelloRequest())
    assert isinstance(reply, m.HelloResponse)
    assert (portal.http, reply.status, reply.status_description) == (303, 303, "https://new.example/")
    assert isinstance(portal.last, Refuse) and portal.last.location == "https://new.example/"


# --- publishing -------------------------------------------------------------------------------------------------------


def test_publishing_is_idempotent(home: Home):
    item = home.alice.item("one")
    assert [home.put(item), home.put(item)] == [201, 201]
    assert home.portal.index == 3
    assert isinstance(home.portal.last, Accept) and home.portal.last.writes == ()


def test_concurrent_versions_are_both_heads_and_a_merge_retires_them(home: Home):
    phone = home.alice.device("phone")
    assert home.put(home.alice.admit(phone)) == 201
    first = home.alice.item("one")
    left, right = home.alice.item("left", first), home.alice.item("right", first, by=phone)
    assert [home.put(one) for one in (first, left, right)] == [201] * 3
    identifier = first.identifier
    assert {one.vid for one in home.portal.heads(Kind.ITEM, identifier)} == {left.vid, right.vid}
    many = home.get(phone, identifier=identifier, multiple=True)
    one = home.get(phone, identifier=identifier, multiple=False)
    assert many.entries is not None and one.entries is not None
    winner = min((left, right), key=lambda head: (-head.links.g, head.vid))
    assert many.entries[0] == one.entries[0] == tagged(winner) and len(many.entries) == 2
    merged = home.alice.item("merged", left, right)
    assert home.put(merged, phone) == 201
    assert [head.vid for head in home.portal.heads(Kind.ITEM, identifier)] == [merged.vid]


def test_what_is_missing_is_named_and_nothing_is_stored(home: Home):
    phone = home.alice.device("phone")
    profile = home.alice.admit(phone)
    first = home.alice.item("one", by=phone)
    second = home.alice.item("two", first, by=phone)
    reply = home.publish(second)
    assert home.portal.http == 424
    assert set(reply.missing or ()) == {base64url.encode(one.vid) for one in (profile, first)}
    assert second.vid not in home.portal.versions
    assert [home.put(one) for one in (profile, first, second)] == [201] * 3


def test_a_profile_whose_parent_is_missing_names_it(home: Home):
    middle = home.alice.admit(home.alice.device("phone"))
    last = home.alice.admit(home.alice.device("tablet"))
    assert home.publish(last).missing == [base64url.encode(middle.vid)]
    assert [home.put(middle), home.put(last)] == [201, 201]


def test_a_batch_is_taken_in_order_and_answered_one_by_one(home: Home, mallory: Person):
    phone = home.alice.device("phone")
    profile = home.alice.admit(phone)
    item = home.alice.item("by phone", by=phone)
    foreign = mallory.item("x")
    entries = [tagged(one) for one in (profile, item, foreign, item)]
    reply = home.portal.ask("Publish", m.PublishRequest(entries=entries), home.alice.first)
    assert isinstance(reply, m.PublishResponse)
    assert [one.status for one in reply.outcomes or []] == [201, 201, 424, 201]
    assert reply.status == 424 and home.state(item) is State.APPLIED


def test_any_current_device_may_forward_what_others_wrote(home: Home):
    relay = home.alice.device("relay")
    assert home.put(home.alice.admit(relay, Role.RELAY)) == 201
    assert home.put(home.alice.item("one"), relay) == 201


def test_nobody_else_may_publish(home: Home, mallory: Person):
    home.portal.ask("CreateAccount", create(mallory, f"mallory@{DOMAIN}"), mallory.first)
    before = home.portal.index
    for one in (home.alice.item("one"), home.alice.admit(home.alice.device("phone"))):
        for caller in (None, mallory.first, home.alice.device("not yet")):
            reply = home.portal.ask("Publish", m.PublishRequest(entry=tagged(one)), caller)
            assert isinstance(reply, m.PublishResponse) and reply.status in (401, 424)
    for caller in (None, home.alice.device("not yet")):
        home.portal.ask("Publish", m.PublishRequest(entry=tagged(home.alice.escrow())), caller)
        assert home.portal.http == 401
    assert home.portal.index == before


def test_a_foreign_container_is_not_taken_over(home: Home, mallory: Person):
    home.portal.ask("CreateAccount", create(mallory, f"mallory@{DOMAIN}"), mallory.first)
    inside = mallory.item("in alice's vault", container=home.alice.vault)
    assert home.put(inside, mallory.first) == 401


def test_a_profile_that_authorises_itself_is_refused(home: Home, mallory: Person):
    """Mallory's device signs a profile of Alice's mesh that lists it, around Alice's own MasterProfile."""
    home.portal.ask("CreateAccount", create(mallory, f"mallory@{DOMAIN}"), mallory.first)
    alice = home.alice
    alice.devices.append(mallory.first)
    forged = alice_profile(alice, mallory.first)
    for caller in (mallory.first, alice.first):
        assert home.put(forged, caller) == 401
    assert mallory.first.profile.vid in home.portal.versions  # of her own mesh
    assert mallory.first.udf not in home.portal.authorities[alice.mesh].devices()


def alice_profile(alice: Person, signer: PaperDevice) -> Version:
    """Written around the guard that refuses to make what others would refuse."""
    honest = alice.profile(alice.first, [alice.head])
    body = dict(honest.body) | {"NotaryToken": f"mnt1;n=1;g=2;p={base64url.encode(alice.head.vid)}"}
    signed = jws.sign(signer.keys.dsk, payload.encode_tagged("PersonalProfile", body))
    parsed = version.parse(version.signed_raw(Kind.PERSONAL, alice.mesh, signed))

    class Known:
        def signing_key(self, udf: str) -> Any:
            return signer.keys.dsk.verify_key

    return version.verify(parsed, Known())


def test_what_a_removed_device_writes_is_kept_apart(home: Home):
    phone = home.alice.device("phone")
    assert home.put(home.alice.admit(phone)) == 201
    before = home.alice.item("before", by=phone)
    assert home.put(before, phone) == 201
    removal = home.alice.remove(phone)
    late = home.alice.item("late", before, by=phone)
    assert home.put(removal) == 201
    assert home.put(late, phone) == 401  # it sends no more
    assert home.put(late) == 201  # what it wrote is kept if somebody brings it
    assert home.state(late) is State.QUARANTINED and home.state(before) is State.APPLIED
    assert [head.vid for head in home.portal.heads(Kind.ITEM, before.identifier)] == [before.vid]
    assert late.vid in {base64_vid(one) for one in home.feed().data_items or []}


def base64_vid(item: Any) -> bytes:
    return version.parse(bytes(item.data)).claim.vid


def test_a_member_may_not_change_the_profile(home: Home):
    phone = home.alice.device("phone")
    assert home.put(home.alice.admit(phone)) == 201
    tablet = home.alice.device("tablet")
    home.alice.devices.append(tablet)
    home.alice.roles[tablet.udf] = Role.MEMBER
    wrong = home.alice.profile(phone, [home.alice.head])
    assert home.put(wrong, phone) == 201
    assert home.state(wrong) is State.QUARANTINED
    assert tablet.udf not in home.portal.authorities[home.alice.mesh].devices()


def test_who_lost_every_device_comes_back_with_the_master_key(home: Home):
    fresh = home.alice.device("fresh")
    home.alice.devices.append(fresh)
    home.alice.roles[fresh.udf] = Role.MEMBER
    back = home.alice.profile(None, [home.alice.head])
    assert home.put(back, fresh) == 201
    assert [one.what for one in home.portal.notices] == ["published-by-master-key"]
    assert fresh.udf in home.portal.authorities[home.alice.mesh].devices()


def test_compare_and_swap_where_it_is_asked_for(home: Home):
    item = home.alice.item("one")
    assert home.put(item, if_head=frozenset()) == 201
    edit = home.alice.item("two", item)
    reply = home.publish(edit, if_head=frozenset({bytes(32)}))
    assert home.portal.http == 412 and reply.heads == [base64url.encode(item.vid)]
    assert home.put(edit, if_head=frozenset({item.vid})) == 201


def test_escrow_is_written_once_by_a_device_and_limited(home: Home):
    entries = [home.alice.escrow() for _ in range(17)]
    assert [home.put(one) for one in entries] == [201] * 16 + [507]
    assert home.put(entries[0]) == 201
    other = version.escrow_raw(Kind.ONLINE_ESCROW, entries[0].identifier, dict(entries[1].body["EncryptedData"]))
    assert home.put(version.verify(version.parse(other))) == 409


def test_quotas_are_kept():
    assert Home(quota_entries=20).put(Person("alice").escrow(), Person("alice").first) == 201
    home = Home(quota_entries=4)
    assert home.put(home.alice.item("one")) == 507
    home = Home(quota_bytes=8000)
    assert 507 in [home.put(home.alice.item("x")) for _ in range(10)]


def test_quarantine_has_a_quota_of_its_own():
    home = Home(quota_quarantined=1)
    phone = home.alice.device("phone")
    assert home.put(home.alice.admit(phone)) == 201
    head = home.alice.head
    assert home.put(home.alice.remove(phone)) == 201
    home.alice.head = head  # the phone does not know
    assert [home.put(home.alice.item("late", by=phone)) for _ in range(2)] == [201, 507]


def test_a_suspended_account_takes_nothing(home: Home):
    home.portal.accounts[ALICE] = dataclasses.replace(home.portal.accounts[ALICE], status=SUSPENDED)
    for one in (home.alice.item("one"), home.alice.escrow(), home.alice.admit(home.alice.device("phone"))):
        assert home.put(one) == 423


def test_a_version_that_miscounts_its_chain_is_refused(home: Home):
    claim = home.vault.claim
    wrong = dataclasses.replace(claim, links=dataclasses.replace(claim.links, n=7))
    home.alice.first.last = dataclasses.replace(home.vault, claim=wrong)
    assert home.put(home.alice.item("n is 8 where 3 is due")) == 401


def test_rows_stand_for_what_was_pruned(home: Home):
    pruned = home.alice.item("old")
    newer = home.alice.item("new", pruned)
    row = ChainRow(
        kind=8,
        identifier=pruned.identifier,
        signer=pruned.signer,
        notary_token=pruned.token,
        digest=Binary(pruned.digest),
    )
    assert home.put(newer) == 424
    stray = msgspec.structs.replace(row, identifier=home.alice.vault + "/" + "a" * 26)
    assert home.put(newer, members={"rows": [stray]}) == 401
    assert home.put(newer, members={"rows": [row]}) == 201
    assert pruned.vid in home.portal.rows
    unasked = home.alice.item("unasked")
    other = ChainRow(kind=8, identifier="M", signer=row.signer, notary_token="mnt1;n=1;g=1", digest=Binary(bytes(32)))
    assert home.put(unasked, members={"rows": [msgspec.structs.replace(other, identifier=pruned.identifier)]}) == 201
    assert [*home.portal.rows] == [pruned.vid]


def test_master_and_device_profiles_travel_inside(home: Home):
    assert home.put(home.alice.master) == 400
    assert home.put(home.alice.first.profile) == 400


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_personal_profile_is_for_everybody_and_the_rest_for_devices(home: Home, mallory: Person):
    item = home.alice.item("one")
    escrow = home.alice.escrow()
    assert [home.put(item), home.put(escrow)] == [201, 201]
    home.portal.ask("CreateAccount", create(mallory, f"mallory@{DOMAIN}"), mallory.first)
    for caller in (None, mallory.first, home.alice.first):
        assert home.get(caller, account="ALICE@example.net").entries == [tagged(home.alice.root)]
        assert home.get(caller, identifier=home.alice.mesh).entries == [tagged(home.alice.root)]
    for identifier in (item.identifier, home.alice.vault, escrow.identifier):
        assert home.get(home.alice.first, identifier=identifier).entries
        for caller in (None, mallory.first):
            assert home.get(caller, identifier=identifier).entries is None
            assert home.portal.http == 404


def test_a_profile_is_shown_if_it_was_added_within_the_times_asked_for(home: Home):
    early, late = payload.write_date(NOW), payload.write_date(NOW + 1)
    for members, shown in (
        ({"not_before": early}, True),
        ({"not_before": late}, False),
        ({"not_on_or_after": late}, True),
        ({"not_on_or_after": early}, False),
        ({"search_constraints": SearchConstraints(not_before=early, before=late)}, True),
        ({"search_constraints": SearchConstraints(before=early)}, False),
    ):
        assert bool(home.get(account=ALICE, **members).entries) is shown
        assert bool(home.get(identifier=home.alice.mesh, **members).entries) is shown


def test_what_is_not_there_and_what_is_not_yours_look_alike(home: Home):
    item = home.alice.item("one")
    home.put(item)
    hidden = home.get(None, identifier=item.identifier)
    absent = home.get(None, identifier=home.alice.vault + "/" + "a" * 26)
    assert hidden == absent == home.get(None, account="nobody@example.net")


def test_the_feed_comes_in_log_order_page_by_page(home: Home):
    items = [home.alice.item(str(count)) for count in range(5)]
    for one in items:
        home.put(one)
    seen, page_key = [], None
    for _ in range(10):
        page = home.feed(page_key=page_key, max_entries=2)
        assert page.page_key is not None
        page_key = page.page_key
        if not page.data_items:
            break
        assert len(page.data_items) <= 2
        seen += page.data_items
    assert [base64_vid(one) for one in seen] == [one.vid for one in (home.alice.root, home.vault, *items)]
    assert [one.transaction_id for one in seen] == [f"TID:{count}" for count in range(1, 8)]
    assert isinstance(home.portal.last, Accept) and home.portal.last.feed == home.alice.mesh  # who likes may wait
    assert home.feed(max_bytes=1).page_key == "P1.0"


def test_the_feed_can_be_narrowed(home: Home):
    item = home.alice.item("one")
    home.put(item)

    def by(**terms: str) -> list[bytes]:
        pairs = [KeyValue(key=key, value=value) for key, value in {"UserProfile": ALICE, **terms}.items()]
        reply = home.portal.ask("GetRecords", m.GetRequest(key_values=pairs), home.alice.first)
        assert isinstance(reply, m.GetRecordsResponse)
        return [base64_vid(one) for one in reply.data_items or []]

    assert by(UniqueID=item.identifier) == [item.vid]
    assert by(Type="SignedPersonalProfile") == [home.alice.root.vid]
    assert by(Unheard="of") == []


def test_the_feed_starts_at_a_time(home: Home):
    home.portal.now += 100
    item = home.alice.item("later")
    home.put(item)
    page = home.feed(not_before="2026-09-21T14:14:00Z")
    assert [base64_vid(one) for one in page.data_items or []] == [item.vid]
    page = home.feed(before="2026-09-21T14:14:00Z")
    assert len(page.data_items or []) == 2


def test_the_feed_is_for_current_devices(home: Home, mallory: Person):
    home.portal.ask("CreateAccount", create(mallory, f"mallory@{DOMAIN}"), mallory.first)
    phone = home.alice.device("phone")
    home.put(home.alice.admit(phone))
    assert home.feed(phone).data_items
    home.put(home.alice.remove(phone))
    for caller in (mallory.first, phone):
        assert home.feed(caller).data_items is None
        assert home.portal.http == 404


def test_the_feed_tells_a_device_who_looked_up_an_escrow_entry_and_nobody_else(home: Home):
    sealed = home.alice.escrow()
    name = udf.random_udf(home.alice.rng)
    escrow = version.escrow_raw(Kind.OFFLINE_ESCROW, name, dict(sealed.body["EncryptedData"]))
    home.put(version.verify(version.parse(escrow)))
    before = home.feed().page_key
    home.portal.now += 60
    assert home.get(None, identifier=name).entries
    (notice,) = home.feed(page_key=before).notices or []
    assert (notice.time, notice.what, notice.about) == ("2026-09-21T14:14:20Z", "escrow-read", name)
    assert isinstance(home.portal.last, Accept) and home.portal.last.feed is None  # this is worth an answer
    page = home.feed(page_key=before)
    assert home.feed(page_key=page.page_key).notices is None
    assert home.feed().notices is None  # who begins has nothing to be told
    for old in ("P3", page.page_key):  # a key of before there were notices; a place behind all of them
        assert home.feed(page_key=old).notices is None
    terms = {"UserProfile": ALICE, "Type": "SignedPersonalProfile"}
    pairs = [KeyValue(key=key, value=value) for key, value in terms.items()]
    public = m.GetRequest(key_values=pairs, search_constraints=SearchConstraints(page_key=before))
    reply = home.portal.ask("GetRecords", public, None)
    assert isinstance(reply, m.GetRecordsResponse) and reply.data_items is not None
    assert (reply.notices, reply.page_key) == (None, "P3")


@pytest.mark.parametrize("page_key", ["P99", "P-1", "TID:1", "", "P" + "9" * 40, "P१", "P1.", "P1.1.1", "P1.x"])
def test_a_page_key_of_another_portal_is_refused(home: Home, page_key: str):
    assert home.feed(page_key=page_key).data_items is None
    assert home.portal.http == 404


def test_records_and_full_entries_hold_the_bytes_that_were_published(home: Home):
    reply = home.get(home.alice.first, identifier=home.alice.vault, full=True)
    assert reply.data_items is not None and bytes(reply.data_items[0].data or b"") == home.vault.raw
    records = home.portal.ask("GetRecords", m.GetRequest(identifier=home.alice.vault), home.alice.first)
    assert isinstance(records, m.GetRecordsResponse) and records.data_items is not None
    assert bytes(records.data_items[0].data or b"") == home.vault.raw


# --- connecting -------------------------------------------------------------------------------------------------------


def start(home: Home, new: PaperDevice, caller: PaperDevice | None = None, account: str = ALICE) -> int:
    message = m.ConnectStartRequest(account_id=account, signed_request=new.request(home.alice.mesh))
    assert home.portal.ask("ConnectStart", message, caller or new) == m.ConnectStartResponse()
    return home.portal.http


def pending(home: Home, by: PaperDevice | None) -> list[Any] | None:
    reply = home.portal.ask("ConnectPending", m.ConnectPendingRequest(account_id=ALICE), by)
    assert isinstance(reply, m.ConnectPendingResponse)
    return reply.pending


def complete(home: Home, result: dict[str, Any], by: PaperDevice | None = None) -> int:
    message = m.ConnectCompleteRequest(result=result, account_id=ALICE)
    home.portal.ask("ConnectComplete", message, by or home.alice.first)
    return home.portal.http


def status(home: Home, device: PaperDevice, by: PaperDevice | None) -> Any:
    message = m.ConnectStatusRequest(account_id=ALICE, device_id=device.udf)
    reply = home.portal.ask("ConnectStatus", message, by)
    assert isinstance(reply, m.ConnectStatusResponse)
    return reply.result


def test_a_device_connects_through_the_portal(home: Home):
    phone = home.alice.device("phone")
    assert pending(home, home.alice.first) is None
    assert start(home, phone) == 201
    assert pending(home, home.alice.first) == [phone.request(home.alice.mesh)]
    assert status(home, phone, phone) is None
    accepted = home.alice.result(phone, "Accepted")
    assert complete(home, accepted) == 424  # the profile does not list it yet
    assert home.put(home.alice.admit(phone)) == 201
    assert complete(home, accepted) == 201
    assert complete(home, accepted) == 201
    assert pending(home, home.alice.first) == []
    assert status(home, phone, phone) == accepted
    assert status(home, phone, home.alice.first) is None  # for the device that asked alone
    assert status(home, phone, None) is None


def test_a_refusal_needs_no_profile(home: Home):
    phone = home.alice.device("phone")
    start(home, phone)
    refused = home.alice.result(phone, "Rejected")
    assert complete(home, refused) == 201
    assert status(home, phone, phone) == refused


def test_only_admins_see_and_answer_requests(home: Home, mallory: Person):
    member, phone = home.alice.device("member"), home.alice.device("phone")
    assert home.put(home.alice.admit(member)) == 201
    start(home, phone)
    for caller in (None, member, mallory.first, phone):
        assert pending(home, caller) is None
        assert home.portal.http == 401
    assert complete(home, home.alice.result(phone, "Rejected", by=member), member) == 401
    assert complete(home, home.alice.result(phone, "Rejected"), member) == 201  # a member may carry an admin's answer


def test_a_request_is_signed_by_the_device_that_asks(home: Home):
    phone = home.alice.device("phone")
    assert start(home, phone, home.alice.first) == 401
    assert not home.portal.waiting


def test_an_unknown_account_and_another_mesh_look_like_success(home: Home, mallory: Person):
    phone = home.alice.device("phone")
    assert start(home, phone, account="nobody@example.net") == 201
    message = m.ConnectStartRequest(account_id=ALICE, signed_request=phone.request(mallory.mesh))
    home.portal.ask("ConnectStart", message, phone)
    assert home.portal.http == 201 and not home.portal.waiting


def test_requests_are_few_short_lived_and_one_per_device(home: Home):
    devices = [home.alice.device(f"phone {count}") for count in range(9)]
    assert [start(home, one) for one in devices] == [201] * 8 + [503]
    assert start(home, devices[0]) == 201
    assert len(home.portal.waiting) == 8
    home.portal.now += 15 * 60 + 1
    assert pending(home, home.alice.first) == []
    assert start(home, devices[8]) == 201


def test_answers_to_the_unknown_are_uniform(home: Home):
    phone = home.alice.device("phone")
    assert complete(home, home.alice.result(phone, "Rejected")) == 404
    assert status(home, phone, phone) is None
    message = m.ConnectStatusRequest(account_id="nobody@example.net", device_id=phone.udf)
    assert home.portal.ask("ConnectStatus", message, phone) == m.ConnectStatusResponse()


# --- the log ----------------------------------------------------------------------------------------------------------


def test_status_is_open_and_says_nothing_that_is_not_there(home: Home):
    assert home.portal.ask("Status", m.StatusRequest()) == m.StatusResponse(
        status=201, status_description="Operation completed successfully"
    )
    home.portal.log = LogState(last_write=0, checkpoint="origin\n1\n", log_keys=["k"])
    reply = home.portal.ask("Status", m.StatusRequest(old_size=1))
    assert isinstance(reply, m.StatusResponse)
    assert (reply.last_write_time, reply.checkpoint_value) == ("1970-01-01T00:00:00Z", "origin\n1\n")
    assert reply.log_keys == ["k"] and reply.min_index is None


def test_transfer_is_for_peers_with_a_grant(home: Home):
    message = m.TransferRequest(after="TID:5", not_before="2026-01-01T00:00:00Z", max_entries=5000)
    for caller in (None, home.alice.first, PeerPortal("stranger")):
        home.portal.ask("Transfer", message, caller)
        assert home.portal.http == 401
    home.portal.peers["peer"] = "leaves"
    home.portal.ask("Transfer", message, PeerPortal("peer"))
    assert home.portal.http == 404  # the view has no such page
    home.portal.page = LogPage([], 5, None, "note", [b"h"])
    reply = home.portal.ask("Transfer", message, PeerPortal("peer"))
    assert isinstance(reply, m.TransferResponse)
    assert (reply.first, reply.checkpoint, reply.page_proof) == (5, "note", [b"h"])
    asked = home.portal.asked_page
    assert (asked["full"], asked["after"], asked["not_before"], asked["max_entries"]) == (False, "TID:5", None, 1000)


# --- order ------------------------------------------------------------------------------------------------------------


def test_whatever_order_versions_come_in_the_portal_ends_the_same():
    def story() -> tuple[Home, list[Version]]:
        home = Home()
        phone = home.alice.device("phone")
        profile = home.alice.admit(phone)
        first = home.alice.item("one")
        left, right = home.alice.item("left", first), home.alice.item("right", first, by=phone)
        return home, [profile, first, left, right]

    ends = set()
    for order in itertools.permutations(range(4)):
        home, versions = story()
        todo = [versions[at] for at in order]
        for _ in range(len(todo)):
            todo = [one for one in todo if home.put(one) != 201]
        assert not todo
        heads = {one.vid for one in home.portal.heads(Kind.ITEM, versions[1].identifier)}
        ends.add(frozenset(heads) == {versions[2].vid, versions[3].vid})
    assert ends == {True}


# --- a device that others list ----------------------------------------------------------------------------------------


def listed_by_mallory(home: Home, mallory: Person) -> None:
    """Mallory's mesh lists Alice's first device, which anybody can who has seen its profile."""
    home.portal.ask("CreateAccount", create(mallory, f"mallory@{DOMAIN}"), mallory.first)
    mallory.devices.append(home.alice.first)
    mallory.roles[home.alice.first.udf] = Role.MEMBER
    mallory.head = mallory.profile(mallory.first, [mallory.head])
    assert home.put(mallory.head, mallory.first) == 201


def test_who_lists_anothers_device_does_not_shut_it_out(home: Home, mallory: Person):
    listed_by_mallory(home, mallory)
    item = home.alice.item("still hers")
    assert home.put(item) == 201
    assert home.portal.versions[item.vid].mesh == home.alice.mesh
    assert home.feed().data_items and home.get(home.alice.first, identifier=item.identifier).entries
    assert home.get(mallory.first, identifier=item.identifier).entries is None


def test_a_device_of_two_meshes_says_whose_escrow_it_brings(home: Home, mallory: Person):
    listed_by_mallory(home, mallory)
    escrow = home.alice.escrow()
    assert home.put(escrow) == 401
    assert home.put(escrow, account=normalise(ALICE)) == 201
    assert home.portal.versions[escrow.vid].mesh == home.alice.mesh
    assert home.put(home.alice.escrow(), account=normalise("nobody@example.net")) == 401


def test_a_renewed_device_brings_its_earlier_profile_as_a_row(home: Home):
    phone = home.alice.device("phone")
    first = phone.profile
    renewed = DeviceKeys(phone.keys.dsk, SigningKey.generate(home.alice.rng), phone.keys.dek)
    body = dict(device.create(renewed, NOW, home.alice.rng).body)
    links = Links(g=2, n=2, q=(first.vid,), p=(first.vid,))
    phone.profile = phone.last = author.sign(phone.keys.dsk, Kind.DEVICE, phone.udf, "DeviceProfile", body, links, NOW)
    profile = home.alice.admit(phone)
    assert home.publish(profile).missing == [base64url.encode(first.vid)]
    row = ChainRow(
        kind=4, identifier=phone.udf, signer=phone.udf, notary_token=first.token, digest=Binary(first.digest)
    )
    assert home.put(profile, members={"rows": [row]}) == 201
    assert home.put(home.alice.item("by the old key", by=phone), phone) == 401
    phone.keys = renewed
    assert home.put(home.alice.item("by the new key", by=phone), phone) == 201
