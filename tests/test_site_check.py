"""What a check counts, what it concludes, and that its page names nobody."""

import csv
import dataclasses
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from data_contracts.catalog import CONTRACTS
from data_contracts.deidentification.policy import Policy
from data_contracts.manifest import SiteManifest
from experiments.progress import Reporter
from experiments.site_check.check import SiteCheck, check_site
from experiments.site_check.page import write_page
from experiments.site_check.profile import CELLS, FieldProfile, profile
from experiments.site_check.verdict import Verdict, judge


def check(manifest: SiteManifest) -> SiteCheck:
    return check_site(manifest, Reporter(quiet=True))


@pytest.fixture
def manifest(provider_folders: list[Path], tmp_path: Path) -> SiteManifest:
    """A provider whose tables may be changed."""
    given = SiteManifest.load(provider_folders[0])
    for name, path in given.tables.items():
        pl.read_parquet(path / "*.parquet").write_parquet(tmp_path / f"{name}.parquet")
    tables = {name: tmp_path / f"{name}.parquet" for name in given.tables}
    return SiteManifest(given.name, given.role, tables, origin="private", on_error="quarantine")


def change(manifest: SiteManifest, table: str, *columns: pl.Expr) -> None:
    file = manifest.tables[table]
    pl.read_parquet(file).with_columns(*columns).write_parquet(file)


def field(check: SiteCheck, table: str, name: str) -> FieldProfile:
    (found,) = (table_ for table_ in check.tables if table_.name == table)
    (field_,) = (field_ for field_ in found.fields if field_.name == name)
    return field_


def profiles(name: str, rows: pl.DataFrame) -> dict[str, FieldProfile]:
    contract = CONTRACTS[name]
    whole = pl.concat([contract.schema.create_empty(), rows], how="diagonal_relaxed")
    return {found.name: found for found in profile(contract, whole, "provider")}


# --- profiles ----------------------------------------------------------------------------------


def test_numbers_are_counted_in_the_cells_of_their_declared_range(
    frames: dict[str, pl.DataFrame],
) -> None:
    # attachments_n is declared from 0 to 20: a cell each, and 20 belongs to the last one.
    values = pl.Series([0, 0, 1, 19, 20, 25, None], dtype=pl.Int16)
    rows = frames["pa_request"].head(7).with_columns(attachments_n=values)
    found = profiles("pa_request", rows)["attachments_n"]
    assert found.cells == (2, 1, *[0] * (CELLS - 3), 3)
    assert (found.low, found.high, found.outside) == (0, 20, 1)
    assert (found.rows, found.filled, found.missing) == (7, 6, pytest.approx(1 / 7))


def test_codes_are_counted_and_tokens_only_told_apart(frames: dict[str, pl.DataFrame]) -> None:
    rows = frames["pa_decision"]
    found = profiles("pa_decision", rows)
    assert sum(count for _, count in found["action_code"].levels) == rows.height
    assert found["request_token"].distinct == rows["request_token"].n_unique()
    assert found["request_token"].levels == ()


def test_diagnoses_are_told_by_chapter(frames: dict[str, pl.DataFrame]) -> None:
    found = profiles("pa_request", frames["pa_request"])
    for name in ("dx_principal", "dx_other"):
        assert found[name].levels
        assert all(re.fullmatch("[a-z_]+", level) for level, _ in found[name].levels)


def test_codes_of_no_group_are_counted(frames: dict[str, pl.DataFrame]) -> None:
    rows = frames["pa_request"].head(4)
    codes = pl.Series(["E11.9", "E119", "U99.9", "12345"])  # chapter U ends with U85
    found = profiles("pa_request", rows.with_columns(dx_principal=codes))["dx_principal"]
    assert found.levels == (("endocrine", 2),)
    assert found.unknown == {"no code by its shape": 1, "a code of no group": 1}


def test_diagnoses_of_another_system_are_noticed(manifest: SiteManifest) -> None:
    # Chapter U ends with U85.
    change(manifest, "pa_request", pl.lit("U99.9").alias("dx_principal"))
    verdict, findings = judge(check(manifest))
    assert verdict is Verdict.WARNINGS
    assert any("no chapter of ICD-10-CM" in finding.what for finding in findings)


# --- the verdict -------------------------------------------------------------------------------


def test_a_good_site_is_ready_and_has_nothing_to_do(manifest: SiteManifest) -> None:
    assert judge(check(manifest)) == (Verdict.READY, ())


