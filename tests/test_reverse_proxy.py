"""nginx in front of Flower's SuperLink, both real: the fleet's paths are reached, and no others."""

import datetime
import ipaddress
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors.http import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.retry import make_simple_http_retry_invoker

from federation.deployment.service_files import CoordinatorService, write_service_files

NGINX = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx-light)"
)

HOST = "127.0.0.1"
REFUSED = {400, 403, 404, 405, 501}
CONTROL = "/v1/control/list-nodes"
RUNTIME = "/v1/runtime/acquire-task"
FLEET = "/v1/fleet/get-run"

TARGETS = (
    # The plain paths of everything else, and the fleet's without a name.
    CONTROL,
    RUNTIME,
    "/v1/fleet",
    "/v1/fleet/",
    "/v1/fleet/get-run/",
    # Dots, as they are, encoded once and twice, with slashes encoded or doubled.
    "/v1/fleet/../control/list-nodes",
    "/v1/fleet/%2e%2e/control/list-nodes",
    "/v1/fleet/.%2E/control/list-nodes",
    "/v1/fleet/%252e%252e/control/list-nodes",
    "/v1/fleet/..%2fcontrol%2flist-nodes",
    "/v1/fleet%2f..%2fcontrol/list-nodes",
    "/v1/fleet/..\\control\\list-nodes",
    "/v1/fleet/..;/control/list-nodes",
    "/v1/fleet//../control/list-nodes",
    "/v1/fleet/get-run/../../control/list-nodes",
    "/v1/control/../control/list-nodes",
    # To the fleet once tidied up, to the control as they stand.
    "/v1/control/../fleet/get-run",
    "/v1/control/%2e%2e/fleet/get-run",
    # Other spellings of the same.
    "//v1/control/list-nodes",
    "/v1//control/list-nodes",
    "/./v1/control/list-nodes",
    "/v1/%63ontrol/list-nodes",
    "/V1/Control/List-Nodes",
    "/v1/Fleet/get-run",
    "/v1/%66leet/get-run",
    "/v1/fleet//get-run",
    # Something behind the path.
    "/v1/fleet/get-run?next=/v1/control/list-nodes",
    "/v1/fleet/get-run?",
    "/v1/fleet/get-run;control",
    "/v1/fleet/get-run#/../../control/list-nodes",
    "/v1/fleet/get-run%00/../../control/list-nodes",
    "/v1/fleet/get-run%0d%0aX-Own:%20header",
    # Targets that are no paths.
    "https://localhost/v1/control/list-nodes",
    "http://localhost/v1/fleet/../control/list-nodes",
    "https://localhost/v1/fleet/get-run",
    "v1/control/list-nodes",
    "*",
)
LINES = (
    *(f"POST {target} HTTP/1.1" for target in TARGETS),
    *(f"GET {target} HTTP/1.1" for target in ("/", "/docs", "/openapi.json", "/health", FLEET)),
    *(f"GET {path} HTTP/1.1" for path in ("/%64ocs", "//docs", "/clock/../docs", "/clock?a=/docs")),
    *(f"GET /v1/fleet/{up}health HTTP/1.1" for up in ("../../", "%2e%2e/%2e%2e/", "..%2f..%2f")),
    *(f"{method} {FLEET} HTTP/1.1" for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "TRACE")),
    f"CONNECT {HOST}:443 HTTP/1.1",
    "POST /clock HTTP/1.1",
    f"post {FLEET} HTTP/1.1",
    f"POST {FLEET} HTTP/1.1 HTTP/1.1",
    f"POST  {CONTROL} HTTP/1.1",
    f"POST {FLEET} {CONTROL} HTTP/1.1",
)


