"""App bundles: the code that a coordinator asks sites to run, as one file with one SHA-256.

A bundle is a Flower App Bundle (FAB): a zip archive of Python packages and a `pyproject.toml` that
names the apps in them. `installed_bundle` makes it from the release that is installed here, byte
for byte the same on every machine, so a site can see whether it is asked to run what it has
installed, or something else.
"""

import difflib
import hashlib
import io
import re
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from data_contracts.errors import GroundTruthError

PACKAGES: Final = ("data_contracts", "models", "federation")
"""What travels to a site: everything below experiments."""
_LEFT_OUT: Final = (
    "federation/deployment/",  # runs apps, and is none
    "data_contracts/contracts/released/",  # for tests, and in no wheel
)
_SUFFIXES: Final = (".py", ".json", ".yaml")
_MAX_BYTES: Final = 10_000_000
_MAX_UNPACKED: Final = 20_000_000
_MAX_FILES: Final = 2_000
_PATH: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}(/[A-Za-z0-9_.-]{1,100}){0,15}")
_PROJECT, _CONTENT = "pyproject.toml", ".info/CONTENT"


# What Flower asks for and no more. The run plan is all that a coordinator can set and a site sees.
_PROJECT_TEXT: Final = """\
[project]
name = "shared-ground-truth"
version = "{version}"
description = "groundtruth's apps at the coordinator and at the sites"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "groundtruth"

[tool.flwr.app.components]
serverapp = "federation.server_app:app"
clientapp = "federation.client_app:app"

[tool.flwr.app.config]
plan = ""
"""


class BundleError(GroundTruthError):
    """A file is no app bundle, or one that cannot be used."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An app bundle.

    Attributes:
        content: The file, as it is sent.
        sha256: SHA-256 of the file, hexadecimal. It names the bundle everywhere.
        files: Path in the bundle -> content.
    """

    content: bytes
    sha256: str
    files: Mapping[str, bytes]

    @classmethod
    def read(cls, content: bytes) -> "Bundle":
        """The bundle in a file.

        Raises:
            BundleError: It is none; or it is too large, holds a path that leads out of it or that
                two readers could take for different ones, or anything but plain files of text.
        """
        if len(content) > _MAX_BYTES:
            raise BundleError(f"an app bundle has at most {_MAX_BYTES:,} bytes; this one has more")
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                files = _unpacked(archive)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError):
            raise BundleError("this is no app bundle (a zip archive that can be read)") from None
        if _PROJECT not in files:
            raise BundleError(f"this is no app bundle: it holds no {_PROJECT}")
        if not all(_is_readable(name, file) for name, file in files.items()):
            raise BundleError("an app bundle holds text in UTF-8 alone; this one does not")
        return cls(content, hashlib.sha256(content).hexdigest(), files)

    @property
    def code(self) -> Mapping[str, bytes]:
        """The files but for the list of their digests, which follows from them."""
        return {name: content for name, content in self.files.items() if name != _CONTENT}

    def unpack(self, folder: Path) -> None:
        """Write the files below an empty folder."""
        for name, content in self.code.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


@dataclass(frozen=True, slots=True)
class Change:
    """What differs between two bundles in one file.

    Attributes:
        file: Its path.
        kind: "added", "removed" or "changed".
        added: Lines that are new.
        removed: Lines that are gone.
    """

    file: str
    kind: str
    added: int
    removed: int


@cache
def installed_bundle() -> Bundle:
    """The bundle of the release that is installed here."""
    files = {_PROJECT: _PROJECT_TEXT.format(version=version("shared-ground-truth")).encode()}
    for package in PACKAGES:
        found = find_spec(package)
        assert found is not None  # noqa: S101 - this package is one of them
        for place in found.submodule_search_locations or ():
            folder = Path(place)
            for file in folder.rglob("*"):
                name = f"{package}/{file.relative_to(folder).as_posix()}"
                if file.suffix in _SUFFIXES and not name.startswith(_LEFT_OUT):
                    files[name] = file.read_bytes()
    return Bundle.read(_packed(files))


