"""Grants: read and write, one vault or "*", narrowed, confirmed, concurrent (formats.md F7.2)."""

from __future__ import annotations

import pytest

from harness.authority_spec import MESH
from harness.authority_story import Story, member
from harness.authority_worlds import Grant
from meshd.profile.claim import ALL, READ, WRITE, Claim
from meshd.profile.links import Cut

VAULTS = ("pw", "ssh", "mail")


class Mesh(Story):
    """An admin A and a member d with some grants."""

    def __init__(self, *grants: Grant) -> None:
        super().__init__(VAULTS)
        self.m = self.master(admins="AB")
        self.root = self.profile(MESH, master=self.m, devices="ABd", grants=grants)

    def edit(
        self, over: Claim, *grants: Grant, by: str = "A", x: tuple[Cut, ...] = (), k: tuple[str, ...] = ()
    ) -> Claim:
        return self.profile(by, over, master=self.m, devices="ABd", grants=grants, x=x, k=k)

    def lost(self, scope: str, *tips: Claim) -> tuple[Cut, ...]:
        return (Cut("d", tuple(tip.vid for tip in tips), scope),)

    def rights(self) -> dict[str, str]:
        """vault → "w", "r" or "", as d has it now."""
        authority = self.authority()
        found = {}
        for vault in VAULTS:
            write, read = authority.can_write("d", vault), authority.can_read("d", vault)
            assert read or not write
            assert read == ("d" in authority.readers(vault))
            found[vault] = "w" if write else "r" if read else ""
        return found


def test_write_implies_read_and_read_is_not_write() -> None:
    assert Mesh(("d", "pw", WRITE), ("d", "ssh", READ)).rights() == {"pw": "w", "ssh": "r", "mail": ""}


def test_star_covers_every_vault_and_future_ones() -> None:
    s = Mesh(("d", ALL, WRITE))
    assert s.rights() == {"pw": "w", "ssh": "w", "mail": "w"}
    later = s.profile("A", s.root, master=s.m, devices="ABd", grants=member("d", ALL), vaults=[*VAULTS, "new"])
    assert s.stands(s.item("d", later, vault="new"), s.item("d", s.root, vault="new")) == [True, False]


def test_a_cut_takes_read_and_write_unless_read_is_listed() -> None:
    s = Mesh(("d", "pw", WRITE), ("d", "ssh", WRITE))
    s.edit(s.root, ("d", "ssh", READ), x=s.lost("pw") + s.lost("ssh"))
    assert s.rights() == {"pw": "", "ssh": "r", "mail": ""}


def test_not_being_listed_takes_nothing() -> None:
    s = Mesh(("d", "pw", WRITE))
    s.edit(s.root)
    assert s.rights()["pw"] == "w"
    assert s.authority().grants() == {("d", "pw", WRITE)}


def test_a_vault_can_be_taken_out_of_star_and_a_later_star_covers_it_again() -> None:
    s = Mesh(("d", ALL, WRITE))
    narrowed = s.edit(s.root, ("d", ALL, WRITE), x=s.lost("ssh"))
    assert s.rights() == {"pw": "w", "ssh": "", "mail": "w"}
    listed = s.edit(narrowed, ("d", ALL, WRITE))  # "*" was never lost, so listing it is no new grant
    assert s.rights()["ssh"] == ""
    s.edit(listed, ("d", ALL, WRITE), k=("G:d@*",))
    assert s.rights()["ssh"] == "w"


def test_a_star_in_the_version_that_cuts_a_vault_does_not_cover_it() -> None:
    s = Mesh()
    s.edit(s.root, ("d", ALL, WRITE), x=s.lost("ssh"))
    assert s.rights() == {"pw": "w", "ssh": "", "mail": "w"}


