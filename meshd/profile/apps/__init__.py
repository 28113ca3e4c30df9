"""The kinds of vault: what each is called on the wire and to a person.

A vault of a kind that this release does not know is carried, re-wrapped and forwarded like any other; only its items'
insides are left alone. What an application's items hold is in one small file each, beside this one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """`name` is what people type; `tag` the profile's type on the wire; `private` the tag of its first plaintext
    object."""

    name: str
    tag: str
    vault: bool = True  # False: internal, not offered as a vault

    @property
    def private(self) -> str:
        return self.tag + "Private"


PASSWORD = Kind("password", "PasswordProfile")
SSH = Kind("ssh", "SSHProfile")
MAIL = Kind("mail", "MailProfile")
NETWORK = Kind("network", "NetworkProfile")
NOTE = Kind("note", "NoteProfile")
DISCOVERY = Kind("discovery", "DiscoveryProfile", vault=False)  # keys for names on the LAN: every device reads it
GROUP = Kind("group", "GroupProfile", vault=False)  # device names and labels: admins and members

KINDS = (PASSWORD, SSH, MAIL, NETWORK, NOTE, DISCOVERY, GROUP)
BY_TAG = {kind.tag: kind for kind in KINDS}
BY_NAME = {kind.name: kind for kind in KINDS}


def of_tag(tag: str) -> Kind:
    """The kind with this tag; an unknown one gets a name made from its tag."""
    return BY_TAG.get(tag) or Kind(tag.removesuffix("Profile").lower() or "unknown", tag)