def changes(old: Bundle, new: Bundle) -> tuple[Change, ...]:
    """The files in which two bundles differ, by path."""
    found = []
    for name in sorted({*old.code, *new.code}):
        before, after = old.code.get(name), new.code.get(name)
        if before == after:
            continue
        kind = "added" if before is None else "removed" if after is None else "changed"
        lines = list(_diff(before, after, name))[2:]
        added = sum(line.startswith("+") for line in lines)
        found.append(Change(name, kind, added, sum(line.startswith("-") for line in lines)))
    return tuple(found)


def difference(old: Bundle, new: Bundle) -> str:
    """The same line by line, as a unified diff, for people to read."""
    return "\n".join(
        line
        for change in changes(old, new)
        for line in _diff(old.code.get(change.file), new.code.get(change.file), change.file)
    )


def _diff(before: bytes | None, after: bytes | None, name: str) -> list[str]:
    old, new = (_lines(content or b"") for content in (before, after))
    return list(difflib.unified_diff(old, new, f"approved/{name}", f"offered/{name}", lineterm=""))


def _lines(content: bytes) -> list[str]:
    """The lines of a file; what a terminal would obey or hide is spelt out instead.

    A colour, a cursor's way back or a change of the direction of writing could show another code
    than the one that runs (Boucher, Anderson, "Trojan Source", USENIX Security 2023).
    """
    if not content:
        return []
    text = content.decode("utf-8", errors="backslashreplace")
    lines = text.removesuffix("\n").split("\n")
    return [line if line.isprintable() else "".join(map(_spelt, line)) for line in lines]


def _spelt(sign: str) -> str:
    return sign if sign.isprintable() or sign == "\t" else ascii(sign)[1:-1]


def _unpacked(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """The files of an archive, each read no further than the size that was added up before.

    Raises:
        BundleError: There is something in it that no bundle holds.
    """
    entries = archive.infolist()
    if len(entries) > _MAX_FILES or sum(entry.file_size for entry in entries) > _MAX_UNPACKED:
        raise BundleError(
            f"an app bundle has at most {_MAX_FILES:,} files of {_MAX_UNPACKED:,} bytes together"
        )
    files: dict[str, bytes] = {}
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        # Of other methods Python's reader unpacks as much as there is, whatever was declared.
        plain = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if not plain or kind not in (0, stat.S_IFREG) or not _is_inside(entry.orig_filename):
            raise BundleError("an app bundle holds plain files inside it; this one does not")
        with archive.open(entry) as packed:
            files[entry.filename] = packed.read(entry.file_size)
        if len(files[entry.filename]) != entry.file_size:
            raise BundleError("a file of this app bundle is shorter than the bundle says")
    folders = {name[:at] for name in files for at, sign in enumerate(name) if sign == "/"}
    if len(files) != len(entries) or folders & files.keys():
        raise BundleError("an app bundle holds each path once; this one does not")
    return files


def _is_inside(name: str) -> bool:
    return _PATH.fullmatch(name) is not None and not {".", ".."} & set(name.split("/"))


def _is_readable(name: str, content: bytes) -> bool:
    """Whether people see the code that runs.

    Python would run a compiled file in place of the source beside it (PEP 552 lets it stay
    unchecked), or read source in an encoding in which a comment is none (PEP 263).
    """
    try:
        text = content.decode("utf-8")
        if name.endswith(".py"):
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
            return "\0" not in text and encoding in ("utf-8", "utf-8-sig")
    except (UnicodeDecodeError, SyntaxError):
        return False
    return "\0" not in text


def _packed(files: Mapping[str, bytes]) -> bytes:
    """A Flower App Bundle, in which nothing depends on a clock, a machine or a library's release.

    Its last file lists the others, with their SHA-256 and their sizes in bits.
    """
    ordered = {name: files[name] for name in (_PROJECT, *sorted(files.keys() - {_PROJECT}))}
    listed = "\n".join(
        f"{name},{hashlib.sha256(file).hexdigest()},{8 * len(file)}"
        for name, file in ordered.items()
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, file in {**ordered, _CONTENT: listed.encode()}.items():
            entry = zipfile.ZipInfo(name)  # of 1 January 1980
            entry.create_system = 3  # Unix, wherever this runs
            archive.writestr(entry, file)
    return content.getvalue()
