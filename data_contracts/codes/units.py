"""Laboratory values as the contract writes them: one LOINC code and one unit for each test.

Laboratories report the same test under several LOINC codes and in several units. What is known
here becomes the code and the UCUM unit of `vocabulary.LOINC_LABS`; what is not known stays out,
counted: a value is never guessed to be in the unit that would make it plausible.

Source: LOINC (this material contains content from LOINC, copyright Regenstrief Institute,
available at no cost under the licence at loinc.org/license); UCUM.
"""

from dataclasses import dataclass
from typing import Final

import polars as pl

from data_contracts.vocabulary import LOINC_LABS

UNKNOWN_TEST: Final = "a laboratory value of another test"
NO_VALUE: Final = "a laboratory value without a number"

_HBA1C, _EGFR, _SYSTOLIC = "4548-4", "33914-3", "8480-6"

_PERCENT = {"%": (1.0, 0.0), "%{hb}": (1.0, 0.0), "%{hemoglobin}": (1.0, 0.0)}
# NGSP % = 0.09148 x IFCC mmol/mol + 2.152 (the master equation: Hoelzel et al., Clin Chem 2004).
_IFCC = {"mmol/mol": (0.09148, 2.152), "mmol/mol{hb}": (0.09148, 2.152)}
_FRACTION = {"g/g": (100.0, 0.0), "{fraction}": (100.0, 0.0), "1": (100.0, 0.0)}

# The tests are per 1.73 m2 of body surface by their LOINC code, and UCUM gives what stands in
# braces no meaning: mL/min is the same unit.
_FLOW = {
    **dict.fromkeys(
        (
            *("ml/min/{1.73_m2}", "ml/min/{1.73m2}", "ml/min/1.73_m2", "ml/min/1.73m2"),
            *("ml/min/1.73m^2", "ml/min/1.73m\N{SUPERSCRIPT TWO}", "ml/min/{1.73}", "ml/min/1.73"),
            "ml/min",
        ),
        (1.0, 0.0),
    ),
    **dict.fromkeys(("ml/s/{1.73_m2}", "ml/s/{1.73m2}", "ml/s/1.73m2", "ml/s"), (60.0, 0.0)),
}
_PRESSURE = {
    "mm[hg]": (1.0, 0.0),
    "mmhg": (1.0, 0.0),
    "kpa": (1000 / 133.322387415, 0.0),  # pascal in a millimetre of mercury
}


@dataclass(frozen=True, slots=True)
class _Test:
    """A test as laboratories report it.

    Attributes:
        loinc: The contract's code of it.
        units: Unit without blanks, in small letters -> (factor, offset) to the contract's unit.
        divisor: What the reported number is divided by before.
    """

    loinc: str
    units: dict[str, tuple[float, float]]
    divisor: float = 1.0


# Race-specific results of one sample are reported as two values. Those "if black" are the others
# times a constant, which is taken out again, so that both agree and race stays out of the value
# (NKF-ASN task force, 2021).
_MDRD_RACE, _CKD_EPI_RACE = 1.212, 1.159  # Levey et al. 2006 and 2009

