"""Identifiers become tokens: keyed hashes that are the same at every site of a network.

Readers of exchanges (X12, FHIR) call this while they parse, so that no frame ever holds an
identifier. The key is the network's and never leaves the sites; the coordinator must not have it.

Source: HMAC is RFC 2104 with SHA-256. Tokens that are derived from an identifier need an expert's
determination or a data use agreement (45 CFR 164.514(c): a code under Safe Harbor may not be
derived from information about the individual).
"""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable
from typing import Final

SCHEME: Final = "hmac-sha256-member-v1"
"""How patients are told apart: payer's pseudonym and member id, with a dependent's birth date and
first name where one member id serves a family."""

_DIGEST_BYTES = 16
_SEPARATORS = re.compile(r"[\s\-./]+")
_BIRTH = re.compile(r"\s*([0-9]{4})-?([0-9]{2})-?([0-9]{2})")
_UNMARKED = str.maketrans(
    {"Ø": "O", "Ł": "L", "Đ": "D", "Ð": "D", "Þ": "TH", "Æ": "AE", "Œ": "OE"}
)  # letters that Unicode does not compose of another and a mark


class Tokens:
    """Tokens of one network.

    Args:
        key: The network's key, at least 32 bytes.

    Guarantees: without the key a token tells nothing of its identifier (a pseudo-random function);
    two identifiers share a token with probability 2^-128 at most per pair. With the key, whoever
    can list candidate identifiers can test them: the key is as sensitive as the identifiers.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("the network's key has at least 32 bytes")
        self._key = key

    def patient(self, payer: str, member: str, *, dependent: str = "") -> str:
        """A patient: the payer's pseudonym and member id.

        Args:
            payer: The payer's pseudonym.
            member: The member id.
            dependent: Birth date and first name, which tell a family apart; empty for the member.
        """
        return self._token("patient", payer, normal(member), _normal_dependent(dependent))

    def request(self, provider: str, trace: str) -> str:
        """A request: who asks (NPI or the like, may be empty), and the trace number."""
        return self._token("request", normal(provider), _echoed(trace))

    def claim(self, provider: str, control_number: str) -> str:
        """A claim: who is paid (NPI or the like), and the patient control number."""
        return self._token("claim", normal(provider), _echoed(control_number))

    def visit(self, scope: str, number: str) -> str:
        """A stay or visit: within what its number is unique (a patient, a site), and the number."""
        return self._token("visit", scope, _echoed(number))

    def authorization(self, payer: str, number: str) -> str:
        """An authorization: the payer's pseudonym, and the number that it gave."""
        return self._token("authorization", payer, normal(number))

    def pseudonym(self, kind: str, identifier: str) -> str:
        """A pseudonym of an organization that no crosswalk names: "n" and 15 hex digits."""
        return "n" + self._token(kind, normal(identifier))[:15]

    def _token(self, *parts: str) -> str:
        # Lengths before parts, so that no two lists of parts read alike.
        encoded = [part.encode() for part in parts]
        message = b"".join([len(data).to_bytes(4, "big") + data for data in encoded])
        digest: Callable[..., bytes] = hmac.digest
        return digest(self._key, message, hashlib.sha256)[:_DIGEST_BYTES].hex()


def normal(identifier: str) -> str:
    """An identifier as all sites write it: capitals, without blanks, hyphens, dots and slashes.

    >>> normal(" 1eg4-te5.mk73 ")
    '1EG4TE5MK73'
    """
    return _SEPARATORS.sub("", identifier).upper()


def first_word(name: str) -> str:
    """A first name as all senders write it: its first word in plain capitals.

    X12 has a middle name apart, FHIR may have it behind the first; few X12 senders write marks.

    >>> first_word("José"), first_word("jane m."), first_word("D'Andre"), first_word("Søren")
    ('JOSE', 'JANE', 'DANDRE', 'SOREN')
    """
    plain = unicodedata.normalize("NFKD", name).upper().translate(_UNMARKED)
    words = ("".join(filter(str.isalnum, word)) for word in plain.split())
    return next((word for word in words if word), "")


def _normal_dependent(dependent: str) -> str:
    birth = _BIRTH.match(dependent)
    if not birth:
        return normal(dependent)
    return "".join(birth.groups()) + first_word(dependent[birth.end() :])


def _echoed(number: str) -> str:
    """A number that the other side sends back as it was: 1234-56 and 12345-6 are two."""
    return number.strip().upper()
