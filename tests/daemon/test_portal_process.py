"""A portal as a process: kill -9 under load, two on one directory, TLS, a full disk, a busy store, and its tools."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness import portal_kills
from harness.portal_people import Person, tagged
from harness.portal_process import PROGRAM, Caller, PortalProcess
from harness.portal_server import portal_server
from meshd.daemon.portal import config
from meshd.errors import BadRequest, StoreBusy, StoreDamaged
from meshd.portal import messages as m
from meshd.store.db import open_database
from meshd.store.portal_db import open_portal

ROUNDS = int(os.environ.get("MESHD_PORTAL_KILLS", "20"))


def test_whatever_was_answered_outlives_kill_9(home):
    found = portal_kills.play(home / "portal", ROUNDS, seed=4)
    assert found["rounds"] == ROUNDS and found["versions"] > ROUNDS


def tool(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, "portal", *map(str, words)], capture_output=True, text=True, timeout=60)


def test_two_portals_on_one_directory_are_one_too_many_and_the_tools_work_beside_one(home):
    data = home / "portal"
    alice = Person("alice")
    with PortalProcess(data, "--insecure-http", "--accounts", "invite") as portal:
        assert portal.start() is None
        second = PortalProcess(data)
        second.log = home / "second.log"
        assert second.start() not in (None, 0)
        assert "another meshd is running" in second.log.read_text() and "its own --data" in second.log.read_text()
        invite = json.loads(tool("admin", "--data", data, "invite", "--json", "--note", "alice").stdout)["invite"]
        caller = Caller(portal, alice)
        created = m.CreateRequest(account="alice@example.net", profile=tagged(alice.root), invite=invite)
        assert caller.ask("CreateAccount", created).status == 201
        listed = json.loads(tool("admin", "account", "list", "--json", "--data", data).stdout)["accounts"]
        assert [(one["account"], one["status"]) for one in listed] == [("alice@example.net", "Open")]
        assert tool("admin", "--data", data, "account", "suspend", "alice").returncode == 0
        refused = caller.ask("Publish", m.PublishRequest(entry=tagged(alice.container())))
        assert refused.status == 423
        caller.close()
        assert tool("admin", "--data", data, "account", "resume", "alice@example.net").returncode == 0
        copy = home / "copy.db"
        assert json.loads(tool("admin", "--data", data, "backup", copy, "--json").stdout)["bytes"] > 0
        assert tool("admin", "--data", data, "backup", copy).returncode != 0
        assert portal.stop() == 0
    # Without a running portal the tool does it itself.
    assert tool("admin", "--data", data, "account", "close", "alice").returncode == 0
    wrong = tool("admin", "--data", data, "account", "resume", "alice")
    assert wrong.returncode != 0 and "for ever" in wrong.stderr
    stats = json.loads(tool("admin", "--data", data, "stats", "--json").stdout)
    assert stats["accounts"] == {"open": 0, "suspended": 0, "closed": 1} and stats["last_place"] == 1
    assert f"last added: {datetime.datetime.now(datetime.UTC):%Y-}" in tool("admin", "--data", data, "stats").stdout
    with open_portal(copy, readonly=True) as database:
        assert database.query("SELECT name FROM accounts") == [("alice@example.net",)]
    other = tool("--data", data, "--domain", "example.org", "--listen", "127.0.0.1:0", "--insecure-http")
    assert other.returncode != 0 and "portal of example.net" in other.stderr
    assert tool("admin", "--data", home / "nowhere", "invite").returncode != 0


def certificate(folder, name: str, *, days: int = 30, began: int = 1) -> tuple[str, str]:
    """Files of a self-signed certificate for `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=began))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}-{days}.pem", folder / f"{name}-{days}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(paths[0]), str(paths[1])


def shown(port: int, name: str) -> bytes:
    """The certificate that the portal shows; by TLS 1.2, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: example.net\r\nConnection: close\r\n\r\n")
        assert tls.recv(4096).startswith(b"HTTP/1.1 200")
        found = tls.getpeercert(binary_form=True)
        assert found is not None
        return found


def test_tls_takes_a_renewed_certificate_without_a_restart(home):
    cert, key = certificate(home, "example.net")
    with PortalProcess(home / "portal", "--tls-cert", cert, "--tls-key", key) as portal:
        assert portal.start() is None
        first = shown(portal.port, "example.net")
        for source, target in zip(certificate(home, "example.net", days=60), (cert, key), strict=True):
            os.replace(source, target)
        portal.process.send_signal(signal.SIGHUP)
        while shown(portal.port, "example.net") == first:
            assert portal.process.poll() is None
        # A broken one leaves what is there.
        second = shown(portal.port, "example.net")
        (home / "example.net-30.pem").write_text("nothing")
        portal.process.send_signal(signal.SIGHUP)
        assert shown(portal.port, "example.net") == second
        # And somebody who does not speak TLS gets nowhere, and hurts nobody.
        with socket.create_connection(("127.0.0.1", portal.port), 30) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                assert not plain.recv(4096).startswith(b"HTTP/1.1 200")
            except ConnectionResetError:
                pass
        assert shown(portal.port, "example.net") == second
        assert portal.stop() == 0


def test_what_is_wrong_with_the_certificate_is_said(home):
    good, key = certificate(home, "example.net")
    _, other = certificate(home, "example.org")
    old, old_key = certificate(home, "old.example.net", days=-1, began=3)
    early, early_key = certificate(home, "early.example.net", began=-2)
    sealed = home / "sealed.pem"
    encryption = serialization.BestAvailableEncryption(b"secret")
    sealed.write_bytes(
        serialization.load_pem_private_key((home / key).read_bytes(), None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
    )
    nothing = home / "nothing.pem"
    nothing.write_text("no certificate")
    for cert, secret, words in (
        (good, other, "is not the key of the certificate"),
        (old, old_key, "expired"),
        (early, early_key, "valid from"),
        (nothing, key, "no certificate in PEM"),
        (good, nothing, "can't be used"),
        (good, sealed, "is encrypted"),
        (home / "missing.pem", key, "can't be read"),
    ):
        from meshd.daemon.portal.tls import Certificate

        with pytest.raises(BadRequest, match=words):
            Certificate(home / cert, home / secret, "example.net", datetime.datetime.now(datetime.UTC))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs a domain"),
        ('domain = "example.net"', "address to listen"),
        ('domain = "example.net"\nlisten = [":443"]', "speaks TLS"),
        ('domain = "example.net"\nlisten = [":443"]\ninsecure_http = true', "loopback"),
        ('domain = "example.net"\nlisten = [":443"]\ntls_cert = "a"', "needs its key"),
        ('domain = "exa mple"\nlisten = [":443"]\nbehind_proxy = true', "no domain name"),
        ('domain = "example.net"\nlisten = ["443"]\nbehind_proxy = true', "HOST:PORT"),
        ('domain = "example.net"\nlisten = [":443"]\nbehind_proxy = true\n[metrics]\nlisten = ":9100"', "loopback"),
        ("domian = 1", "domian"),
        ("[limits]\nconnections = 1", "connections"),
        ('accounts = "some"', "accounts"),
        ("[quota]\nbytes = -1", "bytes"),
        ("= x", "TOML"),
    ],
)
def test_settings_that_make_no_portal_are_refused_with_their_name(text, words):
    with pytest.raises(BadRequest, match=words):
        config.check(config.parse(text))


def test_an_address_that_is_taken_is_told_in_a_sentence(home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        run = tool("--data", home / "p", "--domain", "example.net", "--listen", f"127.0.0.1:{port}", "--insecure-http")
    assert run.returncode == 2
    assert run.stderr == f"meshd portal: can't listen on 127.0.0.1:{port}: another program uses that address and port\n"


def test_a_portals_store_and_a_devices_are_not_mistaken_for_one_another(home):
    open_portal(home / "portal.db", create=True).close()
    open_database(home / "meshd.db", create=True).close()
    with pytest.raises(StoreDamaged):
        open_portal(home / "meshd.db")
    with pytest.raises(StoreDamaged):
        open_database(home / "portal.db")


async def test_a_full_disk_refuses_what_comes_and_keeps_what_was_answered(home):
    alice = Person("alice")

    def full(point: str) -> None:
        if point == "before-commit" and broken:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    broken: list[bool] = []
    async with portal_server(home, fault=full) as running:
        client = running.client(alice.first)
        await client.ask("CreateAccount", m.CreateRequest(account="alice@example.net", profile=tagged(alice.root)))
        container = alice.container()
        broken.append(True)
        answer = await client.ask("Publish", m.PublishRequest(entry=tagged(container)))
        assert (answer.status, client.last.status) == (503, 503) and client.last.headers["retry-after"]
        assert running.portal.sequencer.view.last_index() == 1
        broken.clear()
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(container)))).status == 201
        phone = alice.device("phone")
        profile = alice.admit(phone)
        broken.append(True)  # the authority in memory must not keep what the disk did not take
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(profile)))).status == 503
        broken.clear()
        item = alice.item("by the phone", by=phone)
        answer = await client.ask("Publish", m.PublishRequest(entry=tagged(item)))
        assert answer.status == 424
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(profile)))).status == 201
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(item)))).status == 201


async def test_a_store_that_somebody_else_holds_is_busy_and_not_broken(home):
    alice = Person("alice")

    def busy(point: str) -> None:
        if point == "before-fn" and held:
            raise StoreBusy("another program holds the store")

    held: list[bool] = []
    async with portal_server(home, fault=busy) as running:
        client = running.client(alice.first)
        await client.ask("CreateAccount", m.CreateRequest(account="alice@example.net", profile=tagged(alice.root)))
        held.append(True)
        container = alice.container()
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(container)))).status == 503
        assert (await client.ask("Get", m.GetRequest(account="alice@example.net"))).status == 201
        held.clear()
        assert (await client.ask("Publish", m.PublishRequest(entry=tagged(container)))).status == 201


async def test_a_thousand_idle_connections_leave_room_for_work(home):
    alice = Person("alice")
    async with portal_server(home) as running:
        idle = []
        for _ in range(400):
            idle.append(await running.connect())
        client = running.client(alice.first)
        answer = await client.ask(
            "CreateAccount", m.CreateRequest(account="alice@example.net", profile=tagged(alice.root))
        )
        assert answer.status == 201 and running.portal.server.idle >= 400
        for one in idle:
            await trio.aclose_forcefully(one)
