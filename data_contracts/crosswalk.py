"""Who is who: identifiers of payers and providers in a site's files, as pseudonyms of the network.

A crosswalk is a CSV file at the site. That of payers has the columns `identifier` (as it stands in
the files: an NPI, a payer id, a plan id), `pseudonym` and `business_line`; that of providers has
`identifier` and `pseudonym`. Whoever it does not name gets a keyed pseudonym, the same everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from data_contracts.deidentification.tokens import Tokens, normal


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
    """

    tokens: Tokens
    payers: Mapping[str, Payer] = field(default_factory=dict)
    providers: Mapping[str, str] = field(default_factory=dict)

    def payer(self, identifier: str) -> Payer:
        """The payer with this identifier."""
        known = self.payers.get(normal(identifier))
        return known or Payer(self.tokens.pseudonym("payer", identifier))

    def provider(self, identifier: str) -> str:
        """Pseudonym of the provider group with this identifier."""
        known = self.providers.get(normal(identifier))
        return known or self.tokens.pseudonym("provider", identifier)
