"""A network's certificates: its own authority, the coordinator's certificate, and their dates.

A network has an authority of its own (X.509, elliptic curve P-256), so nobody but its coordinator
can vouch for a server, and sites trust no other. Its key signs one certificate at a time: the
server's, for the names that sites use and for loopback.

Source: RFC 5280 sections 4.2.1.1-4.2.1.12 (extensions); RFC 6125 section 6.4 (names). No more than
398 days is what browsers grant a server certificate; a yearly renewal stays in practice that way.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from data_contracts.errors import GroundTruthError
from federation.deployment.addresses import Address
from federation.identity import fingerprint

AUTHORITY_DAYS: Final = 3652
SERVER_DAYS: Final = 397
WARNING_DAYS: Final = 30
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
# A site whose clock is a little behind must be told of its clock, not of the certificate.
_BACKDATED: Final = timedelta(hours=1)


class CertificateError(GroundTruthError):
    """A certificate or its key cannot be used."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, both in PEM."""

    certificate: bytes
    key: bytes


def make_authority(network: str, now: datetime | None = None) -> Issued:
    """A network's authority, good for ten years. It can sign servers, no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"groundtruth network {network}")])
    builder = _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    return _issued(certificate, key)


def make_server(authority: Issued, address: Address, now: datetime | None = None) -> Issued:
    """A server's certificate for the address that sites use, and for loopback; good for 397 days.

    Raises:
        CertificateError: The authority has expired, or its certificate and key are not a pair.
    """
    signer, signer_key = _pair(authority)
    if days_left(signer, now) < 0:
        raise CertificateError(
            "the network's authority has expired and can vouch for no server: make a new one with "
            "`groundtruth coordinator renew FOLDER --authority`; all sites join again"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    # Clients read the names of the next extension alone; the subject is for people.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "groundtruth coordinator")])
    builder = _builder(
        subject, signer.subject, key.public_key(), now, SERVER_DAYS, signer.not_valid_after_utc
    )
    identifier = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        builder.add_extension(x509.SubjectAlternativeName(_names(address)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(signer_key, SHA256())
    )
    return _issued(certificate, key)


def read_certificate(pem: bytes, where: str) -> x509.Certificate:
    """One certificate in PEM.

    Args:
        pem: The text.
        where: Where it stands, for the message.

    Raises:
        CertificateError: It is none.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise CertificateError(f"{where} holds no X.509 certificate in PEM form") from None


def read_authority(pem: bytes, where: str) -> x509.Certificate:
    """An authority's certificate, and nothing else beside it.

    Args:
        pem: The text.
        where: Where it stands, for the message.

    Raises:
        CertificateError: It is something else.
    """
    certificate = read_certificate(pem, where)
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(certificate)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        raise CertificateError(f"{where} holds no network's authority") from None
    if not basic.ca or certificate.public_bytes(Encoding.PEM).split() != pem.split():
        raise CertificateError(f"{where} holds something else than a network's authority")
    return certificate


def authority_fingerprint(authority: x509.Certificate) -> str:
    """Fingerprint of an authority, as coordinator and site read it aloud to each other."""
    return fingerprint(authority.public_bytes(Encoding.DER))


def days_left(certificate: x509.Certificate, now: datetime | None = None) -> int:
    """Whole days until a certificate expires; negative afterwards."""
    return (certificate.not_valid_after_utc - (now or datetime.now(UTC))).days


def expiry_warnings(
    certificate: x509.Certificate, name: str, remedy: str, now: datetime | None = None
) -> tuple[str, ...]:
    """A sentence from 30 days before a certificate expires; none before."""
    left = days_left(certificate, now)
    if left > WARNING_DAYS:
        return ()
    day = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    when = f"expires on {day}, in {left} days" if left >= 0 else f"expired on {day}"
    return (f"{name} {when}: {remedy}",)


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and IP addresses that a server's certificate holds."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *map(str, addresses))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime | None,
    days: int,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    begin = now or datetime.now(UTC)
    end = begin + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _BACKDATED)
        .not_valid_after(min(end, latest or end))
    )


def _names(address: Address) -> list[x509.GeneralName]:
    hosts = dict.fromkeys((address.host, *_LOOPBACK))
    return [
        x509.DNSName(host) if ip is None else x509.IPAddress(ip)
        for host, ip in ((host, Address(host, 1).ip) for host in hosts)
    ]


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(authority: Issued) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = read_authority(authority.certificate, "the authority's file")
    try:
        key = load_pem_private_key(authority.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
    ):
        raise CertificateError(
            "the authority's key does not belong to its certificate: restore both from the same "
            "backup, or make a new authority, which all sites must join again"
        )
    return certificate, key


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Issued(certificate.public_bytes(Encoding.PEM), private)
