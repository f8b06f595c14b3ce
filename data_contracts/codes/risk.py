"""The CMS-HCC risk score of Medicare Advantage: what a year's diagnoses say of a year's cost.

Tables and rules are those of CMS, as the library `hccinfhir` ships them (Apache-2.0, an optional
dependency); this module hands it columns instead of patients.

Source: CMS, Announcement of Calendar Year 2024, 2025 and 2026 Medicare Advantage Capitation Rates
and Part C Payment Policies; model software V28 (C2824T2N) and V24 (C2419P1M), diagnosis mappings of
payment year 2026.
"""

import importlib
import warnings
from typing import Any, Final, Literal

import polars as pl

from data_contracts.codes.ranges import normal_code
from data_contracts.errors import GroundTruthError

Model = Literal["V28", "V24"]

MEDICAID: Final = ("none", "partial", "full")
"""Benefits of a patient under Medicaid, beside Medicare."""

# One of CMS's codes of dual eligibility for each; the model tells no more apart.
_DUAL_CODE: Final = {"none": "00", "partial": "01", "full": "02"}
_SEX_CODE: Final = {"female": "F", "male": "M"}
_LIBRARY_NAME: Final = {"V28": "CMS-HCC Model V28", "V24": "CMS-HCC Model V24"}


def can_score() -> bool:
    """Whether the library with CMS's tables can be loaded, which takes a second."""
    try:
        _library()
    except RiskLibraryMissingError:
        return False
    return True


class RiskLibraryMissingError(GroundTruthError):
    """The library with CMS's tables is not installed."""


def risk_scores(
    diagnoses: pl.Series,
    age: pl.Series,
    sex: pl.Series,
    *,
    medicaid: pl.Series | None = None,
    originally_disabled: pl.Series | None = None,
    institutional: pl.Series | None = None,
    model: Model = "V28",
) -> pl.Series:
    """Risk scores of continuing enrollees, one per patient; series of n patients each.

    Every distinct combination of what counts is scored once: the diagnoses that CMS maps, the age
    band, sex and segment.

    Args:
        diagnoses: Lists of the ICD-10-CM codes of the year before (CMS counts those of stays and
            face-to-face visits alone: leave out others). An empty list is a patient without
            diagnoses, null one of whom they are not known.
        age: Age in whole years on 1 February of the payment year.
        sex: Values of `vocabulary.SEXES`; CMS has factors for female and male alone.
        medicaid: Values of `MEDICAID`; "none" unless given.
        originally_disabled: Whether disability was the first reason for Medicare; no unless given.
            Who is under 65 is in the disabled segment in any case.
        institutional: Whether in long-term care for more than 90 days; no unless given.
        model: The model; V24 was blended with V28 until 2025.

    Returns:
        Raw scores, Float64 of n patients, to three decimals: 1.0 is the average cost of the
        calibration year, and nothing is taken off for coding intensity. Null where diagnoses, age,
        sex or a segment is not known.

    Raises:
        RiskLibraryMissingError: `hccinfhir` is not installed.
    """
    library = _library()
    patients = pl.DataFrame({"diagnoses": diagnoses, "age": age, "sex": sex}).select(
        codes=_counted(pl.col("diagnoses"), library, model),
        age=_band(pl.col("age").cast(pl.Int64)),
        sex=pl.col("sex").cast(pl.String).replace_strict(_SEX_CODE, default=None),
        dual=_or(medicaid, "none").cast(pl.String).replace_strict(_DUAL_CODE, default=None),
        disabled=_or(originally_disabled, False).cast(pl.Boolean),
        institutional=_or(institutional, False).cast(pl.Boolean),
    )
    distinct = patients.unique().drop_nulls()
    scores = pl.Series(
        "score",
        [
            library.calculate_raf(
                codes.split(),
                model_name=_LIBRARY_NAME[model],
                age=age,
                sex=sex,
                dual_elgbl_cd=dual,
                orec="1" if disabled or age < 65 else "0",
                lti=institutional,
            ).risk_score
            for codes, age, sex, dual, disabled, institutional in distinct.iter_rows()
        ],
        dtype=pl.Float64,
    ).round(3)
    return patients.join(
        distinct.with_columns(scores), on=patients.columns, how="left", maintain_order="left"
    )["score"]


def _counted(diagnoses: pl.Expr, library: Any, model: Model) -> pl.Expr:
    """The diagnoses that the model maps, in order and once each, separated by blanks."""
    mapped = library.defaults.dx_to_cc_default
    counted = [code for code, name in mapped if name == _LIBRARY_NAME[model]]
    code = normal_code(pl.element())
    return diagnoses.list.eval(code.filter(code.is_in(counted)).unique().sort()).list.join(" ")


def _band(age: pl.Expr) -> pl.Expr:
    """First year of CMS's age band; below 65, where rules for single codes ask for it, the age."""
    return pl.when(age >= 65).then((age // 5 * 5).clip(upper_bound=95)).when(age >= 0).then(age)


def _or(series: pl.Series | None, default: str | bool) -> pl.Expr:
    return pl.lit(default) if series is None else pl.lit(series)


def _library() -> Any:
    """`hccinfhir`, loaded only where scores are asked for: it reads megabytes of tables.

    Raises:
        RiskLibraryMissingError: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            # It opens its tables by a function that importlib.resources has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module("hccinfhir")
    except ModuleNotFoundError as error:
        raise RiskLibraryMissingError(
            f"risk scores are computed with hccinfhir, which cannot be loaded here ({error}): "
            "pip install 'shared-ground-truth[risk]'"
        ) from None
