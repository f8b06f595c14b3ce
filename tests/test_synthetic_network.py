import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data_contracts.errors import GroundTruthError
from data_contracts.fields import terms_of
from data_contracts.manifest import SiteManifest
from data_contracts.network import Network, site_folders
from data_contracts.synthetic import codes
from data_contracts.synthetic.calibration import figures
from data_contracts.synthetic.generate import TABLES, generate
from data_contracts.synthetic.mechanism import simulate
from data_contracts.synthetic.settings import HARMONISED, SEED_MANUAL, SiteEffects
from data_contracts.synthetic.sites import make_sites
from data_contracts.synthetic.tokens import tokens

N_REQUESTS = 12_000


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("network") / "seed_manual"
    generate(out, preset="seed_manual", n_requests=N_REQUESTS, seed=3)
    return out


def _all(network: Path, role: str, table: str) -> pl.DataFrame:
    return pl.read_parquet(network / "sites" / f"{role}-*" / table / "*.parquet")


def _truth(network: Path) -> pl.DataFrame:
    return pl.read_parquet(network / "truth" / "*.parquet")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# --- what lies on disk ---------------------------------------------------------------------------


def test_every_table_keeps_its_contract_without_a_cast(network: Path) -> None:
    for folder in site_folders(network):
        manifest = SiteManifest.load(folder)
        assert set(manifest.tables) == set(TABLES)
        for name, schema in TABLES.items():
            frame = pl.read_parquet(manifest.tables[name] / "*.parquet")
            absent = [column for column in schema.column_names() if column not in frame.columns]
            assert all(schema.columns()[column].nullable for column in absent)
            nulls = [
                pl.lit(None, schema.columns()[column].dtype).alias(column) for column in absent
            ]
            schema.validate(frame.with_columns(nulls).select(schema.column_names()), cast=False)


def test_a_site_holds_only_the_fields_of_its_role(network: Path) -> None:
    for folder in site_folders(network):
        role = SiteManifest.load(folder).role
        for name, schema in TABLES.items():
            columns = pl.scan_parquet(folder / name / "*.parquet").collect_schema().names()
            for column in columns:
                assert column in schema.column_names(), f"{name}.{column} is no contract field"
                assert terms_of(schema.columns()[column]).held_by(role), f"{role}: {name}.{column}"
    assert "baseline_labs" in _all(network, "provider", "clinical_outcome").columns
    assert "reviewer_queue" in _all(network, "payer", "pa_decision").columns


def test_no_site_holds_a_column_of_the_truth(network: Path) -> None:
    hidden = set(_truth(network).columns) - {"request_token", "patient_token"}
    assert {"severity", "criteria_met", "reviewer_leniency", "ed_risk_if_denied"} <= hidden
    for file in (network / "sites").rglob("*.parquet"):
        assert not hidden & set(pl.read_parquet_schema(file))


def test_a_site_folder_holds_its_rows_alone(network: Path) -> None:
    for folder in site_folders(network):
        manifest = SiteManifest.load(folder)
        assert manifest.origin == "synthetic"
        assert manifest.group == manifest.name == folder.name
        column = "payer_id" if manifest.role == "payer" else "provider_group_id"
        requests = pl.read_parquet(folder / "pa_request" / "*.parquet")
        assert requests[column].unique().to_list() == [manifest.group]
        for table in ("pa_decision", "clinical_outcome", "claim_payment"):
            rows = pl.read_parquet(folder / table / "*.parquet")
            assert rows.join(requests, on="request_token", how="anti").is_empty()


def test_payers_and_providers_hold_the_same_requests(network: Path) -> None:
    for table in TABLES:
        payers, providers = _all(network, "payer", table), _all(network, "provider", table)
        shared = [column for column in payers.columns if column in providers.columns]
        order = [column for column in shared if column.endswith(("_token", "_seq"))]
        assert payers.select(shared).sort(order).equals(providers.select(shared).sort(order))


def test_every_request_has_one_outcome_and_one_truth(network: Path) -> None:
    requests = _all(network, "payer", "pa_request").select("request_token", "patient_token")
    assert requests.height == N_REQUESTS
    assert requests["request_token"].n_unique() == N_REQUESTS
    keys = ["request_token", "patient_token"]
    for other in (_all(network, "payer", "clinical_outcome"), _truth(network)):
        assert other.select(keys).sort(keys).equals(requests.sort(keys))


