"""`site init` writes a site.toml that loads, proposes and never overwrites."""

import stat
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from data_contracts.deidentification.policy import write_key
from data_contracts.errors import GroundTruthError, ManifestError
from data_contracts.intake import read_tables
from data_contracts.manifest import SiteManifest
from experiments.site_init import Answers, answered, init_site

NOTHING = {
    "name": "",
    "role": "",
    "mode": "",
    "certificate": "",
    "dua": "",
    "expires": "",
    "tables": [],
    "exchanges": {},
    "key_file": None,
}


def default(_: str, default: str) -> str:
    return default


def asked(answers: dict[str, str]) -> Callable[[str, str], str]:
    """A person who answers the questions that hold a word, and takes the default otherwise."""

    def ask(question: str, default: str) -> str:
        return next((answer for word, answer in answers.items() if word in question), default)

    return ask


def test_files_with_the_contracts_names_need_no_mapping(
    texts: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    texts["pa_decision"].write_csv(site / "decisions.csv")
    tables = {"pa_decision": site / "decisions.csv"}
    file, steps = init_site(site, Answers("st-mary", "payer", tables=tables))
    assert 'pa_decision = "decisions.csv"' in file.read_text(encoding="utf-8")
    assert steps == [f"groundtruth site check {site}"]
    manifest = SiteManifest.load(file)
    assert (manifest.name, manifest.role, manifest.origin) == ("st-mary", "payer", "private")
    assert read_tables(manifest)["pa_decision"].counts.valid == texts["pa_decision"].height


def test_other_names_get_a_proposal_that_reads_the_same_rows(
    texts: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    plain = texts["pa_decision"]
    named = {"decision_hours": "TAT_HRS", "action_code": "DECISION_CD"}
    mapped = {name: (column,) for name, column in named.items()}
    own = plain.rename(named).with_columns(MEMBER_ID=pl.lit("M-1"))
    own.write_csv(tmp_path / "um.csv", separator=";")
    plain.write_csv(tmp_path / "plain.csv")
    tables = {"pa_decision": tmp_path / "um.csv"}
    file, steps = init_site(tmp_path / "site", Answers("st-mary", "payer", tables=tables))
    assert "confirm how the columns of um.csv are mapped onto pa_decision" in steps[0]
    manifest = SiteManifest.load(file)
    assert mapped.items() <= manifest.mappings["pa_decision"].columns.items()
    assert manifest.mappings["pa_decision"].ignore == ("MEMBER_ID",)
    by_hand = SiteManifest("st-mary", "payer", {"pa_decision": tmp_path / "plain.csv"})
    read, expected = (read_tables(one)["pa_decision"].rows for one in (manifest, by_hand))
    assert read.equals(expected)


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("mine", encoding="utf-8")
    with pytest.raises(ManifestError, match="exists and is kept"):
        init_site(tmp_path, Answers("st-mary", "payer", exchanges={"x12": tmp_path}))
    assert (tmp_path / "site.toml").read_text(encoding="utf-8") == "mine"


def test_what_cannot_be_loaded_is_not_left_behind(tmp_path: Path) -> None:
    exchanges = {"x12": tmp_path}
    answers = Answers("st-mary", "payer", exchanges=exchanges, mode="expert_determination")
    with pytest.raises(GroundTruthError, match="needs certificate"):
        init_site(tmp_path / "site", answers)
    assert not (tmp_path / "site/site.toml").exists()


def test_exchanges_ask_for_the_ground_and_the_key(tmp_path: Path) -> None:
    person = asked(
        {"Pseudonym": "mercy", "X12": "edi", "certificate": "ED-7", "last day": "2027-01-31"}
    )
    answers = answered(person, **NOTHING)  # type: ignore[arg-type]
    assert answers == Answers(
        "mercy",
        "provider",
        exchanges={"x12": Path("edi")},
        mode="expert_determination",
        certificate="ED-7",
        expires=date(2027, 1, 31),
        key_file=Path("network.key"),
    )
    file, steps = init_site(tmp_path / "mercy", answers)
    manifest = SiteManifest.load(file)
    assert manifest.policy.key_file == tmp_path / "mercy/network.key"
    assert any("groundtruth network key" in step for step in steps)
    write_key(tmp_path / "mercy/network.key")
    assert stat.S_IMODE((tmp_path / "mercy/network.key").stat().st_mode) == 0o600
    assert manifest.policy.tokens()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"role": "hospital"}, "payer or provider"),
        ({"tables": ["requests.csv"]}, "CONTRACT=FILE"),
        ({"tables": ["a=b"], "mode": "hipaa"}, "the mode is one of safe_harbor"),
        (
            {"tables": ["a=b"], "mode": "limited_data_set", "dua": "D", "expires": "soon"},
            "a day as YYYY-MM-DD",
        ),
        ({}, "no data"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        answered(default, **{**NOTHING, **options})  # type: ignore[arg-type]
