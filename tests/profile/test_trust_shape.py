"""What is malformed is dropped; what does not fit the versions that it names is kept and never applied."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.authority_replica import Replica
from harness.authority_spec import MESH, well_formed
from harness.authority_story import Story
from harness.authority_worlds import make
from meshd.errors import TrustError
from meshd.profile.claim import Claim, Kind, State
from meshd.profile.links import Cut
from meshd.profile.trust import check_parents

VID = bytes(32)


def story() -> tuple[Story, Claim, Claim]:
    s = Story()
    m = s.master(admins="AB")
    return s, m, s.profile(MESH, master=m, devices="AB")


def linked(claim: Claim, **links: Any) -> Claim:
    return dataclasses.replace(claim, links=dataclasses.replace(claim.links, **links))


def malformed() -> dict[str, Claim]:
    _, m, root = story()
    personal = make(Kind.PERSONAL, "A", MESH, [root], master=m.vid)
    item = make(Kind.ITEM, "A", "pw/0", a=[root.vid])
    device = make(Kind.DEVICE, "A", "A")
    cut = (Cut("B", ()),)
    return {
        "a root that an admin signed": make(Kind.PERSONAL, "A", MESH, master=m.vid),
        "a profile with an authority": linked(personal, a=(root.vid,)),
        "a profile without a master profile": dataclasses.replace(personal, master=None),
        "a profile that lists escrow": linked(personal, e=(("K", VID),)),
        "a profile of another mesh": dataclasses.replace(personal, identifier="OTHER"),
        "a master profile that an admin signed": make(Kind.MASTER, "A", MESH, [m], admins=frozenset("A")),
        "a master profile of another mesh": make(Kind.MASTER, MESH, "OTHER", admins=frozenset("A")),
        "a master profile in a master profile": make(Kind.MASTER, MESH, MESH, [m], master=m.vid),
        "a master profile with an authority": make(Kind.MASTER, MESH, MESH, [m], a=[root.vid]),
        "a master signature with a count": linked(root, n=1),
        "a master signature with a chain": linked(root, q=(VID,)),
        "no place in the chain": linked(item, n=0),
        "an item without authority": linked(item, a=()),
        "a container without authority": make(Kind.CONTAINER, "A", "pw"),
        "an item that cuts": linked(item, x=cut),
        "an item that confirms": linked(item, k=("D:A",)),
        "an item that lists escrow": linked(item, e=(("K", VID),)),
        "an item that embeds a master profile": dataclasses.replace(item, master=m.vid),
        "an item with the identifier of a container": dataclasses.replace(item, identifier="pw"),
        "a container with the identifier of an item": make(Kind.CONTAINER, "A", "pw/0", a=[root.vid]),
        "a generation of one over a parent": linked(personal, g=1),
        "a generation of two over none": linked(item, g=2),
        "a device profile that another signed": make(Kind.DEVICE, "A", "B"),
        "a device profile that cuts": linked(device, x=cut),
        "a device profile with an authority": linked(device, a=(root.vid,)),
    }


@pytest.mark.parametrize("what", malformed())
def test_a_malformed_version_is_refused_whatever_is_known(what: str) -> None:
    s, _, _ = story()
    claim = malformed()[what]
    assert not well_formed(claim)
    for authority in (Replica(MESH).authority, s.authority()):
        with pytest.raises(TrustError):
            authority.check_shape(claim)


def test_well_formed_versions_are_not_refused() -> None:
    s, m, root = story()
    s.profile("A", root, master=m, devices="AB", x=[Cut("B", ()), Cut("B", (), "admin")], k=["D:A"])
    s.item("A", root)
    s.container("A", root)
    s.device("A")
    authority = s.authority()
    for claim in s.claims:
        authority.check_shape(claim)


def misfits() -> dict[str, tuple[Story, Claim]]:
    found = {}
    s, m, _ = story()
    found["a master profile that drops an admin without cutting him"] = s, s.master(m, admins="A")
    s, m, _ = story()
    found["a cut of something else does not do"] = s, s.master(m, admins="A", x=[Cut("B", (), "pw")])
    s, m, _ = story()
    found["a personal profile over a master profile"] = s, s.profile("A", m, master=m, devices="A")
    s, _, root = story()
    found["a personal profile that embeds one"] = s, s.profile("A", root, master=root, devices="A")
    s, _, root = story()
    found["a master profile over a personal profile"] = s, s.master(root, admins="AB")
    s, m, _ = story()
    found["an item under a master profile"] = s, s.item("A", m)
    s, m, root = story()
    found["an item under an item"] = s, s.item("A", s.item("A", root))
    s, _, root = story()
    found["an item under a profile and a master profile"] = s, s.item("A", root, s.claims[0])
    s, m, root = story()
    wrong = linked(make(Kind.PERSONAL, "A", MESH, [root], master=m.vid), g=7)
    s.claims.append(wrong)
    found["a wrong generation"] = s, wrong
    return found


@pytest.mark.parametrize("what", misfits())
def test_what_does_not_fit_is_kept_and_never_applied(what: str) -> None:
    s, claim = misfits()[what]
    replica = s.told()
    assert replica.states[claim.vid] is State.QUARANTINED
    assert not replica.authority.may_write(claim)
    with pytest.raises(TrustError):
        replica.authority.check_links(claim)
    if claim.kind in (Kind.MASTER, Kind.PERSONAL):
        assert replica.authority.knows(claim.vid)
        assert replica.authority.state(claim.vid) is State.QUARANTINED


def test_what_builds_on_a_misfit_is_never_applied() -> None:
    s, m, root = story()
    sloppy = s.master(m, admins="A")
    over = s.master(sloppy, admins="A")
    embedding = s.profile("A", root, master=sloppy, devices="A")
    child = s.profile("A", embedding, master=m, devices="A")
    item = s.item("A", child)
    assert s.stands(sloppy, over, embedding, child, item) == [False] * 5
    assert s.authority().admins() == {"A", "B"}


def test_parents_are_of_the_same_entry_and_one_generation_below() -> None:
    _, _, root = story()
    first = make(Kind.ITEM, "A", "pw/0", a=[root.vid])
    second = make(Kind.ITEM, "A", "pw/0", [first], [first], [root.vid])
    entry = (int(Kind.ITEM), "pw/0", 1)
    check_parents(second, [entry])
    for parents in ([(int(Kind.ITEM), "pw/1", 1)], [(int(Kind.CONTAINER), "pw/0", 1)], [], [(*entry[:2], 2)]):
        with pytest.raises(TrustError):
            check_parents(second, parents)


def test_a_profile_cannot_be_integrated_before_what_it_names() -> None:
    _, m, root = story()
    authority = Replica(MESH).authority
    assert not authority.knows(m.vid)
    assert not authority.may_write(root)
    with pytest.raises(ValueError):
        authority.integrate(root)
    authority.integrate(m)
    assert authority.may_write(root)
    assert authority.integrate(root).state is State.APPLIED
    assert authority.integrate(root).state is State.APPLIED  # again: nothing changes


def test_a_malformed_profile_is_not_integrated_and_items_are_not_kept() -> None:
    s, _, root = story()
    authority = s.authority()
    with pytest.raises(TrustError):
        authority.integrate(linked(root, n=1))
    with pytest.raises(ValueError):
        authority.integrate(s.item("A", root))


def test_a_stranger_changes_nothing() -> None:
    s, m, root = story()
    profile = s.profile("STRANGER", root, master=m, devices=["STRANGER"], x=[Cut("A", ())])
    replica = s.told()
    assert replica.states[profile.vid] is State.QUARANTINED
    assert replica.authority.devices() == replica.authority.ever_devices() == {"A", "B"}
    assert replica.authority.heads(Kind.PERSONAL) == (root.vid,)
    assert replica.authority.health() == []


def test_device_profiles_are_everybodys_own() -> None:
    s, _, _ = story()
    assert s.stands(s.device("A"), s.device("anybody")) == [True, True]
    forged = make(Kind.DEVICE, "A", "B")
    assert not s.authority().may_write(forged)
