"""Files of services: what could break out of them is refused, and what they promise is in them."""

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import federation.deployment
from experiments.cli import app
from federation.deployment.service_files import (
    CoordinatorService,
    ServiceFilesError,
    SiteService,
    render_service_files,
    write_service_files,
)

# A copy of compose_spec.json of github.com/compose-spec/compose-spec (Apache-2.0), as the package
# docker-compose 1.29.2 brings it. Its draft, 2019-09, differs in nothing that it uses.
COMPOSE = json.loads((Path(__file__).parent / "compose/compose_spec.json").read_text())
TEMPLATES = Path(federation.deployment.__file__).parent / "templates"
ADDRESS, BIND = "coordinator.example.org:443", "127.0.0.1:9092"
PROGRAM = Path("/bin/true")  # systemd-analyze wants programs that exist

HOSTILE = ("; return 200", "\n", "\r", '"', "'", " ", "{", "}", "$uri", "%h", "\\", "#", "`", "é")
HARDENING = {
    "NoNewPrivileges": "yes",
    "UMask": "0077",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectProc": "invisible",
    "ProtectKernelModules": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallFilter": "@system-service",
    "Restart": "on-failure",
    "User": "groundtruth",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "network"


def coordinator(folder: Path, **changes: Any) -> CoordinatorService:
    return CoordinatorService(
        folder, **{"address": ADDRESS, "bind": BIND, "program": PROGRAM} | changes
    )


def written(service: CoordinatorService | SiteService) -> dict[str, str]:
    return {file.name: file.read_text() for file in write_service_files(service)}


def unit(text: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None, delimiters=("=",))  # strict: no key twice
    parser.optionxform = str
    parser.read_string(text)
    return parser


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("where", ["folder", "address", "bind", "listen", "user", "program"])
def test_a_value_that_could_say_more_than_itself_is_refused_and_nothing_is_written(
    folder: Path, where: str, hostile: str
) -> None:
    value = {
        "folder": Path(f"{folder}{hostile}x"),
        "address": f"coordinator{hostile}.example.org:443",
        "bind": f"127.0.0.1:9092{hostile}",
        "listen": f"127.0.0.1{hostile}:443",
        "user": f"ground{hostile}truth",
        "program": Path(f"/usr/bin/ground{hostile}truth"),
    }[where]
    service = dataclasses.replace(coordinator(folder), **{where: value})
    with pytest.raises(ServiceFilesError):
        write_service_files(service)
    site = SiteService(service.folder, service.user, service.program)
    if site != SiteService(folder, program=PROGRAM):
        with pytest.raises(ServiceFilesError):
            write_service_files(site)
    assert not any(folder.parent.iterdir())


@example("a-0.Z", 443)
@example("[::1]", 8443)
@given(st.text(st.sampled_from("aZ0.-_:[]/;{}$%\"'\n #\\@"), max_size=12), st.integers(1, 65535))
def test_whatever_an_address_is_the_files_keep_their_shape(host: str, port: int) -> None:
    folder = Path("/srv/network")
    try:
        files = render_service_files(coordinator(folder, address=f"{host}:{port}"))
    except ServiceFilesError:
        return
    usual = render_service_files(coordinator(folder, address=f"coordinator.example.org:{port}"))
    for name, text in files.items():
        for sign in "\n;{}$%\"'#\\ ":
            assert text.count(sign) == usual[name].count(sign)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        ":443",
        "example.org:",
        "example.org:0",
        "example.org:0443",
        "example.org:65536",
        "example.org:+443",
        "example.org:\uff14\uff14\uff13",  # digits to Python, not to nginx
        "-example.org:443",
        "example-.org:443",
        "example..org:443",
        "example.org.:443",
        f"{'a' * 64}.org:443",
        f"{'a.' * 127}a:443",
        "1.2.3:443",
        "256.1.1.1:443",
        "::1:443",
        "[127.0.0.1]:443",
        "[fe80::1%eth0]:443",
        "[::1:443",
        "https://example.org:443",
        "user@example.org:443",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(ServiceFilesError, match="no address of a server"):
        write_service_files(coordinator(folder, address=text))


@pytest.mark.parametrize(
    "bind", ["0.0.0.0:9092", "10.0.0.7:9092", "[::]:9092", "localhost.example.org:9092"]
)
def test_a_superlink_that_others_could_reach_is_refused(folder: Path, bind: str) -> None:
    with pytest.raises(ServiceFilesError, match=r'Set bind = "127\.0\.0\.1:9092"'):
        write_service_files(coordinator(folder, bind=bind))


@pytest.mark.parametrize("path", ["relative/network", "/srv/../etc", "/", "/srv/my network"])
def test_a_folder_must_be_an_absolute_path_of_plain_letters(path: str) -> None:
    with pytest.raises(ServiceFilesError, match="absolute path"):
        write_service_files(coordinator(Path(path)))


def test_files_are_written_in_place_of_older_ones(folder: Path) -> None:
    before = written(coordinator(folder))
    after = written(coordinator(folder, address="other.example.org:8443"))
    assert before.keys() == after.keys()
    assert "listen 0.0.0.0:443 ssl;" in before["nginx.conf"]
    assert "listen 0.0.0.0:8443 ssl;" in after["nginx.conf"]
    assert "proxy_pass https://127.0.0.1:9092;" in after["nginx.conf"]
    assert f"ssl_certificate_key {folder}/tls/server.key;" in after["nginx.conf"]
    assert (folder / "state").stat().st_mode & 0o777 == 0o700
    assert (folder / "state/proxy").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceFilesError, match=r"file/state.* cannot be written"):
        write_service_files(coordinator(tmp_path / "file"))


