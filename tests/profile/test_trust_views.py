"""What the rest of the program reads: heads, roles, readers, escrow, and what an arrival says must be judged again."""

from __future__ import annotations

import pytest

from harness.authority_perf import measure
from harness.authority_replica import Replica
from harness.authority_spec import MESH
from harness.authority_story import Story, member
from harness.authority_worlds import make
from meshd.errors import TrustError
from meshd.profile.claim import ALL, READ, WRITE, Claim, Kind, Role, State
from meshd.profile.links import Cut
from meshd.profile.trust import Authority


def vid(n: int) -> bytes:
    return bytes([n]) * 32


def feed(authority: Authority, *claims: Claim) -> None:
    for claim in claims:
        authority.integrate(claim)


# heads


def test_before_the_first_profile_there_is_nobody() -> None:
    authority = Replica(MESH).authority
    assert authority.heads(Kind.PERSONAL) == authority.heads(Kind.MASTER) == ()
    assert authority.winner(Kind.PERSONAL) is None
    assert authority.admins() == authority.devices() == authority.removed() == frozenset()
    assert authority.role("A") is None
    assert not authority.can_read("A", "pw") and not authority.can_write("A", "pw")


def test_heads_come_largest_generation_first_then_by_vid_and_at_most_sixteen() -> None:
    s = Story()
    m = s.master(admins="A")
    root = s.profile(MESH, master=m, devices="A")
    tips = [s.profile("A", root, master=m, devices="A", after=[]) for _ in range(20)]
    far = s.profile("A", tips[0], master=m, devices="A", after=[])
    authority = Replica(MESH).authority
    feed(authority, *s.claims)
    heads = authority.heads(Kind.PERSONAL)
    assert heads == (far.vid, *sorted(tip.vid for tip in tips[1:])[:15])
    assert authority.winner(Kind.PERSONAL) == far.vid


def test_a_head_that_falls_gives_its_place_back() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices="AB")
    by_b = s.profile("B", root, master=m, devices="AB")
    authority = Replica(MESH).authority
    feed(authority, *s.claims)
    assert authority.heads(Kind.PERSONAL) == (by_b.vid,)
    change = authority.integrate(s.master(m, admins="A", x=[Cut("B", ())]))
    assert change.flips == {by_b.vid: State.QUARANTINED}
    assert change.signers == {"B"}
    assert authority.heads(Kind.PERSONAL) == (root.vid,)


def test_concurrent_master_profiles_are_both_heads_and_removal_beats_the_add() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices="ABC")
    one = s.master(m, admins="A", x=[Cut("B", (), "admin")])
    two = s.master(m, admins="ABC")
    authority = s.authority()
    assert authority.master_heads_for_new_profile() == tuple(sorted((one.vid, two.vid)))
    assert authority.admins() == {"A", "C"}
    assert authority.admins_at([root.vid]) == {"A", "B"}
    assert authority.admins_at([root.vid], two.vid) == {"A", "B", "C"}


# roles


def test_roles_follow_the_newest_profile_and_admins_the_master_profile() -> None:
    s = Story()
    m = s.master(admins="A")
    devices = ["A", "relay", "member", "silent"]
    root = s.profile(MESH, master=m, devices=devices, roles=[("relay", "relay"), ("member", "member"), ("A", "member")])
    authority = s.authority()
    assert [authority.role(udf) for udf in devices] == [Role.ADMIN, Role.RELAY, Role.MEMBER, Role.MEMBER]
    assert authority.role("nobody") is None
    s.profile("A", root, master=m, devices=devices, roles=[("relay", "member"), ("member", "member")])
    s.profile("A", root, master=m, devices=devices, roles=[("relay", "relay"), ("member", "member")], after=[])
    assert s.authority().role("relay") == Role.MEMBER  # the one that changed something
    s.profile("A", root, master=m, devices=devices, x=[Cut("member", ())])
    assert s.authority().role("member") is None


# readers


def test_readers_at_heads_ignore_cuts_and_do_not_change() -> None:
    s = Story(["pw", "ssh"])
    m = s.master(admins="AT")
    root = s.profile(MESH, master=m, devices="ATde", grants=[("d", "pw", READ), ("e", ALL, WRITE)])
    added = s.profile("T", root, master=m, devices="ATdeR", grants=[("R", "pw", WRITE)])
    before = s.authority().readers_at((added.vid,), "pw")
    assert before == {"A", "T", "d", "e", "R"}
    assert s.authority().readers_at((added.vid,), "ssh") == {"A", "T", "e"}
    m2 = s.master(m, admins="A", x=[Cut("T", ())])
    after = s.profile(MESH, added, master=m2, devices="Ade", x=[Cut("R", ())])
    authority = s.authority()
    assert authority.readers_at((added.vid,), "pw") == before
    assert authority.readers_at((after.vid,), "pw") == authority.readers("pw") == {"A", "d", "e"}


