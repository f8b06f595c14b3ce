"""How good a model's probabilities are on held-out rows. Exact: an experiment's view only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

Vector = NDArray[np.float64]


def metrics(labels: Vector, probabilities: Vector) -> dict[str, float | None]:
    """Discrimination and calibration.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: Shape (n,).

    Returns:
        AUROC, AUPRC, Brier score, calibration slope and intercept (Cox 1958: the logistic
        regression of the labels on the scores; 1 and 0 are perfect). None where only one label
        occurs.
    """
    if labels.size == 0 or labels.min() == labels.max():
        names = ("auroc", "auprc", "calibration_slope", "calibration_intercept")
        brier = float(np.mean((probabilities - labels) ** 2)) if labels.size else None
        return dict.fromkeys(names) | {"brier": brier}
    scores = _log_odds(probabilities)
    line = LogisticRegression(C=np.inf, max_iter=200).fit(scores[:, None], labels)
    return {
        "auroc": float(roc_auc_score(labels, probabilities)),
        "auprc": float(average_precision_score(labels, probabilities)),
        "brier": float(brier_score_loss(labels, probabilities)),
        "calibration_slope": float(line.coef_[0, 0]),
        "calibration_intercept": float(line.intercept_[0]),
    }


def auroc(labels: Vector, probabilities: Vector) -> float | None:
    """Area under the ROC curve; None where only one label occurs."""
    if labels.size == 0 or labels.min() == labels.max():
        return None
    return float(roc_auc_score(labels, probabilities))


def reliability(labels: Vector, probabilities: Vector, bins: int = 10) -> list[dict[str, Any]]:
    """Mean score and observed rate in bins of equal size, from the lowest scores up."""
    order = np.argsort(probabilities, kind="stable")
    return [
        {
            "mean_score": float(probabilities[chunk].mean()),
            "observed": float(labels[chunk].mean()),
            "rows": int(chunk.size),
        }
        for chunk in np.array_split(order, bins)
        if chunk.size
    ]


def _log_odds(probabilities: Vector) -> Vector:
    bounded = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(bounded / (1 - bounded)))
