"""Whether a site can reach its coordinator, and if not, what is wrong and what to do.

Opens a connection as a site's SuperNode does, trusting the network's authority alone, and compares
the server's clock with ours: Flower refuses what a site signed more than 300 seconds ago or ahead.
"""

import http.client
import re
import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, NoReturn

from cryptography import x509

from data_contracts.errors import GroundTruthError
from federation.deployment.addresses import Address
from federation.deployment.certificates import (
    CertificateError,
    expiry_warnings,
    names_in,
    read_authority,
    read_certificate,
)

TIMEOUT: Final = 10.0
_SKEW_ERROR: Final = 240.0
_SKEW_WARNING: Final = 60.0
_RENEW: Final = "the coordinator renews it with `groundtruth coordinator renew FOLDER`"
_RENEW_AUTHORITY: Final = (
    "the coordinator makes a new one with `groundtruth coordinator renew FOLDER --authority`, and "
    "all sites join again"
)
_NAMES_SHOWN: Final = 10
_NAME: Final = re.compile(r"[0-9A-Za-z*.:-]{1,253}")
# What OpenSSL says of a certificate (X509_verify_cert, openssl/x509_vfy.h).
_NOT_YET_VALID, _EXPIRED, _WRONG_HOST, _WRONG_IP = 9, 10, 62, 64


class ServerCheckError(GroundTruthError):
    """A site could not work with this server."""


class UnreachableError(ServerCheckError):
    """Nobody answers at the address, or not in TLS."""


class ExpiredCertificateError(ServerCheckError):
    """The server's certificate, or the authority's, has expired."""


class NotYetValidError(ServerCheckError):
    """The server's certificate, or the authority's, begins in what is the future here."""


class WrongHostError(ServerCheckError):
    """The server's certificate holds other names than the one it was reached by."""


class WrongAuthorityError(ServerCheckError):
    """The server's certificate was not signed by the network's authority."""


class ClockSkewError(ServerCheckError):
    """The clocks of server and site are too far apart for a run."""


@dataclass(frozen=True, slots=True)
class ServerCheck:
    """A server that a site can work with.

    Attributes:
        names: Names and addresses in its certificate.
        expires: When its certificate does.
        skew: Seconds that its clock is ahead of ours; None if it does not tell its time.
        warnings: What will keep sites from working with it before long, in sentences.
    """

    names: tuple[str, ...]
    expires: datetime
    skew: float | None
    warnings: tuple[str, ...]


def check_server(address: str, ca_file: Path, *, timeout: float = TIMEOUT) -> ServerCheck:
    """Connect to a coordinator as a site would.

    Args:
        address: HOST:PORT, as sites use it.
        ca_file: Certificate of the network's authority, PEM.
        timeout: Seconds to wait for each answer.

    Raises:
        ServerCheckError: A site could not work with it; the class says why.
        CertificateError: The authority's file holds no authority.
    """
    try:
        server = Address.of_server(address)
    except ValueError as error:
        raise ServerCheckError(f"the coordinator's address cannot be used: {error}") from None
    authority = _authority(ca_file)
    context = ssl.create_default_context(cafile=ca_file)
    connection = http.client.HTTPSConnection(
        server.host, server.port, timeout=timeout, context=context
    )
    with closing(connection):
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            _refused(error, server, authority, ca_file, timeout)
        except (OSError, ssl.SSLError) as error:
            raise UnreachableError(_unreachable(server, error, timeout)) from None
        certificate = _certificate(connection)
        skew = _skew(connection)
    warnings = expiry_warnings(certificate, f"the certificate of {server}", _RENEW)
    warnings += expiry_warnings(authority, f"the network's authority ({ca_file})", _RENEW_AUTHORITY)
    if skew is not None and abs(skew) > _SKEW_WARNING:
        told = _clocks(server, skew)
        if abs(skew) > _SKEW_ERROR:
            raise ClockSkewError(told)
        warnings += (told,)
    return ServerCheck(names_in(certificate), certificate.not_valid_after_utc, skew, warnings)


def _authority(ca_file: Path) -> x509.Certificate:
    try:
        content = ca_file.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"the network's authority, {ca_file}, cannot be read ({error.strerror}): join again "
            "with the coordinator's invitation"
        ) from None
    return read_authority(content, str(ca_file))


def _certificate(connection: http.client.HTTPSConnection) -> x509.Certificate:
    secure = connection.sock
    der = secure.getpeercert(binary_form=True) if isinstance(secure, ssl.SSLSocket) else None
    return x509.load_der_x509_certificate(der or b"")


