"""`network.json`: what a folder of sites on one machine is, and where its data came from.

    DIR/network.json            this description
    DIR/sites/<site>/site.toml  one folder per site, with only what that site would hold
    DIR/truth/                  what nobody in the network holds (synthetic networks only)

Only experiments see several sites in one place; a real network has no such folder.
"""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from data_contracts.errors import ManifestError
from data_contracts.manifest import sites_in

DESCRIPTION_NAME = "network.json"

NetworkOrigin = Literal["synthetic", "public"]


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
    origin: NetworkOrigin
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
            raw = json.loads(file.read_text(encoding="utf-8-sig"))
        except (FileNotFoundError, NotADirectoryError):
            raise ManifestError(
                f"{file} does not exist: {folder} is no folder of sites, or was not finished"
            ) from None
        except OSError as error:
            raise ManifestError(f"{file} cannot be read: {error.strerror}") from None
        except ValueError as error:  # also a NUL character in the path
            raise ManifestError(f"{str(file)!r} is not a network description: {error}") from None
        if flaw := _flaw(raw):
            raise ManifestError(f"{file} is not a network description: {flaw}")
        return cls(**raw)


def _flaw(raw: object) -> str:
    """What keeps the content of a `network.json` from being a `Network`; "" if nothing does."""
    if not isinstance(raw, dict):
        return f"it holds a {type(raw).__name__}, not an object"
    known = [part.name for part in fields(Network)]
    for key in raw:
        if key not in known:
            return f"unknown key {key!r}; known are {', '.join(known)}"
    for part in fields(Network):
        required = part.default_factory is MISSING
        if required and part.name not in raw:
            return f"{part.name} is missing"
        if not isinstance(raw.get(part.name, {}), str if required else dict):
            return f"{part.name} must be {'text' if required else 'an object'}"
    if raw["origin"] not in get_args(NetworkOrigin):
        return f"origin = {raw['origin']!r} is not one of {', '.join(get_args(NetworkOrigin))}"
    if not all(isinstance(digest, str) for digest in raw.get("sources", {}).values()):
        return "each of sources must be text"
    return ""


def site_folders(folder: Path) -> list[Path]:
    """The folders of a network's sites, sorted by name."""
    return sites_in(folder / "sites")
