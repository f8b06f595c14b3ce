"""Files with keys in them: written whole or not at all, refused where others can read them."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data_contracts.errors import GroundTruthError

_MAX_BYTES = 1_000_000


class PrivateFileError(GroundTruthError):
    """A file that only its owner may read is missing, or others can read it."""


@contextlib.contextmanager
def written_beside(file: Path, content: bytes) -> Iterator[Path]:
    """A complete copy of a file to be, of mode 0600, in the same folder; gone afterwards."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield part
    finally:
        part.unlink(missing_ok=True)


def write_whole(file: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file in place of an older one; readers see the one or the other."""
    with written_beside(file, content) as part:
        part.chmod(mode)
        part.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, outlives a power cut
    finally:
        os.close(folder)


def write_new(file: Path, content: bytes) -> None:
    """Write a private file where there is none.

    Raises:
        FileExistsError: There is one, which is left alone.
    """
    with written_beside(file, content) as part:
        os.link(part, file)  # unlike a renaming, never in place of another's


def private_folder(folder: Path) -> Path:
    """The folder, made if it is not there, open to its owner alone."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def read_private(file: Path, holds: str, remedy: str) -> bytes:
    """Content of a file that only its owner may read.

    Args:
        file: The file.
        holds: What it holds, for the message.
        remedy: What to do where somebody may have read it, or where it is gone.

    Raises:
        PrivateFileError: It is missing, cannot be read, or is open to others.
    """
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode & 0o777
            if os.name == "posix" and mode & 0o077:
                raise PrivateFileError(
                    f"{file} holds {holds} and is open to other users of the machine (mode "
                    f"{mode:03o}). If nobody has read it: chmod 600 {file}. Otherwise {remedy}"
                )
            return stream.read(_MAX_BYTES)
    except FileNotFoundError:
        raise PrivateFileError(
            f"{file}, which holds {holds}, is missing. Restore it from a backup; if there is "
            f"none, {remedy}"
        ) from None
    except OSError as error:
        raise PrivateFileError(f"{file} cannot be read: {error.strerror}") from None
