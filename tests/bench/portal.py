"""A portal's speed: durable Publish and Get over keep-alive HTTP, beside a floor and etcd doing comparable work.

Every Publish is a different version, signed by its device, in a request that is signed too; each client is one person.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nacl import bindings

from bench import load, machine, peers
from bench.figures import Figure, Section
from bench.lab import Lab
from harness.portal_people import Person, tagged
from harness.portal_server import request_bytes, signed
from meshd.portal import codec
from meshd.portal import messages as m
from meshd.portal.codec import Dialect
from meshd.portal.messages import Request

BOUND = (
    "Python. A Publish costs two Ed25519 verifications, base and nonce of the HTTP signature, reading the version, its "
    "rights and links, the store's indexes and a leaf of the log; a Get one verification and the asker's rights. The "
    "floor verifies one signature a write and none a read, and looks nothing up; etcd verifies none"
)
CLIENTS = (1, 16, 64)
FEW = (1, 16)
BATCH = 100
TOGETHER = f"Publish of {BATCH} at once"
IDLE = 10_000
DOMAIN = "example.net"
PROGRAMS = Path(sys.executable).parent


@dataclass
class Speeds:
    """By (what, clients); `cpu` is µs of the server's for each request, which a busy machine spoils less."""

    found: dict[tuple[str, int], load.Result] = field(default_factory=dict)
    cpu: dict[tuple[str, int], float] = field(default_factory=dict)

    def drive(
        self, what: str, port: int, pid: int, queues: Sequence[Sequence[bytes]], seconds: float, *, again: bool = False
    ) -> None:
        before = machine.cpu_seconds(pid)
        result = load.drive(port, queues, seconds, again=again)
        self.found[what, len(queues)] = result
        self.cpu[what, len(queues)] = (machine.cpu_seconds(pid) - before) / max(result.answered, 1) * 1e6


def run(lab: Lab, quick: bool) -> Section:
    seconds, each = (1.0, 300) if quick else (4.0, 6000)
    missing: list[str] = []
    with peers.folder() as folder:
        ours, memory = portal(folder, seconds, each, IDLE if not quick else 500)
        floor, signed = floor_of(folder, seconds, each), floor_of(folder, seconds, each, "signed")
        etcd: Speeds | None = None
        try:
            etcd = etcd_of(folder, seconds, each)
        except peers.Missing as exc:
            missing.append(str(exc))
    others = {"the floor's": floor, "those of the floor with as many signatures": signed}
    others |= {"etcd's": etcd} if etcd is not None else {}
    figures = [_figure(ours, what, clients, others) for what in ("Publish", "Get") for clients in CLIENTS]
    figures += [_together(ours, clients, others) for clients in FEW]
    figures.append(Figure("memory of an idle connection", memory, "KiB"))
    return Section("portal", BOUND, figures, missing=tuple(missing))


def _figure(ours: Speeds, what: str, clients: int, others: Mapping[str, Speeds]) -> Figure:
    found = ours.found[what, clients]
    beside = {name: found.per_second / other.found[what, clients].per_second for name, other in others.items()}
    aim, met = "", None
    if what == "Publish":
        aim, met = "≥ 0.7 of the floor, ≥ etcd", beside["the floor's"] >= 0.7 and beside.get("etcd's", 1.0) >= 1.0
    cpu = {"µs CPU": ours.cpu[what, clients]}
    cpu |= {f"µs CPU, {name}": other.cpu[what, clients] for name, other in others.items()}
    more = {"p50 ms": found.p50, "p99 ms": found.p99, "failed": found.failures}
    return Figure(f"{what}, {clients} clients", found.per_second, "/s", aim, met, beside, more | cpu)


def _together(ours: Speeds, clients: int, others: Mapping[str, Speeds]) -> Figure:
    """Entries of batches, beside single writes of the others."""
    found = ours.found[TOGETHER, clients]
    rate = found.per_second * BATCH
    beside = {name: rate / other.found["Publish", clients].per_second for name, other in others.items()}
    more = {"p50 ms": found.p50, "failed": found.failures, "µs CPU": ours.cpu[TOGETHER, clients] / BATCH}
    return Figure(f"{TOGETHER}, {clients} clients", rate, "entries/s", beside=beside, more=more)


# --- ours -------------------------------------------------------------------------------------------------------------


