"""A site's signing key on disk, and the registry of the network's public keys."""

import base64
import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import federation.identity
from data_contracts.errors import GroundTruthError
from federation.identity import (
    Identity,
    IdentityError,
    Registry,
    SignatureError,
    UnknownSiteError,
    fingerprint,
)

posix_only = pytest.mark.skipif(os.name != "posix", reason="files have no POSIX mode here")
KEYS = {"site-a": bytes([1] * 32), "site-b": bytes([2] * 32)}


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.load_or_create(tmp_path / "identity.pem")


# --- the private key -----------------------------------------------------------------------------


def test_an_identity_is_made_once_and_the_same_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "state" / "identity.pem"
    made = Identity.load_or_create(file)
    content = file.read_bytes()
    assert Identity.load_or_create(file).public_key == made.public_key
    assert file.read_bytes() == content
    assert [path.name for path in file.parent.iterdir()] == ["identity.pem"]
    assert Identity.load_or_create(tmp_path / "other.pem").public_key != made.public_key


@posix_only
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_private_key_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Identity.load_or_create(tmp_path / "identity.pem")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "identity.pem").stat().st_mode) == 0o600


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o601])
def test_a_private_key_open_to_others_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    file = tmp_path / "identity.pem"
    public_key = Identity.load_or_create(file).public_key
    file.chmod(mode)
    with pytest.raises(IdentityError, match=rf"mode {mode:o}.*chmod 600 {file}"):
        Identity.load_or_create(file)
    file.chmod(0o600)
    assert Identity.load_or_create(file).public_key == public_key


def test_where_files_have_no_posix_mode_none_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "identity.pem"
    made = Identity.load_or_create(file)
    file.chmod(0o644)
    monkeypatch.setattr(federation.identity, "_POSIX", False)
    assert Identity.load_or_create(file).public_key == made.public_key


def test_the_key_file_is_never_seen_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "identity.pem"

    def crash(descriptor: int) -> None:
        assert not file.exists()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(IdentityError, match=r"identity\.pem cannot be used: No space left"):
        Identity.load_or_create(file)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_make_the_identity_at_once_end_up_with_one(tmp_path: Path) -> None:
    file = tmp_path / "identity.pem"
    start = threading.Barrier(8)
    found: list[bytes] = []

    def make() -> None:
        start.wait()
        found.append(Identity.load_or_create(file).public_key)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {Identity.load_or_create(file).public_key}
    assert [path.name for path in tmp_path.iterdir()] == ["identity.pem"]


def test_a_key_that_another_process_made_meanwhile_is_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "identity.pem"
    other = Identity.load_or_create(tmp_path / "other.pem")
    link = os.link

    def late(source: str | Path, target: str | Path) -> None:
        if not Path(target).exists():
            link(tmp_path / "other.pem", target)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert Identity.load_or_create(file).public_key == other.public_key


def _pem(key: object, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)  # type: ignore[attr-defined, no-any-return] # either kind of key


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        bytes(32),
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        _pem(Ed25519PrivateKey.generate())[:-40],
        _pem(Ed25519PrivateKey.generate(), b"secret"),
        _pem(generate_private_key(SECP256R1())),
    ],
    ids=["empty", "text", "zeros", "no key", "cut off", "with a password", "another kind of key"],
)
def test_a_file_without_a_private_key_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "identity.pem"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(IdentityError, match="no Ed25519 private key"):
        Identity.load_or_create(file)
    assert file.read_bytes() == content


def test_a_folder_in_the_place_of_the_key_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=f"{tmp_path} cannot be used"):
        Identity.load_or_create(tmp_path)


def test_neither_an_identity_nor_its_errors_show_the_private_key(
    tmp_path: Path, identity: Identity
) -> None:
    file = tmp_path / "identity.pem"
    secret = identity.private_key.private_bytes_raw()
    file.write_bytes(file.read_bytes() + b"x")
    file.chmod(0o644)
    with pytest.raises(IdentityError) as refused:
        Identity.load_or_create(file)
    for shown in (repr(identity), str(identity), str(refused.value)):
        assert secret.hex() not in shown
        assert base64.b64encode(secret).decode() not in shown


# --- signatures ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(message=st.binary(max_size=200))
def test_what_a_site_signs_verifies_in_its_name_and_in_no_other(message: bytes) -> None:
    one, two = (Identity(Ed25519PrivateKey.generate()) for _ in range(2))
    registry = Registry({"one": one.public_key, "two": two.public_key})
    signature = one.sign(message)
    assert len(signature) == 64
    registry.verify("one", message, signature)
    with pytest.raises(SignatureError, match="in the name of site two"):
        registry.verify("two", message, signature)
    with pytest.raises(SignatureError):
        registry.verify("one", message + b"\0", signature)


