"""What a generated network looks like in the figures that it is calibrated to.

Standard and urgent, drugs and medical items are all counted; a determination is the first answer,
or the one that ends a pend, before any appeal.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_contracts.synthetic.settings import ELEMENTS_PER_POLICY

ADVERSE = ("A2", "A3")


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares are in percent.

    Attributes:
        first_pass_approval: First answers that certify in total, of all requests.
        median_standard_days: Median days from submission to the determination, elective requests.
        denial: Determinations that certify in part or not at all, of all requests.
        appealed: Of these determinations, those that are appealed.
        overturned: Of the appeals, those that end in certification in total.
        approved_with_complete_documentation: Determinations that certify in total, of the requests
            that document every element that the patient meets (nothing could be added).
        urgent_within_72_hours: Determinations within 72 hours, of the urgent requests.
    """

    first_pass_approval: float
    median_standard_days: float
    denial: float
    appealed: float
    overturned: float
    approved_with_complete_documentation: float
    urgent_within_72_hours: float


def figures(folder: Path) -> Figures:
    """Measure a generated network, from its payers' tables and its truth."""
    answers = pl.scan_parquet(folder / "sites" / "payer-*" / "pa_decision" / "*.parquet")
    first = answers.filter(pl.col("exchange_seq") == 0).select("request_token", first="action_code")
    appeals = answers.filter(pl.col("appeal_level").is_not_null()).select(
        "request_token", "appeal_outcome"
    )
    final = answers.filter(pl.col("appeal_level").is_null(), pl.col("action_code") != "A4").select(
        "request_token", "decision_hours", final="action_code"
    )
    requests = pl.scan_parquet(folder / "sites" / "payer-*" / "pa_request" / "*.parquet").select(
        "request_token", "level_of_service", documented=pl.col("criteria_documented").list.len()
    )
    met = [f"met_{element + 1}" for element in range(ELEMENTS_PER_POLICY)]
    truth = pl.scan_parquet(folder / "truth" / "*.parquet").select(
        "request_token", met=pl.sum_horizontal(met)
    )
    rows = (
        requests.join(truth, on="request_token")
        .join(first, on="request_token")
        .join(final, on="request_token")
        .join(appeals, on="request_token", how="left")
    )
    adverse = pl.col("final").is_in(ADVERSE)
    appealed = pl.col("appeal_outcome").is_not_null()
    urgent = pl.col("level_of_service") == "U"
    complete = pl.col("documented") == pl.col("met")
    measured = rows.select(
        first_pass_approval=100 * (pl.col("first") == "A1").mean(),
        median_standard_days=pl.col("decision_hours").filter(~urgent).median() / 24,
        denial=100 * adverse.mean(),
        appealed=100 * appealed.filter(adverse).mean(),
        overturned=100 * (pl.col("appeal_outcome") == "overturned").filter(appealed).mean(),
        approved_with_complete_documentation=100
        * (pl.col("final") == "A1").filter(complete).mean(),
        urgent_within_72_hours=100 * (pl.col("decision_hours") <= 72).filter(urgent).mean(),
    )
    return Figures(**measured.collect().row(0, named=True))
