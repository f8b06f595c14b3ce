"""Who is who: identifiers of payers and providers in a site's files, as pseudonyms of the network.

A crosswalk is a CSV file at the site. That of payers has the columns `identifier` (as it stands in
the files: an NPI, a payer id, a plan id), `pseudonym` and `business_line`; that of providers has
`identifier` and `pseudonym`. Whoever it does not name gets a keyed pseudonym, the same everywhere.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from data_contracts.deidentification.tokens import Tokens, normal
from data_contracts.errors import ManifestError
from data_contracts.vocabulary import BUSINESS_LINES, PSEUDONYM_PATTERN

UNLISTED_PAYER: Final = (
    "a payer that [crosswalk] payers does not list, so that its payer_id is not this site's name; "
    "list every identifier of this payer there"
)
"""What is noted of messages at a payer that does not list itself."""


@dataclass(frozen=True, slots=True)
class Payer:
    """A payer as the network calls it.

    Attributes:
        pseudonym: Its name in the network.
        business_line: Its line of business, where a message does not tell; None where unknown.
    """

    pseudonym: str
    business_line: str | None = None


@dataclass(frozen=True, slots=True)
class Crosswalk:
    """Pseudonyms of organizations, and tokens of everything else.

    Attributes:
        tokens: The network's tokens.
        payers: Normal identifier -> payer.
        providers: Normal identifier -> pseudonym of the provider group.
        own: The payer that the site is, which messages without a payer concern; None elsewhere.
        business_line: Line of business where neither a message nor the crosswalk tells.
    """

    tokens: Tokens
    payers: Mapping[str, Payer] = field(default_factory=dict)
    providers: Mapping[str, str] = field(default_factory=dict)
    own: Payer | None = None
    business_line: str | None = None

    @classmethod
    def load(
        cls,
        tokens: Tokens,
        files: Mapping[str, Path],
        *,
        own: str | None = None,
        business_line: str | None = None,
    ) -> "Crosswalk":
        """Read a site's crosswalks.

        Args:
            tokens: The network's tokens.
            files: "payers" or "providers" -> CSV file; either may be missing.
            own: Pseudonym of the site where it is a payer.
            business_line: Line of business where nothing else tells.

        Raises:
            ManifestError: A file cannot be read, or a line of it cannot be used.
        """
        payers: dict[str, Payer] = {}
        providers: dict[str, str] = {}
        if "payers" in files:
            columns = ("identifier", "pseudonym", "business_line")
            for identifier, pseudonym, line, where in _lines(files["payers"], columns):
                if line and line not in BUSINESS_LINES:
                    known = ", ".join(BUSINESS_LINES)
                    raise ManifestError(f"{where}: the business line is not one of {known}")
                payers[identifier] = Payer(pseudonym, line or business_line)
        if "providers" in files:
            lines = _lines(files["providers"], ("identifier", "pseudonym"))
            providers = {identifier: pseudonym for identifier, pseudonym, _ in lines}
        payer = Payer(own, business_line) if own else None
        return cls(tokens, payers, providers, payer, business_line)

    def payer(self, identifier: str) -> Payer:
        """The payer with this identifier."""
        known = self.payers.get(normal(identifier))
        return known or Payer(self.tokens.pseudonym("payer", identifier), self.business_line)

    def lacks_own(self, identifier: str) -> bool:
        """Whether the site is a payer, which messages concern, and this identifier is not listed.

        Its rows then bear a keyed pseudonym, which no roster of the network knows.
        """
        return self.own is not None and normal(identifier) not in self.payers

    def provider(self, identifier: str) -> str:
        """Pseudonym of the provider group with this identifier."""
        known = self.providers.get(normal(identifier))
        return known or self.tokens.pseudonym("provider", identifier)


def _lines(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The lines of a crosswalk: normal identifier, pseudonym, further columns, and the place.

    Messages repeat no identifier.
    """
    seen: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.DictReader(stream, strict=True)
            if list(lines.fieldnames or ()) != list(columns):
                raise ManifestError(f"{file}: the header line must read {','.join(columns)}")
            for line in lines:
                where = f"{file}, line {lines.line_num}"
                if None in line or None in line.values():
                    raise ManifestError(f"{where}: {len(columns)} cells are needed")
                identifier, pseudonym, *more = (line[name].strip() for name in columns)
                if not normal(identifier):
                    raise ManifestError(f"{where}: the identifier is empty")
                if not re.fullmatch(PSEUDONYM_PATTERN, pseudonym):
                    raise ManifestError(
                        f"{where}: a pseudonym has lower-case letters, digits, - and _, starts "
                        "with a letter, and is no longer than 32"
                    )
                if seen.setdefault(normal(identifier), pseudonym) != pseudonym:
                    raise ManifestError(f"{where}: the identifier has another pseudonym above")
                yield normal(identifier), pseudonym, *more, where
    except OSError as error:
        raise ManifestError(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{file} is no CSV file in UTF-8 ({type(error).__name__})") from None
