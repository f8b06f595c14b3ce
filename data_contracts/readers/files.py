"""Bytes of a site's files, in bounded memory: plain or gzip, UTF-8, nothing guessed."""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_contracts.readers.findings import at

BLOCK: Final = 1 << 20
"""Bytes that are read at once."""

_MOST_EXPANSION = 200
_EXPANSION_FROM = 64 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def files_below(path: Path, suffixes: frozenset[str]) -> list[Path]:
    """A file, or all files of a directory and below it, sorted.

    Args:
        path: The file or directory.
        suffixes: Suffixes that are read, in lower case and without ".gz" (e.g. ".835"). A single
            file is taken whatever its name.

    Raises:
        ReaderError: There is none, or the directory holds files with another suffix, which would
            otherwise be left out without a word.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise at(path, "", "no such file or directory; correct it under [sources] in site.toml")
    files: list[Path] = []
    others: list[Path] = []
    for file in sorted(path.rglob("*")):
        if file.is_dir() or file.name.startswith("."):
            continue
        plain = file.with_suffix("") if file.suffix.lower() == ".gz" else file
        (files if plain.suffix.lower() in suffixes else others).append(file)
    if others:
        raise at(
            path,
            "",
            f"{len(others)} file{'s' if len(others) > 1 else ''} with other endings than "
            f"{', '.join(sorted(suffixes))} (or .gz of them) would not be read, the first is "
            f"{others[0].relative_to(path)}; move such files elsewhere",
        )
    if not files:
        raise at(path, "", f"no file that ends in {', '.join(sorted(suffixes))} (or .gz of them)")
    return files


def blocks(file: Path) -> Iterator[bytes]:
    """The content of a file in blocks of about one megabyte, without a byte order mark.

    A name that ends in `.gz` is unpacked on the way; a file that unpacks to more than 64 MB and to
    more than 200 times its size is refused (text packs 5 to 40 times).

    Raises:
        ReaderError: The file is empty, unreadable, not gzip, cut short, or unpacks beyond measure.
    """
    try:
        size = file.stat().st_size
        if not size:
            raise at(file, "", "the file is empty (0 bytes); export it again")
        packed = file.suffix.lower() == ".gz"
        done = 0
        with gzip.open(file) if packed else file.open("rb") as stream:
            while block := stream.read(BLOCK):
                if not done:
                    block = block.removeprefix(_BYTE_ORDER_MARK)
                done += len(block)
                if packed and done > max(_EXPANSION_FROM, _MOST_EXPANSION * size):
                    raise at(
                        file,
                        "",
                        f"it unpacks to more than {_MOST_EXPANSION} times its size; this is no "
                        "export of records",
                    )
                yield block
        if not done:
            raise at(file, "", "nothing is packed in it; export it again")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise at(
            file, "", f"it cannot be unpacked ({type(error).__name__}): cut short, or no gzip file"
        ) from None
    except PermissionError:
        raise at(file, "", "permission denied; let this account read it") from None
    except OSError as error:
        raise at(file, "", f"it cannot be read: {error.strerror or type(error).__name__}") from None


def shown(file: Path) -> str:
    """A path as text that any table can hold; bytes that are no UTF-8 are written out."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def decoded(data: bytes, file: Path, place: str) -> str:
    """Bytes as UTF-8 text.

    Raises:
        ReaderError: They are not UTF-8 (e.g. Latin-1).
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise at(
            file,
            place,
            f"byte {error.start + 1} there is not UTF-8 (Latin-1 or Windows-1252?); convert the "
            "file, e.g. with iconv",
        ) from None