@dataclass(frozen=True)
class Network:
    """A coordinator's folder, its SuperLink and nginx in front of it, both running.

    Attributes:
        folder: The coordinator's folder.
        superlink: Port of the SuperLink.
        proxy: Port of nginx.
    """

    folder: Path
    superlink: int
    proxy: int

    @property
    def ca(self) -> Path:
        return self.folder / "tls/ca.crt"

    def seen(self) -> list[str]:
        """Requests that the SuperLink has answered: method and path."""
        log = (self.folder / "superlink.log").read_text(errors="replace")
        return re.findall(r'"([A-Z]+ \S+) HTTP/', log)

    def node(self, name: str) -> NodeInfo:
        """What the SuperLink knows of a node."""
        with control(self) as client:
            nodes = client.ListNodes(ListNodesRequest()).nodes_info
        return next(node for node in nodes if node.name == name)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("coordinator")
    network = Network(folder, superlink=free_port(), proxy=free_port())
    make_certificates(folder / "tls")
    (folder / "runtime.secret").write_bytes(os.urandom(32))
    with ExitStack() as stack:
        stack.enter_context(running(superlink_command(network), folder, "superlink.log"))
        stack.enter_context(nginx(network))
        wait_for(lambda: listens(network.superlink))
        yield network


def test_the_paths_to_be_refused_are_there_behind_the_proxy(network: Network) -> None:
    for path in ("/docs", "/openapi.json", "/health"):
        assert status(network, f"GET {path} HTTP/1.1", port=network.superlink) == 200
    # Without any login: why the proxy is needed.
    assert status(network, f"POST {CONTROL} HTTP/1.1", port=network.superlink) == 200
    # 401: the path is there and asks for the runtime's secret. An unknown path is answered by 404.
    assert status(network, f"POST {RUNTIME} HTTP/1.1", port=network.superlink) == 401
    assert status(network, "POST /v1/unknown/path HTTP/1.1", port=network.superlink) == 404


def test_the_superlink_decodes_paths_so_a_list_of_forbidden_ones_would_not_do(
    network: Network,
) -> None:
    def behind(target: str) -> int:
        return status(network, f"POST {target} HTTP/1.1", port=network.superlink)

    assert behind("/v1/%63ontrol/list-nodes") == behind(CONTROL) != 404
    # It does not tidy up: dots and doubled slashes lead nowhere.
    for target in ("/v1/fleet/../control/list-nodes", "//v1/control/list-nodes"):
        assert behind(target) == 404


@pytest.mark.parametrize("line", LINES)
def test_nothing_but_the_fleets_paths_passes_the_proxy(network: Network, line: str) -> None:
    before = network.seen()
    assert status(network, line) in REFUSED
    assert network.seen() == before


def test_requests_hidden_in_others_are_not_seen_by_the_superlink(network: Network) -> None:
    hidden = request(f"POST {CONTROL} HTTP/1.1")
    before = len(network.seen())
    # As the body of one: it is the body. Behind one, as pipelining has it: it is judged by itself.
    answer(network, request(f"POST {FLEET} HTTP/1.1", "Connection: close", body=hidden))
    two = answer(network, request(f"POST {FLEET} HTTP/1.1", "Connection: keep-alive") + hidden)
    assert two.count(b"HTTP/1.1 404") == 1
    # A length and chunks at once, two lengths, and codings that two readers could read differently.
    for header in (
        "Transfer-Encoding: chunked",
        "Content-Length: 7",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: chunked, identity",
    ):
        head = request(f"POST {FLEET} HTTP/1.1", header, "Connection: keep-alive", length=6)
        first = answer(network, head + b"0\r\n\r\n" + b"X" + hidden)
        assert status_of(first) in REFUSED
    seen = network.seen()[before:]
    assert len(seen) >= 2
    assert set(seen) == {f"POST {FLEET}"}


