"""A preview shows what a run would send, and sends and charges nothing."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data_contracts.manifest import SiteManifest
from experiments.config import ExperimentConfig, load_config
from experiments.site_preview import Preview, preview
from federation.settings import ConfigError
from federation.site import site_rows

CONFIG = Path(__file__).parent.parent / "experiments/configs/approval.toml"


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    return load_config(CONFIG)


@pytest.fixture
def site(private_sites: list[Path]) -> Path:
    return private_sites[0]


@pytest.fixture
def seen(site: Path, config: ExperimentConfig) -> Preview:
    return preview(site, config, "approved", n_sites=10)


def test_every_release_of_the_plan_is_shown_in_order(seen: Preview) -> None:
    shown = [(vector.step, vector.round) for vector in seen.vectors]
    assert shown == [
        (name, number)
        for name, step in seen.plan.steps.items()
        if name != "retry"
        for number in range(1, step.rounds + 1)
    ]


def test_the_first_vector_is_what_the_sites_rows_add_up_to(seen: Preview, site: Path) -> None:
    first = seen.vectors[0]
    rows = site_rows(site, seen.plan, "train")
    told = dict(zip(first.meanings, first.exact, strict=True))
    # Every patient weighs 1, spread over its records; so each feature's block adds up to N.
    assert told["label 0"] + told["label 1"] == pytest.approx(rows.n_patients)
    urgency = [value for name, value in told.items() if name.startswith("Urgency = ")]
    assert sum(urgency) == pytest.approx(rows.n_patients)
    assert first.exact.size == first.noisy.size == len(first.meanings)


def test_the_noise_is_as_large_as_it_is_said_to_be(seen: Preview) -> None:
    # Some 1 800 values: sqrt(2 / n) = 3.3 % is one standard deviation of the ratio of variances;
    # five of them are passed by chance once in two million runs.
    scaled = [(vector.noisy - vector.exact) / vector.noise_std for vector in seen.vectors]
    noise = np.concatenate(scaled)
    assert noise.size > 1000
    assert abs(np.mean(noise**2) - 1) < 5 * math.sqrt(2 / noise.size)


def test_nothing_is_charged_and_nothing_is_left_behind(
    site: Path, config: ExperimentConfig
) -> None:
    folder = site.parent
    before = {file: file.stat().st_mtime_ns for file in sorted(folder.rglob("*"))}
    preview(site, config, "approved", n_sites=3)
    assert {file: file.stat().st_mtime_ns for file in sorted(folder.rglob("*"))} == before


def test_noise_is_fresh_each_time(seen: Preview, site: Path, config: ExperimentConfig) -> None:
    again = preview(site, config, "approved", n_sites=10)
    assert np.array_equal(seen.vectors[0].exact, again.vectors[0].exact)
    assert not np.array_equal(seen.vectors[0].noisy, again.vectors[0].noisy)


def test_it_says_whether_the_site_would_refuse(site: Path, config: ExperimentConfig) -> None:
    assert not preview(site, config, "approved", n_sites=10).refusal
    manifest = SiteManifest.load(site)
    dataclasses.replace(manifest, max_epsilon=0.01).write(site.parent)
    assert "max_epsilon = 0.01" in preview(site, config, "approved", n_sites=10).refusal


def test_a_site_that_is_only_measured_has_nothing_to_preview(
    small_network: Path, config: ExperimentConfig
) -> None:
    with pytest.raises(ConfigError, match="payer-1 is only measured"):
        preview(small_network / "sites/payer-1/site.toml", config, "approved", n_sites=3)


def test_settings_without_privacy_are_not_previewed(site: Path, config: ExperimentConfig) -> None:
    open_config = config.with_changes(privacy=dataclasses.replace(config.privacy, epsilon=None))
    with pytest.raises(ConfigError, match="promise no privacy"):
        preview(site, open_config, "approved", n_sites=3)


def test_every_value_can_be_written_down(seen: Preview, tmp_path: Path) -> None:
    seen.write(tmp_path / "vectors.parquet")
    written = pl.read_parquet(tmp_path / "vectors.parquet")
    assert written.height == sum(vector.exact.size for vector in seen.vectors)
    first = written.filter((pl.col("step") == "histogram") & (pl.col("round") == 1))
    assert first["exact"].to_list() == seen.vectors[0].exact.tolist()
