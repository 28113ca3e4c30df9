"""Histories in which an obvious reading of the rules would be wrong (formats.md F7)."""

from __future__ import annotations

from harness.authority_replica import Replica
from harness.authority_spec import MESH
from harness.authority_story import Story, member
from meshd.profile.claim import Kind, State
from meshd.profile.links import Cut
from meshd.profile.trust import ADMIN_REMOVED, REMOVAL_UNDONE


def test_an_unaware_admin_does_not_launder_what_a_thief_added() -> None:
    s = Story()
    m = s.master(admins="BT")
    root = s.profile(MESH, master=m, devices="BT")
    by_thief = s.profile("T", root, master=m, devices="BTR", grants=member("R"))
    listed_on = s.profile("B", by_thief, master=m, devices="BTR", grants=member("R"))
    m2 = s.master(m, admins="B", x=[Cut("T", ())])
    after = s.profile(MESH, listed_on, master=m2, devices="B")
    rogue = s.item("R", after)
    assert s.stands(by_thief, listed_on, after, rogue) == [False, True, True, False]
    authority = s.authority()
    assert authority.devices() == {"B"}
    assert authority.ever_devices() == {"B", "T", "R"}
    assert authority.removed() == {"T"}


def test_a_stolen_phone_stays_out() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices=["A", "B", "phone"], grants=member("phone"))
    before = s.item("phone", root)
    removal = s.profile("B", root, master=m, devices="AB", x=[Cut("phone", (before.vid,))])
    theft = s.item("phone", root)
    assert s.stands(before, removal, theft) == [True, True, False]
    assert s.authority().removed() == {"phone"}


def test_a_removal_that_fell_with_its_admin_is_reported() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices=["A", "B", "phone"], grants=member("phone"))
    before = s.item("phone", root)
    removal = s.profile("B", root, master=m, devices="AB", x=[Cut("phone", (before.vid,))])
    theft = s.item("phone", root)
    m2 = s.master(m, admins="A", x=[Cut("B", ())])
    s.profile(MESH, root, master=m2, devices=["A", "phone"], grants=member("phone"))
    assert s.stands(removal, theft) == [False, True]
    assert [entry[:2] for entry in s.authority().health()] == [(REMOVAL_UNDONE, "phone")]


def test_a_device_removed_and_promoted_apart_stays_admin_for_profiles() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices=["A", "B", "phone"], grants=member("phone"))
    removal = s.profile("B", root, master=m, devices="AB", x=[Cut("phone", ())])
    m2 = s.master(m, admins=["A", "B", "phone"])
    promoted = s.profile(MESH, root, master=m2, devices=["A", "B", "phone"])
    merged = s.profile("A", removal, promoted, master=m2, devices="AB")
    later = s.profile("phone", merged, master=m2, devices="ABR")
    item = s.item("phone", merged)
    assert s.stands(removal, later, item) == [True, True, False]
    authority = s.authority()
    assert [entry[:2] for entry in authority.health()] == [(ADMIN_REMOVED, "phone")]
    assert "phone" in authority.admins() and "phone" in authority.removed()
    assert "phone" not in authority.readers("pw")
    assert not authority.can_write("phone", "pw")


def test_a_vault_made_in_a_profile_that_fell_lives_again_when_confirmed() -> None:
    s = Story()
    m = s.master(admins="BT")
    root = s.profile(MESH, master=m, devices="BTh", grants=member("h"))
    made = s.profile("T", root, master=m, devices="BTh", vaults=["pw", "ssh"], grants=member("h", "pw", "ssh"))
    in_new = s.item("h", made, vault="ssh")
    in_old = s.item("h", made)
    m2 = s.master(m, admins="B", x=[Cut("T", ())])
    p2 = s.profile(MESH, made, master=m2, devices="Bh", grants=member("h"))
    p3 = s.profile(
        "B", p2, master=m2, devices="Bh", vaults=["pw", "ssh"], grants=member("h", "pw", "ssh"), k=["X:ssh", "G:h@ssh"]
    )
    again = s.item("h", p3, vault="ssh")
    assert s.stands(in_new, in_old, again) == [False, True, True]


def test_everything_in_a_vault_falls_and_returns_with_the_profile_that_made_it() -> None:
    s = Story()
    m = s.master(admins="BT")
    root = s.profile(MESH, master=m, devices="BTh")
    made = s.profile("T", root, master=m, devices="BTh", vaults=["pw", "ssh"])
    p2 = s.profile("B", made, master=m, devices="BTh", vaults=["pw", "ssh"], grants=member("h", "ssh"))
    item = s.item("h", p2, vault="ssh")
    replica = Replica(MESH)
    for claim in s.claims:
        replica.add(claim)
    assert replica.states[item.vid] is State.APPLIED
    m2 = s.master(m, admins="B", x=[Cut("T", ())])
    replica.add(m2)
    assert replica.states[item.vid] is State.QUARANTINED
    replica.add(s.master(m2, admins="B", x=[Cut("T", (made.vid,))]))
    assert replica.states[item.vid] is State.APPLIED
    s.told()


def test_a_forged_fork_with_a_smaller_count_is_outside_a_cut() -> None:
    s = Story()
    m = s.master(admins="A")
    root = s.profile(MESH, master=m, devices="Ad", grants=member("d"))
    first = s.item("d", root)
    second = s.item("d", root)
    third = s.item("d", root)
    fork = s.item("d", root, after=[first])
    s.profile("A", root, master=m, devices="A", x=[Cut("d", (third.vid,))])
    assert fork.links.n < third.links.n
    assert s.stands(first, second, third, fork) == [True, True, True, False]


