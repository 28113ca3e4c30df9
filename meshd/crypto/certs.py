"""Certificates as carriers of a key: self-signed, nameless, valid for ever (formats.md F3, protocol D6.1).

Trust comes from the signed profile that pins the certificate, never from X.509, so a certificate says one thing: this
Ed25519 key, whose UDF is in the subject alternative name. It is a pure function of the key: made again, it is the same.
"""

from __future__ import annotations

import datetime
import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from meshd.crypto.keys import Rng, SigningKey, VerifyKey
from meshd.errors import FormatError

MAX_CERTIFICATE = 4096

_NOBODY = x509.Name([])
_FROM = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # "no expiry" of RFC 5280 §4.1.2.5
_URI = "mmm:"
_SIGNATURE_HEAD = b"\x03\x41\x00"  # BIT STRING, 65 bytes, no unused bits: the parser would let some be unused


def device_certificate(key: SigningKey) -> bytes:
    """The self-signed certificate of a device authentication key, in DER (about 400 bytes).

    Key identifiers are there because every pinned certificate has the same empty name: by them OpenSSL finds the right
    one.
    """
    public = key.native.public_key()
    serial = int.from_bytes(hashlib.sha256(b"mmm-certificate" + key.verify_key.public).digest()[:16], "big") | 1 << 128
    builder = (
        x509.CertificateBuilder()
        .subject_name(_NOBODY)
        .issuer_name(_NOBODY)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNS, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_URI + key.udf)]),
            critical=True,  # RFC 5280 §4.2.1.6: it stands for the empty subject
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    return builder.sign(key.native, None).public_bytes(Encoding.DER)


def certificate_key(der: bytes) -> VerifyKey:
    """The key of a peer's certificate in DER.

    FormatError unless it is one Ed25519 certificate without names whose only alternative name is its own key's UDF;
    SignatureError unless that key signed it.
    """
    if len(der) > MAX_CERTIFICATE:
        raise FormatError(f"a certificate of {len(der)} bytes: at most {MAX_CERTIFICATE} are allowed")
    try:
        certificate = x509.load_der_x509_certificate(der)
        public = certificate.public_key()
        names = (certificate.subject, certificate.issuer)
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        algorithm = certificate.signature_algorithm_oid
        signed, signature = certificate.tbs_certificate_bytes, certificate.signature
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        UserWarning,
    ):  # a warning: where it raises
        raise FormatError("not a certificate") from None
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise FormatError("a certificate without the UDF of its key") from None
    if not isinstance(public, Ed25519PublicKey) or algorithm != SignatureAlgorithmOID.ED25519:
        raise FormatError("a certificate whose key is not Ed25519")
    if certificate.serial_number <= 0 or not der.endswith(_SIGNATURE_HEAD + signature):
        raise FormatError("a certificate that is not spelled as DER")
    key = VerifyKey.from_public(public.public_bytes_raw())
    if names != (_NOBODY, _NOBODY) or list(extension.value) != [x509.UniformResourceIdentifier(_URI + key.udf)]:
        raise FormatError("a certificate with other names than the UDF of its key")
    key.verify(signature, signed)
    return key


def ephemeral_certificate(rng: Rng) -> tuple[bytes, bytes]:
    """A certificate for one pairing window: (DER, its private key as PKCS#8 PEM)."""
    key = SigningKey.generate(rng)
    return device_certificate(key), private_pem(key)


def private_pem(key: SigningKey) -> bytes:
    """The private key as unencrypted PKCS#8 PEM, for a TLS library that takes nothing else. Never for the disk."""
    return key.native.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_pem(der: bytes) -> bytes:
    """A certificate in PEM; FormatError if `der` is none."""
    try:
        return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    except ValueError:
        raise FormatError("not a certificate") from None


_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
