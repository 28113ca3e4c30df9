"""Pairing: from the code typed in on the new device to the first password that it can show."""

from __future__ import annotations

import time

from bench import machine
from bench.figures import Figure, Section
from bench.lab import Lab
from harness.daemons import Household
from meshctl.client import path
from meshd.errors import MeshError


def run(lab: Lab, quick: bool) -> Section:
    rounds = 2 if quick else 6
    joined, readable = [], []
    with Household() as house:
        admin = house.device("admin")
        admin.start()
        admin.init()
        admin.add("github.com", "a password")
        for place in range(rounds):
            new = house.device(f"new{place}")
            new.start()
            code = admin.json("invite", "--no-wait")["code"]
            start = time.monotonic()
            new.json("connect", code, "--name", new.name, "--no-passphrase")
            joined.append(time.monotonic() - start)
            while not _shows(new.client):
                time.sleep(0.002)
            readable.append(time.monotonic() - start)
            new.stop()
    figures = [
        Figure("code entered → connected", machine.median(joined), "s", more={"worst": max(joined)}),
        Figure("code entered → first password readable", machine.median(readable), "s", more={"worst": max(readable)}),
    ]
    return Section(
        "pairing", "finding the window by mDNS, SPAKE2 in Python on both sides, then finding each other", figures
    )


def _shows(client: object) -> bool:
    try:
        client.post(path("items", "lookup"), {"application": "password", "site": "github.com"})  # type: ignore[attr-defined]
    except MeshError:
        return False
    return True
