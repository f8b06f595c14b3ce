"""How the loaders of public data write sites: tokens, valid tables, one folder per site."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import dataframely as dy
import polars as pl

from data_contracts.errors import ManifestError
from data_contracts.fields import Role
from data_contracts.manifest import SiteManifest
from data_contracts.public.sources import Source
from data_contracts.readers.findings import ReaderError

PUBLIC_KEY: Final = b"groundtruth: public data, nothing is hidden by this key"
"""Key of the tokens of public data. It is published: the tokens give public rows the same shape
as private ones and hide nothing, as the identifiers that they replace are public too."""


def tokens(kind: str, ids: pl.Series) -> pl.Series:
    """Tokens of 32 hexadecimal digits, the same at every site.

    Args:
        kind: What the ids identify, e.g. "uci-diabetes-130/patient"; equal ids of different kinds
            get different tokens.
        ids: Identifiers, length n; rows of a patient repeat theirs.

    Returns:
        Keyed BLAKE2b of each identifier, length n.
    """
    unique = ids.cast(pl.String).unique()
    hashed = [
        hashlib.blake2b(f"{kind}/{value}".encode(), key=PUBLIC_KEY, digest_size=16).hexdigest()
        for value in unique
    ]
    return ids.cast(pl.String).replace_strict(unique, pl.Series(hashed, dtype=pl.String))


def source_file(folder: Path, name: str) -> Path:
    """The raw file `folder/name`.

    Raises:
        ReaderError: It does not exist.
    """
    file = folder / name
    if not file.is_file():
        raise ReaderError(f"{file}: no such file; fetch the data set into {folder} first")
    return file


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Say of which raw file an error of polars or dataframely speaks.

    Raises:
        ReaderError: The rows are not what the publisher describes.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, dy.exc.ValidationError) as error:
        reason = str(error).partition("\n")[0]
        raise ReaderError(
            f"{file}: the file is not what its publisher describes ({reason}); "
            "fetch the pinned edition"
        ) from None


def conform(frame: pl.DataFrame, schema: type[dy.Schema]) -> pl.DataFrame:
    """The frame with exactly the contract's columns and types, validated.

    Args:
        frame: n rows; columns that it lacks become null, columns outside the contract are dropped.
        schema: The contract.

    Raises:
        polars.exceptions.PolarsError: A value does not fit its column's type.
        dataframely.exc.ValidationError: A row breaks the contract.
    """
    columns = [
        pl.col(name).cast(column.dtype)
        if name in frame.columns
        else pl.lit(None, dtype=column.dtype).alias(name)
        for name, column in schema.columns().items()
    ]
    return schema.validate(frame.select(columns), cast=False)


def new_folder(out: Path) -> None:
    """Make the folder of a network.

    Raises:
        ManifestError: It exists and holds something, or is a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ManifestError(f"{out} is not an empty folder: name a new one, or empty it first")
    out.mkdir(parents=True, exist_ok=True)


def write_sites(out: Path, tables: Mapping[str, pl.DataFrame], site: pl.Series, role: Role) -> None:
    """Write `out/sites/<site>/` with each site's rows of every table.

    Args:
        out: The network's folder.
        tables: Contract name -> table of n rows; the tables' rows run in parallel.
        site: Name of each row's site, length n.
        role: Role of all sites.
    """
    for name in site.unique().sort():
        folder = out / "sites" / name
        folder.mkdir(parents=True)
        files = {table: folder / f"{table}.parquet" for table in tables}
        for table, rows in tables.items():
            rows.filter(site == name).write_parquet(files[table])
        SiteManifest(name=name, role=role, tables=files, origin="public").write(folder)


def file_hashes(folder: Path, source: Source) -> dict[str, str]:
    """SHA-256 of the raw files that a network was made from, by name."""
    return {
        file.name: hashlib.sha256((folder / file.name).read_bytes()).hexdigest()
        for file in source.files
    }
