"""What models predict and reports count, defined once, in words and as polars expressions.

A label belongs to whatever its keys name: a request, an episode of a patient, a claim. Its
expression is an aggregation over the rows of one key; null means that the outcome is censored, or
that the row is not in the label's population. The words stand in the table's ODCS document too.
"""

from dataclasses import dataclass, field
from typing import Final

import polars as pl

from data_contracts.vocabulary import REASON_GROUPS

_CODE = pl.col("action_code").cast(pl.String)
_SEQ = pl.col("exchange_seq")
_IN_APPEAL = pl.col("appeal_level").is_not_null()


@dataclass(frozen=True, slots=True)
class Label:
    """One label.

    Attributes:
        name: Short name.
        table: Contract table that it is read from.
        keys: Columns that say what a value belongs to.
        definition: Its meaning, in words.
        value: Aggregation over the rows of one key.
    """

    name: str
    table: str
    keys: tuple[str, ...]
    definition: str
    value: pl.Expr = field(compare=False, repr=False)

    def of(self, rows: pl.DataFrame) -> pl.DataFrame:
        """One row per key, with the keys and `label`.

        Args:
            rows: Valid rows of the label's table.
        """
        return rows.group_by(self.keys, maintain_order=True).agg(label=self.value)


def reason_group(code: pl.Expr) -> pl.Expr:
    """Group of X12 decision reason codes (HCR03); "other" for codes that are in no group."""
    groups = {each: group for group, codes in REASON_GROUPS.items() for each in codes}
    return code.replace_strict(
        list(groups), list(groups.values()), default="other", return_dtype=pl.String
    )


def _first(column: pl.Expr, where: pl.Expr, order: pl.Expr) -> pl.Expr:
    """The first value in an order among the rows of a key that a condition picks; else null."""
    return column.filter(where).sort_by(order.filter(where)).first()


def _observed(column: str, days: int) -> pl.Expr:
    """An outcome within so many days, null where the follow-up is shorter."""
    return pl.when(pl.col("followup_days_observed") >= days).then(pl.col(column)).first()


# A determination grants or refuses; A4 pends, and NA, CT and C decide nothing.
_DETERMINATION = _first(_CODE, ~_IN_APPEAL & _CODE.is_in(["A1", "A2", "A3", "A6"]), _SEQ)
_FIRST_ANSWER = _CODE.filter(_SEQ == 0).first()
_ADVERSE = _DETERMINATION.is_in(["A2", "A3", "A6"])
_OVERTURNED = (_IN_APPEAL & (_CODE == "A1")).any()
# Some payers send reversals without saying so in the flag.
_STANDS = ~pl.col("reversal_flag").fill_null(False) & ~(
    pl.col("claim_status").cast(pl.String).is_in(["4", "22"]).fill_null(False)
)


def _of_request(name: str, definition: str, value: pl.Expr) -> Label:
    return Label(name, "pa_decision", ("request_token",), definition, value)


def _of_episode(name: str, definition: str, value: pl.Expr) -> Label:
    return Label(name, "clinical_outcome", ("patient_token", "request_token"), definition, value)


APPROVED: Final = _of_request(
    "approved",
    "The first determination before any appeal is A1 rather than A3. A4 is censored; A2 and A6 are "
    "reported apart; NA, CT and C are ignored.",
    pl.when(_DETERMINATION.is_in(["A1", "A3"])).then(_DETERMINATION == "A1"),
)
MODIFIED: Final = _of_request(
    "modified",
    "The first determination before any appeal is A2 or A6, among all determinations.",
    _DETERMINATION.is_in(["A2", "A6"]),
)
DENIED: Final = _of_request(
    "denied",
    "The first determination before any appeal is A3, among all determinations.",
    _DETERMINATION == "A3",
)
FIRST_PASS: Final = _of_request(
    "first_pass",
    "The initial exchange returned A1 with no pend; A2, A3, A4 and A6 are no first pass; NA, CT "
    "and C are ignored.",
    pl.when(_FIRST_ANSWER.is_in(["A1", "A2", "A3", "A4", "A6"])).then(_FIRST_ANSWER == "A1"),
)
OVERTURNED_OF_APPEALED: Final = _of_request(
    "overturned_of_appealed",
    "An appeal turned A2, A3 or A6 into A1, among adverse determinations whose appeal was closed.",
    pl.when(_ADVERSE & _IN_APPEAL.any()).then(_OVERTURNED),
)
OVERTURNED_OF_ALL: Final = _of_request(
    "overturned_of_all",
    "An appeal turned A2, A3 or A6 into A1, among all adverse determinations, appealed or not.",
    pl.when(_ADVERSE).then(_OVERTURNED),
)
READMISSION_30D: Final = _of_episode(
    "readmission_30d",
    "Unplanned readmission within 30 days of a live discharge; censored where follow-up is shorter "
    "than 30 days.",
    _observed("readmission_30d", 30),
)
ED_VISIT_30D: Final = _of_episode(
    "ed_visit_30d",
    "Emergency visit or unplanned admission within 30 days; censored where follow-up is shorter.",
    _observed("ed_visit_30d", 30),
)
ED_VISIT_90D: Final = _of_episode(
    "ed_visit_90d",
    "Emergency visit or unplanned admission within 90 days; censored where follow-up is shorter.",
    _observed("ed_visit_90d", 90),
)
DAYS_TO_PAYMENT: Final = Label(
    "days_to_payment",
    "claim_payment",
    ("claim_token",),
    "Days from receipt of the claim to its first payment; denials and reversals are no payment. "
    "Null while unpaid: right-censored.",
    _first(
        pl.col("days_receipt_to_payment"),
        _STANDS & pl.col("days_receipt_to_payment").is_not_null(),
        pl.col("adjudication_seq"),
    ),
)

LABELS: Final = (
    *(APPROVED, MODIFIED, DENIED, FIRST_PASS, OVERTURNED_OF_APPEALED, OVERTURNED_OF_ALL),
    *(READMISSION_30D, ED_VISIT_30D, ED_VISIT_90D, DAYS_TO_PAYMENT),
)
