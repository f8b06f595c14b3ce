"""`network.json`: what a folder of sites on one machine is, and where its data came from.

    DIR/network.json            this description
    DIR/sites/<site>/site.toml  one folder per site, with only what that site would hold
    DIR/truth/                  what nobody in the network holds (synthetic networks only)

Only experiments see several sites in one place; a real network has no such folder.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_contracts.manifest import ManifestError, sites_in

DESCRIPTION_NAME = "network.json"


@dataclass(frozen=True, slots=True)
class Network:
    """A folder of sites.

    Attributes:
        name: Short name, e.g. "synthetic" or "uci-diabetes-130".
        origin: "synthetic" or "public".
        title: One line for people.
        partition: How the sites came to be; says so where they are artificial.
        licence: Licence of the data.
        citation: How to cite them.
        sources: Source file name -> SHA-256.
        settings: What the folder was made with (preset, seed, sizes, ...).
    """

    name: str
    origin: Literal["synthetic", "public"]
    title: str
    partition: str
    licence: str
    citation: str
    sources: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write `folder/network.json`, last, so that a folder with one is complete."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        (folder / DESCRIPTION_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Network":
        """Read `folder/network.json`.

        Raises:
            ManifestError: It is missing or not a description.
        """
        file = folder / DESCRIPTION_NAME
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ManifestError(
                f"{file} does not exist: {folder} is no folder of sites, or was not finished"
            ) from None
        except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
            raise ManifestError(f"{file} is not a network description: {error}") from None


def site_folders(folder: Path) -> list[Path]:
    """The folders of a network's sites, sorted by name."""
    return sites_in(folder / "sites")