def _skew(connection: http.client.HTTPSConnection) -> float | None:
    """Seconds that the server's clock is ahead of ours, to a second or so."""
    began = time.time()
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        date = parsedate_to_datetime(answer.getheader("Date", ""))
    except (OSError, http.client.HTTPException, ValueError):
        return None  # whatever answers, it is the right server; only its clock stays unknown
    ours = (began + time.time()) / 2
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() + 0.5 - ours


def _clocks(server: Address, skew: float) -> str:
    here = datetime.now(UTC)
    there = datetime.fromtimestamp(here.timestamp() + skew, UTC)
    return (
        f"the clocks of this machine ({here:%Y-%m-%d %H:%M:%S} UTC) and of {server} "
        f"({there:%Y-%m-%d %H:%M:%S} UTC) are {abs(skew):.0f} s apart, and a site is refused from "
        "300 s on: set the clock that is wrong (NTP)"
    )


def _unreachable(server: Address, error: OSError, timeout: float) -> str:
    match error:
        case socket.gaierror():
            reason, remedy = "its name is unknown here", "check the name and this machine's DNS"
        case ConnectionRefusedError():
            reason = "nobody listens there"
            remedy = "start the coordinator (`groundtruth coordinator start FOLDER`), or check port"
            remedy += " and firewall"
        case TimeoutError():
            reason = f"it did not answer within {timeout:g} s"
            remedy = "check address, firewall and proxy; sites connect directly"
        case ssl.SSLError() | ConnectionError():
            reason = "what answers there does not speak TLS as it should"
            remedy = "check the port, and that no proxy on the way opens the connection"
        case _:
            reason = error.strerror or type(error).__name__
            remedy = "check the network between this machine and the coordinator"
    return f"the coordinator at {server} cannot be reached: {reason}; {remedy}"


def _refused(
    error: ssl.SSLCertVerificationError,
    server: Address,
    authority: x509.Certificate,
    ca_file: Path,
    timeout: float,
) -> NoReturn:
    """Say what was wrong with the certificate, of which only its dates and names are told.

    Raises:
        ServerCheckError: In any case.
    """
    shown = _shown(server, timeout)
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        now = datetime.now(UTC)
        of_authority = not authority.not_valid_before_utc <= now <= authority.not_valid_after_utc
        subject = (
            f"the network's authority ({ca_file})"
            if of_authority
            else f"the certificate of {server}"
        )
        dated = authority if of_authority else shown
        remedy = _RENEW_AUTHORITY if of_authority else _RENEW
        if error.verify_code == _EXPIRED:
            since = f" on {dated.not_valid_after_utc:%Y-%m-%d %H:%M} UTC" if dated else ""
            raise ExpiredCertificateError(
                f"{subject} expired{since}, and this machine's clock shows "
                f"{now:%Y-%m-%d %H:%M} UTC: {remedy}"
            ) from None
        since = f" before {dated.not_valid_before_utc:%Y-%m-%d %H:%M} UTC" if dated else ""
        raise NotYetValidError(
            f"{subject} is not valid{since}, and this machine's clock shows "
            f"{now:%Y-%m-%d %H:%M} UTC: set the clock that is wrong, here or at the coordinator "
            f"(NTP); if both are right, {remedy}"
        ) from None
    if error.verify_code in (_WRONG_HOST, _WRONG_IP):
        # Whoever made the certificate chose these, so only what could be a name is shown.
        names = [name for name in names_in(shown) if _NAME.fullmatch(name)] if shown else []
        raise WrongHostError(
            f"the certificate of {server} is not for {server.host}; it holds "
            f"{', '.join(names[:_NAMES_SHOWN]) or 'no name'}. "
            "Use one of these names, or set [server] address in coordinator.toml to what sites "
            f"use, and {_RENEW}"
        ) from None
    raise WrongAuthorityError(
        f"the certificate of {server} was not signed by the network's authority ({ca_file}): "
        f"{error.verify_message}. Either another server, or a proxy that opens connections, "
        "answers there, or the coordinator has a new authority: ask the coordinator, compare the "
        "authority's fingerprint aloud, and join again with a new invitation"
    ) from None


def _shown(server: Address, timeout: float) -> x509.Certificate | None:
    """The certificate that a server shows, unverified: good for words, for no decision."""
    try:
        pem = ssl.get_server_certificate((server.host, server.port), timeout=timeout)
        return read_certificate(pem.encode(), str(server))
    except (OSError, ValueError, CertificateError):
        return None