_TESTS: Final = {
    "4548-4": _Test(_HBA1C, _PERCENT | _IFCC),
    "17856-6": _Test(_HBA1C, _PERCENT | _IFCC),  # by HPLC
    "17855-8": _Test(_HBA1C, _PERCENT | _IFCC),  # by calculation
    "4549-2": _Test(_HBA1C, _PERCENT | _IFCC),  # by electrophoresis
    "59261-8": _Test(_HBA1C, _IFCC),  # IFCC; its per cent is no NGSP per cent
    "71875-9": _Test(_HBA1C, _FRACTION),  # as a pure mass fraction
    "33914-3": _Test(_EGFR, _FLOW),  # MDRD
    "77147-7": _Test(_EGFR, _FLOW),  # MDRD, in serum, plasma or blood
    "48642-3": _Test(_EGFR, _FLOW),  # MDRD, "if not black"
    "48643-1": _Test(_EGFR, _FLOW, _MDRD_RACE),  # MDRD, "if black"
    "62238-1": _Test(_EGFR, _FLOW),  # CKD-EPI 2009
    "88294-4": _Test(_EGFR, _FLOW),  # CKD-EPI 2009, "if not black"
    "88293-6": _Test(_EGFR, _FLOW, _CKD_EPI_RACE),  # CKD-EPI 2009, "if black"
    "98979-8": _Test(_EGFR, _FLOW),  # CKD-EPI 2021, without race
    "8480-6": _Test(_SYSTOLIC, _PRESSURE),
    "8459-0": _Test(_SYSTOLIC, _PRESSURE),  # sitting
    "76534-7": _Test(_SYSTOLIC, _PRESSURE),  # by a non-invasive device
}

# "LOINC unit" -> the contract's LOINC code, factor and offset to its unit.
_CONVERSIONS: Final = {
    f"{loinc} {unit}": (test.loinc, factor / test.divisor, offset)
    for loinc, test in _TESTS.items()
    for unit, (factor, offset) in test.units.items()
}


def canonical_lab(loinc: pl.Expr, value: pl.Expr, ucum: pl.Expr) -> pl.Expr:
    """Laboratory values under the contract's LOINC code and in its unit.

    Args:
        loinc: LOINC code of each value.
        value: The number.
        ucum: Its unit, in UCUM or one of its usual misspellings.

    Returns:
        Structs with `loinc`, `value` and `ucum`; all null where the test or its unit is not known,
        or the value is no finite number (`unknown_units` counts them).
    """
    number = value.cast(pl.Float64)
    row = pl.when(number.is_finite()).then(
        _pair(loinc, ucum).replace_strict(
            list(_CONVERSIONS), range(len(_CONVERSIONS)), default=None, return_dtype=pl.UInt32
        )
    )
    tests, factors, offsets = (
        pl.lit(pl.Series(column)) for column in zip(*_CONVERSIONS.values(), strict=True)
    )
    units = pl.lit(pl.Series([LOINC_LABS[test][1] for test, _, _ in _CONVERSIONS.values()]))
    return pl.struct(
        tests.gather(row).alias("loinc"),
        (number * factors.gather(row) + offsets.gather(row)).alias("value"),
        units.gather(row).alias("ucum"),
    )


def unknown_units(loinc: pl.Series, value: pl.Series, ucum: pl.Series) -> dict[str, int]:
    """How many laboratory values `canonical_lab` leaves out, by reason; no value is repeated.

    Returns:
        `UNKNOWN_TEST`, `NO_VALUE`, or "HbA1c in a unit that is not known" (and the like) -> count.
    """
    labels = {loinc: LOINC_LABS[test.loinc][0] for loinc, test in _TESTS.items()}
    number = pl.col("value").cast(pl.Float64)
    label = pl.col("loinc").replace_strict(labels, default=None, return_dtype=pl.String)
    known_unit = _pair(pl.col("loinc"), pl.col("ucum")).is_in(list(_CONVERSIONS))
    reasons = (
        pl.when(label.is_null())
        .then(pl.lit(UNKNOWN_TEST))
        .when(~known_unit.fill_null(False))
        .then(label + " in a unit that is not known")
        .when(~number.is_finite().fill_null(False))
        .then(pl.lit(NO_VALUE))
    )
    frame = pl.DataFrame({"loinc": loinc, "value": value, "ucum": ucum})
    found = frame.select(reason=reasons).drop_nulls()["reason"].value_counts()
    return dict(found.sort("reason").iter_rows())


def _pair(loinc: pl.Expr, ucum: pl.Expr) -> pl.Expr:
    unit = ucum.str.replace_all(" ", "", literal=True).str.to_lowercase()
    return pl.concat_str(loinc, unit, separator=" ")