def test_every_template_belongs_to_a_service() -> None:
    services = (coordinator(Path("/srv/a")), SiteService(Path("/srv/b")))
    used = {template for service in services for template in service.templates().values()}
    assert used | {"hardening.j2"} == {file.name for file in TEMPLATES.iterdir()}


def units(tmp_path: Path) -> dict[str, ConfigParser]:
    files = written(coordinator(tmp_path / "a", nginx=PROGRAM))
    files |= written(SiteService(tmp_path / "b", program=PROGRAM))
    return {name: unit(text) for name, text in files.items() if name.endswith(".service")}


def test_units_hold_the_hardening(tmp_path: Path) -> None:
    read = units(tmp_path)
    assert {name.removesuffix(".service").removeprefix("groundtruth-") for name in read} == {
        "coordinator",
        "proxy",
        "site",
    }
    for name, parsed in read.items():
        service = parsed["Service"]
        assert {key: service[key] for key in HARDENING} == HARDENING, name
        assert int(service["TimeoutStopSec"]) > 0
        assert "MemoryMax" not in service  # a comment: it depends on the machine
        assert parsed["Install"]["WantedBy"] == "multi-user.target"


def test_units_start_what_they_should_and_write_where_they_must(tmp_path: Path) -> None:
    read = units(tmp_path)
    server = read["groundtruth-coordinator.service"]["Service"]
    assert server["ExecStart"] == f"/bin/true coordinator start {tmp_path}/a"
    assert server["ReadWritePaths"] == f"{tmp_path}/a"
    assert server["ReadOnlyPaths"] == f"{tmp_path}/a/deploy"
    site = read["groundtruth-site.service"]["Service"]
    assert site["ExecStart"] == f"/bin/true site start {tmp_path}/b"
    assert site["ReadWritePaths"] == f"{tmp_path}/b/state"
    proxy = read["groundtruth-proxy.service"]["Service"]
    assert proxy["BindPaths"] == f"{tmp_path}/a/state/proxy"


