"""What the network tables accept and refuse beyond the type of each field."""

import polars as pl
import pytest

from data_contracts.features import encode, grid_of
from data_contracts.schemas import ClaimPayment, PaRequest
from models.tasks import TASKS

Frames = dict[str, pl.DataFrame]


def nulls(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    return frame.with_columns(pl.lit(None, frame.schema[name]).alias(name) for name in columns)


def broken(schema: type[PaRequest] | type[ClaimPayment], frame: pl.DataFrame) -> dict[str, int]:
    """Rule -> rows that break it; columns that a provider need not hold are null."""
    absent = [name for name in schema.column_names() if name not in frame.columns]
    types = {name: schema.columns()[name].dtype for name in absent}
    whole = frame.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in types.items())
    return schema.filter(whole.select(schema.column_names()))[1].counts()


ITEM_CODES = ("procedure_code", "ndc", "rxcui")


def test_a_request_may_name_a_type_of_service_alone(frames: Frames) -> None:
    # X12 278: UM03 without an SV segment asks for a kind of service, not for a procedure.
    requests = nulls(frames["pa_request"], *(set(ITEM_CODES) & set(frames["pa_request"].columns)))
    assert broken(PaRequest, requests) == {}
    assert broken(PaRequest, nulls(requests, "service_type")) == {"one_item_code": 25}


def test_a_request_without_a_diagnosis_is_good_and_its_chapter_is_missing(frames: Frames) -> None:
    # Situational: the HI segment of X12 278, 0..* Claim.diagnosis in FHIR.
    requests = nulls(frames["pa_request"], "dx_principal")
    assert broken(PaRequest, requests) == {}
    roster = {"payers": ("payer-1",), "providers": ("provider-1",), "sites": ("provider-1",)}
    features = TASKS["approved"].resolve(roster)
    (chapter,) = (feature for feature in features if feature.name == "dx_chapter")
    codes = encode(requests, [chapter])
    assert set(codes[:, 0].tolist()) == {grid_of(chapter).n_codes - 1}


def test_a_claim_has_several_adjudications_each_with_its_number(frames: Frames) -> None:
    first = frames["claim_payment"]
    assert first["adjudication_seq"].to_list() == [0] * first.height
    second = first.with_columns(adjudication_seq=pl.lit(1, pl.Int16))
    assert broken(ClaimPayment, pl.concat([first, second])) == {}
    assert broken(ClaimPayment, pl.concat([first, first])) == {"primary_key": 2 * first.height}


@pytest.mark.parametrize("flag", [None, False])
def test_only_a_reversal_has_amounts_below_zero(frames: Frames, flag: bool | None) -> None:
    # ASC X12 005010X221 (835), 1.10.2.8: a reversal repeats the claim with its signs reversed.
    reversal = frames["claim_payment"].with_columns(
        -pl.col("submitted", "eligible", "paid_to_provider"), reversal_flag=pl.lit(True)
    )
    assert broken(ClaimPayment, reversal) == {}
    unsaid = reversal.with_columns(reversal_flag=pl.lit(flag, pl.Boolean))
    assert broken(ClaimPayment, unsaid) == {"only_reversals_are_negative": 25}
