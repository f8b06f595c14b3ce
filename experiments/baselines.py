"""What the federated private model is compared with, always, on the same patients.

Only an experiment can run these: all but the first need everybody's rows in one place.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from data_contracts.features import Codes, Grid, NumberGrid
from models.additive import AdditiveModel, Shape
from models.additive_training import AdditiveSettings
from models.basis import build_basis
from models.patients import PatientRows
from models.queries import HistogramQuery

Vector = NDArray[np.float64]


class OneLabelError(ValueError):
    """All rows have the same label, so there is nothing to learn."""


def fit_additive(
    features: Sequence[str],
    grids: Sequence[Grid],
    rows: PatientRows,
    settings: AdditiveSettings,
) -> AdditiveModel:
    """The additive model on rows in one place, without privacy, by an independent solver.

    The loss, the basis and the penalty are those of the federated training, so without noise the
    two agree; the solver is scikit-learn's L-BFGS.

    Raises:
        OneLabelError: The rows have one label only.
    """
    _check_labels(rows.labels)
    n_codes = np.array([grid.n_codes for grid in grids], dtype=np.int64)
    counts = HistogramQuery(n_codes).answer(rows)
    basis = build_basis(
        grids,
        np.split(counts, np.cumsum(n_codes))[:-1],
        n_patients=rows.n_patients,
        noise_std=0.0,
        max_knots=settings.max_knots,
    )
    solver = LogisticRegression(C=1 / (settings.ridge * rows.n_rows), max_iter=500, tol=1e-7)
    solver.fit(basis.design(rows.codes), rows.labels)
    contributions = basis.shapes(np.asarray(solver.coef_[0]))
    return AdditiveModel(
        tuple(features),
        float(solver.intercept_[0]),
        tuple(
            Shape(contribution, np.zeros_like(contribution), frequency)
            for contribution, frequency in zip(contributions, basis.frequencies, strict=True)
        ),
    )


def fit_logistic(grids: Sequence[Grid], codes: Codes, labels: Vector, test: Codes) -> Vector:
    """Probabilities of plain logistic regression: numbers linear, categories one-hot.

    Returns:
        Shape (n_test,).

    Raises:
        OneLabelError: The rows have one label only.
    """
    _check_labels(labels)
    encoder = OneHotEncoder(handle_unknown="ignore")
    categories = [feature for feature, grid in enumerate(grids) if not isinstance(grid, NumberGrid)]
    encoder.fit(codes[:, categories])

    def design(rows: Codes) -> NDArray[np.float64]:
        columns = [encoder.transform(rows[:, categories]).toarray()] if categories else []
        for feature, grid in enumerate(grids):
            if isinstance(grid, NumberGrid):
                missing = rows[:, feature] == grid.cells
                middle = (grid.cells - 1) / 2
                value = np.where(missing, middle, rows[:, feature])
                columns += [value[:, None], missing[:, None].astype(float)]
        return np.hstack(columns)

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500))
    model.fit(design(codes), labels)
    return np.asarray(model.predict_proba(design(test))[:, 1])


def fit_boosting(grids: Sequence[Grid], codes: Codes, labels: Vector, test: Codes) -> Vector:
    """Probabilities of gradient boosting, the ceiling that a glass box is measured against.

    Returns:
        Shape (n_test,).

    Raises:
        OneLabelError: The rows have one label only.
    """
    _check_labels(labels)
    categorical = [not isinstance(grid, NumberGrid) for grid in grids]

    def design(rows: Codes) -> NDArray[np.float32]:
        values = rows.astype(np.float32)
        for feature, grid in enumerate(grids):
            if isinstance(grid, NumberGrid):
                values[rows[:, feature] == grid.cells, feature] = math.nan
        return values

    model = HistGradientBoostingClassifier(
        learning_rate=0.06,
        max_iter=300,
        max_leaf_nodes=15,
        min_samples_leaf=50,
        l2_regularization=5.0,
        categorical_features=categorical,
        early_stopping=True,
        random_state=0,
    )
    model.fit(design(codes), labels)
    return np.asarray(model.predict_proba(design(test))[:, 1])


def _check_labels(labels: Vector) -> None:
    if labels.size == 0 or labels.min() == labels.max():
        raise OneLabelError("all rows have the same label: there is nothing to learn")
