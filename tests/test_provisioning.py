"""From nothing to a network whose members believe each other, and who cannot get in."""

import base64
import dataclasses
import json
import os
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from data_contracts.errors import GroundTruthError
from data_contracts.manifest import SiteManifest
from experiments.cli import app
from federation.declared_patients import declared_patients, rounded
from federation.deployment.certificates import (
    CertificateError,
    authority_fingerprint,
    make_authority,
    names_in,
)
from federation.deployment.coordinator import Coordinator, CoordinatorError
from federation.deployment.coordinator_settings import DEFAULT_BIND, DEFAULT_MULTIPLICITY
from federation.deployment.handed_files import release
from federation.deployment.invitation import (
    Invitation,
    InvitationError,
    Invited,
    JoinRequest,
    JoinRequestError,
    held_contracts,
)
from federation.deployment.members import (
    AdmissionError,
    Members,
    MembersError,
    UnknownMemberError,
)
from federation.deployment.membership import (
    ChangedKeyError,
    Membership,
    MembershipError,
    join,
)
from federation.deployment.pinning import pin
from federation.identity import Identity, IdentityError, Registry, fingerprint
from federation.private_files import PrivateFileError

posix_only = pytest.mark.skipif(os.name != "posix", reason="files have no POSIX mode here")
ADDRESS = "federation.example.org:9092"
LONG = "x" * 5000


@pytest.fixture
def sites(provider_folders: list[Path], tmp_path: Path) -> list[Path]:
    """Folders of three private sites that know nobody yet."""
    folders = []
    for origin in provider_folders:
        folder = tmp_path / "sites" / origin.name
        folder.mkdir(parents=True)
        dataclasses.replace(SiteManifest.load(origin), origin="private").write(folder)
        folders.append(folder)
    return folders


@pytest.fixture
def coordinator(sites: list[Path], tmp_path: Path) -> Coordinator:
    names = [f"{folder.name}:provider" for folder in sites]
    return Coordinator.init(tmp_path / "coordinator", "net-0001", ADDRESS, names)


@pytest.fixture
def requests(coordinator: Coordinator, sites: list[Path]) -> dict[str, JoinRequest]:
    """The requests of sites that have joined."""
    return {
        folder.name: join(folder, coordinator.invitation_file(folder.name), 1000).request
        for folder in sites
    }


def request_of(name: str, identity: Identity | None = None, **changes: object) -> JoinRequest:
    """A well-formed request of a made-up site with keys of its own."""
    identity = identity or Identity(ed25519.Ed25519PrivateKey.generate())
    fields = {
        "network": "net-0001",
        "site": name,
        "role": "provider",
        "patients": 1200,
        "identity_key": base64.b64encode(identity.public_key).decode(),
        "node_key": node_key(),
        "contracts": {"pa_request": "1.0.0"},
        "release": "0.1.0",
    }
    return JoinRequest(**(fields | changes)).signed(identity)  # type: ignore[arg-type]


def node_key() -> str:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


# --- the whole path ------------------------------------------------------------------------------


def test_sites_that_were_admitted_and_have_pinned_believe_exactly_each_other(
    coordinator: Coordinator, sites: list[Path]
) -> None:
    keys = {}
    for folder in sites:
        joined = join(folder, coordinator.invitation_file(folder.name))
        assert joined.authority == authority_fingerprint(coordinator.authority)
        member = Members(coordinator).admit(JoinRequest.load(joined.file))
        assert member.fingerprint == joined.fingerprint
        identity = Identity.load_or_create(folder / "state" / "identity.pem")
        keys[folder.name] = identity.public_key
    for folder in sites:
        pinned = pin(folder, coordinator.peers_file)
        assert pinned.peers == {site: fingerprint(key) for site, key in keys.items()}
        assert pinned.new == tuple(sorted(keys))
        assert Registry.load(folder / "state" / "peers.toml").keys == keys
        assert pin(folder, coordinator.peers_file).new == ()


def test_a_site_keeps_what_the_invitation_said_and_the_authority_that_it_brought(
    coordinator: Coordinator, sites: list[Path], requests: dict[str, JoinRequest]
) -> None:
    kept = Membership.load(sites[0])
    assert kept == Membership("net-0001", ADDRESS, 3, release(), held_contracts())
    brought = (sites[0] / "state" / "coordinator-ca.crt").read_bytes()
    assert brought == coordinator.ca_certificate.read_bytes()


def test_a_request_declares_the_patients_of_the_sites_tables_to_two_digits(
    coordinator: Coordinator, sites: list[Path]
) -> None:
    files = SiteManifest.load(sites[0]).tables
    # Decisions name requests alone.
    tables = [pl.read_parquet(file) for name, file in files.items() if name != "pa_decision"]
    exact = len({token for table in tables for token in table["patient_token"]})
    request = join(sites[0], coordinator.invitation_file(sites[0].name)).request
    assert request.patients == float(f"{exact:.1e}")
    assert abs(request.patients - exact) <= exact / 20  # two digits: half a unit of the second
    assert request.group == sites[0].name
    assert set(request.contracts) == set(SiteManifest.load(sites[0]).table_names)