def test_of_several_removals_the_newest_counts_and_concurrent_ones_all_do() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices="ABd", grants=member("d"))
    items = [s.item("d", root) for _ in range(3)]
    cut = s.profile("A", root, master=m, devices="AB", x=[Cut("d", (items[0].vid,))])
    assert s.stands(*items) == [True, False, False]
    s.profile("A", cut, master=m, devices="AB", x=[Cut("d", (items[1].vid,))])
    assert s.stands(*items) == [True, True, False]
    s.profile("B", root, master=m, devices="AB", x=[Cut("d", ())])
    assert s.stands(*items) == [False, False, False]


def test_a_removed_device_cannot_exempt_itself_by_signing_in_knowledge_of_its_removal() -> None:
    s = Story()
    m = s.master(admins="A")
    root = s.profile(MESH, master=m, devices="Ad", grants=member("d"))
    removal = s.profile("A", root, master=m, devices="A", x=[Cut("d", ())])
    assert s.stands(s.item("d", removal), s.item("d", root)) == [False, False]
    s.profile("A", removal, master=m, devices="Ad", grants=member("d"), k=["D:d"])  # dead for ever
    assert s.authority().devices() == {"A"}


def test_an_admin_who_was_demoted_can_come_back() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices="AB")
    inside = s.container("B", root)
    m2 = s.master(m, admins="A", x=[Cut("B", (inside.vid,), "admin")])
    p2 = s.profile(MESH, root, master=m2, devices="AB")
    unaware = s.container("B", root)
    aware = s.profile("B", p2, master=m2, devices="AB")
    m3 = s.master(m2, admins="AB")
    p3 = s.profile(MESH, p2, master=m3, devices="AB")
    again = s.container("B", p3)
    assert s.stands(inside, unaware, aware, again) == [True, False, False, True]


def test_an_admin_cannot_cut_an_admin() -> None:
    s = Story()
    m = s.master(admins="AB")
    root = s.profile(MESH, master=m, devices="AB")
    s.profile("A", root, master=m, devices="A", x=[Cut("B", ())])
    assert s.stands(s.container("B", root), s.item("B", root)) == [True, True]
    assert s.authority().devices() == {"A", "B"}


def test_no_admin_at_all_is_legal_and_the_master_key_mends_it() -> None:
    s = Story()
    m = s.master(admins="A")
    root = s.profile(MESH, master=m, devices="A")
    m2 = s.master(m, admins="", x=[Cut("A", ())])
    s.profile(MESH, root, master=m2, devices="A")
    assert s.authority().admins() == frozenset()
    m3 = s.master(m2, admins="B")
    p3 = s.profile(MESH, root, master=m3, devices="B")
    assert s.stands(s.container("B", p3)) is True


def test_what_hangs_on_a_missing_link_is_judged_again_when_it_comes() -> None:
    s = Story()
    m = s.master(admins="A")
    root = s.profile(MESH, master=m, devices="Ad", grants=member("d"))
    items = [s.item("d", root) for _ in range(20)]
    removal = s.profile("A", root, master=m, devices="A", x=[Cut("d", (items[-1].vid,))])
    replica = Replica(MESH)
    for claim in (m, root, removal, *items[:10], *items[11:]):
        replica.add(claim)
    states = [replica.states[item.vid] for item in items if item is not items[10]]
    assert states == [State.QUARANTINED] * 10 + [State.APPLIED] * 9
    replica.judgements = 0
    replica.add_row("d", items[10].vid, items[10].links.q)  # pruned: the row connects as the version would
    assert all(replica.states[item.vid] is State.APPLIED for item in items if item is not items[10])
    assert replica.judgements == 10


def test_a_chain_that_arrives_newest_first_costs_one_judgement_each() -> None:
    s = Story()
    m = s.master(admins="A")
    root = s.profile(MESH, master=m, devices="Ad", grants=member("d"))
    items = [s.item("d", root) for _ in range(300)]
    removal = s.profile("A", root, master=m, devices="A", x=[Cut("d", (items[-1].vid,))])
    replica = Replica(MESH)
    for claim in (m, root, removal, *reversed(items)):
        replica.add(claim)
    assert all(replica.states[item.vid] is State.APPLIED for item in items)
    assert replica.judgements == 300


def test_a_chain_runs_over_versions_of_its_own_signer_only() -> None:
    s = Story()
    m = s.master(admins="A")
    root = s.profile(MESH, master=m, devices="Ade", grants=member("d") + member("e"))
    item = s.item("d", root)
    foreign = s.item("e", root, after=[item])
    tip = s.item("d", root, after=[foreign])
    s.profile("A", root, master=m, devices="Ae", x=[Cut("d", (tip.vid,))])
    assert s.stands(item, foreign, tip) == [False, True, True]


def test_a_version_over_a_quarantined_parent_stays_valid() -> None:
    s = Story()
    m = s.master(admins="A")
    root = s.profile(MESH, master=m, devices="Ade", grants=member("d") + member("e"))
    fallen = s.item("d", root)
    over = s.item("e", root, over=[fallen])
    s.profile("A", root, master=m, devices="Ae", x=[Cut("d", ())])
    replica = s.told()
    assert replica.states[fallen.vid] is State.QUARANTINED
    assert replica.head((int(Kind.ITEM), "pw/0")) == (over.vid,)
