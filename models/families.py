"""The families of models: how each is trained, in which steps, and how its models are read.

A new family is a module with settings and a training (see `models.training`), and an entry here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from data_contracts.features import Grid
from models.additive import AdditiveModel
from models.additive_training import AdditiveSettings, train
from models.neural import NeuralModel
from models.neural_queries import require_torch
from models.neural_training import NeuralSettings, train_neural
from models.training import Model, Training

EVALUATION: Final = "evaluation"
"""The step of every family that looks at held-out patients."""


class Train(Protocol):
    """Starts a training; see `models.additive_training.train`."""

    def __call__(
        self,
        features: Sequence[str],
        grids: Sequence[Grid],
        settings: Any,
        *,
        max_records: int,
        groups: Sequence[str] = (),
    ) -> Training:
        """See `models.additive_training.train`."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a training.

    Attributes:
        rounds: Its rounds.
        sample_rate: Probability with which a patient takes part in each.
    """

    rounds: int = 1
    sample_rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models.

    Attributes:
        train: Starts a training.
        steps: The steps of a training with these settings, in order.
        read: The model behind its text.
        require: Raises where a site cannot answer the family's queries.
    """

    train: Train
    steps: Callable[[Any], Mapping[str, Step]]
    read: Callable[[str], Model]
    require: Callable[[], None] = lambda: None


def _additive_steps(settings: AdditiveSettings) -> Mapping[str, Step]:
    return {
        "histogram": Step(),
        "gram": Step(),
        "gradient": Step(settings.gradient_rounds),
        "recalibration": Step(),
        EVALUATION: Step(),
    }


def _neural_steps(settings: NeuralSettings) -> Mapping[str, Step]:
    return {
        "histogram": Step(),
        "gradient": Step(settings.gradient_rounds, settings.sample_rate),
        "recalibration": Step(),
        EVALUATION: Step(),
    }


FAMILIES: Final[Mapping[str, Family]] = {
    "additive": Family(train, _additive_steps, AdditiveModel.from_json),
    "neural": Family(train_neural, _neural_steps, NeuralModel.from_json, require_torch),
}


def read_model(text: str) -> Model:
    """The model of whichever family behind its text."""
    return FAMILIES[json.loads(text)["family"]].read(text)