def portal(folder: Path, seconds: float, each: int, idle: int) -> tuple[Speeds, float]:
    speeds = Speeds()
    people = [Person(f"person {count}") for count in range(max(CLIENTS))]
    with served(folder / "portal") as (port, process):
        open_accounts(port, people)
        for clients in CLIENTS:
            queues = [publishes(one, each // clients) for one in people[:clients]]
            speeds.drive("Publish", port, process.pid, queues, seconds)
        for clients in CLIENTS:
            queues = [gets(one, each // clients) for one in people[:clients]]
            speeds.drive("Get", port, process.pid, queues, seconds)
        memory = idle_memory(port, process.pid, idle)  # before large requests leave room behind
        for clients in FEW:
            queues = [batches(one, max(each // clients // BATCH, 1)) for one in people[:clients]]
            speeds.drive(TOGETHER, port, process.pid, queues, 60.0)  # to their end: the next thing is measured apart
        return speeds, memory


def open_accounts(port: int, people: Sequence[Person]) -> None:
    """Each has an account and a vault."""
    for count, one in enumerate(people):
        _send(port, one, "CreateAccount", m.CreateRequest(account=f"p{count}@{DOMAIN}", profile=tagged(one.root)))
        _send(port, one, "Publish", m.PublishRequest(entry=tagged(one.container())))


@contextlib.contextmanager
def served(data: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A portal process; (port, process)."""
    port = peers.free_port()
    argv: list[str | Path] = [PROGRAMS / "meshd", "portal", "--data", data, "--domain", DOMAIN, "--insecure-http"]
    argv += ["--listen", f"127.0.0.1:{port}", "--log-level", "error"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        peers.wait_for_port(port)
        yield port, process
    finally:
        process.terminate()
        process.wait(30)


def _request(by: Person, transaction: str, message: Request) -> bytes:
    body = codec.encode_request(transaction, message, Dialect.OURS)
    return request_bytes(body, signed(body, by.first, host=DOMAIN))


def _send(port: int, by: Person, transaction: str, message: Request) -> None:
    result = load.drive(port, [[_request(by, transaction, message)]], 30)
    if result.failures:
        raise RuntimeError(f"the portal refused a {transaction}")


def publishes(by: Person, count: int) -> list[bytes]:
    return [
        _request(by, "Publish", m.PublishRequest(entry=tagged(by.item(secrets.token_hex(8))))) for _ in range(count)
    ]


def batches(by: Person, count: int) -> list[bytes]:
    """As a device publishes what has gathered: one signed request for many entries."""
    items = [[tagged(by.item(secrets.token_hex(8))) for _ in range(BATCH)] for _ in range(count)]
    return [_request(by, "Publish", m.PublishRequest(entries=part)) for part in items]


def gets(by: Person, count: int) -> list[bytes]:
    return [_request(by, "Get", m.GetRequest(identifier=by.vault)) for _ in range(count)]


def idle_memory(port: int, pid: int, count: int) -> float:
    """KiB that one connection takes which has asked once and now waits."""
    before = machine.memory(pid)
    hello = b'POST /.well-known/mmm/ HTTP/1.1\r\nHost: x\r\nContent-Length: 19\r\n\r\n{"HelloRequest":{}}'
    open_: list[socket.socket] = []
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        for number in range(count):
            # 127.0.0.0/8 has addresses enough for the bound on connections from one.
            sock = socket.socket()
            sock.bind((f"127.0.1.{1 + number % 200}", 0))
            sock.connect(("127.0.0.1", port))
            sock.sendall(hello)
            open_.append(sock)
            if not sock.recv(4096):
                raise ConnectionError("the portal closed an idle connection")
        return (machine.memory(pid) - before) * 1024 / count
    finally:
        for sock in open_:
            sock.close()


# --- others -----------------------------------------------------------------------------------------------------------


def floor_of(folder: Path, seconds: float, each: int, *signed: str) -> Speeds:
    port, store = peers.free_port(), folder / "-".join(("floor", *signed))
    argv = [sys.executable, str(Path(__file__).with_name("portal_floor.py")), str(port), str(store), *signed]
    with peers.running(argv) as process:
        assert process.stdout is not None
        secret = bytes.fromhex(process.stdout.readline().strip())
        peers.wait_for_port(port)
        data = os.urandom(1125)
        body = json.dumps(
            {
                "data": base64.b64encode(data).decode(),
                "sig": base64.b64encode(bindings.crypto_sign(data, secret)[:64]).decode(),
            }
        ).encode()

        def put(name: str) -> bytes:
            return f"PUT /{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

        return _both(
            port, process.pid, put, lambda name: f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), seconds, each
        )


def etcd_of(folder: Path, seconds: float, each: int) -> Speeds:
    program = peers.program("etcd", "apt-get install etcd-server")
    port, peer = peers.free_port(), peers.free_port()
    client_url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    argv = [program, "--data-dir", str(folder / "etcd"), "--listen-client-urls", client_url]
    argv += ["--advertise-client-urls", client_url, "--listen-peer-urls", peer_url]
    argv += ["--initial-advertise-peer-urls", peer_url, "--initial-cluster", f"default={peer_url}"]
    value = base64.b64encode(os.urandom(1125)).decode()
    with peers.running(argv) as process:
        peers.wait_for_port(port)
        time.sleep(1.5)  # it listens before it has elected itself

        def post(path: str, what: dict[str, str]) -> bytes:
            body = json.dumps(what).encode()
            head = f"POST /v3/kv/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

        def name(text: str) -> str:
            return base64.b64encode(text.encode()).decode()

        return _both(
            port,
            process.pid,
            lambda text: post("put", {"key": name(text), "value": value}),
            lambda text: post("range", {"key": name(text)}),
            seconds,
            each,
        )


def _both(port: int, pid: int, put: object, get: object, seconds: float, each: int) -> Speeds:
    assert callable(put) and callable(get)
    speeds = Speeds()
    for clients in CLIENTS:
        queues: Sequence[Sequence[bytes]] = [
            [put(f"w{clients}-{one}-{count}") for count in range(each // clients)] for one in range(clients)
        ]
        speeds.drive("Publish", port, pid, queues, seconds)
    for clients in CLIENTS:
        queues = [[get(f"w1-0-{count}") for count in range(min(1000, each))] for _ in range(clients)]
        speeds.drive("Get", port, pid, queues, seconds, again=True)
    return speeds
