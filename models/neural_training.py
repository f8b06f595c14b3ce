"""Training of the neural model: as many gradients as its settings say, a few questions around.

    histogram      1 round    where the rows lie            -> scale of the numbers, base rate
    gradient      40 rounds   per-patient clipped gradients -> parameters
    recalibration  1 round    scores against labels         -> slope and intercept
    evaluation     1 round    the same on held-out patients -> how good it is

Sites need torch and Opacus to answer; whoever asks does not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.features import Grid, NumberGrid
from models.evaluation import evaluate
from models.neural import LIMIT, MAX_HIDDEN, MAX_LAYERS, MAX_WIDTH, Architecture, NeuralModel
from models.neural_queries import NeuralEvaluationQuery, NeuralScoreQuery, PatientGradientQuery
from models.neural_rounding import gradient_rounding
from models.queries import HistogramQuery, pack_tables
from models.recalibration import recalibrate
from models.score_histogram import GROUP_BINS, score_edges
from models.suppression import suppress
from models.training import Trained, Training

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NeuralSettings:
    """Settings of the neural family. All are public; the defaults were set on synthetic data.

    Attributes:
        hidden: Units of each hidden layer.
        width: Coordinates of a category's embedding.
        gradient_rounds: Gradient rounds.
        sample_rate: Probability with which a patient takes part in a round; 1 takes all. At equal
            epsilon 0.2 costs 0.001 of AUROC and takes the sites a fifth of the time.
        clip: L2 bound on a patient's gradient.
        learning_rate: How far a parameter moves in a round, at most about.
        weight_decay: Share of a parameter that is lost in a round, over the learning rate.
        seed: Seed of the parameters at the start.

    Raises:
        ValueError: A setting is out of range.
    """

    hidden: tuple[int, ...] = (32, 16)
    width: int = 8
    gradient_rounds: int = 40
    sample_rate: float = 1.0
    clip: float = 2.0
    learning_rate: float = 0.04
    weight_decay: float = 0.2
    seed: int = 1

    def __post_init__(self) -> None:
        if not (
            1 <= len(self.hidden) <= MAX_LAYERS
            and all(1 <= units <= MAX_HIDDEN for units in self.hidden)
        ):
            raise ValueError(
                f"hidden must name 1 to {MAX_LAYERS} layers of 1 to {MAX_HIDDEN} units, not "
                f"{list(self.hidden)}"
            )
        if not 1 <= self.width <= MAX_WIDTH:
            raise ValueError(f"width must lie between 1 and {MAX_WIDTH}, not {self.width}")
        if not 1 <= self.gradient_rounds <= 60:
            raise ValueError(f"gradient_rounds must lie in 1 to 60, not {self.gradient_rounds}")
        if not 1e-3 <= self.sample_rate <= 1:
            raise ValueError(f"sample_rate must lie in 0.001 to 1, not {self.sample_rate}")
        if not 1e-3 <= self.clip <= 1e3:
            raise ValueError(f"clip must lie between 0.001 and 1000, not {self.clip}")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(
                f"learning_rate must lie above 0 and up to 1, not {self.learning_rate}"
            )
        if not 0 <= self.weight_decay * self.learning_rate < 1:
            raise ValueError(
                "weight_decay must not be negative, and below 1 / learning_rate, not "
                f"{self.weight_decay}"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie between 0 and 2^63, not {self.seed}")


class NoisyAdam:
    """Adam on noisy sums, which takes the noise's own variance out of the second moment.

    Noise of known standard deviation s adds s^2 to every second moment. Taken out again, steps
    follow the size of the gradient and not of the noise. What is left is not trusted below 2 s:
    parameters whose gradient drowns move as in plain descent, little. Weights decay apart from the
    gradient, so that decay is the same for all (Loshchilov, Hutter, ICLR 2019). The scale of the
    sums plays no part, so no number of patients is needed.

    Args:
        parameters: Where to start, shape (d,).
        learning_rate: Step size.
        weight_decay: Decay of parameters, over the learning rate.

    Source: Kingma, Ba, "Adam" (ICLR 2015); Tang, Shpilevskiy, Lecuyer, "DP-AdamBC: Your DP-Adam Is
    Actually DP-SGD (Unless You Apply Bias Correction)" (AAAI 2024), Algorithm 1.
    """

    FIRST, SECOND = 0.8, 0.95
    FLOOR = 2.0
    SMALLEST = 1e-5  # of the largest second moment's root; for gradients without noise

    def __init__(self, parameters: Vector, learning_rate: float, weight_decay: float) -> None:
        self.parameters = parameters
        self._rate, self._decay = learning_rate, weight_decay
        self._first, self._second = np.zeros_like(parameters), np.zeros_like(parameters)
        self._steps = 0

    def step(self, gradient: Vector, noise_std: float) -> None:
        """One step against the gradient, whose values have noise of that standard deviation."""
        self._steps += 1
        self._first += (1 - self.FIRST) * (gradient - self._first)
        self._second += (1 - self.SECOND) * (gradient**2 - self._second)
        mean = self._first / (1 - self.FIRST**self._steps)
        moment = self._second / (1 - self.SECOND**self._steps)
        floor = max(self.FLOOR * noise_std, self.SMALLEST * math.sqrt(moment.max()), 1e-150)
        size = np.sqrt(np.maximum(moment - noise_std**2, floor**2))
        kept = 1 - self._rate * self._decay
        self.parameters = kept * self.parameters - self._rate * mean / size


_AVERAGED = 1 / 6  # of the rounds, the last ones
_ROUNDING = 2.0**-27  # clips per record; the networks of honest trainings stay below a quarter
_SCORE_BINS, _SCORE_LIMIT = 128, 8.0  # log-odds


def train_neural(
    features: Sequence[str],
    grids: Sequence[Grid],
    settings: NeuralSettings,
    *,
    max_records: int,
    groups: Sequence[str] = (),
) -> Training:
    """Train a network by asking for noisy sums, and measure it; returns both.

    Args:
        features: Names of the features.
        grids: Their public grids.
        settings: Settings of the family.
        max_records: Records of a patient that the sites use at most.
        groups: Features whose codes are the subgroups of the evaluation.

    Raises:
        ValueError: The clip is too small for so many records.

    Source: Abadi et al. (CCS 2016) for noisy clipped gradients, here of all patients in every
    round: full batches compose exactly, and for equally many rounds at equal epsilon they have the
    least noise for their size (De et al., "Unlocking High-Accuracy Differentially Private Image
    Classification through Scale", 2022). The last iterates are averaged, which costs no
    privacy (Polyak, Juditsky 1992).
    """
    n_codes = np.array([grid.n_codes for grid in grids], dtype=np.int64)
    counts = yield HistogramQuery(n_codes)
    private = counts.noise_std > 0
    *per_feature, rest = np.split(counts.values, np.cumsum(n_codes))
    patients = max(float(rest[0] + rest[1]), 2.0)
    base_rate = float(np.clip(rest[1] / patients, 0.001, 0.999))
    columns = [
        _columns(grid, noisy, counts.noise_std)
        for grid, noisy in zip(grids, per_feature, strict=True)
    ]
    tables, table_shapes = pack_tables(tuple(columns))
    hidden = np.array(settings.hidden, dtype=np.int64)
    architecture = Architecture(tables, table_shapes, settings.width, hidden)

    clip = settings.clip if private else math.inf
    adam = NoisyAdam(
        architecture.initial(settings.seed, base_rate),
        settings.learning_rate,
        settings.weight_decay,
    )
    last = max(1, round(settings.gradient_rounds * _AVERAGED))
    average = np.zeros(architecture.n_parameters)
    for left in reversed(range(settings.gradient_rounds)):
        adam.parameters = _gentle(architecture, adam.parameters, max_records, clip)
        gradient = yield PatientGradientQuery(
            parameters=adam.parameters,
            tables=tables,
            table_shapes=table_shapes,
            width=settings.width,
            hidden=hidden,
            clip=clip,
            rounding=_ROUNDING * max_records,
        )
        adam.step(gradient.values, gradient.noise_std)
        if left < last:
            average += adam.parameters / last

    average = np.clip(average, -LIMIT, LIMIT)
    scores = yield NeuralScoreQuery(
        parameters=average,
        tables=tables,
        table_shapes=table_shapes,
        width=settings.width,
        hidden=hidden,
        bins=_SCORE_BINS,
        limit=_SCORE_LIMIT,
        clip=math.sqrt(max_records),
    )
    line = recalibrate(scores.values, scores.noise_std, _SCORE_LIMIT, base_rate)
    found = np.clip(architecture.recalibrated(average, line.slope, line.shift), -LIMIT, LIMIT)
    # What is measured is what is handed out.
    parameters = found.astype(np.float32)
    query = NeuralEvaluationQuery(
        n_codes=n_codes,
        edges=score_edges(scores.values, scores.noise_std, _SCORE_LIMIT, line),
        groups=np.array([features.index(name) for name in groups], dtype=np.int64),
        group_bins=GROUP_BINS,
        clip=math.sqrt(max_records),
        parameters=parameters.astype(np.float64),
        tables=tables,
        table_shapes=table_shapes,
        width=settings.width,
        hidden=hidden,
    )
    held_out = yield query
    figures = evaluate(query, held_out.values, held_out.noise_std, max_records=max_records)
    return Trained(NeuralModel(tuple(features), architecture, parameters), suppress(figures))


def _columns(grid: Grid, noisy: Vector, noise_std: float) -> Matrix:
    """Columns of a feature at each code: of a number, its standard score and "missing".

    Mean and deviation are those of the noisy histogram. A category has no columns.
    """
    if not isinstance(grid, NumberGrid):
        return np.zeros((grid.n_codes, 0))
    seen = np.where(noisy[:-1] < 2 * noise_std, 0.0, np.maximum(noisy[:-1], 0.0))
    share = seen / seen.sum() if seen.sum() > 0 else np.full(grid.cells, 1 / grid.cells)
    cell = np.arange(grid.cells)
    mean = float(share @ cell)
    deviation = max(math.sqrt(share @ (cell - mean) ** 2), 0.5)
    score = np.clip((cell - mean) / deviation, -4.0, 4.0)
    missing = np.eye(grid.n_codes)[:, -1]
    return np.stack([np.append(score, 0.0), missing], axis=1)


def _gentle(
    architecture: Architecture, parameters: Vector, max_records: int, clip: float
) -> Vector:
    """The parameters, made smaller until sites may answer for them: steep networks are refused.

    Raises:
        ValueError: Sites would refuse any network.
    """
    allowed = _ROUNDING * max_records * clip
    if gradient_rounding(architecture, np.zeros_like(parameters), max_records) > allowed:
        raise ValueError(f"clip {clip:g} is too small for patients of {max_records} records")
    parameters = np.clip(parameters, -LIMIT, LIMIT)
    while gradient_rounding(architecture, parameters, max_records) > allowed:
        parameters = 0.95 * parameters
    return parameters
