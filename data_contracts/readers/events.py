"""What exchanges (X12, FHIR) and clinical records tell, event by event, before it becomes a table.

Parsers turn every message into these events; `assembly.py` and `outcomes.py` turn events into
contract tables. So a 278 request may be answered in FHIR, and both formats give the same rows.
Events hold tokens and codes, but still dates: they are spooled into a private folder inside the
site's own and deleted when the reading ends.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl

PROVENANCE: Final = ("file", "place")
"""Columns beside those of a contract that say where a row comes from; they never leave a site."""

_TEXTS = pl.List(pl.String)
_FROM: Final[dict[str, Any]] = dict.fromkeys(PROVENANCE, pl.String)

EVENTS: Final[Mapping[str, pl.Schema]] = {
    # One per requested item. Fields are those of `pa_request`, and the moment of submission.
    "request": pl.Schema(
        {
            **_FROM,
            "request_token": pl.String,
            "item_sequence": pl.Int16,
            "patient_token": pl.String,
            "payer_id": pl.String,
            "provider_group_id": pl.String,
            "business_line": pl.String,
            "request_type": pl.String,
            "claim_type": pl.String,
            "certification_type": pl.String,
            "level_of_service": pl.String,
            "request_category": pl.String,
            "service_type": pl.String,
            "procedure_code": pl.String,
            "ndc": pl.String,
            "rxcui": pl.String,
            "modifier": _TEXTS,
            "dx_principal": pl.String,
            "dx_other": _TEXTS,
            "place_of_service": pl.String,
            "provider_taxonomy": pl.String,
            "quantity": pl.Float64,
            "quantity_unit": pl.String,
            "channel": pl.String,
            "attachments_n": pl.Int16,
            "submitted_at": pl.Datetime("us"),
        }
    ),
    # One per answer of a payer, over all items of the request.
    "decision": pl.Schema(
        {
            **_FROM,
            "request_token": pl.String,
            "action_code": pl.String,
            "reason_codes": _TEXTS,
            "decided_at": pl.Datetime("us"),
            "updated_at": pl.Datetime("us"),  # of FHIR; tells answers of one moment apart
            "extended_flag": pl.Boolean,
            "units_approved": pl.Float64,
            "auth_period_days": pl.Int32,
            "authorization_token": pl.String,  # joins a claim to its request
        }
    ),
    # One per submitted claim (837, FHIR Claim with use = claim).
    "claim": pl.Schema(
        {
            **_FROM,
            "claim_token": pl.String,
            "patient_token": pl.String,
            "authorization_token": pl.String,
            "frequency": pl.String,  # X12 837 CLM05-3: 7 replaces an earlier claim, 8 voids it
            "submitted": pl.Float64,
            "submitted_at": pl.Datetime("us"),
            "service_from": pl.Date,
            "drg": pl.String,
            "revenue_code": pl.String,  # of the line with the largest charge
        }
    ),
    # One per claim (837, FHIR Claim, ExplanationOfBenefit) of a known patient that names diagnoses.
    "diagnosis": pl.Schema(
        {
            **_FROM,
            "patient_token": pl.String,
            "codes": _TEXTS,
            "service_from": pl.Date,
            "told_on": pl.Date,
        }
    ),
    # One per adjudication of a claim (835 CLP, FHIR ExplanationOfBenefit), in file order.
    "payment": pl.Schema(
        {
            **_FROM,
            "claim_token": pl.String,
            "patient_token": pl.String,
            "authorization_token": pl.String,
            "claim_status": pl.String,
            "submitted": pl.Float64,
            "eligible": pl.Float64,
            "paid_to_provider": pl.Float64,
            "paid_by_patient": pl.Float64,
            "deductible": pl.Float64,
            "coinsurance": pl.Float64,
            "copay": pl.Float64,
            "group_code": pl.String,  # of the largest adjustment
            "carc": pl.String,  # of the largest adjustment
            "rarc": _TEXTS,
            "service_from": pl.Date,
            "received_on": pl.Date,
            "paid_on": pl.Date,
            "payment_method": pl.String,
            "reversal_flag": pl.Boolean,
            "drg": pl.String,
            "revenue_code": pl.String,
        }
    ),
    # One per patient.
    "person": pl.Schema(
        {
            **_FROM,
            "patient_token": pl.String,
            "birth_year": pl.Int16,
            "birth_date": pl.Date,
            "sex": pl.String,
            "race": pl.String,
            "ethnicity": pl.String,
            "zip3": pl.String,
            "died_on": pl.Date,
        }
    ),
    # One per stay or visit; kind is inpatient, emergency or outpatient.
    "visit": pl.Schema(
        {
            **_FROM,
            "visit_token": pl.String,
            "patient_token": pl.String,
            "kind": pl.String,
            "start_on": pl.Date,
            "end_on": pl.Date,
            "died": pl.Boolean,
            "planned": pl.Boolean,
        }
    ),
    # One per laboratory value or vital sign.
    "lab": pl.Schema(
        {
            **_FROM,
            "patient_token": pl.String,
            "loinc": pl.String,
            "value": pl.Float64,
            "ucum": pl.String,
            "taken_on": pl.Date,
        }
    ),
}

_NAMES = {kind: tuple(schema) for kind, schema in EVENTS.items()}
_PART_ROWS = 50_000
_PREFIX = ".reading-"
_BETWEEN = "\x1f"  # stands in no code


class Spool:
    """Events on disk, in parts of Parquet; what a refused unit has told is taken back.

    A unit is what stands or falls together: an interchange, a bundle, a line of NDJSON. Nothing of
    a unit is seen by `scan` before its `commit`. Memory: at most 50 000 events of each kind.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in EVENTS}
        self._committed = dict.fromkeys(EVENTS, 0)  # rows in memory that are committed
        self._parts = dict.fromkeys(EVENTS, 0)
        self._open: list[Path] = []  # parts on disk that hold rows of the open unit alone

    def add(self, kind: str, event: Mapping[str, Any]) -> None:
        """Add an event of the open unit; fields that it lacks are unknown (null)."""
        rows = self._rows[kind]
        rows.append(tuple(map(event.get, _NAMES[kind])))
        if len(rows) >= _PART_ROWS:
            self._write(kind)

    def commit(self) -> None:
        """Keep what the open unit has told, and begin another."""
        for kind, rows in self._rows.items():
            self._committed[kind] = len(rows)
        self._open.clear()

    def rollback(self) -> None:
        """Forget what the open unit has told, and begin another."""
        for kind, rows in self._rows.items():
            del rows[self._committed[kind] :]
        for part in self._open:
            part.unlink()
        self._open.clear()

    def scan(self, kind: str) -> pl.LazyFrame:
        """All committed events of a kind, in the order in which they were added."""
        if self._rows[kind]:
            self._write(kind)
        parts = sorted(self._folder.glob(f"{kind}-*.parquet"))
        if not parts:
            return pl.LazyFrame(schema=EVENTS[kind])
        return pl.scan_parquet(parts, glob=False)

    def _write(self, kind: str) -> None:
        """Move rows to disk: those of finished units, and those of the open one apart."""
        rows, committed = self._rows[kind], self._committed[kind]
        for part, is_open in ((rows[:committed], False), (rows[committed:], True)):
            if part:
                file = self._folder / f"{kind}-{self._parts[kind]:08}.parquet"
                self._parts[kind] += 1
                _frame(kind, part).write_parquet(file, compression="lz4")
                if is_open:
                    self._open.append(file)
        self._rows[kind], self._committed[kind] = [], 0


