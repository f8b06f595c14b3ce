"""CSV and Parquet files, and directories of Parquet parts, as lazy frames."""

from pathlib import Path

import polars as pl

from data_contracts.errors import GroundTruthError


class ReaderError(GroundTruthError):
    """A file is missing, empty, or not what its name says."""


def scan(path: Path) -> pl.LazyFrame:
    """A table as a lazy frame; CSV columns are all text, so that nothing is guessed.

    Args:
        path: A `.csv` file (UTF-8, header line, comma), a `.parquet` file, or a directory of
            `.parquet` parts.

    Raises:
        ReaderError: It does not exist, is empty, or cannot be read as what its name says.
    """
    if path.is_dir():
        parts = sorted(path.glob("*.parquet"))
        if not parts:
            raise ReaderError(f"{path}: the directory holds no .parquet file")
        return _checked(pl.scan_parquet(parts, glob=False), path)
    if not path.is_file():
        raise ReaderError(f"{path}: no such file; correct the path under [tables] in site.toml")
    match path.suffix.lower():
        case ".parquet":
            return _checked(pl.scan_parquet(path, glob=False), path)
        case ".csv":
            frame = pl.scan_csv(path, infer_schema=False, null_values=[""], glob=False)
            return _checked(frame, path)
        case suffix:
            raise ReaderError(
                f"{path}: files of type {suffix!r} are not read; use .csv or .parquet"
            )


def _checked(frame: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    """The frame, once its header could be read."""
    try:
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        # What polars says may quote the file: name the kind of error alone.
        raise ReaderError(
            f"{path}: cannot be read as {path.suffix or 'Parquet'} ({type(error).__name__}): it is "
            "empty, cut short, or not what its name says"
        ) from None
    return frame
