"""CSV and Parquet files, and directories of Parquet parts, as lazy frames."""

import mmap
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import polars as pl

from data_contracts.deidentification.columns import told_by_place
from data_contracts.readers.files import decoded
from data_contracts.readers.findings import ReaderError, at

UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises over a bad file; its panics are no `Exception`."""

_LONGEST_LINE = 8 << 20
_COUNTED_AT_ONCE = 1 << 20  # bytes
_QUOTED_CELL = r'(^|,)"(?:[^"]|"")*"'


def scan(path: Path, *, separator: str = ",", ignore: Collection[str] = ()) -> pl.LazyFrame:
    """A table as a lazy frame; CSV columns are all text, so that nothing is guessed.

    Only headers and line ends are looked at here. A line of a CSV file without any value is no row.

    Args:
        path: A `.csv` file (UTF-8, header line, comma), a `.parquet` file, or a directory of
            `.parquet` parts and nothing else (but for `_SUCCESS` and dotfiles).
        separator: What parts the cells of a CSV line.
        ignore: Columns that are never read.

    Raises:
        ReaderError: It does not exist, is empty, or cannot be read as what its name says.
    """
    try:
        if path.is_dir():
            return _scan_parts(path).drop(ignore, strict=False)
        found = path.is_file()
    except OSError as error:
        raise _unreadable(path, error) from None
    if not found:
        raise ReaderError(f"{path}: no such file; correct the path under [tables] in site.toml")
    match path.suffix.lower():
        case ".parquet":
            frame = pl.scan_parquet(path, glob=False)
            _header(frame, path)
        case ".csv":
            _reject_long_lines(path)
            frame = pl.scan_csv(
                path, separator=separator, infer_schema=False, null_values=[""], glob=False
            )
            # Where it skips columns, polars does not see that a line has too many cells.
            columns, and_long = len(_header(frame, path)), bool(ignore)
            reject_short_lines(path, columns, separator=separator, and_long=and_long)
            frame = frame.drop(ignore, strict=False).filter(~pl.all_horizontal(pl.all().is_null()))
        case suffix:
            raise ReaderError(
                f"{path}: files of type {suffix!r} are not read; use .csv or .parquet"
            )
    return frame.drop(ignore, strict=False)


def _reject_long_lines(path: Path) -> None:
    """Refuse a file with a line that no row of a table can be, before all of it is in memory.

    Where every stretch of that length holds a line's end, only those are looked at.
    """
    if not path.stat().st_size:
        raise at(path, "", "the file is empty (0 bytes); export it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 0
        while start + _LONGEST_LINE < len(data):
            end = data.rfind(b"\n", start, start + _LONGEST_LINE)
            if end < 0:
                raise at(
                    path,
                    f"byte {start + 1:,}",
                    f"a line that begins there is longer than {_LONGEST_LINE >> 20} MB; are line "
                    "ends missing, or is a quote not closed?",
                )
            start = end + 1


def reject_short_lines(
    path: Path, columns: int, *, separator: str = ",", and_long: bool = False
) -> None:
    """Refuse a CSV file with lines of fewer cells than the header: polars would add nulls.

    Nothing is checked where a quoted cell runs over several lines.

    Args:
        path: The file, as given to `scan`.
        columns: Number of cells in the header line.
        separator: What parts the cells.
        and_long: Refuse lines of more cells, too, which polars does where it reads all columns.

    Raises:
        ReaderError: Lines are short, or long.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        is_quoted = data.find(b'"') >= 0
        if not (is_quoted or and_long) and _are_plain_lines(data, columns, separator):
            return
    # One column of whole lines: the separator is a character that text does not hold.
    lines = pl.scan_csv(
        path,
        separator="\x1f",
        quote_char=None,
        has_header=False,
        schema={"line": pl.String},
        truncate_ragged_lines=True,
        glob=False,
    )
    line = pl.col("line")
    cell = _QUOTED_CELL.replace(",", re.escape(separator))
    plain = line.str.replace_all(cell, "$1") if is_quoted else line
    commas = plain.str.count_matches(separator, literal=True)
    is_open = line.str.count_matches('"', literal=True) % 2 == 1 if is_quoted else pl.lit(False)
    counts = lines.select(
        short=(commas < columns - 1).sum(), long=(commas >= columns).sum(), open=is_open.any()
    )
    try:
        short, long, over_several_lines = counts.collect(engine="streaming").row(0)
    except UNREADABLE as error:
        _reject_other_encodings(path)
        raise _unreadable(path, error) from None
    if over_several_lines:
        if and_long:
            _reject_long_records(path, separator)
        return
    if short:
        raise ReaderError(
            f"{path}: {short} line{'s have' if short > 1 else ' has'} fewer cells than the header "
            "line; was the file cut short? Export it again"
        )
    if long and and_long:
        raise ReaderError(
            f"{path}: {long} line{'s have' if long > 1 else ' has'} more cells than the header "
            "line, so that its columns are shifted; is a separator in a cell that is not quoted?"
        )


