"""What fell with the admin who had added it: devices, vaults and rights that a person may take back.

When an admin's chain is cut, what its profiles beyond the cut added is gone. `removal` asks about it before that; what
was not known then, or not thought of, is confirmed here (formats.md F7, `k=`). It counts from then on, and what was
written under it before is imported from quarantine. Runs in the writer's thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from meshd.crypto.keys import SigningKey
from meshd.daemon import authoring, membership, rotation, vault_admin
from meshd.daemon.pen import Pen
from meshd.errors import BadRequest, DecryptError, Exists, FormatError, NotFound
from meshd.profile import personal, vault, version
from meshd.profile.apps import of_tag
from meshd.profile.claim import Kind, Role, State
from meshd.profile.personal import Application
from meshd.profile.trust import REMOVAL_UNDONE
from meshd.profile.version import Parsed
from meshd.store import versions


def every(pen: Pen) -> dict[str, str]:
    """What can be confirmed, as `confirm` takes it, and the name of what is a vault, empty where it can't be opened.

    Devices that a fallen admin took in, those whose removal fell with who had removed them, and vaults that one made.
    Only of profiles that were an admin's when they were signed."""
    authority = pen.replica.authority
    here = authority.devices() | authority.admins() | authority.undecided()
    devices = set(authority.ever_devices() - here - authority.removed())
    devices |= {udf for code, udf, _ in authority.health() if code == REMOVAL_UNDONE}
    # Where a stolen admin built on a profile that never stood, who was removed there is given no keys (formats.md F5).
    devices |= authority.devices() - authority.devices_at(authority.heads(Kind.PERSONAL)).keys()
    vaults: set[str] = set()
    fell = [row.vid for row in versions.of_kind(pen.connection, Kind.PERSONAL, (State.QUARANTINED,))]
    for parsed in pen.load(fell):
        if parsed.claim.signer in authority.admins_at(parsed.claim.links.p, parsed.claim.master):
            vaults |= parsed.claim.applications - authority.applications()
    found = {f"D:{udf}": "" for udf in sorted(devices)}
    return found | {f"X:{container}": _name(pen, container) for container in sorted(vaults)}


def _name(pen: Pen, container: str) -> str:
    """`ssh/work`, from the newest container of a vault that this device opens."""
    rows = versions.of_entry(pen.connection, Kind.CONTAINER, container)
    for parsed in pen.load([row.vid for row in sorted(rows, key=lambda row: (-row.gen, row.vid))]):
        for key in pen.keyring.deks:
            try:
                said = vault.open_container(parsed, key).name
            except (DecryptError, FormatError):
                continue
            kind = of_tag(parsed.tag)
            return f"{kind.name}/{said or kind.name}"
    return ""


def confirm(pen: Pen, keys: Collection[str], *, master_key: SigningKey | None = None) -> None:
    """Add anew what fell with the profile that added it: `D:UDF`, `X:vault`, `G:UDF@vault`. A device comes with the
    rights that it had. Denied, NotFound.

    It counts from then on; what was written under it before is imported from quarantine."""
    authoring.check_admin(pen, master_key)
    named = every(pen)
    wanted = authoring.state(pen)
    list_confirmed(pen, wanted, keys)
    back = [key.partition(":")[2] for key in keys if key.startswith("D:")]
    rights = [f"G:{udf}@{vault}" for udf in back for vault in sorted(wanted.grants.get(udf, ()))]
    confirmed = tuple(dict.fromkeys([*keys, *rights]))
    authoring.write_profile(pen, wanted, confirm=confirmed, master_key=master_key)
    rotation.settle(pen)
    for key in keys:
        sort, _, name = key.partition(":")
        if sort == "X" and name not in pen.keyring.vaults and pen.replica.own in pen.replica.authority.admins():
            rotation.begin_anew(pen, wanted.applications[name])  # not even what fell can be opened here
            pen.refresh([name])
        if named.get(key):
            _call(pen, name, named[key].partition("/")[2])


def _call(pen: Pen, container: str, name: str) -> None:
    """A vault whose containers all fell has a new one, which says nothing of its name."""
    if container in pen.keyring.vaults and pen.replica.own in pen.replica.authority.admins():
        try:
            vault_admin.rename(pen, container, name)
        except Exists:
            vault_admin.rename(pen, container, f"{name[:48]} {container[:11]}")


def list_confirmed(pen: Pen, wanted: authoring.State, keys: Collection[str]) -> None:
    """A version lists what it confirms."""
    for key in keys:
        sort, _, name = key.partition(":")
        if sort == "D":
            profile = membership.device_profile(pen, name)
            if profile is None:
                raise NotFound("There is no such device in this mesh.")
            wanted.devices[name] = profile
            if name not in wanted.admins:
                wanted.roles.setdefault(name, _last_role(pen, name))
                wanted.grants.setdefault(name, _last_listed(pen, name))
        elif sort == "X":
            wanted.applications[name] = _application(pen, name)
        elif sort == "G":
            udf, _, container = name.partition("@")
            if udf not in wanted.devices:
                raise NotFound("There is no such device in this mesh.")
            level = _last_listed(pen, udf).get(container)
            if level is None:
                raise NotFound("No profile lists that grant.")
            wanted.grants.setdefault(udf, {})[container] = level
        else:
            raise BadRequest("A confirmation is D:DEVICE, X:VAULT or G:DEVICE@VAULT.")


def _application(pen: Pen, container: str) -> Application:
    for parsed in _listing(pen, container):
        found = personal.application_entries(parsed).get(container)
        if found is not None:
            return found
    raise NotFound("No profile lists that vault.")


def _last_role(pen: Pen, udf: str) -> Role:
    """What the newest profile that states a device's role says, standing or not: a relay comes back as a relay."""
    for parsed in _listing(pen, udf):
        stated = dict(parsed.claim.roles).get(udf)
        if stated in (Role.MEMBER, Role.RELAY):
            return Role(stated)
    return Role.MEMBER


def _last_listed(pen: Pen, udf: str) -> dict[str, str]:
    """What the newest profile that lists grants of a device gives it, standing or not."""
    for parsed in _listing(pen, udf):
        granted = {vault: level for holder, vault, level in parsed.claim.grants if holder == udf}
        if granted:
            return granted
    return {}


def _listing(pen: Pen, name: str) -> Iterator[Parsed]:
    """The profiles that name something, newest first, standing or not."""
    rows = versions.of_kind(pen.connection, Kind.PERSONAL, (State.APPLIED, State.QUARANTINED))
    for row in sorted(rows, key=lambda row: (-row.gen, row.vid)):
        raw = versions.raw(pen.connection, row.vid)
        if raw is not None and name.encode() in raw:
            yield version.parse(raw)