@settings(deadline=None)
@given(position=st.integers(0, 511))
def test_a_signature_with_one_wrong_bit_is_refused(position: int) -> None:
    identity = Identity(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    signature = bytearray(identity.sign(b"hello"))
    signature[position // 8] ^= 1 << position % 8
    with pytest.raises(SignatureError, match=fingerprint(identity.public_key)):
        Registry({"a": identity.public_key}).verify("a", b"hello", bytes(signature))


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_bytes_that_are_no_signature_are_refused(identity: Identity, signature: bytes) -> None:
    with pytest.raises(SignatureError, match="not signed with its key"):
        Registry({"a": identity.public_key}).verify("a", b"hello", signature)


def test_signatures_are_those_of_rfc_8032() -> None:
    # Section 7.1, test 2.
    private = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
    identity = Identity(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private)))
    assert identity.public_key.hex() == (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    )
    assert identity.sign(b"\x72").hex().startswith("92a009a9f0d4cab8720e820b5f642540")


def test_the_public_key_is_the_one_of_the_private_key(identity: Identity) -> None:
    Ed25519PublicKey.from_public_bytes(identity.public_key).verify(identity.sign(b"x"), b"x")


def test_a_fingerprint_is_half_a_sha_256_in_groups_for_reading_aloud() -> None:
    shown = fingerprint(KEYS["site-a"])
    assert shown.replace(" ", "") == hashlib.sha256(KEYS["site-a"]).hexdigest()[:32]
    assert {len(group) for group in shown.split(" ")} == {4}


# --- the registry --------------------------------------------------------------------------------


def test_a_registry_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "network" / "peers.toml"
    Registry(KEYS).write(file)
    assert Registry.load(file) == Registry(KEYS)
    assert file.read_text(encoding="utf-8").splitlines()[0] == "[sites]"
    assert f'site-a = "{base64.b64encode(KEYS["site-a"]).decode()}"' in file.read_text("utf-8")


def test_a_registry_is_replaced_whole_and_may_be_read_by_all(tmp_path: Path) -> None:
    file = tmp_path / "peers.toml"
    Registry({"site-a": KEYS["site-a"]}).write(file)
    Registry(KEYS).write(file)
    assert Registry.load(file).keys == KEYS
    assert [path.name for path in tmp_path.iterdir()] == ["peers.toml"]
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_a_registry_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "peers.toml"
    Registry(KEYS).write(file)

    def crash(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(IdentityError, match=r"peers\.toml cannot be used: No space left"):
        Registry({"site-a": KEYS["site-a"]}).write(file)
    assert Registry.load(file).keys == KEYS


def test_an_unknown_site_is_named_and_the_reader_told_what_to_do() -> None:
    for call in (
        lambda: Registry(KEYS).key_of("site-c"),
        lambda: Registry(KEYS).verify("site-c", b"", bytes(64)),
    ):
        with pytest.raises(UnknownSiteError, match=r"no site 'site-c'.*fingerprint"):
            call()
    assert Registry(KEYS).key_of("site-b") == KEYS["site-b"]


def test_a_key_under_two_names_is_refused_because_one_could_pose_as_the_other() -> None:
    with pytest.raises(IdentityError, match="sites site-a and site-x have the same public key"):
        Registry(KEYS | {"site-x": KEYS["site-a"]})


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_the_wrong_length_is_refused_with_its_sites_name(length: int) -> None:
    with pytest.raises(IdentityError, match=f"site site-c has {length} bytes, not 32"):
        Registry(KEYS | {"site-c": bytes(length)})


@pytest.mark.parametrize("name", ["", "Site", "site a", "1234567893", "a" * 33, "a\n", "ä"])
def test_a_name_that_is_no_pseudonym_is_refused(name: str) -> None:
    with pytest.raises(IdentityError, match="is no site's name"):
        Registry({name: KEYS["site-a"]})


GOOD = base64.b64encode(KEYS["site-a"]).decode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[sites", "is not a TOML file"),
        (f'[sites]\na = "{GOOD}"\na = "{GOOD}"', "is not a TOML file"),
        ("?", "is not a TOML file"),
        ("", "section"),
        ("[sites]", "section"),
        ('sites = "x"', "section"),
        (f'[peers]\na = "{GOOD}"', "section"),
        (f'[sites]\na = "{GOOD}"\n[more]', "section"),
        ("[sites]\na = 3", "of site 'a' is not text in base64"),
        ('[sites]\na = "?"', "of site 'a' is not text in base64"),
        ('[sites]\na = "ä"', "of site 'a' is not text in base64"),
        (f'[sites]\na = " {GOOD}"', "of site 'a' is not text in base64"),
        ('[sites]\na = "AAAA"', "site a has 3 bytes, not 32"),
        (f'[sites]\nA = "{GOOD}"', "is no site's name"),
        (f'[sites]\na = "{GOOD}"\nb = "{GOOD}"', "sites a and b have the same public key"),
    ],
)
def test_a_file_that_is_no_registry_is_refused_with_its_name(
    tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "peers.toml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(IdentityError, match=rf"peers\.toml.*{words}"):
        Registry.load(file)


def test_bytes_that_are_no_text_and_missing_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "peers.toml"
    with pytest.raises(IdentityError, match=r"peers\.toml cannot be used: No such file"):
        Registry.load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IdentityError, match="is not a TOML file"):
        Registry.load(file)


def test_every_error_is_one_that_a_user_can_mend() -> None:
    assert issubclass(IdentityError, GroundTruthError)
    assert issubclass(UnknownSiteError, IdentityError)
    assert issubclass(SignatureError, IdentityError)