def _reject_long_records(path: Path, separator: str) -> None:
    """Refuse a CSV file with records of more cells than the header: polars reads all columns."""
    frame = pl.scan_csv(path, separator=separator, infer_schema=False, glob=False)
    try:
        frame.select(pl.all().null_count()).collect(engine="streaming")
    except UNREADABLE:
        raise ReaderError(
            f"{path}: a record has more cells than the header line, so that its columns are "
            "shifted; is a separator in a cell that is not quoted?"
        ) from None


def _are_plain_lines(data: mmap.mmap, columns: int, separator: str) -> bool:
    """Whether all is ASCII, with separators for just so many cells in each line on the average.

    It takes a quarter of the time of counting line by line.
    """
    separators, lines = 0, int(data[-1:] != b"\n")
    for start in range(0, len(data), _COUNTED_AT_ONCE):
        stretch = data[start : start + _COUNTED_AT_ONCE]
        if not stretch.isascii():
            return False
        characters = np.frombuffer(stretch, dtype=np.uint8)
        separators += int(np.count_nonzero(characters == ord(separator)))
        lines += int(np.count_nonzero(characters == ord("\n")))
    return separators == lines * (columns - 1)


def _reject_other_encodings(path: Path) -> None:
    """Name the first line that is not UTF-8; only called when something is wrong."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            decoded(line, path, f"line {number}")


def _scan_parts(folder: Path) -> pl.LazyFrame:
    """The Parquet parts of a directory as one frame; whatever else it holds is refused."""
    entries = [
        entry
        for entry in sorted(folder.iterdir())
        if entry.name != "_SUCCESS" and not entry.name.startswith(".")
    ]
    kinds = Counter(
        "folders" if entry.is_dir() else entry.suffix or "no suffix" for entry in entries
    )
    parts = kinds.pop(".parquet", 0)
    if kinds:
        named = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))
        raise ReaderError(
            f"{folder}: beside its .parquet files the directory holds {kinds.total()} other "
            f"entr{'ies' if kinds.total() > 1 else 'y'}, which would not be read: {named}. Convert "
            "them to .parquet parts, or move them elsewhere"
        )
    if not parts:
        raise ReaderError(f"{folder}: the directory holds no .parquet file")
    first, *others = entries
    schema = _header(pl.scan_parquet(first, glob=False), first)
    for part in others:
        header = _header(pl.scan_parquet(part, glob=False), part)
        if differing := sorted({name for name, _ in schema.items() ^ header.items()}):
            places = told_by_place(differing, [*header, *schema])
            names = ", ".join(places.get(name, name) for name in differing)
            raise ReaderError(
                f"{part}: its columns or their types differ from those of {first.name}: {names}. "
                "All parts of a table need the same columns"
            )
    return pl.scan_parquet(entries, glob=False)


def _header(frame: pl.LazyFrame, path: Path) -> pl.Schema:
    """The frame's columns and types, if its header can be read."""
    try:
        return frame.collect_schema()
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> ReaderError:
    if isinstance(error, PermissionError):
        return ReaderError(f"{path}: permission denied; let this account read it")
    # What polars says may quote the file: name the kind of error alone.
    return ReaderError(
        f"{path}: cannot be read as {path.suffix or 'Parquet'} ({type(error).__name__}): it is "
        "empty, cut short, or not what its name says"
    )
