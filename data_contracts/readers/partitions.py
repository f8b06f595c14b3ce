"""Events on disk in parts of few patients, for what has to look at all events of a patient at once.

Joins, sorts and groups of a patient's events need memory for all rows that they are given; part by
part they need it for those of some thousand patients, however many there are.
"""

from pathlib import Path
from typing import Final

import polars as pl

from data_contracts.readers.findings import at
from data_contracts.readers.tabular import UNREADABLE

_BATCH_ROWS: Final = 100_000
_PART = "part"


def parted(events: pl.LazyFrame, folder: Path, kind: str, parts: int) -> list[pl.LazyFrame]:
    """Events in parts, in each of which all events of a patient stand, in their order.

    Memory: some batches of events. The files lie in `folder` until it is deleted.

    Args:
        events: Have a `patient_token`; they are read once, here.
        folder: A private folder of the reading.
        kind: What the files are called.
        parts: How many parts.

    Raises:
        ReaderError: The events cannot be read, or not be written (is the disk full?).
    """
    part = (pl.col("patient_token").hash() % parts).alias(_PART)
    files: list[list[Path]] = [[] for _ in range(parts)]
    try:
        for number, batch in enumerate(events.collect_batches(chunk_size=_BATCH_ROWS)):
            rows = batch.with_columns(part).partition_by(_PART, as_dict=True, include_key=False)
            for (key,), of_part in rows.items():
                files[key].append(folder / f"{kind}-{key}-{number:06}.parquet")
                of_part.write_parquet(files[key][-1], compression="lz4")
    except UNREADABLE as error:
        # What polars says may quote an event: name the kind of error alone.
        reason = f"events cannot be written to it ({type(error).__name__}); is the disk full?"
        raise at(folder, "", reason) from None
    schema = events.collect_schema()
    return [
        pl.scan_parquet(of_part, glob=False) if of_part else pl.LazyFrame(schema=schema)
        for of_part in files
    ]
