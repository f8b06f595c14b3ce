"""A network's certificates, and what a site is told when it cannot work with its coordinator."""

import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from data_contracts.errors import GroundTruthError
from federation.deployment import certificates
from federation.deployment.addresses import Address
from federation.deployment.certificates import (
    CertificateError,
    Issued,
    days_left,
    expiry_warnings,
    make_authority,
    make_server,
    names_in,
    read_authority,
    read_certificate,
)
from federation.deployment.server_check import (
    ClockSkewError,
    ExpiredCertificateError,
    NotYetValidError,
    ServerCheckError,
    UnreachableError,
    WrongAuthorityError,
    WrongHostError,
    check_server,
)

NOW = datetime.now(UTC)
EXAMPLE = Address("federation.example.org", 9092)
Serve = Callable[..., int]


@contextmanager
def served(folder: Path, issued: Issued, date: Callable[[], str | None]) -> Iterator[int]:
    """The port of a real HTTPS server on loopback that tells a date of our choice."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(404)  # as a proxy answers that lets only the fleet's path in
            if (told := date()) is not None:
                self.send_header("Date", told)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    (folder / "server.crt").write_bytes(issued.certificate)
    (folder / "server.key").write_bytes(issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(issued: Issued, ahead: float = 0.0, date: str | None = "") -> int:
            def told() -> str | None:
                return formatdate(time.time() + ahead, usegmt=True) if date == "" else date

            return stack.enter_context(served(tmp_path, issued, told))

        yield start


@pytest.fixture(scope="module")
def authority() -> Issued:
    return make_authority("net-0001")


@pytest.fixture
def ca_file(tmp_path: Path, authority: Issued) -> Path:
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    return tmp_path / "ca.crt"


def certificate_of(issued: Issued) -> x509.Certificate:
    return read_certificate(issued.certificate, "the test")


# --- what is made --------------------------------------------------------------------------------


def test_the_authority_signs_servers_for_ten_years_and_no_further_authorities(
    authority: Issued,
) -> None:
    made = certificate_of(authority)
    basic = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert 3650 <= days_left(made) <= 3653


def test_a_server_certificate_holds_the_address_and_loopback_and_nothing_else(
    authority: Issued,
) -> None:
    made = certificate_of(make_server(authority, EXAMPLE))
    assert names_in(made) == ("federation.example.org", "localhost", "127.0.0.1", "::1")
    assert names_in(certificate_of(make_server(authority, Address.parse("192.0.2.7:1")))) == (
        *("localhost", "192.0.2.7", "127.0.0.1", "::1"),
    )
    # No name twice where sites use loopback themselves.
    assert names_in(certificate_of(make_server(authority, Address.parse("[::1]:1")))) == (
        *("localhost", "::1", "127.0.0.1"),
    )
    basic = made.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not basic.ca
    purpose = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purpose) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_server_certificate_lasts_397_days_and_never_longer_than_the_authority() -> None:
    authority = make_authority("net-0001", NOW - timedelta(days=3652 - 100))
    young = make_server(make_authority("net-0001", NOW), EXAMPLE, NOW)
    assert days_left(certificate_of(young), NOW) in (396, 397)  # microseconds are cut off
    assert certificate_of(make_server(authority, EXAMPLE)).not_valid_after_utc == (
        certificate_of(authority).not_valid_after_utc
    )


def test_an_expired_authority_and_another_ones_key_sign_nothing(authority: Issued) -> None:
    with pytest.raises(CertificateError, match=r"expired.*renew FOLDER --authority"):
        make_server(make_authority("net-0001", NOW - timedelta(days=4000)), EXAMPLE)
    other = make_authority("net-0001")
    with pytest.raises(CertificateError, match="does not belong"):
        make_server(Issued(authority.certificate, other.key), EXAMPLE)
    with pytest.raises(CertificateError, match="does not belong"):
        make_server(Issued(authority.certificate, b"no key"), EXAMPLE)


def test_what_is_no_authority_alone_is_not_taken_for_one(authority: Issued) -> None:
    server = make_server(authority, EXAMPLE)
    two = authority.certificate + make_authority("net-0002").certificate
    with_key = authority.certificate + authority.key
    for content in (server.certificate, two, with_key, b"", b"nothing", b"\xff" * 100):
        with pytest.raises(CertificateError, match="the test holds"):
            read_authority(content, "the test")
    assert read_authority(authority.certificate, "the test") == certificate_of(authority)


@pytest.mark.parametrize(("left", "warned"), [(31, False), (30, True), (0, True), (-1, True)])
def test_expiry_is_told_from_thirty_days_ahead(left: int, warned: bool, authority: Issued) -> None:
    made = certificate_of(make_server(authority, EXAMPLE))
    now = made.not_valid_after_utc - timedelta(days=left)
    told = expiry_warnings(made, "the certificate", "renew it", now)
    assert bool(told) == warned
    assert all(
        "renew it" in each and f"{made.not_valid_after_utc:%Y-%m-%d}" in each for each in told
    )


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("federation.Example.org:9092", "federation.example.org", 9092),
        ("localhost:1", "localhost", 1),
        ("192.0.2.7:65535", "192.0.2.7", 65535),
        ("[2001:DB8:0::7]:443", "2001:db8::7", 443),
    ],
)
def test_an_address_is_read_and_written_back(text: str, host: str, port: int) -> None:
    address = Address.of_server(text)
    assert (address.host, address.port) == (host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "host", "host:", ":9092", "host:0", "host:65536", "host:-1", "host:9092/x"),
        *("https://host:9092", "2001:db8::7:443", "[host]:443", "[fe80::1%eth0]:443", "a b:1"),
        *("-host:1", "host-:1", "192.0.2:1", "192.0.2.256:1", "hôst:1", "host\n:1", "host:1\n"),
        *("a" * 64 + ":1", ".".join(["a" * 60] * 5) + ":1", 'x"\ny = 1:1'),
        *("0.0.0.0:9092", "[::]:9092"),
    ],
)
def test_what_sites_cannot_use_as_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|host"):
        Address.of_server(text)


# --- what a site finds ---------------------------------------------------------------------------


def test_a_good_server_passes_without_a_warning(
    serve: Serve, authority: Issued, ca_file: Path
) -> None:
    port = serve(make_server(authority, EXAMPLE))
    for host in ("127.0.0.1", "localhost"):
        found = check_server(f"{host}:{port}", ca_file)
        assert found.warnings == ()
        assert found.names == ("federation.example.org", "localhost", "127.0.0.1", "::1")
        assert (found.expires - datetime.now(UTC)).days in (396, 397)
        assert found.skew is not None
        assert abs(found.skew) < 2


def test_nobody_listening_is_told_with_the_command_that_starts_the_coordinator(
    ca_file: Path,
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can take the port
        port = held.getsockname()[1]
        with pytest.raises(UnreachableError, match=r"nobody listens.*coordinator start"):
            check_server(f"127.0.0.1:{port}", ca_file)


def test_a_server_that_never_answers_is_given_up(ca_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UnreachableError, match=r"within 0\.3 s"):
            check_server(f"127.0.0.1:{port}", ca_file, timeout=0.3)


def test_what_speaks_no_tls_is_told_apart_from_a_wrong_certificate(ca_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UnreachableError, match="does not speak TLS"):
            check_server(f"127.0.0.1:{plain.getsockname()[1]}", ca_file)
        thread.join()


def test_an_unknown_name_points_to_dns(ca_file: Path) -> None:
    # RFC 6761: no name under "invalid" ever resolves.
    with pytest.raises(UnreachableError, match="DNS"):
        check_server("coordinator.invalid:9092", ca_file)


def test_an_expired_certificate_is_told_with_both_dates(
    serve: Serve, authority: Issued, ca_file: Path
) -> None:
    port = serve(make_server(authority, EXAMPLE, NOW - timedelta(days=400)))
    day = NOW - timedelta(days=3)  # 400 days ago, for 397 days
    with pytest.raises(
        ExpiredCertificateError,
        match=rf"certificate of localhost.* expired on {day:%Y-%m-%d}.*"
        rf"clock shows {datetime.now(UTC):%Y-%m-%d}.*coordinator renew",
    ):
        check_server(f"localhost:{port}", ca_file)


def test_an_expired_authority_is_told_apart_from_an_expired_certificate(
    serve: Serve, tmp_path: Path
) -> None:
    then = NOW - timedelta(days=4000)
    old = make_authority("net-0001", then)
    (tmp_path / "ca.crt").write_bytes(old.certificate)
    port = serve(make_server(old, EXAMPLE, then))
    with pytest.raises(ExpiredCertificateError, match=r"authority \(.*ca\.crt\) expired.*--auth"):
        check_server(f"localhost:{port}", tmp_path / "ca.crt")


def test_a_certificate_of_the_future_points_to_the_clocks(
    serve: Serve, authority: Issued, ca_file: Path
) -> None:
    port = serve(make_server(authority, EXAMPLE, NOW + timedelta(days=2)))
    with pytest.raises(NotYetValidError, match=r"not valid before .*clock shows .*\(NTP\)"):
        check_server(f"localhost:{port}", ca_file)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_host_that_is_not_in_the_certificate_is_told_with_the_names_that_are(
    host: str, serve: Serve, authority: Issued, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_LOOPBACK", ("198.51.100.9",))
    port = serve(make_server(authority, EXAMPLE))
    with pytest.raises(
        WrongHostError,
        match=rf"not for {host}; it holds federation\.example\.org, 198\.51\.100\.9\..*renew",
    ):
        check_server(f"{host}:{port}", ca_file)


def test_names_that_are_none_are_not_shown(
    serve: Serve, authority: Issued, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_LOOPBACK", ("\x1b[2Jclean", "all is well, join"))
    port = serve(make_server(authority, EXAMPLE))
    with pytest.raises(WrongHostError, match=r"it holds federation\.example\.org\. Use"):
        check_server(f"localhost:{port}", ca_file)


def test_another_authority_is_refused_even_under_the_same_name(
    serve: Serve, authority: Issued, ca_file: Path
) -> None:
    other = make_authority("net-0001")
    assert certificate_of(other).subject == certificate_of(authority).subject
    port = serve(make_server(other, EXAMPLE))
    with pytest.raises(WrongAuthorityError, match=r"not signed by the network's authority.*aloud"):
        check_server(f"localhost:{port}", ca_file)


def test_a_server_that_signed_its_own_certificate_is_refused(
    serve: Serve, authority: Issued, ca_file: Path
) -> None:
    port = serve(make_authority("net-0001"))
    with pytest.raises(WrongAuthorityError):
        check_server(f"localhost:{port}", ca_file)


@pytest.mark.parametrize("ahead", [600.0, -600.0, 245.0, -245.0])
def test_clocks_too_far_apart_for_a_run_are_an_error_that_names_both_times(
    ahead: float, serve: Serve, authority: Issued, ca_file: Path
) -> None:
    port = serve(make_server(authority, EXAMPLE), ahead=ahead)
    with pytest.raises(ClockSkewError, match=r"this machine \(.* UTC\).*\(.* UTC\).*NTP") as told:
        check_server(f"localhost:{port}", ca_file)
    there = datetime.now(UTC) + timedelta(seconds=ahead)
    assert f"{there:%Y-%m-%d %H:%M}"[:-1] in str(told.value)  # to ten minutes


@pytest.mark.parametrize(("ahead", "warned"), [(120.0, True), (-120.0, True), (50.0, False)])
def test_clocks_somewhat_apart_are_a_warning(
    ahead: float, warned: bool, serve: Serve, authority: Issued, ca_file: Path
) -> None:
    port = serve(make_server(authority, EXAMPLE), ahead=ahead)
    found = check_server(f"localhost:{port}", ca_file)
    assert found.skew == pytest.approx(ahead, abs=2)
    assert [("NTP" in each) for each in found.warnings] == [True] * warned


@pytest.mark.parametrize("date", [None, "yesterday", "9" * 500])
def test_a_server_that_tells_no_time_passes_with_its_clock_unknown(
    date: str | None, serve: Serve, authority: Issued, ca_file: Path
) -> None:
    port = serve(make_server(authority, EXAMPLE), date=date)
    assert check_server(f"localhost:{port}", ca_file).skew is None


def test_a_certificate_near_its_end_still_passes_with_a_warning(
    serve: Serve, authority: Issued, ca_file: Path
) -> None:
    port = serve(make_server(authority, EXAMPLE, NOW - timedelta(days=397 - 10)))
    (warning,) = check_server(f"localhost:{port}", ca_file).warnings
    assert f"expires on {NOW + timedelta(days=10):%Y-%m-%d}" in warning
    assert "coordinator renew" in warning


def test_a_missing_or_damaged_authority_file_is_named(tmp_path: Path, authority: Issued) -> None:
    with pytest.raises(CertificateError, match=r"ca\.crt, cannot be read.*join again"):
        check_server("localhost:9092", tmp_path / "ca.crt")
    (tmp_path / "ca.crt").write_bytes(make_server(authority, EXAMPLE).certificate)
    with pytest.raises(CertificateError, match=r"ca\.crt holds"):
        check_server("localhost:9092", tmp_path / "ca.crt")


def test_every_finding_is_an_error_of_ours(ca_file: Path) -> None:
    assert issubclass(ServerCheckError, GroundTruthError)
    with pytest.raises(ServerCheckError, match="wildcard"):
        check_server("0.0.0.0:9092", ca_file)
