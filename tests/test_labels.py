"""Labels, worked out by hand from their definitions."""

import polars as pl
import pytest

from data_contracts import labels
from data_contracts.catalog import CONTRACTS
from data_contracts.labels import LABELS, Label, reason_group
from data_contracts.vocabulary import ACTION_CODES, REASON_GROUPS


def answers(*codes: str) -> pl.DataFrame:
    """The answers to one request in order; "/A1" closes an appeal."""
    return pl.DataFrame(
        {
            "request_token": ["r"] * len(codes),
            "exchange_seq": range(len(codes)),
            "action_code": [code.removeprefix("/") for code in codes],
            "appeal_level": [1 if code.startswith("/") else None for code in codes],
        },
        schema_overrides={"action_code": pl.Enum(list(ACTION_CODES)), "appeal_level": pl.Int16},
    )


def label_of(label: Label, rows: pl.DataFrame) -> object:
    (value,) = label.of(rows)["label"]
    return value


NAMES = ("first_pass", "approved", "modified", "denied", "of_appealed", "of_all")
REQUEST_LABELS = (
    *(labels.FIRST_PASS, labels.APPROVED, labels.MODIFIED, labels.DENIED),
    *(labels.OVERTURNED_OF_APPEALED, labels.OVERTURNED_OF_ALL),
)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        # first_pass, approved, modified, denied, overturned of appealed, of all
        (["A1"], [True, True, False, False, None, None]),
        (["A4", "A1"], [False, True, False, False, None, None]),  # a pend is no first pass
        (["A3"], [False, False, False, True, None, False]),
        (["A2"], [False, None, True, False, None, False]),  # reported apart
        (["A6"], [False, None, True, False, None, False]),
        (["A4"], [False, None, None, None, None, None]),  # censored
        (["A4", "A4", "A3"], [False, False, False, True, None, False]),
        (["A3", "/A1"], [False, False, False, True, True, True]),
        (["A2", "/A1"], [False, None, True, False, True, True]),
        (["A6", "/A3"], [False, None, True, False, False, False]),
        (["A4", "A3", "/A3", "/A1"], [False, False, False, True, True, True]),  # second level
        (["A3", "/A2"], [False, False, False, True, False, False]),  # in part is not in total
        (["A3", "A1"], [False, False, False, True, None, False]),  # no appeal: the first counts
        (["A1", "A3"], [True, True, False, False, None, None]),
        (["NA"], [None] * 6),
        (["CT", "A1"], [None, True, False, False, None, None]),
        (["C"], [None] * 6),
    ],
)
def test_labels_of_a_request(codes: list[str], expected: list[bool | None]) -> None:
    rows = answers(*codes)
    for order in (rows, rows.reverse()):  # the order of rows in a file says nothing
        found = [label_of(label, order) for label in REQUEST_LABELS]
        assert dict(zip(NAMES, found, strict=True)) == dict(zip(NAMES, expected, strict=True))


def test_requests_do_not_touch_each_other() -> None:
    rows = pl.concat(
        [
            answers("A3", "/A1"),
            answers("A1").with_columns(request_token=pl.lit("s")),
        ]
    )
    assert labels.APPROVED.of(rows).rows() == [("r", False), ("s", True)]
    assert labels.OVERTURNED_OF_ALL.of(rows).rows() == [("r", True), ("s", None)]


@pytest.mark.parametrize(
    ("label", "days"),
    [
        (labels.READMISSION_30D, 30),
        (labels.ED_VISIT_30D, 30),
        (labels.ED_VISIT_90D, 90),
    ],
    ids=lambda item: getattr(item, "name", item),
)
def test_an_outcome_is_censored_where_follow_up_is_shorter(label: Label, days: int) -> None:
    # Even an event that was seen: those without one were not followed as long, and would be missed.
    rows = pl.DataFrame(
        {
            "patient_token": ["p", "q", "r", "s"],
            "request_token": ["1", "2", "3", "4"],
            "followup_days_observed": [days - 1, days, days, days + 1],
            label.name: [True, True, False, None],
        }
    )
    assert label.of(rows)["label"].to_list() == [None, True, False, None]


def test_days_to_payment_are_those_of_the_first_adjudication_that_pays() -> None:
    rows = pl.DataFrame(
        {
            # a: paid at once; b: denied, then corrected; c: reversed, then paid again;
            # d: never paid; e: a reversal without its flag; f: the secondary payer after a denial
            "claim_token": ["a", "b", "b", "c", "c", "c", "d", "e", "f", "f"],
            "adjudication_seq": [0, 0, 1, 2, 1, 0, 0, 0, 0, 1],
            "claim_status": ["1", "4", "1", "1", "22", "1", None, "22", "4", "2"],
            "reversal_flag": [None, False, None, False, True, False, None, None, None, None],
            "days_receipt_to_payment": [14, 9, 30, 60, 40, 20, None, 5, 8, 25],
        }
    )
    found = labels.DAYS_TO_PAYMENT.of(rows)
    assert dict(found.rows()) == {"a": 14, "b": 30, "c": 20, "d": None, "e": None, "f": 25}


def test_reasons_fall_into_their_groups_and_unknown_ones_are_counted_as_other() -> None:
    codes = pl.DataFrame({"code": ["0P", "0F", "0M", "0Q", "0V", "ZZ", "0f"]})
    assert codes.select(reason_group(pl.col("code"))).to_series().to_list() == [
        *("documentation", "clinical", "benefit", "administrative", "review"),
        *("other", "other"),
    ]


def test_no_reason_is_in_two_groups() -> None:
    codes = [code for group in REASON_GROUPS.values() for code in group]
    assert len(codes) == len(set(codes))
    assert set(REASON_GROUPS) == {
        *("documentation", "clinical", "benefit", "administrative", "review")
    }


@pytest.mark.parametrize("label", LABELS, ids=lambda label: label.name)
def test_a_label_reads_its_table_and_belongs_to_its_keys(label: Label) -> None:
    columns = CONTRACTS[label.table].schema.columns()
    assert {*label.keys, *label.value.meta.root_names()} <= set(columns)
    assert set(label.keys) <= set(CONTRACTS[label.table].schema.primary_key())
    empty = CONTRACTS[label.table].schema.create_empty()
    assert label.of(empty).is_empty()