def test_units_do_not_let_a_server_see_the_ca_key(tmp_path: Path) -> None:
    read, tls = units(tmp_path), tmp_path / "a/tls"
    server = read["groundtruth-coordinator.service"]["Service"]
    assert server["TemporaryFileSystem"] == f"{tls}:ro"  # in place of what is there
    names = ("ca.crt", "server.crt", "server.key")
    assert server["BindReadOnlyPaths"].split() == [f"{tls}/{name}" for name in names]
    proxy = read["groundtruth-proxy.service"]["Service"]
    assert proxy["InaccessiblePaths"] == f"-{tls}/ca.key"
    assert proxy["TemporaryFileSystem"] == f"{tmp_path}/a:ro"
    assert proxy["BindReadOnlyPaths"].split() == [str(tls), f"{tmp_path}/a/deploy"]


def test_only_nginx_may_open_a_port_below_1024_and_only_if_it_has_to(folder: Path) -> None:
    low = written(coordinator(folder))
    high = written(coordinator(folder, address="coordinator.example.org:8443"))
    capability = "CAP_NET_BIND_SERVICE"
    proxy = unit(low["groundtruth-proxy.service"])["Service"]
    assert proxy["AmbientCapabilities"] == proxy["CapabilityBoundingSet"] == capability
    for files, name in ((high, "proxy"), (high, "coordinator"), (low, "coordinator")):
        service = unit(files[f"groundtruth-{name}.service"])["Service"]
        assert service["CapabilityBoundingSet"] == ""
        assert "AmbientCapabilities" not in service