def test_answers_come_in_order_and_pends_are_closed(network: Path) -> None:
    answers = _all(network, "payer", "pa_decision").sort("request_token", "exchange_seq")
    by_request = answers.group_by("request_token", maintain_order=True).agg(
        pl.col("exchange_seq"), pl.col("action_code"), hours=pl.col("decision_hours")
    )
    assert by_request.height == N_REQUESTS
    ordered = pl.col("exchange_seq").list.diff().list.drop_nulls().list.min().fill_null(1) == 1
    later = pl.col("hours").list.diff().list.drop_nulls().list.min().fill_null(0.0) >= 0
    closed = pl.col("action_code").list.last() != "A4"
    assert by_request.select((ordered & later & closed).all()).item()
    pended = answers.filter(pl.col("action_code") == "A4")
    assert pended["exchange_seq"].unique().to_list() == [0]
    overturned = answers.filter(pl.col("appeal_outcome") == "overturned")
    assert overturned["action_code"].unique().to_list() == ["A1"]
    assert answers.filter(pl.col("auto_decided"))["decision_hours"].max() == pytest.approx(
        1 / 60, abs=1e-4
    )


def test_claims_add_up(network: Path) -> None:
    claims = _all(network, "payer", "claim_payment").join(
        _truth(network).select("request_token", "received"), on="request_token"
    )
    denied = claims["claim_status"] == "4"
    assert claims.filter(~pl.col("received"))["claim_status"].unique().to_list() == ["4"]
    assert (claims["carc"].is_not_null() == denied).all()
    paid = claims.filter(pl.col("days_receipt_to_payment").is_not_null())
    assert paid.height > 0.8 * claims.height
    total = paid["paid_to_provider"] + paid["paid_by_patient"]
    assert (total - paid["eligible"]).abs().max() < 0.02  # type: ignore[operator]
    assert (claims["submitted"] >= claims["eligible"]).all()


def test_no_cpt_code_and_no_small_zip_area(network: Path) -> None:
    codes_used = _all(network, "payer", "pa_request")["procedure_code"].drop_nulls()
    assert codes_used.str.contains(r"^[A-Z]").all()
    assert not codes_used.str.contains(r"^[0-9]{4}[0-9FTU]$").any()
    small = (
        "036 059 063 102 202 203 204 205 369 556 692 753 772 790 821 823 830 831 878 879 884 890"
    )
    assert not set(codes.ZIP3) & {*small.split(), "893"}
    assert set(_all(network, "payer", "clinical_outcome")["zip3"]) <= set(codes.ZIP3)


def test_incomplete_follow_up_is_null_never_false(network: Path) -> None:
    rows = _all(network, "provider", "clinical_outcome")
    short = rows.filter(pl.col("followup_days_observed") < 90)
    assert 0.04 < short.height / rows.height < 0.08
    assert short["ed_visit_90d"].is_null().all()
    assert rows.filter(pl.col("followup_days_observed") == 90)["ed_visit_90d"].is_not_null().all()
    observed = rows.filter("event_observed")
    assert (observed["days_to_event"] <= observed["followup_days_observed"]).all()
    full = rows.filter(pl.col("ed_visit_90d").is_not_null())
    assert (full["ed_visit_90d"] == full["event_observed"]).all()


# --- determinism and sizes -----------------------------------------------------------------------


def test_equal_arguments_give_equal_bytes_and_another_seed_other_rows(
    network: Path, tmp_path: Path
) -> None:
    generate(tmp_path / "again", preset="seed_manual", n_requests=N_REQUESTS, seed=3)
    assert _digests(tmp_path / "again") == _digests(network)
    generate(tmp_path / "other", preset="seed_manual", n_requests=N_REQUESTS, seed=4)
    assert not set(_truth(tmp_path / "other")["request_token"]) & set(
        _truth(network)["request_token"]
    )


def test_chunks_are_equal_whatever_follows_them() -> None:
    sites = make_sites(SEED_MANUAL.sites, 4, 10)
    short = next(iter(simulate(SEED_MANUAL, sites, 65_000, 1)))
    long = next(iter(simulate(SEED_MANUAL, sites, 500_000, 1)))
    assert len(short.requests) < 65_000, "the first of two chunks"
    np.testing.assert_array_equal(short.reviews.final_hours, long.reviews.final_hours)
    np.testing.assert_array_equal(short.follow_ups.if_denied.risk, long.follow_ups.if_denied.risk)


def test_the_description_is_written_last_and_read_back(tmp_path: Path) -> None:
    done: list[int] = []

    def progress(count: int) -> None:
        done.append(count)
        assert not (tmp_path / "out" / "network.json").exists()

    network = generate(
        tmp_path / "out", preset="harmonised", n_requests=1000, seed=0, progress=progress
    )
    assert done == [1000]
    assert Network.load(tmp_path / "out") == network
    assert network.settings["preset"] == "harmonised"
    raw = json.loads((tmp_path / "out" / "network.json").read_text())
    assert raw["settings"]["mechanism"]["criteria"]["documented_intercept"] == (
        HARMONISED.criteria.documented_intercept
    )


