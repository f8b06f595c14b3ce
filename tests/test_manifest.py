"""What a site.toml may say; whatever it may not is refused with the reason."""

import re
from pathlib import Path

import pytest

from data_contracts.errors import ManifestError
from data_contracts.manifest import SiteManifest
from data_contracts.network import site_folders
from data_contracts.public.ca_dmhc_imr import TREATMENT_GROUPS, UNNAMED_GROUP
from data_contracts.public.uci_heart_disease import SITES
from data_contracts.vocabulary import PSEUDONYM_PATTERN

SITE = '[site]\nname = "site-1"\nrole = "payer"\n'
TABLES = '[tables]\npa_request = "t.csv"\n'


def load(folder: Path, text: str) -> SiteManifest:
    (folder / "site.toml").write_text(text, encoding="utf-8")
    return SiteManifest.load(folder)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    manifest = load(tmp_path, f"\ufeff{SITE}{TABLES}")
    assert (manifest.name, manifest.role, manifest.group) == ("site-1", "payer", "")
    assert manifest.tables == {"pa_request": (tmp_path / "t.csv").resolve()}
    assert SiteManifest.load(manifest.write(tmp_path)) == manifest


@pytest.mark.parametrize("key", ["name", "group"])
@pytest.mark.parametrize(
    "value",
    ['"../../etc"', '"St. Mary"', '"1234567890"', '"site-1\\n"', f'"{"a" * 33}"', "7", '["a"]'],
)
def test_a_name_that_is_no_pseudonym_is_refused_and_not_repeated(
    tmp_path: Path, key: str, value: str
) -> None:
    site = f'[site]\nrole = "payer"\n{key} = {value}\n'
    site += 'name = "site-1"\n' if key == "group" else ""
    with pytest.raises(ManifestError, match=rf"{key} .*network pseudonym.*never an NPI") as caught:
        load(tmp_path, site + TABLES)
    assert value.strip('"') not in str(caught.value).removeprefix(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f'[site]\nname = "a"\n{TABLES}', "needs a role"),
        (f'[site]\nrole = "payer"\n{TABLES}', "needs a name"),
        (f'[site]\nname = "a"\nrole = "bank"\n{TABLES}', "'bank' is not one of payer, provider"),
        (f'site = "a"\n{TABLES}', r"site must be a section, headed \[site\], and is a str"),
        (f'[[site]]\nname = "a"\n{TABLES}', r"site must be a section.* is a list"),
        (f'tables = ["t.csv"]\n{SITE}', r"tables must be a section.* is a list"),
        (SITE, r"no data: name a contract table under \[tables\], or a source"),
        (f"{SITE}[tables]\npa_request = 3\n", "pa_request in .* must be the path"),
        (f'{SITE}[tables]\npa_request = ""\n', "pa_request in .* must be the path"),
        (f'{SITE}[tables]\npa_request = "a\\u0000"\n', "pa_request in .* must be the path"),
        (f"{SITE}[tables]\npa_request.path = 3\n", r"\[tables.pa_request\] needs a path"),
        (f"{SITE}{TABLES}[sources]\nedi = 't'\n", "unknown source 'edi'"),
        (f"{SITE}{TABLES}[sources]\nx12 = 1\n", r"x12 in \[sources\] must be the path"),
        (f"{SITE}{TABLES}[crosswalk]\npayer = 't'\n", "unknown key 'payer'; did you mean 'payers'"),
    ],
)
def test_a_wrong_key_or_type_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        load(tmp_path, text)


def test_a_path_that_leads_to_no_manifest_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match="Not a directory"):
        SiteManifest.load(tmp_path / "file" / "site.toml")
    with pytest.raises(ManifestError, match="null"):
        SiteManifest.load(tmp_path / "a\0b")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ManifestError, match="Permission denied"):
        SiteManifest.load(tmp_path)


def test_the_names_that_we_make_are_pseudonyms(small_network: Path) -> None:
    for folder in site_folders(small_network):
        assert SiteManifest.load(folder).name == folder.name
    for name in (*SITES.values(), *TREATMENT_GROUPS, UNNAMED_GROUP, "payer-unknown", "payer-mc"):
        assert re.fullmatch(PSEUDONYM_PATTERN, name)