@pytest.mark.parametrize(
    ("patients", "declared"),
    [(0, 0), (7, 7), (99, 99), (101, 100), (12_345, 12_000), (996, 1000), (1_949_999, 1_900_000)],
)
def test_a_number_of_patients_is_rounded_to_two_digits(patients: int, declared: int) -> None:
    assert rounded(patients) == declared


def test_a_patient_in_two_tables_is_declared_once_and_nobody_in_none() -> None:
    one, two = pl.DataFrame({"patient_token": ["a", "b", None]}), pl.DataFrame({"other": [1]})
    assert declared_patients([one, one, two]) == 2
    assert declared_patients([two]) == 0


def test_flower_reads_the_key_that_the_site_made(
    sites: list[Path], requests: dict[str, JoinRequest]
) -> None:
    key = load_ssh_private_key((sites[0] / "state" / "node.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert line == requests[sites[0].name].node_key


# --- the coordinator's folder --------------------------------------------------------------------


def test_a_folder_in_use_is_left_as_it_is(coordinator: Coordinator) -> None:
    before = coordinator.ca_key.read_bytes()
    with pytest.raises(CoordinatorError, match="in use"):
        Coordinator.init(coordinator.folder, "net-0002", ADDRESS)
    assert coordinator.ca_key.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"address": "0.0.0.0:9092"}, "wildcard"),
        ({"address": "federation.example.org"}, "HOST:PORT"),
        ({"address": 'x"\n[evil]:1'}, "HOST:PORT|DNS name"),
        ({"bind": "localhost:9092"}, "IP address"),
        ({"network": "Net 1"}, "pseudonym"),
        ({"network": 'a"b'}, "pseudonym"),
        ({"multiplicity": 0}, "multiplicity"),
        ({"sites": ["../../etc/passwd"]}, "pseudonym"),
        ({"sites": ["site-a:king"]}, "payer or provider"),
    ],
)
def test_nothing_is_made_of_what_cannot_be_used(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    arguments = {"network": "net-0001", "address": ADDRESS, **changes}
    with pytest.raises(GroundTruthError, match=said):
        Coordinator.init(tmp_path / "new", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_a_network_without_a_name_gets_one_of_its_own(tmp_path: Path) -> None:
    made = [Coordinator.init(tmp_path / str(i), "", ADDRESS).network for i in range(2)]
    assert all(len(name) == len("network-0123") for name in made)


def test_the_settings_are_read_back_as_they_were_given(tmp_path: Path) -> None:
    made = Coordinator.init(
        tmp_path / "new",
        "n",
        "[2001:DB8::7]:443",
        bind="0.0.0.0:8443",
        multiplicity=5,
        exposed=True,
    )
    read = Coordinator.load(tmp_path / "new")
    assert read == made
    assert (read.address, read.bind, read.multiplicity) == ("[2001:db8::7]:443", "0.0.0.0:8443", 5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[network]", "[networks]", r"did you mean 'network'"),
        ('id = "net-0001"', 'id = "Net"', "pseudonym"),
        (f'address = "{ADDRESS}"', 'address = "0.0.0.0:1"', "wildcard"),
        ("multiplicity = 3", 'multiplicity = "3"', "type int"),
        ('bind = "127.0.0.1:', 'bind = "0.0.0.0:', "control interface, which has no login"),
        ("[server]", "[server", "coordinator.toml"),
    ],
)
def test_a_mistake_in_the_settings_is_named(
    old: str, new: str, said: str, coordinator: Coordinator
) -> None:
    text = coordinator.settings_file.read_text()
    assert old in text
    coordinator.settings_file.write_text(text.replace(old, new))
    with pytest.raises(CoordinatorError, match=said):
        Coordinator.load(coordinator.folder)


def test_a_folder_that_is_no_coordinators_is_named_with_the_command_that_makes_one(
    tmp_path: Path,
) -> None:
    with pytest.raises(CoordinatorError, match="coordinator init"):
        Coordinator.load(tmp_path)


# --- private keys --------------------------------------------------------------------------------


@posix_only
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_private_files_are_their_owners_alone_whatever_the_umask(
    umask: int, sites: list[Path], tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        made = Coordinator.init(tmp_path / "c", "net-0001", ADDRESS, [sites[0].name])
        join(sites[0], made.invitation_file(sites[0].name), 100)
        made.renew(authority=True)
    finally:
        os.umask(before)
    state = sites[0] / "state"
    private = (made.ca_key, made.server_key, made.runtime_secret)
    for file in (*private, state / "identity.pem", state / "node.key"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    for folder in (made.state, made.ca_key.parent, state):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


@posix_only
@pytest.mark.parametrize("name", ["tls/ca.key", "tls/server.key", "state/runtime.secret"])
def test_a_private_file_open_to_others_stops_the_coordinator_until_closed_or_renewed(
    name: str, coordinator: Coordinator
) -> None:
    file = coordinator.folder / name
    file.chmod(0o640)
    with pytest.raises(PrivateFileError, match=rf"{name}.*mode 640.*chmod 600 .*{name}.*renew"):
        Coordinator.load(coordinator.folder)
    file.chmod(0o600)
    Coordinator.load(coordinator.folder)
    file.unlink()
    if name != "tls/ca.key":
        with pytest.raises(PrivateFileError, match=rf"{name}.*missing.*renew"):
            Coordinator.load(coordinator.folder)
    Coordinator.load(coordinator.folder, to_renew=True).renew(authority=True)
    assert Coordinator.load(coordinator.folder).warnings() == ()


def test_a_missing_certificate_is_named_with_the_command_that_makes_it_anew(
    coordinator: Coordinator,
) -> None:
    coordinator.server_certificate.unlink()
    with pytest.raises(CertificateError, match=r"server\.crt.*renew"):
        coordinator.warnings()
    coordinator.renew()
    assert coordinator.warnings() == ()


@pytest.mark.parametrize("content", ["", "key", "curve"])
def test_a_node_key_that_flower_could_not_use_is_refused(
    content: str, coordinator: Coordinator, sites: list[Path], requests: dict[str, JoinRequest]
) -> None:
    file = sites[0] / "state" / "node.key"
    if content == "curve":
        other = ec.generate_private_key(ec.SECP256R1())
        pem = other.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        file.write_bytes(pem)
    else:
        file.write_text(content)
    with pytest.raises(MembershipError, match=r"node\.key.*--new-keys"):
        join(sites[0], coordinator.invitation_file(sites[0].name), 1000)


def test_what_a_site_keeps_of_its_coordinator_is_named_where_it_was_damaged(
    sites: list[Path], requests: dict[str, JoinRequest]
) -> None:
    (sites[0] / "state" / "coordinator.toml").write_text("network = 1")
    with pytest.raises(MembershipError, match=r"coordinator\.toml.*join again"):
        Membership.load(sites[0])


def test_the_authoritys_key_may_be_kept_elsewhere_and_is_missed_only_at_renewal(
    coordinator: Coordinator,
) -> None:
    coordinator.ca_key.unlink()
    loaded = Coordinator.load(coordinator.folder)
    with pytest.raises(PrivateFileError, match=r"ca\.key.*missing.*--authority"):
        loaded.renew()


@posix_only
def test_a_sites_node_key_open_to_others_is_refused(
    coordinator: Coordinator, sites: list[Path], requests: dict[str, JoinRequest]
) -> None:
    (sites[0] / "state" / "node.key").chmod(0o644)
    with pytest.raises(PrivateFileError, match=r"node\.key.*mode 644.*--new-keys"):
        join(sites[0], coordinator.invitation_file(sites[0].name), 1000)


def test_nothing_that_is_handed_over_holds_a_private_key(
    coordinator: Coordinator, sites: list[Path], requests: dict[str, JoinRequest]
) -> None:
    for request in requests.values():
        Members(coordinator).admit(request)
    private = [load_pem_private_key(coordinator.ca_key.read_bytes(), None)]
    private.append(load_pem_private_key(coordinator.server_key.read_bytes(), None))
    for folder in sites:
        private.append(Identity.load_or_create(folder / "state" / "identity.pem").private_key)
        node = (folder / "state" / "node.key").read_bytes()
        private.append(load_ssh_private_key(node, None))  # type: ignore[arg-type]
    secrets = [coordinator.runtime_secret.read_bytes()]
    for key in private:
        if isinstance(key, ec.EllipticCurvePrivateKey):
            number = key.private_numbers().private_value
            secrets.append(number.to_bytes(key.curve.key_size // 8, "big"))
        else:
            assert isinstance(key, ed25519.Ed25519PrivateKey)
            raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
            secrets.append(raw)
    handed = [*coordinator.invitations.iterdir(), coordinator.peers_file, coordinator.members_file]
    handed += [folder / f"{folder.name}.join.toml" for folder in sites]
    assert len(handed) == 8
    for file in handed:
        text = file.read_text()
        assert "PRIVATE" not in text
        shown = [base64.b64decode(word) for word in _base64_words(text)]
        for secret in secrets:
            assert secret.hex() not in text
            assert not any(secret in content for content in shown), file


def _base64_words(text: str) -> list[str]:
    """What a file holds in base64: keys, signatures and the body of the certificate."""
    raw = tomllib.loads(text)
    words = [raw[key] for key in ("identity_key", "signature") if key in raw]
    words += [raw["node_key"].split()[1]] if "node_key" in raw else []
    words += list(raw.get("sites", {}).values())
    if "authority" in raw:
        words.append("".join(raw["authority"].split("\n")[1:-2]))
    for row in (each for each in raw.values() if isinstance(each, dict)):
        words += [row["identity_key"]] if "identity_key" in row else []
        words += [row["node_key"].split()[1]] if "node_key" in row else []
    assert words
    return words


# --- invitations ---------------------------------------------------------------------------------


GARBAGE = {
    "nothing": b"",
    "binary": bytes(range(256)),
    "not TOML": b"network = [",
    "too large": b"#" * 70_000,
    "too deep": b"a = " + b"[" * 20_000,
    "long unknown key": f"{LONG} = 1".encode(),
    "long value of a wrong type": f'multiplicity = "{LONG}"\npatients = "{LONG}"'.encode(),
    "key twice": f"[{LONG}]\n[{LONG}]".encode(),
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused_by_name_and_not_repeated(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "handed.toml"
    file.write_bytes(content)
    for error, load in (
        (InvitationError, Invitation.load),
        (JoinRequestError, JoinRequest.load),
    ):
        with pytest.raises(error, match=r"handed\.toml") as told:
            load(file)
        assert len(str(told.value)) < len(str(file)) + 400


INVITATION_FLAWS: dict[str, object] = {
    "network": "Net 1",
    "site": "../x",
    "address": "0.0.0.0:1",
    "multiplicity": 0,
    "release": LONG,
    "contracts": {"pa_request": "one"},
    "authority": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "role": "king",
}


@pytest.mark.parametrize("key", INVITATION_FLAWS)
def test_every_field_of_an_invitation_is_checked(
    key: str, coordinator: Coordinator, sites: list[Path]
) -> None:
    file = coordinator.invitation_file(sites[0].name)
    raw = tomllib.loads(file.read_text())
    assert Invitation.load(file).site == sites[0].name
    for flawed in ({**raw, key: INVITATION_FLAWS[key]}, {**raw, key: ["x"]}):
        file.write_text(tomli_w.dumps(flawed))
        with pytest.raises(InvitationError, match=key) as told:
            Invitation.load(file)
        assert LONG not in str(told.value)
    if key != "role":
        del raw[key]
        file.write_text(tomli_w.dumps(raw))
        with pytest.raises(InvitationError, match=f"lacks the key '{key}'"):
            Invitation.load(file)


def test_an_invitation_that_brings_a_private_key_is_refused(
    coordinator: Coordinator, sites: list[Path]
) -> None:
    file = coordinator.invitation_file(sites[0].name)
    raw = tomllib.loads(file.read_text())
    raw["authority"] += coordinator.ca_key.read_text()
    file.write_text(tomli_w.dumps(raw))
    with pytest.raises(InvitationError, match="something else than"):
        Invitation.load(file)


def test_an_invitation_for_another_site_or_role_is_refused_before_any_key_is_made(
    coordinator: Coordinator, sites: list[Path]
) -> None:
    with pytest.raises(InvitationError, match=f"for site {sites[1].name}"):
        join(sites[0], coordinator.invitation_file(sites[1].name), 1000)
    coordinator.invite([Invited(sites[0].name, "payer")])
    with pytest.raises(InvitationError, match=r"as payer.*says provider"):
        join(sites[0], coordinator.invitation_file(sites[0].name), 1000)
    assert not (sites[0] / "state").exists()


def test_a_site_whose_contracts_do_not_serve_the_network_is_told_when_it_joins(
    coordinator: Coordinator, sites: list[Path]
) -> None:
    file = coordinator.invitation_file(sites[0].name)
    invitation = Invitation.load(file)
    later = dict(invitation.contracts) | {"pa_request": "1.1.0", "cardiac_exam": "9.0.0"}
    dataclasses.replace(invitation, contracts=later, release="7.7").write(file)
    with pytest.raises(MembershipError, match=r"pa_request is 1\.0\.0 .* 1\.1\.0 .* 7\.7") as told:
        join(sites[0], file, 1000)
    assert "cardiac_exam" not in str(told.value)  # the site has no such table


@pytest.mark.parametrize("patients", [0, 1_000_001, 5_000_000])
def test_a_site_declares_neither_nobody_nor_more_than_its_site_toml_promises(
    patients: int, coordinator: Coordinator, sites: list[Path]
) -> None:
    with pytest.raises(MembershipError, match=r"no patients|max_patients = 1000000"):
        join(sites[0], coordinator.invitation_file(sites[0].name), patients)


def test_counted_patients_are_held_to_what_site_toml_promises(
    coordinator: Coordinator, sites: list[Path]
) -> None:
    manifest = SiteManifest.load(sites[0])
    dataclasses.replace(manifest, max_patients=50).write(sites[0])
    with pytest.raises(MembershipError, match="max_patients = 50"):
        join(sites[0], coordinator.invitation_file(sites[0].name))


def test_an_expired_authority_is_refused(
    coordinator: Coordinator, sites: list[Path], tmp_path: Path
) -> None:
    invitation = Invitation.load(coordinator.invitation_file(sites[0].name))
    old = make_authority("net-0001", datetime.now(UTC) - timedelta(days=4000))
    expired = dataclasses.replace(invitation, authority=old.certificate.decode())
    expired.write(tmp_path / "old.toml")
    with pytest.raises(InvitationError, match="expired"):
        join(sites[0], tmp_path / "old.toml", 1000)


def test_a_site_leaves_its_network_only_on_purpose(
    coordinator: Coordinator,
    sites: list[Path],
    requests: dict[str, JoinRequest],
    tmp_path: Path,
) -> None:
    name = sites[0].name
    other = Coordinator.init(tmp_path / "other", "net-0002", ADDRESS, [name])
    for accept in (False, True):
        with pytest.raises(MembershipError, match="has joined network net-0001"):
            join(sites[0], other.invitation_file(name), 1000, accept_changes=accept)
    assert Membership.load(sites[0]).network == "net-0001"


def test_a_site_that_has_not_joined_is_told_how(sites: list[Path]) -> None:
    with pytest.raises(MembershipError, match="groundtruth site join"):
        Membership.load(sites[0])


# --- join requests -------------------------------------------------------------------------------


REQUEST_FLAWS: dict[str, object] = {
    "network": "Net 1",
    "site": "1234567890",
    "role": "king",
    "group": "St. Mary's",
    "patients": 12_345,
    "identity_key": "AAAA",
    "node_key": "ssh-ed25519 " + LONG,
    "contracts": {},
    "release": LONG,
    "signature": "AAAA",
}


@pytest.mark.parametrize("key", REQUEST_FLAWS)
def test_every_field_of_a_request_is_checked(key: str, tmp_path: Path) -> None:
    file = tmp_path / "site-a.join.toml"
    raw = dataclasses.asdict(request_of("site-a")) | {key: REQUEST_FLAWS[key]}
    file.write_text(tomli_w.dumps(raw))
    with pytest.raises(JoinRequestError, match=key) as told:
        JoinRequest.load(file)
    assert LONG not in str(told.value)


def test_a_key_is_written_in_one_way_alone() -> None:
    # 32 bytes leave two bits of the last character unused: "A=" and "B=" decode alike.
    assert base64.b64decode("A" * 42 + "B=") == bytes(32)
    for text in ("A" * 42 + "B=", "A" * 43, "A" * 43 + "=\n"):
        with pytest.raises(ValueError, match="identity_key must be 32 bytes"):
            request_of("site-a", identity_key=text)


def test_node_keys_of_other_kinds_are_refused() -> None:
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    lines = [
        key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() for key in (curve, other)
    ]
    for line in (*lines, f"{node_key()} root@host.example.org", f"{node_key()}\n", ""):
        with pytest.raises(ValueError, match="node_key"):
            request_of("site-a", node_key=line)


CHANGES: dict[str, object] = {
    "network": "net-0002",
    "site": "site-b",
    "role": "payer",
    "group": "site-b",
    "patients": 5,
    "node_key": node_key(),
    "contracts": {"pa_request": "1.0.0", "pa_decision": "1.0.0"},
    "release": "9",
    "identity_key": base64.b64encode(bytes(31) + b"\1").decode(),
    "signature": "",
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_request_that_was_changed_on_its_way_is_refused(key: str, tmp_path: Path) -> None:
    request = request_of("site-a")
    file = tmp_path / "site-a.join.toml"
    request.write(file)
    assert JoinRequest.load(file) == request
    dataclasses.replace(request, **{key: CHANGES[key]}).write(file)  # type: ignore[arg-type]
    with pytest.raises(JoinRequestError, match="not signed with the key in it"):
        JoinRequest.load(file)


def test_a_signature_over_the_same_words_for_another_purpose_does_not_count() -> None:
    identity = Identity(ed25519.Ed25519PrivateKey.generate())
    request = request_of("site-a", identity)
    body = dataclasses.asdict(request)
    del body["signature"]
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    right = identity.sign(b"groundtruth join request 1\0" + text)
    assert request.signature == base64.b64encode(right).decode()
    other = base64.b64encode(identity.sign(text)).decode()
    with pytest.raises(JoinRequestError):
        dataclasses.replace(request, signature=other).verify()


FUZZED = request_of("site-a")


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_whatever_is_done_to_a_request_it_stays_itself_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(tomli_w.dumps(dataclasses.asdict(FUZZED)).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    file = tmp_path_factory.getbasetemp() / "fuzzed.join.toml"
    file.write_bytes(content)
    try:
        loaded = JoinRequest.load(file)
    except JoinRequestError:
        return
    assert loaded == FUZZED


# --- admission -----------------------------------------------------------------------------------


def test_only_invited_sites_of_this_network_in_their_role_are_admitted(
    coordinator: Coordinator,
) -> None:
    members, name = Members(coordinator), next(iter(coordinator.invited()))
    for request, said in (
        (request_of("stranger"), "was not invited.*coordinator invite"),
        (request_of(name, network="net-0002"), "network net-0002, and this is net-0001"),
        (request_of(name, role="payer"), "invited as provider and asks to join as payer"),
        (request_of(name, contracts={"pa_request": "0.9.0"}), r"pa_request is 0\.9\.0"),
    ):
        with pytest.raises(AdmissionError, match=said):
            members.admit(request)
    assert members.all() == {}
    assert not coordinator.peers_file.exists()


def test_a_request_is_verified_at_admission_even_if_it_came_another_way(
    coordinator: Coordinator,
) -> None:
    name = next(iter(coordinator.invited()))
    forged = dataclasses.replace(request_of("site-a"), site=name)
    with pytest.raises(JoinRequestError):
        Members(coordinator).admit(forged)


def test_a_member_is_replaced_only_on_purpose(coordinator: Coordinator) -> None:
    members, name = Members(coordinator), next(iter(coordinator.invited()))
    first = members.admit(request_of(name))
    later = request_of(name, patients=1300)
    with pytest.raises(AdmissionError, match=rf"admitted on .*{first.fingerprint}.*--replace"):
        members.admit(later)
    assert members.all() == {name: first}
    second = members.admit(later, replace=True)
    assert members.active() == {name: second}
    assert second.patients == 1300
    assert Registry.load(coordinator.peers_file).keys == {name: later.public_key}


def test_no_two_sites_have_a_key_in_common(coordinator: Coordinator) -> None:
    one, two, _ = coordinator.invited()
    identity = Identity(ed25519.Ed25519PrivateKey.generate())
    members = Members(coordinator)
    first = members.admit(request_of(one, identity))
    for request in (request_of(two, identity), request_of(two, node_key=first.node_key)):
        with pytest.raises(AdmissionError, match=f"a key of site {one}"):
            members.admit(request)
    assert list(members.all()) == [one]


def test_keys_that_were_replaced_or_revoked_never_come_back(coordinator: Coordinator) -> None:
    members = Members(coordinator)
    one, two, _ = coordinator.invited()
    old, new, last = request_of(one), request_of(one), request_of(one)
    members.admit(old)
    members.admit(new, replace=True)
    with pytest.raises(AdmissionError, match="never comes back"):
        members.admit(old, replace=True)  # whoever kept the old request hands it in again
    assert members.active()[one].public_key == new.public_key
    members.revoke(one)
    with pytest.raises(AdmissionError, match="revoked on"):
        members.admit(last)
    for replayed in (old, new):
        with pytest.raises(AdmissionError, match="never comes back"):
            members.admit(replayed, replace=True)
    stolen = request_of(two, node_key=new.node_key)
    with pytest.raises(AdmissionError, match="never comes back"):
        members.admit(stolen)
    assert members.active() == {}
    assert members.admit(last, replace=True).revoked is None
    assert len(members.active()[one].former_keys) == 4  # two pairs


def test_a_revoked_site_is_in_nobodys_registry(coordinator: Coordinator) -> None:
    members = Members(coordinator)
    one, two, _ = coordinator.invited()
    members.admit(request_of(one))
    members.admit(request_of(two))
    revoked = members.revoke(one)
    assert revoked.revoked == datetime.now(UTC).date()
    assert set(Registry.load(coordinator.peers_file).keys) == {two}
    assert set(members.all()) == {one, two}
    with pytest.raises(UnknownMemberError, match=f"members are {two}"):
        members.revoke(one)
    with pytest.raises(UnknownMemberError):
        members.revoke(LONG)
    members.revoke(two)
    assert not coordinator.peers_file.exists()  # a registry of nobody is none


def test_members_are_read_back_as_they_were_admitted(coordinator: Coordinator) -> None:
    name = next(iter(coordinator.invited()))
    member = Members(coordinator).admit(request_of(name, group="group-a"))
    assert Members(coordinator).all() == {name: member}
    assert isinstance(member.admitted, date)


@pytest.mark.parametrize("text", ["[", "site-a = 1", "[site-a]\nrole = 3", "[site-a]\nx = 1"])
def test_a_damaged_list_of_members_is_named_and_left_alone(
    text: str, coordinator: Coordinator
) -> None:
    name = next(iter(coordinator.invited()))
    coordinator.members_file.write_text(text)
    with pytest.raises(MembersError, match=r"members\.toml"):
        Members(coordinator).admit(request_of(name))
    assert coordinator.members_file.read_text() == text


ADMIT_ALL = """
import sys
from pathlib import Path
from federation.deployment.coordinator import Coordinator
from federation.deployment.invitation import JoinRequest
from federation.deployment.members import Members
members = Members(Coordinator.load(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
for file in sys.argv[2:]:
    members.admit(JoinRequest.load(Path(file)))
"""


def test_processes_that_admit_at_the_same_time_lose_nobody(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    names = [f"site-{number:02}" for number in range(24)]
    coordinator.invite([Invited(name) for name in names])
    for name in names:
        request_of(name).write(tmp_path / name)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ADMIT_ALL, coordinator.folder, *share],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for share in ([tmp_path / name for name in names[i::2]] for i in range(2))
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert set(Members(coordinator).active()) == set(names)
    assert set(Registry.load(coordinator.peers_file).keys) == set(names)


# --- rotation ------------------------------------------------------------------------------------


def test_joining_again_keeps_the_keys_unless_new_ones_are_asked_for(
    coordinator: Coordinator, sites: list[Path], requests: dict[str, JoinRequest]
) -> None:
    name, state = sites[0].name, sites[0] / "state"
    invitation = coordinator.invitation_file(name)
    old = {file: (state / file).read_bytes() for file in ("identity.pem", "node.key")}
    assert join(sites[0], invitation, 1000).request == requests[name]

    new = join(sites[0], invitation, 1000, new_keys=True).request
    assert new.identity_key != requests[name].identity_key
    assert new.node_key != requests[name].node_key
    for file, content in old.items():
        (aside,) = state.glob(f"{file}.*.old")
        assert aside.read_bytes() == content
        assert f"{datetime.now(UTC):%Y}" in aside.name
        if os.name == "posix":
            assert stat.S_IMODE(aside.stat().st_mode) == 0o600

    members = Members(coordinator)
    members.admit(requests[name])
    members.admit(new, replace=True)
    assert pin(sites[0], coordinator.peers_file).changed == ()


def test_another_sites_new_key_is_pinned_only_on_purpose(
    coordinator: Coordinator, sites: list[Path], requests: dict[str, JoinRequest]
) -> None:
    members, mine, other = Members(coordinator), sites[0], sites[1].name
    for request in requests.values():
        members.admit(request)
    pin(mine, coordinator.peers_file)
    before = (mine / "state" / "peers.toml").read_bytes()
    new = join(sites[1], coordinator.invitation_file(other), 1000, new_keys=True).request
    members.admit(new, replace=True)
    with pytest.raises(
        ChangedKeyError,
        match=rf"{other} had {fingerprint(requests[other].public_key)} and would have "
        rf"{fingerprint(new.public_key)}.*aloud",
    ):
        pin(mine, coordinator.peers_file)
    assert (mine / "state" / "peers.toml").read_bytes() == before
    assert pin(mine, coordinator.peers_file, accept_changes=True).changed == (other,)
    assert pin(mine, coordinator.peers_file).changed == ()


def test_a_site_cannot_be_dropped_and_brought_back_with_another_key_unnoticed(
    sites: list[Path], requests: dict[str, JoinRequest], tmp_path: Path
) -> None:
    mine, other, third = (folder.name for folder in sites)
    keys = {name: request.public_key for name, request in requests.items()}
    peers = tmp_path / "peers.toml"
    Registry(keys).write(peers)
    pin(sites[0], peers)
    Registry({mine: keys[mine], third: keys[third]}).write(peers)
    assert pin(sites[0], peers).removed == (other,)
    Registry({mine: keys[mine]}).write(peers)
    assert pin(sites[0], peers).removed == (third,)
    for name in (other, third):
        Registry({mine: keys[mine], name: bytes(32)}).write(peers)
        with pytest.raises(ChangedKeyError, match=name):
            pin(sites[0], peers)
    Registry(keys).write(peers)  # with the keys of before both are welcome
    assert pin(sites[0], peers).new == ()


def test_a_site_pins_nothing_in_which_it_is_missing_or_another(
    sites: list[Path], requests: dict[str, JoinRequest], tmp_path: Path
) -> None:
    mine, other, _ = (folder.name for folder in sites)
    peers = tmp_path / "peers.toml"
    Registry({other: requests[other].public_key}).write(peers)
    with pytest.raises(MembershipError, match="does not hold this site"):
        pin(sites[0], peers)
    Registry({mine: bytes(32)}).write(peers)
    for accept in (False, True):
        with pytest.raises(MembershipError, match="another key for this site"):
            pin(sites[0], peers, accept_changes=accept)
    peers.write_text("garbage")
    with pytest.raises(IdentityError):
        pin(sites[0], peers)
    assert not (sites[0] / "state" / "peers.toml").exists()


def test_pinning_before_joining_makes_no_key(sites: list[Path], tmp_path: Path) -> None:
    Registry({sites[0].name: bytes(32)}).write(tmp_path / "peers.toml")
    with pytest.raises(MembershipError, match="join first"):
        pin(sites[0], tmp_path / "peers.toml")
    assert not (sites[0] / "state" / "identity.pem").exists()


def test_a_changed_address_is_warned_of_until_the_certificate_is_renewed(
    coordinator: Coordinator, sites: list[Path]
) -> None:
    text = coordinator.settings_file.read_text()
    coordinator.settings_file.write_text(text.replace(ADDRESS, "192.0.2.7:443"))
    moved = Coordinator.load(coordinator.folder)
    (warning,) = moved.warnings()
    assert "not for 192.0.2.7" in warning
    before = moved.ca_certificate.read_bytes()
    moved.renew()
    assert moved.warnings() == ()
    assert "192.0.2.7" in names_in(moved.server)
    assert moved.ca_certificate.read_bytes() == before
    invitation = Invitation.load(moved.invitation_file(sites[0].name))
    assert (invitation.address, invitation.role) == ("192.0.2.7:443", "provider")


def test_a_new_authority_is_trusted_only_on_purpose_and_costs_no_admission(
    coordinator: Coordinator, sites: list[Path], requests: dict[str, JoinRequest]
) -> None:
    name = sites[0].name
    Members(coordinator).admit(requests[name])
    old = authority_fingerprint(coordinator.authority)
    coordinator.renew(authority=True)
    new = authority_fingerprint(coordinator.authority)
    with pytest.raises(ChangedKeyError, match=rf"\({new}\).*\({old}\).*--accept-changes"):
        join(sites[0], coordinator.invitation_file(name), 1000)
    trusted = sites[0] / "state" / "coordinator-ca.crt"
    assert trusted.read_bytes() != coordinator.ca_certificate.read_bytes()
    again = join(sites[0], coordinator.invitation_file(name), 1000, accept_changes=True)
    assert again.request == requests[name]
    assert trusted.read_bytes() == coordinator.ca_certificate.read_bytes()
    assert pin(sites[0], coordinator.peers_file).changed == ()


# --- what people type ----------------------------------------------------------------------------


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a command prints, each of which must end by saying what to do next."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> str:
        done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert "next: " in done.output
        return done.output

    return run


def test_every_command_says_what_to_do_next_and_shows_what_people_read_aloud(
    typed: Callable[..., str], sites: list[Path], tmp_path: Path
) -> None:
    folder, names = tmp_path / "coordinator", [site.name for site in sites]
    options = ["--address", ADDRESS, "--network", "net-0001", "--site", names[0]]
    made = typed("coordinator", "init", folder, *options)
    coordinator = Coordinator.load(folder)
    assert (coordinator.bind, coordinator.multiplicity) == (DEFAULT_BIND, DEFAULT_MULTIPLICITY)
    authority = authority_fingerprint(coordinator.authority)
    assert authority in made
    invite = ["--site", f"{names[1]}:provider", "--site", names[2]]
    assert authority in typed("coordinator", "invite", folder, *invite)
    told = {}
    for site in sites:
        joined = typed("site", "join", site, coordinator.invitation_file(site.name))
        identity = Identity.load_or_create(site / "state" / "identity.pem")
        told[site.name] = fingerprint(identity.public_key)
        assert authority in joined
        assert told[site.name] in joined
    requests = [site / f"{site.name}.join.toml" for site in sites]
    admitted = typed("coordinator", "admit", folder, *requests)
    shown = typed("site", "pin", sites[0], coordinator.peers_file)
    for text in (admitted, shown):
        assert all(each in text for each in told.values())
    assert "expires on" in typed("coordinator", "members", folder)
    assert told[names[2]] in typed("coordinator", "revoke", folder, names[2])
    assert names[2] in typed("site", "pin", sites[0], coordinator.peers_file)
    typed("site", "join", sites[2], coordinator.invitation_file(names[2]), "--new-keys")
    typed("coordinator", "admit", folder, requests[2], "--replace")
    typed("coordinator", "renew", folder)
    assert "all sites must join again" in typed("coordinator", "renew", folder, "--authority")


def test_members_are_shown_as_json_for_machines(
    coordinator: Coordinator, requests: dict[str, JoinRequest]
) -> None:
    names = sorted(requests)
    for name in names[:2]:
        Members(coordinator).admit(requests[name])
    Members(coordinator).revoke(names[1])
    done = CliRunner().invoke(app, ["coordinator", "members", str(coordinator.folder), "--json"])
    shown = json.loads(done.output)
    assert [row["site"] for row in shown["members"]] == names[:2]
    assert shown["members"][0]["revoked"] is None
    assert shown["members"][1]["revoked"] == str(datetime.now(UTC).date())
    assert shown["members"][0]["fingerprint"] == fingerprint(requests[names[0]].public_key)
    assert shown["invited"] == names
    assert shown["warnings"] == []
