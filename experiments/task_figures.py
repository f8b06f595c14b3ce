"""What results.json holds of a trained task, whatever engine has trained it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from data_contracts.features import Feature, NumberGrid, grid_of
from experiments.plans import noise_in_words
from federation.plan import RunPlan
from federation.promise import promise
from federation.strategy import TrainingResult
from models.additive import AdditiveModel, shape_axis
from models.evaluation import Evaluation
from models.training import Model


def privacy_figures(plan: RunPlan, trained: TrainingResult) -> dict[str, Any]:
    """What a run promises, and each of its releases."""
    return {
        **asdict(promise([plan])),
        "mu": plan.mu,
        "unit": "patient",
        "neighbouring": "add/remove",
        "secure_sum": plan.secure_sum,
        "minimum_sites": plan.minimum_sites,
        "noise_shares": plan.noise_shares,
        "noise": noise_in_words(plan),
        "max_records_per_patient": plan.privacy.max_records_per_patient,
        "rounds": len(trained.rounds),
        "retries": sum(record.retries for record in trained.rounds),
        "upload_bytes_per_site": 8 * sum(record.values for record in trained.rounds),
        "releases": [
            {
                "step": name,
                "patients": plan.population_of(name).side,
                "rounds": step.rounds,
                "sample_rate": plan.sample_rate_of(name),
                "share": plan.share_of(name) if plan.mu else None,
                "mu_per_round": plan.mu_of(name),
                "sensitivity": first.sensitivity,
                "noise_std": first.noise_std,
            }
            for name, step in plan.steps.items()
            for first in [record for record in trained.rounds if record.step == name][:1]
        ],
    }


def evaluation_figures(
    evaluation: Evaluation, plan: RunPlan, features: Sequence[Feature]
) -> dict[str, Any]:
    """What an evaluation under privacy says, with its subgroups by name."""
    figures = asdict(evaluation)
    by_name = {feature.name: feature for feature in features}
    figures["groups"] = {
        name: [
            {"level": str(level), **stratum}
            for level, stratum in zip([*shape_axis(by_name[name]), "missing"], strata, strict=True)
        ]
        for name, strata in zip(plan.the_task.groups, figures["groups"], strict=True)
    }
    return figures


def shape_figures(model: Model, features: Sequence[Feature]) -> list[dict[str, Any]]:
    """Shape functions, the strongest first; bands are 95 % intervals' half-widths."""
    if not isinstance(model, AdditiveModel):
        return []  # no part of it can be read by itself
    shapes = []
    for feature, shape in zip(features, model.shapes, strict=True):
        grid, axis = grid_of(feature), shape_axis(feature)
        is_number = isinstance(grid, NumberGrid)
        shapes.append(
            {
                "feature": feature.name,
                "title": feature.title,
                "kind": "number" if is_number else "category",
                "unit": grid.unit if isinstance(grid, NumberGrid) else None,
                "importance": shape.importance,
                "x": axis if is_number else None,
                "levels": None if is_number else [*axis, "missing"],
                "log_odds": shape.log_odds[: len(axis) if is_number else None].tolist(),
                "band": (1.96 * shape.std[: len(axis) if is_number else None]).tolist(),
                "frequency": shape.frequency[: len(axis) if is_number else None].tolist(),
                "missing": {
                    "log_odds": float(shape.log_odds[-1]),
                    "frequency": float(shape.frequency[-1]),
                },
            }
        )
    return sorted(shapes, key=lambda item: -float(item["importance"]))
