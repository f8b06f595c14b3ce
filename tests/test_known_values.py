"""Values that are judged once are judged as rows are, and rows are counted as they always were."""

from collections.abc import Iterator

import polars as pl
import pytest

from data_contracts.catalog import CONTRACTS
from data_contracts.conform import conform
from data_contracts.deidentification.policy import Policy
from data_contracts.deidentification.values import IdentifierError, are_tokens
from data_contracts.intake import RowCounts, valid_batches
from data_contracts.known_values import KnownValues
from data_contracts.manifest import SiteManifest
from data_contracts.readers.events import PROVENANCE
from data_contracts.sources import Source

PROVIDER = SiteManifest("site-1", "provider", {})


@pytest.fixture
def text(texts: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Requests as a CSV file holds them, with where each comes from."""
    places = (pl.lit("a.csv"), pl.format("row {}", pl.int_range(1, pl.len() + 1)))
    return texts["pa_request"].with_columns(
        place.alias(name) for place, name in zip(places, PROVENANCE, strict=True)
    )


def read(*batches: pl.DataFrame) -> tuple[list[pl.DataFrame], RowCounts]:
    def rows() -> Iterator[pl.DataFrame]:
        yield from batches

    counts = RowCounts()
    source = Source("a.csv", batches[0].schema, rows)
    valid = list(valid_batches(CONTRACTS["pa_request"], [source], PROVIDER, counts))
    # Whatever is known of them, batches are alike.
    assert len({tuple(batch.schema.items()) for batch in valid}) == 1
    return valid, counts


def with_cells(text: pl.DataFrame, column: str, value: str | None, rows: int) -> pl.DataFrame:
    first = pl.int_range(pl.len()) < rows
    return text.with_columns(pl.when(first).then(pl.lit(value)).otherwise(column).alias(column))


@pytest.mark.parametrize("name", ["pa_request", "pa_decision", "claim_payment", "clinical_outcome"])
def test_columns_are_typed_as_the_contract_types_rows(
    texts: dict[str, pl.DataFrame], name: str
) -> None:
    text, schema = texts[name], CONTRACTS[name].schema
    known = KnownValues(text.schema, schema, Policy())
    known.typed(text.head(5))
    typed = known.typed(text)
    made, _ = conform(text, schema)
    expected = made.select(
        pl.col(column).cast(schema.columns()[column].dtype, strict=False) for column in typed
    )
    assert set(typed) == set(text.columns)
    assert pl.DataFrame(typed).equals(expected)


def test_a_value_that_breaks_a_rule_after_many_good_ones_is_counted_row_by_row(
    text: pl.DataFrame,
) -> None:
    bad = with_cells(text, "place_of_service", "!!", 3)
    valid, counts = read(text, bad, text)
    assert [batch.height for batch in valid] == [text.height, text.height - 3, text.height]
    assert counts.rejects == {"place_of_service|regex": 3}
    assert counts.places["place_of_service|regex"] == [("a.csv", f"row {n}") for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("request_type", "surgical", "request_type|dtype"),
        ("service_year", "2024.5", "service_year|dtype"),
        ("eligibility_verified", "perhaps", "eligibility_verified|flag"),
        ("dx_other", "I10|no code", "dx_other|inner_regex"),
    ],
)
def test_values_that_become_no_type_of_the_contract_are_counted(
    text: pl.DataFrame, column: str, value: str, rule: str
) -> None:
    _, counts = read(text, with_cells(text, column, value, 2))
    assert counts.rejects == {rule: 2}


def test_an_identifier_in_a_later_batch_is_found_and_its_rows_are_counted(
    text: pl.DataFrame,
) -> None:
    planted = with_cells(text, "policy_version", "123-45-6789", 4)
    with pytest.raises(
        IdentifierError, match=r"policy_version holds class G.*\(4 rows\)"
    ) as caught:
        read(text, text, planted)
    assert "123-45" not in str(caught.value)


def test_an_empty_cell_of_a_required_column_is_counted_though_all_its_values_are_known(
    text: pl.DataFrame,
) -> None:
    _, counts = read(text, with_cells(text, "payer_id", None, 5))
    assert counts.rejects == {"payer_id|nullability": 5}


def test_rules_between_fields_hold_where_all_values_are_known(text: pl.DataFrame) -> None:
    named = ("procedure_code", "ndc", "rxcui", "service_type")
    unnamed = text.with_columns(pl.lit(None, pl.String).alias(name) for name in named)
    _, counts = read(text, unnamed)
    assert counts.rejects == {"one_item_code": text.height}


HEX = "0f3a9c1e77b2d455"


@pytest.mark.parametrize(
    ("tokens", "fit"),
    [
        ([HEX, None, HEX * 4, "1" * 16], True),  # one token of a few may be all decimal
        ([HEX, "1234567890123456"] * 100, False),  # these are numbers
        ([None] * 9000 + ["1234567890123456"] * 12, False),  # and empty cells hide none
        ([HEX] * 9000 + ["1234567890123456"] * 28, True),  # 10 and 0.2 % of 9 028
        ([HEX] * 9000 + ["1234567890123456"] * 29, False),
        ([HEX, HEX[1:]], False),
        ([HEX, HEX * 4 + "a"], False),
        ([HEX, HEX.upper()], False),
        ([HEX, f" {HEX}"], False),
        ([HEX, f"{HEX}\n"], False),
        ([HEX, ""], False),
        ([None, None], True),
    ],
)
def test_tokens_are_hexadecimal_and_not_decimal(tokens: list[str | None], fit: bool) -> None:
    assert are_tokens(pl.Series(tokens, dtype=pl.String)) is fit


def test_a_column_with_something_else_than_tokens_is_left_to_the_gate(text: pl.DataFrame) -> None:
    with pytest.raises(IdentifierError, match=r"patient_token holds class R.*\(40 rows\)"):
        read(text, pl.concat([with_cells(text, "patient_token", "1234567890123456", 20)] * 2))
    _, counts = read(text, with_cells(text, "patient_token", HEX.upper(), 2))
    assert counts.rejects == {"patient_token|regex": 2}


def test_values_that_hardly_repeat_are_left_to_the_rows(text: pl.DataFrame) -> None:
    many = pl.concat([text] * 60).with_columns(risk_score=pl.int_range(pl.len()).cast(pl.String))
    known = KnownValues(many.schema, CONTRACTS["pa_request"].schema, Policy())
    assert "risk_score" in known.typed(many.head(900))
    assert "risk_score" not in known.typed(many)  # 1 500 values in as many rows
    assert "risk_score" not in known.typed(many.head(10))
    assert "dx_principal" in known.typed(many)
