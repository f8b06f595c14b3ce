"""The glass-box model: a prediction is an intercept plus one readable number per feature."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_contracts.features import Codes, Feature, LevelGrid, NumberGrid, grid_of
from models.queries import sigmoid

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shape:
    """What one feature contributes.

    Attributes:
        log_odds: Contribution of each code, shape (n_codes,), the last code being "missing".
        std: Standard error of each contribution, noise and sampling together, shape (n_codes,). It
            knows nothing of the bias of clipping, which grows where patients have several alike
            records.
        frequency: Noisy share of each code, shape (n_codes,).
    """

    log_odds: Vector
    std: Vector
    frequency: Vector

    @property
    def importance(self) -> float:
        """Mean absolute contribution, in log-odds."""
        return float(self.frequency @ np.abs(self.log_odds))


@dataclass(frozen=True, slots=True)
class AdditiveModel:
    """log-odds(row) = intercept + sum over features of shape[feature][code of the row].

    Attributes:
        features: Names of the features, in the order of the codes.
        intercept: Log-odds of an average row.
        shapes: One per feature.
    """

    features: tuple[str, ...]
    intercept: float
    shapes: tuple[Shape, ...]

    def log_odds(self, codes: Codes) -> Vector:
        """Score of each row, shape (n,)."""
        return np.asarray(self.contributions(codes).sum(axis=1) + self.intercept)

    def probability(self, codes: Codes) -> Vector:
        """Probability of each row, shape (n,)."""
        return sigmoid(self.log_odds(codes))

    def contributions(self, codes: Codes) -> NDArray[np.float64]:
        """Contribution of each feature to each row's log-odds, shape (n, n_features)."""
        return np.stack(
            [shape.log_odds[codes[:, feature]] for feature, shape in enumerate(self.shapes)],
            axis=1,
        )

    def to_json(self) -> str:
        """The model as text; numbers round-trip exactly."""
        return json.dumps(
            {
                "family": "additive",
                "intercept": self.intercept,
                "features": {
                    name: {
                        "log_odds": shape.log_odds.tolist(),
                        "std": shape.std.tolist(),
                        "frequency": shape.frequency.tolist(),
                    }
                    for name, shape in zip(self.features, self.shapes, strict=True)
                },
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "AdditiveModel":
        """The model that `to_json` wrote."""
        raw: Mapping[str, Any] = json.loads(text)
        return cls(
            features=tuple(raw["features"]),
            intercept=float(raw["intercept"]),
            shapes=tuple(
                Shape(**{name: np.asarray(values, dtype=float) for name, values in shape.items()})
                for shape in raw["features"].values()
            ),
        )


def shape_axis(feature: Feature) -> list[float] | list[str]:
    """What each code of a feature but "missing" stands for: cell centres or levels."""
    grid = grid_of(feature)
    if isinstance(grid, NumberGrid):
        return [float(center) for center in grid.centers()]
    if isinstance(grid, LevelGrid):
        return list(grid.levels)
    raise TypeError(f"no axis for {grid}")