@pytest.mark.parametrize(("n_payers", "n_providers"), [(2, 3), (1, 1), (20, 60)])
def test_any_count_of_sites(tmp_path: Path, n_payers: int, n_providers: int) -> None:
    generate(
        tmp_path / "out",
        preset="seed_manual",
        n_requests=8_000,
        n_payers=n_payers,
        n_providers=n_providers,
        seed=5,
    )
    manifests = [SiteManifest.load(folder) for folder in site_folders(tmp_path / "out")]
    assert sum(manifest.role == "payer" for manifest in manifests) == n_payers
    assert sum(manifest.role == "provider" for manifest in manifests) == n_providers
    for manifest in manifests:
        for path in manifest.tables.values():
            assert not pl.read_parquet(path / "*.parquet").is_empty()
    assert _all(tmp_path / "out", "payer", "pa_request").height == 8_000
    measured = figures(tmp_path / "out")
    assert 60 < measured.first_pass_approval < 73
    assert 9 < measured.denial < 17


def test_default_counts_have_the_default_effects_exactly() -> None:
    effects = SiteEffects()
    sites = make_sites(effects, 4, 10)
    assert sites.payers == ("payer-1", "payer-2", "payer-3", "payer-4")
    assert sites.providers[0] == "provider-01"
    assert tuple(sites.laxity) == effects.payer_laxity
    assert tuple(sites.strictness) == effects.payer_strictness
    np.testing.assert_allclose(sites.payer_share, effects.payer_shares, rtol=1e-12)
    np.testing.assert_allclose(sites.provider_share, effects.provider_shares, rtol=1e-12)
    np.testing.assert_allclose(sites.maturity, np.linspace(-1.4, 1.4, 10), atol=1e-12)
    assert sites.leniency.mean() == pytest.approx(0, abs=1e-12)
    assert sites.leniency.std() == pytest.approx(1)


