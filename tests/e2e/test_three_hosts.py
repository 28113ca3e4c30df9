"""Three daemons in three network namespaces: machines that find each other, lose each other, and move.

Skipped, with the reason, only where namespaces can't be made.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.daemons import Device, Household
from harness.netns import Lab, netns_available

pytestmark = pytest.mark.e2e

PORT = 4321  # a daemon with a fixed port pairs on the next one


class Machines:
    """Daemons on the hosts of a lab, and the cables between them."""

    def __init__(self, lab: Lab, house: Household) -> None:
        self.lab = lab
        self.devices = [
            house.device(name, enter=host.command)
            for name, host in zip(("laptop", "desktop", "phone"), lab.hosts, strict=True)
        ]
        self._hosts = dict(zip((device.name for device in self.devices), lab.hosts, strict=True))

    def cut(self, device: Device) -> None:
        self.lab.cut(self._hosts[device.name])

    def heal(self, device: Device) -> None:
        self.lab.heal(self._hosts[device.name])

    def readdress(self, device: Device, address: str) -> None:
        self.lab.readdress(self._hosts[device.name], address)

    def address(self, device: Device) -> str:
        return self._hosts[device.name].address

    def start(self, *devices: Device) -> None:
        for device in devices:
            device.start()


@pytest.fixture
def machines() -> Iterator[Machines]:
    reason = netns_available()
    if reason is not None:
        pytest.skip(reason)
    with Lab(3) as lab, Household(options=()) as house:
        yield Machines(lab, house)


def apart(one: Device, other: Device) -> None:
    """What is written here does not get there."""
    assert one.fails(7, "wait", "--peer", other.name, "--timeout", "1")["code"] == "not-synced"


def test_machines_find_each_other_pair_by_a_code_and_relay_to_one_that_meets_the_second_only(
    machines: Machines,
) -> None:
    laptop, desktop, phone = machines.devices
    machines.start(laptop, desktop, phone)
    laptop.init()
    laptop.add("github.com", "first")
    laptop.admits(desktop)
    assert desktop.password("github.com") == "first"
    laptop.admits(phone)
    assert phone.password("github.com") == "first"
    phone.in_step_with(desktop)

    machines.cut(phone)
    laptop.edit("github.com", "while the phone was away")
    laptop.in_step_with(desktop)
    machines.cut(laptop)
    machines.heal(phone)  # the phone meets the desktop, and not the laptop
    desktop.in_step_with(phone)
    assert phone.password("github.com") == "while the phone was away"
    phone.edit("github.com", "from the phone, while the laptop was away")
    phone.in_step_with(desktop)
    apart(phone, laptop)

    machines.heal(laptop)
    desktop.in_step_with(laptop)
    assert laptop.password("github.com") == "from the phone, while the laptop was away"
    assert [device.status()["conflicts"] for device in machines.devices] == [0, 0, 0]


def test_edits_of_one_login_on_both_sides_of_a_cut_cable_are_both_kept_with_one_winner_everywhere(
    machines: Machines,
) -> None:
    laptop, desktop, phone = machines.devices
    machines.start(laptop, desktop, phone)
    laptop.init()
    laptop.add("github.com", "first")
    laptop.admits(desktop)
    laptop.admits(phone)
    phone.in_step_with(desktop)

    machines.cut(laptop)
    laptop.edit("github.com", "laptop's")
    desktop.edit("github.com", "desktop's")
    desktop.in_step_with(phone)
    machines.heal(laptop)
    laptop.in_step_with(desktop, phone)
    winners = {device.password("github.com") for device in machines.devices}
    assert winners < {"laptop's", "desktop's"} and len(winners) == 1
    for device in machines.devices:
        assert device.status()["conflicts"] == 1
        device.run("status", "--check", code=6)
        conflict = device.json("conflicts", "list")["conflicts"][0]["id"]
        versions = device.json("conflicts", "show", conflict, "--reveal")["versions"]
        assert {version["password"] for version in versions} == {"laptop's", "desktop's"}
        assert [version["password"] for version in versions if version["winner"]] == list(winners)

    phone.edit("github.com", "settled")
    phone.in_step_with(laptop, desktop)
    assert {device.password("github.com") for device in machines.devices} == {"settled"}
    assert [device.status()["conflicts"] for device in machines.devices] == [0, 0, 0]


def test_a_machine_with_a_new_address_is_reached_there(machines: Machines) -> None:
    laptop, desktop, _ = machines.devices
    machines.start(laptop, desktop)
    laptop.init()
    laptop.admits(desktop)
    machines.readdress(desktop, "192.0.2.77")
    laptop.add("github.com", "to the new address")
    laptop.in_step_with(desktop)
    assert desktop.password("github.com") == "to the new address"
    desktop.edit("github.com", "from the new address")
    desktop.in_step_with(laptop)
    assert laptop.password("github.com") == "from the new address"


def test_where_discovery_tells_nothing_addresses_by_hand_do(machines: Machines) -> None:
    laptop, desktop, _ = machines.devices
    laptop.start("--listen", f":{PORT}")
    # This one hears and announces on its loopback interface only, so the two can't see each other.
    desktop.start("--interface", "lo")
    laptop.init()
    laptop.add("github.com", "by hand")
    where = machines.address(laptop)
    laptop.admits(desktop, "--address", f"{where}:{PORT + 1}", invite=("--remote",), wait=False)
    desktop.run("device", "address", "laptop", f"{where}:{PORT}")
    desktop.in_step_with(laptop)
    assert desktop.password("github.com") == "by hand"
    desktop.edit("github.com", "back by hand")
    desktop.in_step_with(laptop)
    assert laptop.password("github.com") == "back by hand"
    assert desktop.peer(laptop)["address"] == f"{where}:{PORT}"

    # Remembered over a restart.
    desktop.stop()
    laptop.edit("github.com", "after a restart")
    desktop.start("--interface", "lo")
    desktop.in_step_with(laptop)
    assert desktop.password("github.com") == "after a restart"
