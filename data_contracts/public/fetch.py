"""Fetching a public data set: from its publisher, or from a folder that already holds copies.

Nothing is fetched unless asked for, and nothing but the source's own address is contacted. A file
takes its final name only once its SHA-256 is the pinned one.
"""

import hashlib
import http.client
import shutil
import ssl
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from data_contracts.errors import GroundTruthError
from data_contracts.public.sources import Source, SourceFile

Progress = Callable[[str, int, int | None], None]
"""Called with file name, bytes so far, and bytes in total where the publisher says so."""

ATTEMPTS: Final = 5
LONGEST_PAUSE_SECONDS: Final = 30.0
TIMEOUT_SECONDS: Final = 30.0
LARGEST_ARCHIVE: Final = 256 * 2**20
"""Bytes; far more than any source, far less than a disk."""

_CHUNK: Final = 1 << 18
_RETRIED_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_NETWORK_ERRORS: Final = (
    URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


class FetchError(GroundTruthError):
    """A public data set could not be fetched, or is not the pinned edition."""


def fetch(
    source: Source,
    into: Path,
    *,
    origin: Path | None = None,
    progress: Progress | None = None,
    pause_seconds: float = 1.0,
) -> list[Path]:
    """Put the raw files of a data set into a folder; files already there and right are kept.

    Args:
        source: The data set.
        into: Folder for the files; made if it does not exist. An interrupted download leaves a
            `.part` file here, from which the next call resumes.
        origin: Copy from this folder and contact nobody. The files (or the publisher's .zip) may
            lie in it or in its subfolder named after the data set, e.g. `uci_diabetes_130`.
        progress: Told how far a download has come.
        pause_seconds: Pause before the second attempt; it doubles with each further one.

    Returns:
        The files, in the order of `source.files`.

    Raises:
        FetchError: The publisher cannot be reached, `origin` lacks a file, or a file is not the
            pinned edition.
    """
    files = [into / file.name for file in source.files]
    try:
        into.mkdir(parents=True, exist_ok=True)
        if all(_is_pinned(into / file.name, file) for file in source.files):
            return files
        if origin is not None:
            _copy(source, origin, into)
        else:
            _download_and_unpack(source, into, progress, pause_seconds)
    except OSError as error:
        raise FetchError(
            f"{source.name} cannot be written to {into}: {error.strerror or error}; "
            "free the space or name another folder"
        ) from None
    return files


def _copy(source: Source, origin: Path, into: Path) -> None:
    """Copy the files from `origin`, or unpack the publisher's archive that lies there."""
    if not origin.is_dir():
        raise FetchError(f"--from {origin}: no such folder")
    here = {
        entry.name.lower(): entry
        for folder in (origin, origin / source.folder)
        if folder.is_dir()
        for entry in sorted(folder.iterdir())
        if entry.is_file()
    }
    lacking = [file.name for file in source.files if file.name.lower() not in here]
    if lacking and source.is_archive and (archive := here.get(source.download_name.lower())):
        _unpack(source, archive, into)
        return
    if lacking:
        raise FetchError(
            f"{origin} lacks {', '.join(lacking)} of {source.name} (also looked for in "
            f"{source.folder}/); get the data set from {source.page} and put it there"
        )
    for file in source.files:
        with here[file.name.lower()].open("rb") as copy:
            _store(source, file, copy, into)


def _download_and_unpack(
    source: Source, into: Path, progress: Progress | None, pause_seconds: float
) -> None:
    """Download, unpack and check; once more from scratch where a resumed download was damaged."""
    part = into / f"{source.download_name}.part"
    for last in (False, True):
        resumed = _download(source, part, progress, pause_seconds)
        try:
            if source.is_archive:
                _unpack(source, part, into)
            else:
                with part.open("rb") as downloaded:
                    _store(source, source.files[0], downloaded, into)
            return
        except FetchError:
            if last or not resumed:
                raise
        finally:
            part.unlink(missing_ok=True)


def _download(source: Source, part: Path, progress: Progress | None, pause_seconds: float) -> bool:
    """Download into `part`, resuming what it holds; returns whether anything was resumed."""
    resumed = False
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(pause_seconds * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS))
        start = part.stat().st_size if part.exists() else 0
        resumed |= start > 0
        try:
            _receive(source, part, start, progress)
            return resumed
        except HTTPError as error:
            error.close()
            reason = f"HTTP {error.code} {error.reason}"
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
            elif error.code not in _RETRIED_STATUS:
                break
        except FetchError:
            part.unlink(missing_ok=True)
            raise
        except _NETWORK_ERRORS as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
    raise FetchError(
        f"{source.name}: {source.url} cannot be fetched ({reason}). Try again later, or get the "
        f"files elsewhere ({source.page}) and name their folder with --from DIR"
    )


