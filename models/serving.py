"""Predictions outside training: plain values in, probability and its reasons out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from data_contracts.features import Feature, Grid, LevelGrid, NumberGrid, grid_of
from models.additive import AdditiveModel
from models.families import read_model
from models.queries import sigmoid
from models.training import Model


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model with the grids of its features, so that it needs no contract tables.

    Attributes:
        model: The model.
        grids: Grid of each feature, in the model's order.
    """

    model: Model
    grids: Mapping[str, Grid]

    @classmethod
    def of(cls, model: Model, features: Sequence[Feature]) -> "ServedModel":
        """A trained model with the grids that it was trained on."""
        return cls(model, {feature.name: grid_of(feature) for feature in features})

    def predict(self, values: pl.DataFrame) -> pl.DataFrame:
        """Probability of each row and, where the model has them, what each feature contributes.

        Args:
            values: A column per feature: numbers in the grid's unit, levels as text. Null means
                missing; further columns are ignored.

        Returns:
            `probability` and `log_odds`. For an additive model also `intercept` and
            `contribution_<feature>` in log-odds, which add up to the log-odds.

        Raises:
            ValueError: A feature's column is missing or Boolean.
        """
        if missing := [name for name in self.grids if name not in values.columns]:
            raise ValueError(f"columns missing: {', '.join(missing)}")
        if flags := [name for name in self.grids if values.schema[name] == pl.Boolean]:
            raise ValueError(f'write flags as "yes" and "no", not as Booleans: {", ".join(flags)}')
        codes = values.select(
            grid.encode(pl.col(name)).alias(name) for name, grid in self.grids.items()
        ).to_numpy()
        log_odds = self.model.log_odds(codes)
        columns = {"probability": sigmoid(log_odds), "log_odds": log_odds}
        if isinstance(self.model, AdditiveModel):
            columns["intercept"] = np.full(log_odds.size, self.model.intercept)
            contributions = self.model.contributions(codes)
            for feature, name in enumerate(self.grids):
                columns[f"contribution_{name}"] = contributions[:, feature]
        return pl.DataFrame(columns)

    def example(self) -> pl.DataFrame:
        """One made-up row from the public grids (never a patient's): middles and first levels."""
        return pl.DataFrame(
            {
                name: [float(grid.centers()[grid.cells // 2])]
                if isinstance(grid, NumberGrid)
                else [grid.levels[0]]
                for name, grid in self.grids.items()
            }
        )

    def to_json(self) -> str:
        """The model and its grids as text."""
        grids: dict[str, Any] = {name: asdict(grid) for name, grid in self.grids.items()}
        return json.dumps({"model": json.loads(self.model.to_json()), "grids": grids})

    @classmethod
    def from_json(cls, text: str) -> "ServedModel":
        """What `to_json` wrote."""
        raw = json.loads(text)
        return cls(
            read_model(json.dumps(raw["model"])),
            {
                name: LevelGrid(tuple(grid["levels"])) if "levels" in grid else NumberGrid(**grid)
                for name, grid in raw["grids"].items()
            },
        )