@pytest.mark.slow  # Flower's heartbeat comes every 17 to 23 s
def test_a_supernode_registers_and_lives_on_heartbeats_through_the_proxy(
    network: Network, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    file = tmp_path / "node.key"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with control(network) as client:
        client.RegisterNode(RegisterNodeRequest(public_key=public, name="hospital"))
    before = len(network.seen())
    with running(supernode_command(network, file), tmp_path, "supernode.log") as supernode:
        wait_for(lambda: network.node("hospital").status == "online")
        first = network.node("hospital").online_until
        wait_for(lambda: network.node("hospital").online_until > first)
        assert supernode.poll() is None
    wait_for(lambda: network.node("hospital").status == "offline")  # it also takes its leave
    seen = {line for line in network.seen()[before:] if "/v1/fleet/" in line}
    assert seen >= {
        f"POST /v1/fleet/{call}"
        for call in ("activate-node", "send-node-heartbeat", "pull-messages", "deactivate-node")
    }


def test_a_supernode_that_was_not_admitted_is_sent_away(network: Network, tmp_path: Path) -> None:
    key, file = ec.generate_private_key(ec.SECP384R1()), tmp_path / "node.key"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    with running(supernode_command(network, file), tmp_path, "supernode.log") as supernode:
        assert supernode.wait(timeout=30) != 0


def test_a_site_can_ask_for_the_time_before_it_signs_anything(network: Network) -> None:
    before = network.seen()
    received = answer(network, request("GET /clock HTTP/1.1"))
    assert status_of(received) == 204
    (date,) = re.findall(rb"\r\nDate: ([^\r]+)", received)
    difference = parsedate_to_datetime(date.decode()) - datetime.datetime.now(datetime.UTC)
    assert abs(difference.total_seconds()) < 5
    assert network.seen() == before
    assert re.findall(rb"\r\nServer: ([^\r]+)", received) == [b"nginx"]  # and no version


def test_the_superlink_learns_the_callers_address_not_what_the_caller_says(
    network: Network,
) -> None:
    headers = ("X-Forwarded-For: 203.0.113.7", "Forwarded: for=203.0.113.7", "Connection: close")
    assert status_of(answer(network, request(f"POST {FLEET} HTTP/1.1", *headers))) == 401
    log = (network.folder / "superlink.log").read_text()
    assert log.rstrip().endswith(f'"POST {FLEET} HTTP/1.1" 401')
    assert "203.0.113.7" not in log


def test_messages_of_64_mb_pass_and_longer_ones_do_not(network: Network) -> None:
    line, size = f"POST {FLEET} HTTP/1.1", 64 << 20
    # 400: the SuperLink has read it, and found no message of its protocol.
    passed = answer(network, request(line, body=b"\xff" * size))
    assert status_of(passed) == 400
    assert status_of(answer(network, request(line, length=size + 1))) == 413


def test_a_message_on_its_way_is_nowhere_on_the_disk(network: Network) -> None:
    head = request(f"POST {FLEET} HTTP/1.1", length=16 << 20)
    context = ssl.create_default_context(cafile=network.ca)
    with (
        socket.create_connection((HOST, network.proxy), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as stream,
    ):
        stream.sendall(head + bytes(8 << 20))
        master = int((network.folder / "state/proxy/nginx.pid").read_text())
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        files = [
            os.readlink(link)
            for child in children
            for link in Path(f"/proc/{child}/fd").iterdir()
            if link.is_symlink()
        ]
    assert any(file.endswith("access.log") for file in files)
    assert not [file for file in files if "/proxy/body" in file or "/proxy/proxied" in file]


def test_the_proxy_speaks_to_our_superlink_alone(tmp_path: Path) -> None:
    folder = tmp_path / "coordinator"
    impostor = Network(folder, superlink=free_port(), proxy=free_port())
    make_certificates(folder / "tls")
    make_certificates(tmp_path / "other")  # the same names, from another CA
    with ExitStack() as stack:
        heard = stack.enter_context(tls_server(tmp_path / "other", impostor.superlink))
        stack.enter_context(nginx(impostor))
        assert status(impostor, f"POST {FLEET} HTTP/1.1") == 502
        deadline = time.monotonic() + 30
        while not heard and time.monotonic() < deadline:  # nginx may be the faster one to tell
            time.sleep(0.05)
        assert heard
        assert not any(heard)
    # The same server with the network's certificate is spoken to, so the test can fail.
    with ExitStack() as stack:
        heard = stack.enter_context(tls_server(folder / "tls", impostor.superlink))
        stack.enter_context(nginx(impostor))
        assert status(impostor, f"POST {FLEET} HTTP/1.1") == 204
        assert heard[0].startswith(f"POST {FLEET} HTTP/1.1\r\n".encode())


def test_an_address_that_asks_too_often_is_told_to_wait(tmp_path: Path) -> None:
    folder = tmp_path / "coordinator"
    make_certificates(folder / "tls")
    network = Network(folder, superlink=free_port(), proxy=free_port())  # nothing behind it: 502
    many = [request(f"POST {FLEET} HTTP/1.1", "Connection: keep-alive")] * 600
    with nginx(network):
        began = time.monotonic()
        received = answer(network, b"".join([*many, request(f"POST {FLEET} HTTP/1.1")]))
        seconds = time.monotonic() - began
    codes = [int(code) for code in re.findall(rb"HTTP/1.1 (\d+)", received)]
    assert set(codes) == {502, 503}
    assert 201 <= codes.count(502) <= 201 + 50 * (seconds + 1)
    assert codes[:201] == [502] * 201


def test_an_address_has_32_requests_under_way_at_most(network: Network) -> None:
    unfinished = request(f"POST {FLEET} HTTP/1.1", length=100)
    context = ssl.create_default_context(cafile=network.ca)
    with ExitStack() as stack:
        for _ in range(32):
            plain = stack.enter_context(socket.create_connection((HOST, network.proxy)))
            stream = stack.enter_context(context.wrap_socket(plain, server_hostname=HOST))
            stream.sendall(unfinished)
        wait_for(lambda: status(network, f"POST {FLEET} HTTP/1.1") == 503)
    wait_for(lambda: status(network, f"POST {FLEET} HTTP/1.1") == 401)


@pytest.mark.parametrize(("code", "tries"), [(502, 2), (503, 2), (504, 2), (413, 1), (429, 1)])
def test_a_supernode_tries_again_after_what_the_proxy_says_when_it_is_busy(
    code: int, tries: int
) -> None:
    answers = [httpx.Response(code), httpx.Response(200)]
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        answers[asked - 1].request = httpx.Request("POST", f"https://localhost{FLEET}")
        answers[asked - 1].raise_for_status()

    with suppress(httpx.HTTPStatusError):
        make_simple_http_retry_invoker().invoke(ask)
    assert asked == tries


def test_nothing_listens_but_on_the_configured_addresses(network: Network) -> None:
    for port in (network.proxy, network.superlink):
        assert listens(port)
        assert not listens(port, host="127.0.0.2")  # this machine as well, by another address


def test_health_check_of_the_container_asks_as_a_site_does(network: Network) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    elsewhere = CoordinatorService(
        network.folder, f"localhost:{network.proxy}", f"{HOST}:{network.superlink}"
    )
    compose = {file.name: file for file in write_service_files(elsewhere)}["compose.yaml"]
    health = yaml.safe_load(compose.read_text())["services"]["proxy"]["healthcheck"]["test"]
    assert subprocess.run(health[1:], check=False).returncode == 0
    wrong = [word.replace("https://localhost", "https://elsewhere.example") for word in health[1:]]
    assert subprocess.run(wrong, check=False).returncode == 60  # not the certificate's name


def superlink_command(network: Network) -> list[str]:
    tls = network.folder / "tls"
    command = [program("flower-superlink"), "--host", HOST, "--port", str(network.superlink)]
    command += ["--ssl-ca-certfile", f"{tls}/ca.crt", "--ssl-certfile", f"{tls}/server.crt"]
    command += ["--ssl-keyfile", f"{tls}/server.key", "--enable-supernode-auth"]
    command += ["--isolation", "process", "--disable-runtime-dependency-installation"]
    command += ["--superexec-auth-secret-file", f"{network.folder}/runtime.secret"]
    return [*command, "--database", f"{network.folder}/superlink.db"]


def supernode_command(network: Network, key: Path) -> list[str]:
    command = [program("flower-supernode"), "--superlink", f"{HOST}:{network.proxy}"]
    command += ["--root-certificates", str(network.ca), "--auth-supernode-private-key", str(key)]
    command += ["--host", HOST, "--port", str(free_port()), "--isolation", "process"]
    return [*command, "--superexec-auth-secret-file", f"{network.folder}/runtime.secret"]


@contextmanager
def nginx(network: Network) -> Iterator[subprocess.Popen[bytes]]:
    """nginx with the configuration that the product writes, run as its own unit runs it."""
    service = CoordinatorService(
        network.folder,
        address=f"localhost:{network.proxy}",
        bind=f"{HOST}:{network.superlink}",
        listen=f"{HOST}:{network.proxy}",
    )
    write_service_files(service)
    command = [str(NGINX), "-e", "stderr", "-p", f"{network.folder}/state/proxy"]
    # In production master and workers are one user; root's workers would be nobody.
    same_user = "user root root;" if os.getuid() == 0 else ""
    command += ["-c", f"{network.folder}/deploy/nginx.conf", "-g", f"daemon off; {same_user}"]
    with running(command, network.folder, "nginx.log") as process:
        wait_for(lambda: listens(network.proxy))
        yield process


@contextmanager
def running(command: list[str], folder: Path, log: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"FLWR_HOME": str(folder / "flower"), "FLWR_TELEMETRY_ENABLED": "0"}
    environment |= {"FLWR_DISABLE_UPDATE_CHECK": "1", "NO_PROXY": HOST, "no_proxy": HOST}
    environment |= {"FLWR_LOG_LEVEL": "DEBUG"}  # otherwise routine requests are not logged
    with (folder / log).open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def control(network: Network) -> Iterator[ControlHttpClient]:
    """Flower's control API, at the SuperLink itself."""
    client = ControlHttpClient.from_server_address(
        f"{HOST}:{network.superlink}",
        insecure=False,
        root_certificates=network.ca.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def tls_server(tls: Path, port: int) -> Iterator[list[bytes]]:
    """A server that answers each connection once; gives what it heard, b"" for nothing."""
    heard: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return  # closed
            try:
                with context.wrap_socket(plain, server_side=True) as stream:
                    heard.append(stream.recv(65536))
                    stream.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            except OSError:
                heard.append(b"")

    with socket.create_server((HOST, port)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield heard
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=10)


def answer(network: Network, request: bytes, port: int | None = None) -> bytes:
    """All that comes back for these bytes, sent over TLS as they are."""
    context = ssl.create_default_context(cafile=network.ca)
    with (
        socket.create_connection((HOST, port or network.proxy), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as stream,
    ):
        stream.sendall(request)
        received = bytearray()
        with suppress(ConnectionResetError, ssl.SSLEOFError):
            while part := stream.recv(65536):
                received += part
        return bytes(received)


def status(network: Network, line: str, *, port: int | None = None) -> int:
    """Status code of a request of this first line and no body."""
    return status_of(answer(network, request(line), port))


def request(line: str, *headers: str, body: bytes = b"", length: int | None = None) -> bytes:
    """A request of Flower's protocol, by default the only one of its connection."""
    head = [line, "Host: localhost", f"Content-Type: {PROTOBUF_MEDIA_TYPE}"]
    head += [f"Content-Length: {len(body) if length is None else length}"]
    head += list(headers) or ["Connection: close"]
    return "\r\n".join([*head, "", ""]).encode() + body


def status_of(received: bytes) -> int:
    return int(received.split(maxsplit=2)[1])


def make_certificates(folder: Path, names: tuple[str, ...] = ("localhost",)) -> None:
    """A CA, and the certificate that it gave a server on loopback."""
    folder.mkdir(parents=True)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test network")])
    server_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coordinator")])
    san = [*map(x509.DNSName, names), x509.IPAddress(ipaddress.ip_address(HOST))]
    now = datetime.datetime.now(datetime.UTC)

    def certificate(
        subject: x509.Name, public: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(ca_name, subject, public, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
        )

    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca = (
        certificate(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(ca_key, SHA256())
    )
    server = (
        certificate(server_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(san), critical=False)
        .sign(ca_key, SHA256())
    )
    (folder / "ca.crt").write_bytes(ca.public_bytes(Encoding.PEM))
    (folder / "server.crt").write_bytes(server.public_bytes(Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def listens(port: int, host: str = HOST) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)
