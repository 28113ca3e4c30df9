"""Certificates: one key, one certificate, and TLS finds the pinned one among many of the same empty name."""

from __future__ import annotations

import datetime
import secrets
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from meshd.crypto import certs, keys
from meshd.errors import FormatError, MeshError, SignatureError

KEY = keys.SigningKey.from_private(bytes(range(32)))
DER = certs.device_certificate(KEY)


def test_a_certificate_says_the_key_and_nothing_else() -> None:
    certificate = x509.load_der_x509_certificate(DER)
    assert certificate.subject == certificate.issuer == x509.Name([])
    assert certificate.not_valid_before_utc == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert certificate.not_valid_after_utc.year == 9999
    assert certificate.serial_number > 0
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier(f"mmm:{KEY.udf}")]


def test_a_certificate_is_a_function_of_its_key() -> None:
    assert certs.device_certificate(KEY) == DER
    assert certs.certificate_key(DER) == KEY.verify_key


def test_an_ephemeral_certificate_is_of_a_key_of_its_own() -> None:
    der, pem = certs.ephemeral_certificate(secrets.token_bytes)
    private = load_pem_private_key(pem, None)
    assert isinstance(private, Ed25519PrivateKey)
    assert certs.certificate_key(der).public == private.public_key().public_bytes_raw()
    assert certs.ephemeral_certificate(secrets.token_bytes)[0] != der


def test_no_changed_byte_of_a_certificate_passes() -> None:
    for at in range(len(DER)):
        for bit in (0x01, 0x02, 0x80):
            with pytest.raises((FormatError, SignatureError)):
                certs.certificate_key(DER[:at] + bytes([DER[at] ^ bit]) + DER[at + 1 :])


def test_a_cut_or_lengthened_certificate_is_refused() -> None:
    for der in (b"", DER[:-1], DER + b"\0", DER + DER, bytes(5000)):
        with pytest.raises(FormatError):
            certs.certificate_key(der)
    with pytest.raises(FormatError):
        certs.certificate_pem(b"x")


def _certificate(uris: list[str] | None, *, subject: str = "", key: Any = None, signer: Any = None) -> bytes:
    key = key or KEY.native
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)] if subject else [])
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now.replace(year=2030))
    if uris is not None:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    signer = signer or key
    algorithm = None if isinstance(signer, Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, algorithm).public_bytes(Encoding.DER)


def test_a_foreign_program_may_make_the_certificate_another_way() -> None:
    assert certs.certificate_key(_certificate([f"mmm:{KEY.udf}"])) == KEY.verify_key


@pytest.mark.parametrize("uris", [None, [], ["mmm:MBE6E-GT7SN-MK74P-74NIR-5XI5U-JNNJR"], [f"mmm:{KEY.udf}", "mmm:x"]])
def test_a_certificate_with_other_names_is_refused(uris: list[str] | None) -> None:
    with pytest.raises(FormatError):
        certs.certificate_key(_certificate(uris))


def test_a_certificate_with_a_subject_another_algorithm_or_another_signer_is_refused() -> None:
    uris = [f"mmm:{KEY.udf}"]
    curve = ec.generate_private_key(ec.SECP256R1())
    other = keys.SigningKey.generate(secrets.token_bytes).native
    for der in (
        _certificate(uris, subject="laptop"),
        _certificate(uris, key=curve),
        _certificate(uris, signer=curve),
    ):
        with pytest.raises(FormatError):
            certs.certificate_key(der)
    with pytest.raises(SignatureError):
        certs.certificate_key(_certificate(uris, signer=other))


@given(st.binary(max_size=200), st.integers(0, len(DER)))
def test_garbage_raises_only_our_errors(data: bytes, at: int) -> None:
    for der in (data, DER[:at] + data, DER[:at] + data + DER[at + len(data) :]):
        if der != DER:
            with pytest.raises(MeshError):
                certs.certificate_key(der)


def _context(tmp_path: Path, side: int, key: keys.SigningKey, pins: list[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    for pin in pins:
        context.load_verify_locations(cadata=pin)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certs.private_pem(key) + certs.certificate_pem(certs.device_certificate(key)))
    context.load_cert_chain(chain)
    return context


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes | None, bytes | None]:
    """Shake hands in memory; the certificates that the server and the client saw."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
    for end in ends * 4:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
    return ends[1].getpeercert(True), ends[0].getpeercert(True)


def test_mutual_tls_knows_pinned_devices_among_many_and_refuses_others(tmp_path: Path) -> None:
    device = [keys.SigningKey.generate(secrets.token_bytes) for _ in range(6)]
    pins = [certs.device_certificate(key) for key in device]
    server = _context(tmp_path, ssl.PROTOCOL_TLS_SERVER, device[0], [*pins[2:], pins[1]])
    client = _context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, device[1], [*pins[2:], pins[0]])
    assert _shake(server, client) == (pins[1], pins[0])
    without = _context(tmp_path, ssl.PROTOCOL_TLS_SERVER, device[0], pins[2:])
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake(without, client)