def test_tokens_are_distinct_by_kind_and_seed() -> None:
    numbers = np.arange(20_000)
    kinds = [tokens("request", numbers, 1), tokens("patient", numbers, 1)]
    both = pl.concat([*kinds, tokens("request", numbers, 2)])
    assert both.n_unique() == len(both)
    assert both.str.contains(r"^[0-9a-f]{32}$").all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"preset": "seed_manul"}, "no preset"),
        ({"n_payers": 0}, "at least one payer"),
        ({"n_requests": 10}, "too few"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, wrong: dict[str, object], words: str) -> None:
    arguments: dict[str, object] = {"preset": "seed_manual", "n_requests": 1000, "seed": 0} | wrong
    with pytest.raises(GroundTruthError, match=words):
        generate(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(GroundTruthError, match="not empty"):
        generate(tmp_path, preset="seed_manual", n_requests=1000, seed=0)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


# --- patients ------------------------------------------------------------------------------------


def test_patients_sites_and_requests_per_patient() -> None:
    sites = make_sites(SEED_MANUAL.sites, 4, 10)
    chunks = list(simulate(SEED_MANUAL, sites, 60_000, 11))
    assert 31_000 < sum(chunk.n_patients for chunk in chunks) < 33_000
    requests = pl.concat(
        pl.DataFrame(
            {
                "patient": chunk.first_patient + chunk.requests.patient,
                "payer": chunk.requests.payer,
                "provider": chunk.requests.provider,
                "day": chunk.requests.day,
                "year": chunk.requests.year,
            }
        )
        for chunk in chunks
    )
    patients = requests.group_by("patient", maintain_order=True).agg(
        pl.len(),
        pl.col("payer", "provider").n_unique(),
        ordered=pl.col("day").diff().min().fill_null(1) >= 0,
        years=pl.col("year").diff().min().fill_null(0) >= 0,
    )
    assert patients["provider"].max() == 3
    assert patients["payer"].max() == 2
    assert 0.005 < (patients["payer"] == 2).mean() < 0.08  # type: ignore[operator]
    assert patients["ordered"].all()
    assert patients["years"].all()
    assert set(requests["year"]) == {0, 1, 2}


def test_labs_recover_severity(network: Path) -> None:
    labs = (
        _all(network, "provider", "clinical_outcome")
        .select("request_token", "baseline_labs")
        .explode("baseline_labs", empty_as_null=False, keep_nulls=False)
        .select("request_token", pl.col("baseline_labs").struct.unnest())
        .pivot(on="loinc", index="request_token", values="value")
    )
    rows = _truth(network).join(labs, on="request_token", how="left")
    values = rows.select("4548-4", "33914-3", "8480-6").to_numpy()
    missing = np.isnan(values)
    assert 0.03 < missing.mean() < 0.05
    filled = np.where(missing, np.nanmean(values, axis=0), values)
    design = np.column_stack([filled, missing[:, :2], np.ones(len(filled))])
    severity = rows["severity"].to_numpy()
    fitted = design @ np.linalg.lstsq(design, severity, rcond=None)[0]
    assert np.corrcoef(fitted, severity)[0, 1] ** 2 > 0.93
    whole = ~missing.any(axis=1)
    assert np.corrcoef(fitted[whole], severity[whole])[0, 1] ** 2 > 0.95


def test_a_documentation_bias_can_be_injected_and_none_is_by_default() -> None:
    effect = tuple(-1.0 if race == 1 else 0.0 for race in range(7))
    biased = replace(SEED_MANUAL, criteria=replace(SEED_MANUAL.criteria, documented_of_race=effect))

    def share_documented(mechanism: object) -> tuple[float, float]:
        sites = make_sites(SEED_MANUAL.sites, 4, 10)
        chunk = next(iter(simulate(mechanism, sites, 60_000, 2)))  # type: ignore[arg-type]
        met, documented = chunk.reviews.met, chunk.reviews.documented
        black = chunk.requests.race == 1
        return float(documented[black][met[black]].mean()), float(
            documented[~black][met[~black]].mean()
        )

    fair, unfair = share_documented(SEED_MANUAL), share_documented(biased)
    assert abs(fair[0] - fair[1]) < 0.02
    assert unfair[1] - unfair[0] > 0.08


# --- what the network is calibrated to -----------------------------------------------------------

SHARES = 1.5
DAYS = 0.3


@pytest.mark.slow
def test_calibration_of_seed_manual(tmp_path: Path) -> None:
    generate(tmp_path / "out", preset="seed_manual", n_requests=200_000, seed=2024)
    measured = figures(tmp_path / "out")
    assert measured.first_pass_approval == pytest.approx(66, abs=SHARES)
    assert measured.median_standard_days == pytest.approx(4.3, abs=DAYS)
    assert measured.denial == pytest.approx(13, abs=SHARES)
    assert measured.appealed == pytest.approx(10.6, abs=SHARES)
    assert measured.overturned == pytest.approx(83, abs=SHARES)
    assert measured.approved_with_complete_documentation == pytest.approx(90, abs=SHARES)
    assert measured.urgent_within_72_hours == pytest.approx(98, abs=SHARES)


@pytest.mark.slow
def test_calibration_of_harmonised(tmp_path: Path) -> None:
    generate(tmp_path / "out", preset="harmonised", n_requests=200_000, seed=2024)
    measured = figures(tmp_path / "out")
    assert measured.first_pass_approval == pytest.approx(84, abs=SHARES)
    assert measured.median_standard_days == pytest.approx(1.1, abs=DAYS)
    assert measured.approved_with_complete_documentation > 90
    assert measured.urgent_within_72_hours > 98


def test_the_known_truth_of_a_denial() -> None:
    """The design's figures were measured on 10^6 draws: 118 000 denials, 43 000 of them met.

    Its standard errors are sqrt(P(the two worlds differ) / denials): 0.038 points overall, 0.091
    where the criteria were met, 0.027 where not. Ours come from risks, so they add next to none.
    """
    sites = make_sites(SEED_MANUAL.sites, 4, 10)
    effect, met, drawn = [], [], []
    for chunk in simulate(SEED_MANUAL, sites, 400_000, 8):
        denied = ~chunk.reviews.received
        worlds = chunk.follow_ups.if_denied, chunk.follow_ups.if_approved
        effect.append((worlds[0].risk - worlds[1].risk)[denied])
        drawn.append((worlds[0].ed_visit.astype(float) - worlds[1].ed_visit)[denied])
        met.append(chunk.reviews.all_met[denied])
    effects, all_met = 100 * np.concatenate(effect), np.concatenate(met)
    assert effects.mean() == pytest.approx(1.67, abs=2 * 0.038)
    assert effects[all_met].mean() == pytest.approx(3.70, abs=2 * 0.091)
    assert effects[~all_met].mean() == pytest.approx(0.58, abs=2.5 * 0.027)
    outcomes = 100 * np.concatenate(drawn)
    assert (outcomes >= 0).all(), "from the same noise, a denial never helps here"
    standard_error = outcomes.std() / np.sqrt(len(outcomes))
    assert abs(outcomes.mean() - effects.mean()) < 4 * standard_error


def test_reviewer_leniency_is_an_instrument() -> None:
    """It moves approvals and, but for them, nothing: severity does not depend on it."""
    sites = make_sites(SEED_MANUAL.sites, 4, 10)
    chunk = next(iter(simulate(SEED_MANUAL, sites, 60_000, 9)))
    leniency = chunk.reviews.leniency
    approved = chunk.reviews.first == 0
    n = len(leniency)
    assert np.corrcoef(leniency, approved)[0, 1] > 0.05
    for hidden in (chunk.requests.severity, chunk.follow_ups.if_denied.risk):
        assert abs(np.corrcoef(leniency, hidden)[0, 1]) < 4 / np.sqrt(n)