def test_rows_set_aside_are_a_warning_with_a_next_step(manifest: SiteManifest) -> None:
    first = pl.int_range(pl.len()) == 0
    hours = pl.when(first).then(-1.0).otherwise("decision_hours")
    change(manifest, "pa_decision", hours.alias("decision_hours"))
    verdict, (finding,) = judge(check(manifest))
    assert verdict is Verdict.WARNINGS
    assert "pa_decision" in finding.what
    assert "decision_hours|min (1)" in finding.what
    assert "rejected.csv" in finding.step


def test_a_wrong_unit_is_noticed(manifest: SiteManifest) -> None:
    # Minutes in place of hours: the network declares up to 1 440 hours.
    change(manifest, "pa_decision", pl.col("decision_hours") * 60)
    verdict, findings = judge(check(manifest))
    assert verdict is Verdict.WARNINGS
    assert any(
        "pa_decision.decision_hours" in finding.what and "0 to 1440 h" in finding.what
        for finding in findings
    )


def test_a_feature_without_any_value_is_noticed(manifest: SiteManifest) -> None:
    change(manifest, "pa_request", pl.lit(None, dtype=pl.Float64).alias("risk_score"))
    found = check(manifest)
    (approved,) = (task for task in found.tasks if task.name == "approved")
    assert approved.missing == ("Risk score",)
    assert any("Risk score" in finding.what for finding in judge(found)[1])


def test_tables_that_do_not_join_make_a_site_not_ready(manifest: SiteManifest) -> None:
    for table in ("pa_decision", "clinical_outcome"):
        change(manifest, table, pl.col("request_token").str.reverse())
    verdict, findings = judge(check(manifest))
    assert verdict is Verdict.NOT_READY
    assert findings[0].blocks
    assert any("join" in finding.what for finding in findings)


def test_one_bad_table_does_not_hide_another(manifest: SiteManifest) -> None:
    for table in ("pa_request", "pa_decision"):
        pl.read_parquet(manifest.tables[table]).clear().write_parquet(manifest.tables[table])
    blocking = [finding.what for finding in judge(check(manifest))[1] if finding.blocks]
    assert any("pa_request" in what for what in blocking)
    assert any("pa_decision" in what for what in blocking)


def test_a_ground_that_ends_soon_is_a_warning_and_an_expired_one_stops_all(
    manifest: SiteManifest,
) -> None:
    today = datetime.now(UTC).date()

    def until(day: date) -> SiteManifest:
        policy = Policy(mode="expert_determination", certificate="ED-1", expires=day)
        return dataclasses.replace(manifest, policy=policy)

    verdict, (finding,) = judge(check(until(today + timedelta(days=5))))
    assert verdict is Verdict.WARNINGS
    assert "expires on" in finding.what
    verdict, findings = judge(check(until(today - timedelta(days=2))))
    assert verdict is Verdict.NOT_READY
    assert "expired on" in findings[0].what


# --- the page ----------------------------------------------------------------------------------


def test_the_page_holds_no_token_and_the_csv_file_only_places(
    manifest: SiteManifest, tmp_path: Path
) -> None:
    tokens = pl.read_parquet(manifest.tables["pa_request"])
    change(manifest, "pa_decision", -pl.col("decision_hours"))
    page, rejected = write_page(check(manifest), tmp_path / "out")
    text = page.read_text(encoding="utf-8") + rejected.read_text(encoding="utf-8")
    for column in ("patient_token", "request_token"):
        assert not [token for token in tokens[column] if token in text]
    lines = list(csv.DictReader(rejected.read_text(encoding="utf-8").splitlines()))
    assert lines[0] == {
        "table": "pa_decision",
        "rule": "decision_hours|min",
        "file": "pa_decision.parquet",
        "place": lines[0]["place"],
    }
    assert re.fullmatch(r"row \d+", lines[0]["place"])


def test_the_page_asks_nothing_of_the_network_and_escapes_what_it_shows(
    manifest: SiteManifest, tmp_path: Path
) -> None:
    codes = pl.lit(["<script>x</script>"]).alias("reason_codes")
    change(manifest, "pa_decision", codes)
    page, _ = write_page(check(manifest), tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert "default-src 'none'" in text


def test_the_page_of_a_limited_data_set_says_that_it_is_phi(
    manifest: SiteManifest, tmp_path: Path
) -> None:
    limited = Policy(mode="limited_data_set", dua="DUA-1", expires=date(2099, 1, 1))
    page, _ = write_page(check(dataclasses.replace(manifest, policy=limited)), tmp_path / "out")
    assert "protected health information" in page.read_text(encoding="utf-8")
    page, _ = write_page(check(manifest), tmp_path / "out")
    assert "protected health information" not in page.read_text(encoding="utf-8")
