"""What a network.json may say; whatever it may not is refused with the reason."""

import json
from pathlib import Path

import pytest

from data_contracts.errors import ManifestError
from data_contracts.network import Network

NETWORK = Network("a", "public", "A", "by hospital", "CC0", "nobody", {"f": "0"}, {"seed": 1})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    NETWORK.write(tmp_path)
    assert Network.load(tmp_path) == NETWORK


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"origin": "private"}, "'private' is not one of synthetic, public"),
        ({"origin": ["public"]}, "origin must be text"),
        ({"title": 3}, "title must be text"),
        ({"licence": None}, "licence must be text"),
        ({"sources": []}, "sources must be an object"),
        ({"sources": {"f": 1}}, "each of sources must be text"),
        ({"settings": "x"}, "settings must be an object"),
        ({"colour": "x"}, "unknown key 'colour'"),
    ],
)
def test_a_wrong_key_or_type_is_named(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    NETWORK.write(tmp_path)
    file = tmp_path / "network.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ManifestError, match=f"not a network description: .*{reason}"):
        Network.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[]", "list, not an object"), ("{}", "name is missing"), ("{", "Expecting"), ("3", "int")],
)
def test_what_is_no_description_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "network.json").write_text(text)
    with pytest.raises(ManifestError, match=f"not a network description: .*{reason}"):
        Network.load(tmp_path)


def test_a_path_that_leads_to_no_network_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(ManifestError, match="is no folder of sites"):
            Network.load(folder)
    (tmp_path / "network.json").mkdir()
    with pytest.raises(ManifestError, match="Is a directory"):
        Network.load(tmp_path)
    with pytest.raises(ManifestError, match="null"):
        Network.load(tmp_path / "a\0b")
