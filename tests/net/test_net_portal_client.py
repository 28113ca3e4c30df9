"""The HTTP client: connections that are kept, bounds on what comes back, and TLS by name."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshd.errors import NetworkError, RemoteProtocolError
from meshd.net import http as server
from meshd.net.http import Peer, Request, Response
from meshd.net.portal_client import ConnectionLost, HttpClient, Place

PLACE = Place("portal.example", 80, False, "example.net")


class Wire:
    """What is dialled; `talk` says what the other side does with each connection."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.dialled: list[str] = []
        self.asked: list[Request] = []
        self.script: list[bytes] = []  # raw answers, one a connection, instead of a server

    async def dial(self, address: str) -> trio.abc.Stream:
        self.dialled.append(address)
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._raw if self.script else self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async def handle(request: Request) -> Response:
            self.asked.append(request)
            return Response(200, b'{"echo":' + request.body + b"}")

        await server.serve(stream, handle, peer=Peer("tcp"))

    async def _raw(self, stream: trio.abc.Stream) -> None:
        answer = self.script.pop(0)
        await stream.receive_some(65536)
        await stream.send_all(answer)
        await stream.aclose()


@asynccontextmanager
async def wire() -> AsyncIterator[tuple[Wire, HttpClient]]:
    async with trio.open_nursery() as nursery:
        made = Wire(nursery)
        client = HttpClient(made.dial)
        yield made, client
        await client.aclose()
        nursery.cancel_scope.cancel()


async def post(client: HttpClient, body: bytes = b"1", most: int = 1000) -> bytes:
    return (await client.post(PLACE, "/.well-known/mmm/", {"Content-Type": "application/json"}, body, most=most)).body


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with wire() as (there, client):
        assert await post(client, b"1") == b'{"echo":1}'
        assert await post(client, b"2") == b'{"echo":2}'
        assert there.dialled == ["portal.example:80"]
        assert there.asked[0].header("host") == "example.net"
        assert there.asked[0].path == "/.well-known/mmm/"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 70000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
async def test_what_is_no_answer_or_too_much_of_one_is_refused(answer: bytes) -> None:
    async with wire() as (there, client):
        there.script = [answer]
        with pytest.raises(RemoteProtocolError):
            await post(client)


async def test_informational_answers_are_passed_over_and_an_answer_may_end_with_the_connection() -> None:
    async with wire() as (there, client):
        there.script = [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nall of it"]
        assert await post(client) == b"all of it"


async def test_a_kept_connection_that_was_closed_meanwhile_is_worth_another_try() -> None:
    async with wire() as (there, client):
        there.script = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]
        assert await post(client) == b"ok"
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost):
            await post(client)
        assert await post(client) == b'{"echo":1}'


async def test_a_fresh_connection_that_breaks_is_not() -> None:
    async with wire() as (there, client):
        there.script = [b""]
        with pytest.raises((NetworkError, RemoteProtocolError)) as caught:
            await post(client)
        assert not isinstance(caught.value, ConnectionLost)


async def test_an_answer_that_does_not_begin_or_does_not_go_on_ends_in_time(autojump_clock) -> None:
    for first in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"):
        kept: list[trio.abc.Stream] = []

        async def dial(address: str, first: bytes = first, kept: list[trio.abc.Stream] = kept) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            kept.append(theirs)
            await theirs.send_all(first)
            return ours

        client = HttpClient(dial)
        with pytest.raises(NetworkError, match="in time"):
            await post(client)


def certificate(directory: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's context, one that trusts its certificate) for a name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = directory / f"{name}.pem"
    file.write_bytes(pem + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context, ssl.create_default_context(cadata=pem.decode())


async def test_a_portal_that_speaks_no_tls_is_said_to_speak_none() -> None:
    async def dial(address: str) -> trio.abc.Stream:
        ours, other = trio.testing.memory_stream_pair()
        await other.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return ours

    client = HttpClient(dial)
    with pytest.raises(NetworkError, match="does not speak TLS") as caught:
        await client.post(Place("one.example", 443, True, "example.net"), "/", {}, b"", most=100)
    assert "--insecure-http" in str(caught.value.hint)
    await client.aclose()


@pytest.mark.parametrize(("shown", "trusted"), [("example.net", True), ("other.example", True), ("example.net", False)])
async def test_tls_must_prove_the_name_of_the_account_s_domain(home: Path, shown: str, trusted: bool) -> None:
    theirs, trust = certificate(home, shown)
    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.abc.Stream) -> None:
            async def handle(request: Request) -> Response:
                return Response(200, b"secret")

            await server.serve(trio.SSLStream(stream, theirs, server_side=True), handle, peer=Peer("tcp"))

        async def dial(address: str) -> trio.abc.Stream:
            ours, other = trio.testing.memory_stream_pair()
            nursery.start_soon(serve, other)
            return ours

        client = HttpClient(dial, trust if trusted else None)
        place = Place("one.example", 443, True, "example.net")
        if shown == "example.net" and trusted:
            assert (await client.post(place, "/", {}, b"", most=100)).body == b"secret"
        else:
            with pytest.raises(NetworkError, match="certificate") as caught:
                await client.post(place, "/", {}, b"", most=100)
            assert caught.value.hint
        await client.aclose()
        nursery.cancel_scope.cancel()
