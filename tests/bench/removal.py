"""What a removal costs in vaults of different sizes: the transaction, the bytes that travel, the report, and verdicts.

A removal wraps containers and touches no item, so neither its time nor its bytes may grow with the vault; the report of
what the device could read looks at every item, and is timed apart. At the end a first sync is judged, once from a
signer whom nobody cut, and once from one who was removed: every verdict then looks into his chain.
"""

from __future__ import annotations

import gc
import sqlite3
import time
from collections.abc import Callable, Sequence

from bench.figures import Figure, Section
from bench.lab import Lab
from harness.mesh_world import MAX_TOLD, Device, device_keys, found, verified
from meshd.daemon import exposure, removal, rotation, vaults
from meshd.daemon.index import Index
from meshd.daemon.keyring import write_key
from meshd.daemon.pen import Pen
from meshd.profile import version
from meshd.profile.apps import password
from meshd.profile.claim import Kind
from meshd.profile.version import Version
from meshd.store import lineage, versions
from meshd.store.db import open_database, set_meta
from meshd.store.lineage import Link

BOUND = "wrapping for each reader (X25519) and signing; the report looks once at each row"
PART = 500
NOTE = "n" * 620  # so that the padded plaintext has 1,024 bytes
SLOWER = 1.1  # at most, in a first sync, for verdicts on somebody who was cut


def run(lab: Lab, quick: bool) -> Section:
    sizes = (100, 1_000) if quick else (100, 10_000, 100_000)
    figures: list[Figure] = []
    base_bytes = 0.0
    for size in sizes:
        laptop, phone = _mesh(lab, size)
        _fill(laptop, size)
        last = _last(laptop)
        taken = _timed(lambda: laptop.write(lambda pen: removal.remove(pen, [phone.udf])))  # noqa: B023
        (sent,) = laptop.connection.execute("SELECT sum(length(raw)) FROM versions WHERE seq > ?", (last,)).fetchone()
        base_bytes = base_bytes or sent
        stale = _timed(lambda: laptop.write(rotation.stale))  # noqa: B023
        titles = _titles(laptop)
        report = _timed(lambda: exposure.exposure(laptop.connection, laptop.keyring, phone.udf, titles))  # noqa: B023
        opened = _timed(lambda: exposure.exposure(laptop.connection, laptop.keyring, phone.udf))  # noqa: B023
        figures.append(
            Figure(
                f"removal with {size:,} items",
                taken * 1e3,
                "ms",
                more={
                    "look for stale items, ms": stale * 1e3,
                    "report, ms": report * 1e3,
                    "report where each item has to be opened for its name, ms": opened * 1e3,
                },
            )
        )
        figures.append(
            Figure(
                f"… bytes that travel, {size:,} items",
                sent,
                "bytes",
                f"within 5 % of {sizes[0]:,} items",
                sent <= 1.05 * base_bytes,
            )
        )
        laptop.connection.close()
    figures += _first_sync(lab, 1_000 if quick else 10_000)
    return Section(
        "removal", "wrapping for each reader (X25519) and signatures; the report: one look at each row", figures
    )


def _first_sync(lab: Lab, size: int) -> list[Figure]:
    """A member's items, taken in by an empty device that holds the profiles already: once from before his removal, once
    with it. The cut names the end of his chain, which comes last; so it asks for the links first, as a conversation
    does, or takes everything in without. What the sender does for that is not counted, as nothing that it does is."""
    laptop, phone = _mesh(lab, 0)
    _fill(phone, size)
    laptop.pull(phone)
    items, _ = verified(laptop.feed(), laptop.replica.directory)
    raws, rates = [one.raw for one in items], {}
    for name in ("as it was", "removed", "removed, without links"):
        fresh = Device("fresh", device_keys("fresh"), phone.rng, _store(lab, name))
        fresh.join(laptop.mesh)
        profiles = [raw for raw in laptop.feed() if version.parse(raw).claim.kind in (Kind.MASTER, Kind.PERSONAL)]
        fresh.take(profiles)
        gc.collect()
        gc.freeze()  # as a daemon does with what stays
        spent = _asked(fresh, laptop) if name == "removed" else 0.0
        start = time.process_time()  # of one processor, so that others on the machine change nothing
        verified(raws, fresh.replica.directory)
        _take(fresh, items)
        rates[name] = size / (spent + time.process_time() - start)
        gc.unfreeze()
        assert versions.heads(fresh.connection, Kind.ITEM, items[-1].identifier), "what he wrote stands"
        if name == "as it was":
            laptop.write(lambda pen: removal.remove(pen, [phone.udf]))
    ratio = rates["as it was"] / rates["removed"]
    return [
        Figure(
            f"{size:,} items checked, judged and stored",
            rates["as it was"],
            "items/s",
            f"≤ {SLOWER} times as slow where the signer was removed",
            ratio <= SLOWER,
            {
                "as slow where the signer was removed": ratio,
                "and from a release that tells no links": rates["as it was"] / rates["removed, without links"],
            },
        )
    ]


def _asked(device: Device, laptop: Device) -> float:
    """Seconds of processor time in which `device` takes the links of the chains that were cut."""
    spent = 0.0
    for signer in device.replica.authority.cut():
        told: list[Link] = []
        asked: frozenset[bytes] = frozenset()
        while True:
            start = time.process_time()
            missing = _links(device, signer, told)
            spent += time.process_time() - start
            if not missing or missing == asked:
                break
            told, asked = lineage.told(laptop.connection, signer, sorted(missing), MAX_TOLD), missing
    return spent


def _links(device: Device, signer: str, told: list[Link]) -> frozenset[bytes]:
    return device.transact(lambda connection, out: device.replica.accept_links(connection, signer, told, out))[0]


def _titles(device: Device) -> dict[str, str]:
    """What the index of a daemon that has nothing else to do says."""
    index = Index(device.keyring)
    index.load(device.connection)
    index.refresh(device.connection)
    return exposure.titles_of(index)


def _take(device: Device, items: Sequence[Version]) -> None:
    for start in range(0, len(items), PART):
        device.accept(items[start : start + PART])


def _mesh(lab: Lab, size: int) -> tuple[Device, Device]:
    """A laptop whose store is on disk, and a phone that it took in."""
    laptop = found("laptop", f"removal {size}", _store(lab, f"laptop {size}"))
    return laptop, laptop.admit("phone")


def _store(lab: Lab, name: str) -> sqlite3.Connection:
    """An empty store on disk, as a daemon opens it."""
    connection = open_database(lab.house.directory / f"removal {name}", create=True).connection
    set_meta(connection, "store_id", name.encode()[:8].ljust(8))
    return connection


def _fill(device: Device, size: int) -> None:
    opened = device.keyring.find("password")
    key = write_key(device.connection, device.replica, opened)
    for start in range(0, size, PART):

        def write(pen: Pen, start: int = start) -> None:
            for number in range(start, min(start + PART, size)):
                vaults.add(
                    pen,
                    opened,
                    lambda t, made, n=number: password.new(
                        [f"{n}.example"], "a", f"s{n}", time=t, made=made, note=NOTE
                    ),
                    key,
                )

        device.write(write)


def _last(device: Device) -> int:
    (seq,) = device.connection.execute("SELECT max(seq) FROM versions").fetchone()
    return int(seq)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