def test_narrowing_star_leaves_the_vaults_that_the_same_version_lists() -> None:
    s = Mesh(("d", ALL, WRITE))
    known = s.item("d", s.root, vault="ssh")
    narrowed = s.edit(s.root, ("d", "pw", WRITE), ("d", "mail", READ), x=s.lost(ALL, known))
    unaware = [s.item("d", s.root, vault=vault) for vault in VAULTS]
    assert s.stands(known, *unaware) == [True, True, False, False]
    assert s.rights() == {"pw": "w", "ssh": "", "mail": "r"}
    assert s.stands(s.item("d", narrowed), s.item("d", narrowed, vault="ssh")) == [True, False]


def test_narrowing_star_to_reading_keeps_reading() -> None:
    s = Mesh(("d", ALL, WRITE))
    s.edit(s.root, ("d", ALL, READ), x=s.lost(ALL))
    assert s.rights() == {"pw": "r", "ssh": "r", "mail": "r"}


def test_narrowing_star_does_not_bind_a_vault_that_was_granted_by_itself() -> None:
    s = Mesh(("d", ALL, WRITE), ("d", "pw", WRITE))
    s.edit(s.root, x=s.lost(ALL))
    assert s.stands(s.item("d", s.root), s.item("d", s.root, vault="ssh")) == [True, False]
    assert s.rights() == {"pw": "w", "ssh": "", "mail": ""}


def test_a_scoped_cut_binds_what_was_signed_without_knowledge_of_it() -> None:
    s = Mesh(("d", "pw", WRITE))
    before = s.item("d", s.root)
    lost = s.edit(s.root, x=s.lost("pw", before))
    unaware = s.item("d", s.root)
    regranted = s.edit(lost, ("d", "pw", WRITE))
    assert s.stands(before, unaware, s.item("d", lost), s.item("d", regranted)) == [True, False, False, True]


def test_a_removed_grant_beats_a_concurrent_one_and_a_later_grant_beats_it() -> None:
    s = Mesh()
    granted = s.edit(s.root, ("d", "pw", WRITE))
    lost = s.edit(granted, x=s.lost("pw"))
    again = s.edit(granted, ("d", "pw", WRITE), by="B", k=("G:d@pw",))
    assert s.rights()["pw"] == ""
    merged = s.profile("A", lost, again, master=s.m, devices="ABd")
    assert s.rights()["pw"] == ""
    s.edit(merged, ("d", "pw", WRITE))
    assert s.rights()["pw"] == "w"


def test_a_confirmed_grant_outlives_the_admin_who_made_it() -> None:
    for k, expected in (((), ""), (("G:d@pw",), "w")):
        s = Mesh()
        granted = s.edit(s.root, ("d", "pw", WRITE), by="B")
        listed = s.edit(granted, ("d", "pw", WRITE), k=k)
        m2 = s.master(s.m, admins="A", x=[Cut("B", ())])
        s.profile(MESH, listed, master=m2, devices="Ad")
        assert s.rights()["pw"] == expected


def test_write_implies_read_also_where_the_grant_to_read_fell() -> None:
    s = Mesh()
    read = s.edit(s.root, ("d", "pw", READ), by="B")
    write = s.edit(read, ("d", "pw", WRITE))
    m2 = s.master(s.m, admins="A", x=[Cut("B", ())])
    s.profile(MESH, write, master=m2, devices="Ad")
    assert s.rights()["pw"] == "w"


def test_members_write_items_and_no_containers() -> None:
    s = Mesh(("d", ALL, WRITE))
    assert s.stands(s.item("d", s.root), s.container("d", s.root), s.container("A", s.root)) == [True, False, True]


def test_admins_read_and_write_every_vault_that_there_is() -> None:
    s = Mesh()
    authority = s.authority()
    assert authority.readers("pw") == {"A", "B"}
    assert authority.can_write("A", "pw")
    assert not authority.can_write("A", "elsewhere")
    assert not authority.can_write(MESH, "pw")  # the master key signs profiles alone


@pytest.mark.parametrize("k", ["G:d", "G:d@mail", "Z:d", "D", "X:", ":"])
def test_a_confirmation_of_nothing_gives_nothing(k: str) -> None:
    s = Mesh()
    s.edit(s.root, k=(k,))
    assert s.rights() == {"pw": "", "ssh": "", "mail": ""}
