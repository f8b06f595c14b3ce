"""Who a site is: its long-term signing key, and the public keys of the network's sites.

A site makes its key once and shows the public half to the other sites by a way of its own choosing
(a meeting, a phone call). Whatever it says in a run is signed with it, so a coordinator, through
whom all messages pass, can speak in nobody's name.

The keys are Ed25519 (RFC 8032). Every site pins the registry: from then on nobody else decides who
takes part in a sum.
"""

import base64
import binascii
import contextlib
import hashlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tomli_w
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from data_contracts.errors import GroundTruthError
from data_contracts.vocabulary import PSEUDONYM_PATTERN
from federation.private_files import written_beside

IDENTITY_FILE: Final = "identity.pem"
"""Usual name of a site's private key. The file never leaves the site."""
REGISTRY_FILE: Final = "peers.toml"
"""Usual name of the registry. Nothing in it is secret; what counts is that it is the right one."""

_KEY_BYTES = 32
_MAX_FILE_BYTES = 1_000_000
_SECTION = "sites"
_POSIX = os.name == "posix"


class IdentityError(GroundTruthError):
    """A site's private key, or the registry of public keys, cannot be used."""


class UnknownSiteError(IdentityError):
    """The registry holds no key of a site."""


class SignatureError(IdentityError):
    """A message was not signed by the site in whose name it came."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A site's long-term key pair.

    Attributes:
        private_key: The Ed25519 private key.
    """

    private_key: Ed25519PrivateKey

    @classmethod
    def load_or_create(cls, file: Path) -> "Identity":
        """The identity in the file, which is made if it is not there.

        Of two processes that make it at once, both end up with the same key.

        Raises:
            IdentityError: The file is readable by others, holds no Ed25519 private key, or can be
                neither read nor written.
        """
        with _explained(file):
            if not file.exists():
                pem = Ed25519PrivateKey.generate().private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                )
                with written_beside(file, pem) as part, contextlib.suppress(FileExistsError):
                    os.link(part, file)  # unlike a renaming, never in place of another's
            with file.open("rb") as stream:
                if _POSIX and (mode := os.fstat(stream.fileno()).st_mode & 0o077):
                    raise IdentityError(
                        f"{file} holds this site's private key and is open to other users of the "
                        f"machine (mode {mode | 0o600:03o}). Whoever may have read it can sign in "
                        f"the site's name. If nobody has: chmod 600 {file}. Otherwise delete it "
                        "and give the new public key to the other sites"
                    )
                content = stream.read(_MAX_FILE_BYTES)
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(
                f"{file} holds no Ed25519 private key in PEM form without a password. Restore it "
                "from a backup; if there is none, delete it and give the new public key to the "
                "other sites"
            )
        return cls(key)

    @property
    def public_key(self) -> bytes:
        """The public key, 32 bytes."""
        return self.private_key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Signature of a message, 64 bytes. Every kind of message starts with a name of its own."""
        return self.private_key.sign(message)


@dataclass(frozen=True, slots=True)
class Registry:
    """The public keys of a network's sites.

    A key under two names is refused: one site would count as two. That a site did not make two keys
    is for those to see who agree on the registry; no computation can.

    Attributes:
        keys: Site's name -> Ed25519 public key, 32 bytes.

    Raises:
        IdentityError: A name is no pseudonym, a key has not 32 bytes, or two sites have the same.
    """

    keys: Mapping[str, bytes]

    def __post_init__(self) -> None:
        owners: dict[bytes, str] = {}
        for site, key in self.keys.items():
            if not re.fullmatch(PSEUDONYM_PATTERN, site):
                raise IdentityError(
                    f"{site!r} is no site's name: lower-case letters, digits, - and _, starting "
                    "with a letter, 32 at most"
                )
            if len(key) != _KEY_BYTES:
                raise IdentityError(
                    f"the public key of site {site} has {len(key)} bytes, not {_KEY_BYTES}; ask "
                    "the site for it again"
                )
            if (other := owners.setdefault(key, site)) != site:
                raise IdentityError(
                    f"sites {other} and {site} have the same public key, so one could pose as the "
                    "other; ask both for theirs"
                )

    @classmethod
    def load(cls, file: Path) -> "Registry":
        """Read a registry.

        Raises:
            IdentityError: The file is missing, is not TOML, or holds something else than public
                keys by site.
        """
        with _explained(file):
            content = file.read_bytes()
        try:
            raw = tomllib.loads(content.decode("utf-8-sig"))
        except ValueError as error:
            raise IdentityError(f"{file} is not a TOML file: {error}") from None
        sites = raw.get(_SECTION)
        if set(raw) != {_SECTION} or not isinstance(sites, dict) or not sites:
            raise IdentityError(
                f"{file} must hold one section [{_SECTION}] with a line per site: "
                'name = "public key in base64"'
            )
        try:
            return cls({site: _decoded(site, text) for site, text in sites.items()})
        except IdentityError as error:
            raise IdentityError(f"{file}: {error}") from None

    def write(self, file: Path) -> None:
        """Write the registry, whole or not at all, in place of an older one.

        Raises:
            IdentityError: The file cannot be written.
        """
        lines = {site: base64.b64encode(key).decode() for site, key in sorted(self.keys.items())}
        with _explained(file):
            content = tomli_w.dumps({_SECTION: lines}).encode()
            with written_beside(file, content) as part:
                part.chmod(0o644)
                part.replace(file)

    def key_of(self, site: str) -> bytes:
        """Public key of a site, 32 bytes.

        Raises:
            UnknownSiteError: There is no such site.
        """
        if site not in self.keys:
            raise UnknownSiteError(
                f"the registry of the network's sites holds no site {site!r}. If it has joined, "
                f"get the current registry and check the site's fingerprint with the site itself"
            )
        return self.keys[site]

    def verify(self, site: str, message: bytes, signature: bytes) -> None:
        """Make sure that a site signed a message.

        Raises:
            UnknownSiteError: There is no such site.
            SignatureError: It did not.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.key_of(site)).verify(signature, message)
        except InvalidSignature:
            raise SignatureError(
                f"a message in the name of site {site} was not signed with its key "
                f"({fingerprint(self.keys[site])}). Somebody else sent or changed it, or the site "
                "has a new key: check the fingerprint with the site itself"
            ) from None


def fingerprint(public_key: bytes) -> str:
    """The first 128 bits of the key's SHA-256, for people to compare aloud.

    >>> fingerprint(bytes(32))
    '6668 7aad f862 bd77 6c8f c18b 8e9f 8e20'
    """
    digits = hashlib.sha256(public_key).hexdigest()[:32]
    return " ".join(re.findall("....", digits))


def _decoded(site: str, text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else "-", validate=True)
    except (binascii.Error, ValueError):
        raise IdentityError(f"the public key of site {site!r} is not text in base64") from None


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Say of which file the operating system complains."""
    try:
        yield
    except OSError as error:
        raise IdentityError(f"{file} cannot be used: {error.strerror}") from None
