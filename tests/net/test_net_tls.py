"""Real TLS on memory streams: no port is opened."""

from __future__ import annotations

import datetime
import os
import resource
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshd.errors import FormatError, MeshError, NetworkError, Refused, RemoteProtocolError
from meshd.net import tls
from meshd.net.streams import receive_exactly, send


@dataclass(frozen=True)
class Device:
    certificate: bytes
    key: bytes


def device(seed: int, *, name: str = "", issuer: tuple[str, Ed25519PrivateKey] | None = None) -> Device:
    """A device as formats.md F3 has it: self-signed, no name, valid for ever. `name` and `issuer` are for impostors."""
    key = Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big"))
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)] if name else [])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else x509.Name([]))
        .public_key(key.public_key())
        .serial_number(seed + 1)
        .not_valid_before(datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier("mmm:MA")]), critical=not name)
        .sign(key if issuer is None else issuer[1], None)
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Device(certificate.public_bytes(serialization.Encoding.DER), pem)


LAPTOP, DESKTOP, PHONE, STRANGER = (device(seed) for seed in range(1, 5))


def serving(own: Device, *pins: Device) -> tls.Trust:
    return tls.server_context(own.certificate, own.key, [pin.certificate for pin in pins])


def calling(own: Device, *pins: Device) -> tls.Trust:
    return tls.client_context(own.certificate, own.key, [pin.certificate for pin in pins])


async def meet(server: tls.Trust, client: tls.Trust) -> tuple[bytes | MeshError | None, bytes | MeshError | None]:
    """Both handshakes and one byte each way; per side what it saw of the other, or why it gave up."""
    results: dict[str, bytes | MeshError | None] = {}
    one, other = trio.testing.memory_stream_pair()

    async def side(name: str, wrap: Callable[[], Awaitable[tls.TlsStream]]) -> None:
        try:
            stream = await wrap()
            await send(stream, b"x")
            await receive_exactly(stream, 1)
            results[name] = tls.peer_certificate(stream)
            await trio.aclose_forcefully(stream)
        except MeshError as exc:
            results[name] = exc

    async with trio.open_nursery() as nursery:
        nursery.start_soon(side, "server", lambda: tls.wrap_server(one, server))
        nursery.start_soon(side, "client", lambda: tls.wrap_client(other, client))
    return results["server"], results["client"]


async def test_two_pinned_devices_accept_each_other_both_ways() -> None:
    for one, other in ((LAPTOP, DESKTOP), (DESKTOP, LAPTOP)):
        saw = await meet(serving(one, other, PHONE), calling(other, one, PHONE))
        assert saw == (other.certificate, one.certificate)


async def test_many_pins_without_names_are_told_apart() -> None:
    mesh = [device(seed) for seed in range(100, 150)]
    saw = await meet(serving(LAPTOP, *mesh), calling(mesh[33], LAPTOP, *mesh[:33]))
    assert saw == (mesh[33].certificate, LAPTOP.certificate)


async def test_a_stranger_is_refused_and_told_so() -> None:
    server, client = await meet(serving(LAPTOP, DESKTOP), calling(STRANGER, LAPTOP))
    assert isinstance(server, RemoteProtocolError)
    assert isinstance(client, Refused)


async def test_a_removed_device_is_refused() -> None:
    assert (await meet(serving(LAPTOP, DESKTOP, PHONE), calling(PHONE, LAPTOP)))[0] == PHONE.certificate
    server, client = await meet(serving(LAPTOP, DESKTOP), calling(PHONE, LAPTOP))
    assert isinstance(server, RemoteProtocolError)
    assert isinstance(client, Refused)


async def test_a_mesh_of_one_refuses_everybody() -> None:
    server, _ = await meet(serving(LAPTOP), calling(PHONE, LAPTOP))
    assert isinstance(server, RemoteProtocolError)


async def test_the_same_names_under_another_key_are_refused() -> None:
    real, twin = device(10, name="laptop"), device(11, name="laptop")
    server, _ = await meet(serving(DESKTOP, real), calling(twin, DESKTOP))
    assert isinstance(server, RemoteProtocolError)
    server, client = await meet(serving(twin, DESKTOP), calling(DESKTOP, real))
    assert isinstance(client, RemoteProtocolError)
    assert isinstance(server, MeshError)


async def test_what_a_pinned_device_issues_is_no_device() -> None:
    issuer = Ed25519PrivateKey.from_private_bytes((1).to_bytes(32, "big"))  # LAPTOP's own key
    ghost = device(12, name="ghost", issuer=("", issuer))
    server, _ = await meet(serving(DESKTOP, LAPTOP), calling(ghost, DESKTOP))
    assert isinstance(server, RemoteProtocolError)


