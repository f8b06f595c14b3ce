"""An experiment's TOML file: which data, which tasks, which promise of privacy."""

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from data_contracts.public.registry import PUBLIC
from data_contracts.synthetic.settings import PRESETS
from federation.exchange import Patience
from federation.settings import ConfigError, PrivacySettings, parse
from models.additive_training import AdditiveSettings
from models.families import FAMILIES
from models.neural_training import NeuralSettings
from models.tasks import TASKS

TEST_SHARE: Final = 0.25
"""Share of patients held out, unless settings say otherwise."""

Engine = Literal["in-process", "simulation", "deployment"]
ENGINES: Final = get_args(Engine)
_POLL_SECONDS: Final = 0.5  # sites look for messages every three seconds


@dataclass(frozen=True, slots=True)
class DeploymentSettings:
    """How a run over a network's own sites begins and waits; no matter elsewhere.

    Attributes:
        coordinator: The coordinator's folder.
        quorum: Sites that must take part from the start; as many as the noise needs unless given.
        quorum_minutes: How long to wait for them.
        round_minutes: How long to wait for the answers of one round.
        ask_again_seconds: How long to wait for an answer before it is asked for again.
    """

    coordinator: str = ""
    quorum: int | None = None
    quorum_minutes: float = 15.0
    round_minutes: float = 15.0
    ask_again_seconds: float = 10.0

    def __post_init__(self) -> None:
        if min(self.quorum_minutes, self.round_minutes, self.ask_again_seconds) <= 0:
            raise ConfigError("deployment: minutes and seconds are positive numbers")
        if self.quorum is not None and self.quorum < 2:
            raise ConfigError("deployment.quorum starts at 2: a sum over fewer hides nothing")

    def patience(self) -> Patience:
        """The same in seconds."""
        return Patience(
            quorum_seconds=60 * self.quorum_minutes,
            round_seconds=60 * self.round_minutes,
            ask_again_seconds=self.ask_again_seconds,
            quorum=self.quorum,
            poll_seconds=_POLL_SECONDS,
        )


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Where the sites' data come from.

    Attributes:
        name: "synthetic", or a public data set.
        source: Folder of a public data set's files; the default is where
            `groundtruth data fetch` puts them.
        network: A folder that `groundtruth network generate` has written, used as it is.
        preset: Preset of a synthetic network.
        requests: Requests of a synthetic network.
        payers: Payers of a synthetic network.
        providers: Providers of a synthetic network.
    """

    name: str = "synthetic"
    source: str | None = None
    network: str | None = None
    preset: str = "seed_manual"
    requests: int = 60_000
    payers: int = 4
    providers: int = 10

    def __post_init__(self) -> None:
        if self.name != "synthetic" and self.name not in PUBLIC:
            raise ConfigError(
                f"there is no data set {self.name!r}; known are synthetic, {', '.join(PUBLIC)}"
            )
        others = (self.name, self.preset, self.requests, self.payers, self.providers, self.source)
        if self.network is not None and others != _DEFAULTS:
            raise ConfigError(
                "data.network takes a folder as it is: leave out the other keys of [data]"
            )
        if min(self.requests, self.payers, self.providers) < 1:
            raise ConfigError("data.requests, payers and providers start at 1")
        if self.preset not in PRESETS:
            raise ConfigError(f"there is no preset {self.preset!r}; known are {', '.join(PRESETS)}")


_DEFAULTS = ("synthetic", "seed_manual", 60_000, 4, 10, None)


@dataclass(frozen=True, slots=True)
class ExperimentConfig:
    """One experiment.

    Attributes:
        tasks: Names of the tasks.
        name: Short name; part of the run's folder.
        seed: Seed of everything that is drawn; the same seed gives the same result.
        test_share: Share of patients held out.
        engine: What the federation runs on.
        data: Where the data come from.
        privacy: What is promised to patients.
        family: Family of the models.
        additive: Settings of the additive family.
        neural: Settings of the neural family.
        deployment: How a run over a network's own sites begins and waits.
    """

    tasks: tuple[str, ...]
    name: str = "run"
    seed: int = 7
    test_share: float = TEST_SHARE
    engine: Engine = "in-process"
    data: DataSettings = field(default_factory=DataSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    family: str = "additive"
    additive: AdditiveSettings = field(default_factory=AdditiveSettings)
    neural: NeuralSettings = field(default_factory=NeuralSettings)
    deployment: DeploymentSettings = field(default_factory=DeploymentSettings)

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ConfigError("tasks must name at least one task, and each only once")
        for task in self.tasks:
            if task not in TASKS:
                raise ConfigError(f"there is no task {task!r}; tasks are {', '.join(TASKS)}")
        if self.family not in FAMILIES:
            raise ConfigError(
                f"there is no family {self.family!r}; families are {', '.join(FAMILIES)}"
            )
        if not 0 < self.test_share < 1:
            raise ConfigError(f"test_share must lie between 0 and 1, not {self.test_share}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, not {self.seed}")

    def with_changes(self, **changes: Any) -> "ExperimentConfig":
        """A copy; changes that are None are left out."""
        return replace(self, **{key: value for key, value in changes.items() if value is not None})


def load_config(file: Path) -> ExperimentConfig:
    """The experiment that a TOML file describes.

    Raises:
        ConfigError: The file is missing, not TOML, or has an unknown key or a wrong value.
    """
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{file} is a folder; name the TOML file in it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not a TOML file: {error}") from None
    try:
        return parse(ExperimentConfig, {"name": file.stem, **raw}, "the settings")
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