def test_the_victim_of_a_removal_that_fell_is_a_recipient_again_once_confirmed() -> None:
    s = Story()
    m = s.master(admins="AT")
    root = s.profile(MESH, master=m, devices="ATd", grants=member("d"))
    removal = s.profile("T", root, master=m, devices="AT", x=[Cut("d", ())])
    m2 = s.master(m, admins="A", x=[Cut("T", ())])
    p2 = s.profile(MESH, removal, master=m2, devices="Ad", grants=member("d"))
    assert s.authority().readers("pw") == {"A", "d"}
    assert s.authority().readers_at((p2.vid,), "pw") == {"A"}
    p3 = s.profile("A", p2, master=m2, devices="Ad", grants=member("d"), k=["D:d"])
    assert s.authority().readers_at((p3.vid,), "pw") == {"A", "d"}


@pytest.mark.parametrize("a", [(), (vid(9),)])
def test_readers_at_what_is_no_profile_is_refused(a: tuple[bytes, ...]) -> None:
    with pytest.raises(TrustError):
        Replica(MESH).authority.readers_at(a, "pw")


# escrow


def test_escrow_entries_are_those_that_the_master_profiles_list() -> None:
    s = Story()
    m = s.master(admins="A", e=[("K1", vid(1)), ("K2", vid(2))])
    assert s.authority().escrow() == {"K1": vid(1), "K2": vid(2)}
    one = s.master(m, admins="A", e=[("K1", vid(1)), ("K2", vid(2)), ("K3", vid(3))])
    two = s.master(m, admins="A", e=[("K2", vid(2))])  # K1 is withdrawn, apart
    assert s.authority().escrow() == {"K2": vid(2), "K3": vid(3)}  # removal wins
    merged = s.master(one, two, admins="A", e=[("K2", vid(2)), ("K3", vid(3))])
    s.master(merged, admins="A", e=[("K1", vid(1))])
    authority = s.authority()
    assert authority.escrow() == {"K1": vid(1)}
    listed = Claim(vid(1), Kind.OFFLINE_ESCROW, "K1", "", merged.links)
    assert authority.may_write(listed)
    assert not authority.may_write(Claim(vid(2), Kind.ONLINE_ESCROW, "K2", "", merged.links))


def test_of_two_escrow_entries_with_one_identifier_everybody_picks_the_same() -> None:
    s = Story()
    m = s.master(admins="A")
    s.master(m, admins="A", e=[("K", vid(7))])
    s.master(m, admins="A", e=[("K", vid(4))])
    assert s.authority().escrow() == {"K": vid(4)}


# what is to be judged again


def test_a_removal_names_only_its_signer_and_a_harmless_profile_nobody() -> None:
    s = Story()
    m = s.master(admins="A")
    root = s.profile(MESH, master=m, devices="Ade")
    edit = s.profile("A", root, master=m, devices="Adef")
    removal = s.profile("A", edit, master=m, devices="Aef", x=[Cut("d", ())])
    authority = Replica(MESH).authority
    feed(authority, m, root)
    harmless = authority.integrate(edit)
    assert (harmless.state, harmless.signers, harmless.everything) == (State.APPLIED, frozenset(), False)
    assert authority.integrate(removal).signers == {"d"}


def test_a_profile_that_falls_names_those_whom_it_gave_something() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices="ABd")
    granted = s.profile("B", root, master=m, devices="ABd", grants=member("d"))
    authority = Replica(MESH).authority
    feed(authority, *s.claims)
    change = authority.integrate(s.master(m, admins="A", x=[Cut("B", ())]))
    assert change.flips == {granted.vid: State.QUARANTINED}
    assert change.signers == {"B", "d"} and not change.everything


def test_a_profile_that_falls_with_a_vault_names_everything() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices="AB", vaults=[])
    s.profile("B", root, master=m, devices="AB")
    authority = Replica(MESH).authority
    feed(authority, *s.claims)
    assert authority.integrate(s.master(m, admins="A", x=[Cut("B", ())])).everything


def test_a_stored_link_of_a_signer_whom_nobody_cut_changes_nothing() -> None:
    s = Story()
    m = s.master(admins="A")
    root = s.profile(MESH, master=m, devices="A")
    authority = s.authority()
    item = make(Kind.ITEM, "A", "pw/0", a=[root.vid])
    change = authority.joined("A", item.vid, item.links.q)
    assert not (change.flips or change.signers or change.versions or change.everything)


def test_a_missing_link_brings_a_profile_back_with_what_it_gave() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices="ABd")
    granted = s.profile("B", root, master=m, devices="ABd", grants=member("d"))
    link = s.item("B", root)
    tip = s.item("B", root)
    cut = s.master(m, admins="A", x=[Cut("B", (tip.vid,))])
    item = s.item("d", granted)
    replica = Replica(MESH)
    for claim in (m, root, granted, tip, cut, item):
        replica.add(claim)
    assert [replica.states[v.vid] for v in (granted, item)] == [State.QUARANTINED] * 2
    assert replica.authority.heads(Kind.PERSONAL) == (root.vid,)
    replica.add(link)
    assert [replica.states[v.vid] for v in (granted, item, link)] == [State.APPLIED] * 3
    s.told()


def test_what_benchmarks_measure_runs() -> None:
    assert all(number > 0 for number in measure(profiles=60, entries=50).values())