def _receive(source: Source, part: Path, start: int, progress: Progress | None) -> None:
    """One request; appends to `part` where the server continues, begins anew where it does not."""
    headers = {"User-Agent": "groundtruth (research data loader)", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = Request(source.url, headers=headers)  # noqa: S310 - the opener knows only http(s)
    with _opener().open(request, timeout=TIMEOUT_SECONDS) as response:
        continued = response.status == http.client.PARTIAL_CONTENT
        if continued and not response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        ):
            raise http.client.HTTPException("the server continued at another place")
        done = start if continued else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        if total is not None:
            _refuse_other_size(source, total, final=True)
        with part.open("ab" if continued else "wb") as stored:
            while chunk := response.read(_CHUNK):
                stored.write(chunk)
                done += len(chunk)
                _refuse_other_size(source, done, final=False)
                if progress is not None:
                    progress(source.download_name, done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def _refuse_other_size(source: Source, size: int, *, final: bool) -> None:
    """Stop before the bytes of another edition, or of a whole disk, are received."""
    if source.is_archive:
        expected, wrong = f"at most {LARGEST_ARCHIVE}", size > LARGEST_ARCHIVE
    else:
        pinned = source.files[0].size
        expected, wrong = str(pinned), size > pinned or (final and size < pinned)
    if wrong:
        raise _other_edition(source, source.url, f"{expected} bytes", f"{size} bytes")


def _unpack(source: Source, archive: Path, into: Path) -> None:
    """Store the files of the data set from a .zip; whatever else it holds stays packed."""
    try:
        with zipfile.ZipFile(archive) as packed:
            # Only base names are compared and only our own names are written, so that a member
            # called "../../x" cannot leave the folder.
            members = {
                PurePosixPath(member.filename).name.lower(): member
                for member in packed.infolist()
                if not member.is_dir()
            }
            for file in source.files:
                member = members.get(file.name.lower())
                if member is None:
                    raise FetchError(
                        f"{archive.name} of {source.name} lacks {file.name}. {source.edition} "
                        "Use --from DIR with a copy of the pinned edition"
                    )
                if member.file_size != file.size:
                    raise _other_edition(
                        source, file.name, f"{file.size} bytes", f"{member.file_size} bytes"
                    )
                with packed.open(member) as contents:
                    _store(source, file, contents, into)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FetchError(
            f"{archive} of {source.name} is damaged or no .zip ({error}); a proxy or a login page "
            f"may have answered for {source.url}. Fetch again, or use --from DIR"
        ) from None


def _store(source: Source, file: SourceFile, contents: IO[bytes], into: Path) -> None:
    """Write one file under its final name, if its SHA-256 is the pinned one.

    Raises:
        FetchError: It is not; nothing is left behind.
    """
    unchecked = into / f".{file.name}.unchecked"
    try:
        with unchecked.open("wb") as stored:
            shutil.copyfileobj(contents, stored, _CHUNK)
        found = _sha256(unchecked)
        if found != file.sha256:
            raise _other_edition(source, file.name, f"SHA-256 {file.sha256}", f"SHA-256 {found}")
        unchecked.replace(into / file.name)
    finally:
        unchecked.unlink(missing_ok=True)


def _other_edition(source: Source, what: str, expected: str, found: str) -> FetchError:
    return FetchError(
        f"{what} of {source.name} is not the pinned edition: expected {expected}, got {found}. "
        f"{source.edition} Use --from DIR with a copy of the pinned edition"
    )


def _is_pinned(path: Path, file: SourceFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and _sha256(path) == file.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _NoDowngrade(HTTPRedirectHandler):
    """Follows redirects (portals keep files in object stores), but never from https to http."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise HTTPError(newurl, code, "redirect from https to http refused", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    """An opener for http and https only; file://, ftp:// and data: are unknown to it."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        _NoDowngrade(),
        HTTPErrorProcessor(),
        UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