def _frame(kind: str, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Rows of a kind as a frame; lists go there as text, which is ten times as fast."""
    columns = []
    for (name, dtype), values in zip(EVENTS[kind].items(), zip(*rows, strict=True), strict=True):
        if dtype == _TEXTS:
            joined = [None if codes is None else _BETWEEN.join(codes) for codes in values]
            text = pl.Series(name, joined, dtype=pl.String).to_frame()
            code = pl.col(name)
            codes = pl.when(code == "").then([]).otherwise(code.str.split(_BETWEEN))
            columns.append(text.select(codes.cast(dtype).alias(name)).to_series())
        else:
            columns.append(pl.Series(name, values, dtype=dtype))
    return pl.DataFrame(columns)


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True  # it is somebody else's
    return True


@contextmanager
def spool(folder: Path) -> Iterator[Spool]:
    """A spool in a private folder inside `folder`; deleted after."""
    with private_folder(folder) as private:
        yield Spool(private)


@contextmanager
def private_folder(folder: Path) -> Iterator[Path]:
    """A new folder inside `folder`, which only this account may read; deleted after.

    What a reading left that was killed is deleted first.
    """
    for left in folder.glob(f"{_PREFIX}*"):
        if not _is_running(left.name.removeprefix(_PREFIX).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    private = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=folder))  # mode 0700
    try:
        yield private
    finally:
        shutil.rmtree(private)