async def test_a_server_that_is_not_pinned_is_refused_before_anything_is_said() -> None:
    server, client = await meet(serving(STRANGER, LAPTOP), calling(LAPTOP, DESKTOP))
    assert isinstance(client, RemoteProtocolError)
    assert isinstance(server, Refused)


async def test_pairing_shows_the_server_certificate_and_asks_for_none() -> None:
    window = device(20)
    saw = await meet(tls.pairing_server_context(window.certificate, window.key), tls.pairing_client_context())
    assert saw == (None, window.certificate)


async def test_an_introduction_pins_the_server_and_not_the_client() -> None:
    server = tls.intro_server_context(LAPTOP.certificate, LAPTOP.key)
    saw = await meet(server, tls.intro_client_context([DESKTOP.certificate, LAPTOP.certificate]))
    assert saw == (None, LAPTOP.certificate)
    _, client = await meet(server, tls.intro_client_context([DESKTOP.certificate]))
    assert isinstance(client, RemoteProtocolError)


async def test_protocols_do_not_mix() -> None:
    window = device(20)
    sync = tls.client_context(DESKTOP.certificate, DESKTOP.key, [window.certificate])
    server, client = await meet(tls.pairing_server_context(window.certificate, window.key), sync)
    assert isinstance(server, MeshError)
    assert isinstance(client, MeshError)


async def test_older_tls_is_refused() -> None:
    old = tls.pairing_client_context()
    old.context.minimum_version = old.context.maximum_version = ssl.TLSVersion.TLSv1_2
    server, client = await meet(tls.pairing_server_context(LAPTOP.certificate, LAPTOP.key), old)
    assert isinstance(server, RemoteProtocolError)
    assert isinstance(client, MeshError)


async def test_a_peer_that_never_answers_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    for wrap in (tls.wrap_server, tls.wrap_client):
        trust = serving(LAPTOP, DESKTOP) if wrap is tls.wrap_server else calling(LAPTOP, DESKTOP)
        one, other = trio.testing.memory_stream_pair()
        with pytest.raises(NetworkError, match="10 s"):
            await wrap(one, trust)
        while await other.receive_some():  # a hello at most, and then the end
            pass


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(70000), b"\0" * 5])
async def test_garbage_before_the_handshake_is_a_protocol_error(garbage: bytes) -> None:
    one, other = trio.testing.memory_stream_pair()
    await other.send_all(garbage)
    await other.send_eof()
    with pytest.raises((RemoteProtocolError, NetworkError)):
        await tls.wrap_server(one, serving(LAPTOP, DESKTOP))


async def test_a_peer_that_leaves_in_the_handshake_is_a_network_error() -> None:
    one, other = trio.testing.memory_stream_pair()
    await other.aclose()
    with pytest.raises(NetworkError):
        await tls.wrap_server(one, serving(LAPTOP, DESKTOP))


async def test_a_plain_stream_has_no_certificate() -> None:
    assert tls.peer_certificate(trio.testing.memory_stream_pair()[0]) is None


def test_a_key_that_does_not_fit_is_named() -> None:
    with pytest.raises(FormatError):
        tls.server_context(LAPTOP.certificate, DESKTOP.key, [])
    with pytest.raises(FormatError):
        tls.server_context(LAPTOP.certificate, b"no key at all", [])
    with pytest.raises(FormatError):
        tls.intro_client_context([b"no certificate at all"])


def test_a_trust_does_not_print_its_pins() -> None:
    assert "pins" not in repr(serving(LAPTOP, DESKTOP))


def test_no_descriptor_stays_open_with_a_key_in_it() -> None:
    before = len(os.listdir("/proc/self/fd"))
    serving(LAPTOP, DESKTOP)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_hardened_process_of_an_ordinary_user_can_load_its_key() -> None:
    # Not dumpable, its /proc entries belong to root; the memfd must be readable all the same.
    code = (
        "import os, sys; from meshd.net import process, tls\n"
        "certificate, key = (bytes.fromhex(word) for word in sys.argv[1:])\n"
        "tls.server_context(certificate, key, [])\n"  # imports done before the sources may become unreadable
        "os.setgid(65534); os.setuid(65534)\n"
        "assert process.harden() == []\n"
        "tls.server_context(certificate, key, [])\n"
        "print(os.stat('/proc/self/maps').st_uid)"
    )
    arguments = [sys.executable, "-c", code, LAPTOP.certificate.hex(), LAPTOP.key.hex()]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0"


def test_hardening_leaves_no_core_and_private_files(tmp_path: object) -> None:
    code = (
        "import os, resource; from meshd.net import process\n"
        "print(process.harden(), oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[] 0o77 (0, 0)"
    assert resource.getrlimit(resource.RLIMIT_CORE) is not None