@pytest.mark.parametrize(
    ("folder", "program", "expected"),
    [
        ("/srv/site", "/opt/groundtruth/bin/groundtruth", "yes"),
        ("/home/ann/site", "/opt/groundtruth/bin/groundtruth", "read-only"),
        ("/srv/site", "/root/venv/bin/groundtruth", "read-only"),
        ("/homework/site", "/usr/bin/groundtruth", "yes"),
    ],
)
def test_homes_are_hidden_unless_the_service_lives_in_one(
    folder: str, program: str, expected: str
) -> None:
    values = SiteService(Path(folder), program=Path(program)).values()
    assert values["in_home"] == (expected == "read-only")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_units_and_rates_them_well(tmp_path: Path) -> None:
    units(tmp_path)
    files = [str(file) for file in sorted(tmp_path.glob("*/deploy/*.service"))]
    checked = subprocess.run(
        ["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    for file in files:
        # Fails above the threshold: tenths of 0 (tight) to 10; a unit without hardening has 9.6.
        rating = ["systemd-analyze", "security", "--offline=true", "--threshold=20", file]
        assert subprocess.run(rating, capture_output=True, check=False).returncode == 0, file


def compose(files: Mapping[str, str]) -> dict[str, Any]:
    document = yaml.safe_load(files["compose.yaml"])
    Draft202012Validator(COMPOSE).validate(document)
    return dict(document["services"])


def test_the_schema_of_compose_files_finds_mistakes(folder: Path) -> None:
    document = yaml.safe_load(written(coordinator(folder))["compose.yaml"])
    document["services"]["proxy"]["read_olny"] = True
    assert not Draft202012Validator(COMPOSE).is_valid(document)


def test_containers_have_no_rights_and_publish_no_port_but_that_of_nginx(folder: Path) -> None:
    services = compose(written(coordinator(folder)))
    services |= compose(written(SiteService(folder.parent / "site", program=PROGRAM)))
    assert services.keys() == {"coordinator", "proxy", "site"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"].startswith("${GROUNDTRUTH_USER:?")  # compose stops without it
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys()
    # nginx listens in the network of the coordinator's container, whose port is published there.
    assert services["coordinator"].pop("ports") == ["443:443"]
    assert services["proxy"]["network_mode"] == "service:coordinator"
    assert not any("ports" in service for service in services.values())


def test_containers_see_the_folder_but_not_the_ca_key(folder: Path) -> None:
    services = compose(written(coordinator(folder)))
    tls = {f"{folder}/tls/{name}" for name in ("ca.crt", "server.crt", "server.key")}
    server, proxy = services["coordinator"], services["proxy"]
    # tls/ itself is covered by an empty folder; what it holds of the real one is mounted by name.
    assert any(mount.startswith(f"{folder}/tls:") for mount in server["tmpfs"])
    for service in (server, proxy):
        mounts = [volume.split(":") for volume in service["volumes"]]
        assert all(source == target for source, target, *_ in mounts)
        assert {source for source, *_ in mounts if "/tls" in source} == tls
        assert all(mode == ["ro"] for source, _, *mode in mounts if source in tls)
    assert [volume for volume in proxy["volumes"] if not volume.endswith(":ro")] == [
        f"{folder}/state/proxy:{folder}/state/proxy"
    ]


def test_health_checks_and_commands_name_the_folder(folder: Path) -> None:
    services = compose(written(coordinator(folder)))
    status = ["CMD", "groundtruth", "coordinator", "status", str(folder)]
    assert services["coordinator"]["healthcheck"]["test"] == status
    assert services["coordinator"]["command"] == ["coordinator", "start", str(folder)]
    assert services["proxy"]["command"][:2] == ["-c", f"{folder}/deploy/nginx.conf"]


def test_the_image_holds_this_release_and_no_root(folder: Path) -> None:
    lines = written(coordinator(folder))["Dockerfile"].splitlines()
    assert (
        f'RUN pip install "shared-ground-truth[coordinator]=={version("shared-ground-truth")}"'
        in (lines)
    )
    assert "FROM python:3.12-slim" in lines
    assert lines.index("USER 65534:65534") < lines.index('ENTRYPOINT ["groundtruth"]')
    site = written(SiteService(folder, program=PROGRAM))["Dockerfile"]
    assert "[coordinator]" not in site


def test_ipv6_addresses_keep_their_brackets(folder: Path) -> None:
    service = coordinator(
        folder, address="[2001:db8::7]:8443", bind="[::1]:9092", listen="[::]:443"
    )
    nginx = written(service)["nginx.conf"]
    assert "listen [::]:443 ssl;" in nginx
    assert "proxy_pass https://[::1]:9092;" in nginx


def test_there_is_no_compose_file_for_one_address_of_the_machine(folder: Path) -> None:
    files = written(coordinator(folder, listen="203.0.113.7:443"))
    assert files.keys() == {
        "nginx.conf",
        "groundtruth-coordinator.service",
        "groundtruth-proxy.service",
    }
    assert "listen 203.0.113.7:443 ssl;" in files["nginx.conf"]


def test_sites_on_the_same_machine_need_no_nginx_and_older_files_of_it_go(folder: Path) -> None:
    written(coordinator(folder))
    direct = written(coordinator(folder, address=BIND))
    assert direct.keys() == {"groundtruth-coordinator.service"}
    assert [file.name for file in (folder / "deploy").iterdir()] == list(direct)


@pytest.mark.parametrize(
    ("address", "bind", "listen"),
    [
        ("example.org:9092", "127.0.0.1:9092", ""),
        ("example.org:9092", "[::1]:9092", "[::]:9092"),
        ("example.org:443", "127.0.0.1:9093", "127.0.0.1:9093"),
    ],
)
def test_nginx_and_the_superlink_cannot_have_one_port(
    folder: Path, address: str, bind: str, listen: str
) -> None:
    with pytest.raises(ServiceFilesError, match=r"the same port: set \[server\] bind = .*:909[23]"):
        write_service_files(coordinator(folder, address=address, bind=bind, listen=listen))


def test_one_port_of_two_kinds_of_addresses_is_two(folder: Path) -> None:
    # nginx's `listen [::]:...` takes IPv6 alone (ipv6only=on) since its version 1.3.4.
    written(coordinator(folder, address="example.org:9092", listen="[::]:9092"))


def test_every_command_in_the_files_is_one_that_there_is(folder: Path) -> None:
    texts = [*written(coordinator(folder)).values()]
    texts += written(SiteService(folder.parent / "site", program=PROGRAM)).values()
    named = set(re.findall(r"\b(coordinator|site) ([a-z]+) /", "\n".join(texts)))
    named |= set(re.findall(r'"(coordinator|site)", "([a-z]+)", "/', "\n".join(texts)))
    assert named == {(who, what) for who in ("coordinator", "site") for what in ("start", "status")}
    for command in named:
        assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0
