"""App bundles: hostile archives are refused, and the release's own is the same bytes everywhere."""

import io
import os
import py_compile
import random
import shutil
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_files

import federation
from federation.deployment.bundles import Bundle, BundleError, changes, difference, installed_bundle

Archiver = Callable[[Mapping[str, bytes | str]], bytes]
BundleMaker = Callable[..., Bundle]
PROJECT = {"pyproject.toml": "[project]\n"}
ROOT = Path(federation.__file__).parents[1]


def zipped(*entries: tuple[zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo("pyproject.toml"), "[project]\n")
        for entry, text in entries:
            archive.writestr(entry, text, compress_type=method)
    return content.getvalue()


# --- hostile archives -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../outside.py",
        "federation/../../outside.py",
        "/etc/cron.d/outside",
        "a//b.py",
        "./a.py",
        "a/./b.py",
        "a/",
        "..",
        "C:\\outside.py",
        "C:/outside.py",
        "a\\..\\b.py",
        "two words.py",
        "line\nfeed.py",
        "\x1b[2Jcleared.py",
        "\u202eyp.evil",
        "caf\u00e9.py",
        "\uff0e\uff0e/wide.py",  # full-width dots, which some systems fold
        "x" * 101,
        "/".join("x" * 20),
    ],
)
def test_a_path_that_leads_out_or_deceives_is_refused(archive_of: Archiver, name: str) -> None:
    with pytest.raises(BundleError, match="plain files inside it"):
        Bundle.read(archive_of({**PROJECT, name: "x"}))


def test_a_path_stops_at_no_hidden_zero_byte(archive_of: Archiver) -> None:
    content = archive_of({**PROJECT, "a.py_hidden": "x"}).replace(b"a.py_", b"a.py\0")
    with pytest.raises(BundleError):
        Bundle.read(content)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_files_of_one_path_are_refused() -> None:
    entries = [(zipfile.ZipInfo("federation/a.py"), text) for text in (b"good", b"evil")]
    with pytest.raises(BundleError, match="each path once"):
        Bundle.read(zipped(*entries))


def test_a_file_that_is_a_folder_of_another_is_refused(archive_of: Archiver) -> None:
    with pytest.raises(BundleError, match="each path once"):
        Bundle.read(archive_of({**PROJECT, "a": "x", "a/b/c.py": "x"}))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_links_and_devices_are_refused(kind: int) -> None:
    entry = zipfile.ZipInfo("federation/link.py")
    entry.external_attr = (kind | 0o777) << 16
    with pytest.raises(BundleError, match="plain files"):
        Bundle.read(zipped((entry, b"/etc/passwd")))


def test_code_that_would_run_in_place_of_the_source_is_refused(
    archive_of: Archiver, tmp_path: Path
) -> None:
    """A compiled file can say that the source beside it is not to be looked at (PEP 552)."""
    (tmp_path / "part.py").write_text("shown = False\n")
    compiled = Path(
        py_compile.compile(
            str(tmp_path / "part.py"),
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    )
    (tmp_path / "part.py").write_text("shown = True\n")
    command = [sys.executable, "-I", "-c", "import sys; sys.path[:0] = sys.argv[1:]; import part"]
    command[-1] += "; print(part.shown)"
    ran = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
    name = f"__pycache__/{compiled.name}"
    with pytest.raises(BundleError, match="text in UTF-8 alone"):
        Bundle.read(
            archive_of({**PROJECT, "part.py": "shown = True\n", name: compiled.read_bytes()})
        )


@pytest.mark.parametrize(
    "source",
    [
        b"# coding: utf-7\n# harmless +AAo-evil = True\n",  # +AAo- is a line feed
        b"#!/usr/bin/python\n# vim: set fileencoding=cp500 :\n",
        b"# coding: no such\n",
        b"caf\xe9 = 1\n",
        b"a = 1\0\n",
        b"\x7fELF\2\1\1\0",
    ],
)
def test_source_that_python_reads_otherwise_than_people_is_refused(
    archive_of: Archiver, source: bytes
) -> None:
    with pytest.raises(BundleError, match="text in UTF-8 alone"):
        Bundle.read(archive_of({**PROJECT, "a.py": source}))


def test_ten_thousand_entries_are_refused(archive_of: Archiver) -> None:
    with pytest.raises(BundleError, match="at most 2,000 files"):
        Bundle.read(archive_of({**PROJECT, **{f"f{number}.py": "" for number in range(10_000)}}))


def test_more_bytes_than_a_bundle_may_have_are_refused_unread() -> None:
    with pytest.raises(BundleError, match="at most 10,000,000 bytes"):
        Bundle.read(bytes(10_000_001))


BOMB = bytes(50_000_000)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("declared", [None, 10])
def test_a_zip_bomb_is_refused_in_little_memory_whatever_size_it_declares(
    method: int, declared: int | None
) -> None:
    content = zipped((zipfile.ZipInfo("bomb.py"), BOMB), method=method)
    if declared is not None:
        # The size stands in the entry's own header and in the directory at the end.
        assert content.count(struct.pack("<L", len(BOMB))) == 2
        content = content.replace(struct.pack("<L", len(BOMB)), struct.pack("<L", declared))
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            Bundle.read(content)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_an_encrypted_entry_is_refused(archive_of: Archiver) -> None:
    content = bytearray(archive_of({**PROJECT, "a.py": "x" * 40}))
    # Bit 0 of the flags of both headers (APPNOTE.TXT 4.3.7, 4.3.12 and 4.4.4).
    content[content.index(b"PK\x03\x04", 1) + 6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(BundleError, match="no app bundle"):
        Bundle.read(bytes(content))


def test_names_that_differ_between_header_and_directory_are_refused(archive_of: Archiver) -> None:
    content = archive_of({**PROJECT, "good.py": "x"})
    first = content.index(b"good.py")
    with pytest.raises(BundleError):
        Bundle.read(content[:first] + b"evil.py" + content[first + 7 :])


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x05\x06" + bytes(18), b"x" * 1000])
def test_what_is_no_archive_or_holds_no_project_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="no app bundle"):
        Bundle.read(content)


def test_whatever_is_done_to_an_archive_it_is_refused_or_read() -> None:
    """None of 3,000 damaged archives ends in any other error."""
    chance = random.Random(5)  # noqa: S311 - a test that can be repeated
    entries = [(zipfile.ZipInfo(f"federation/f{number}.py"), b"x = 1\n" * 9) for number in range(3)]
    whole = zipped(*entries, method=zipfile.ZIP_DEFLATED)
    refused = 0
    for _ in range(3_000):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        if chance.random() < 0.2:
            del content[chance.randrange(len(content)) :]
        try:
            bundle = Bundle.read(bytes(content))
        except BundleError:
            refused += 1
        else:
            assert not any(name.startswith(("/", "..")) for name in bundle.files)
    assert 1_000 < refused < 3_000


def test_a_bundle_is_unpacked_into_its_folder_and_nowhere_else(
    bundle_of: BundleMaker, tmp_path: Path
) -> None:
    folder = tmp_path / "app"
    bundle_of(**{"models/deep/er/x.py": "y = 1\n"}).unpack(folder)
    assert (folder / "models/deep/er/x.py").read_text() == "y = 1\n"
    assert [each.name for each in tmp_path.iterdir()] == ["app"]


# --- what people are shown ------------------------------------------------------------------------


def test_changes_are_counted_by_file_and_line(bundle_of: BundleMaker) -> None:
    old = bundle_of(**{"a.py": "one\ntwo\n", "gone.py": "x\n", "same.py": "s\n"})
    new = bundle_of(**{"a.py": "one\n2\n3\n", "new.py": "y\nz\n", "same.py": "s\n"})
    assert [(each.file, each.kind, each.added, each.removed) for each in changes(old, new)] == [
        ("a.py", "changed", 2, 1),
        ("gone.py", "removed", 0, 1),
        ("new.py", "added", 2, 0),
    ]
    assert changes(old, old) == ()
    assert "-two\n+2\n+3" in difference(old, new)


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("\x1b[2K\x1b[1A", r"\x1b[2K\x1b[1A"),  # wipes the line before it
        ("a\rb", r"a\rb"),
        ("\u202e}\u2066", r"\u202e}\u2066"),  # Trojan source
        ("\u2028import os", r"\u2028import os"),
        ("\x0cimport os", r"\x0cimport os"),
        ("\u200b", r"\u200b"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_spelt_out(
    bundle_of: BundleMaker, hidden: str, shown: str
) -> None:
    old, new = bundle_of(), bundle_of(**{"a.py": f"# {hidden}\n"})
    assert f"\n+# {shown}" in difference(old, new)
    assert all(sign.isprintable() or sign in "\n\t" for sign in difference(old, new))


# --- the bundle of the release --------------------------------------------------------------------


def test_the_release_holds_what_sites_run_and_nothing_else() -> None:
    names = installed_bundle().files.keys()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"pyproject.toml", ".info", "data_contracts", "models", "federation"}
    suffixes = (".py", ".json", ".yaml")
    assert all(name.endswith(suffixes) for name in names - {"pyproject.toml", ".info/CONTENT"})
    foreign = ("test", "notebook", "experiments", "templates", "deployment", "__pycache__")
    assert not [name for name in names if any(word in name for word in foreign)]
    assert {"federation/client_app.py", "data_contracts/contracts/pa_request.odcs.yaml"} <= names


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_flowers_own_builder_makes_the_same_of_these_files() -> None:
    bundle = installed_bundle()
    content, _ = build_fab_from_files(bundle.code)
    flowers = Bundle.read(content)
    assert flowers.files == bundle.files


PRINT = (
    "from federation.deployment.bundles import installed_bundle; print(installed_bundle().sha256)"
)


def digest(path: Path, folder: Path, umask: int = 0o022, **environment: str) -> str:
    """Digest of the release on this path, as another process sees it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRINT],
        env=os.environ | {"PYTHONPATH": str(path)} | environment,
        cwd=folder,
        umask=umask,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_release_is_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    own = installed_bundle()
    installed_bundle.cache_clear()
    assert installed_bundle().content == own.content
    assert digest(ROOT, tmp_path, 0o077, TZ="Asia/Kolkata", LC_ALL="C") == own.sha256
    assert digest(ROOT, Path("/"), 0o000, TZ="America/Anchorage", PYTHONHASHSEED="7") == own.sha256


def test_the_release_is_the_same_bytes_from_a_copy_whatever_its_dates_and_modes(
    tmp_path: Path,
) -> None:
    for package in ("data_contracts", "models", "federation"):
        shutil.copytree(ROOT / package, tmp_path / package, copy_function=shutil.copyfile)
    for file in tmp_path.rglob("*.py"):
        os.utime(file, (0, 0))
        file.chmod(0o600)
    assert digest(tmp_path, tmp_path) == installed_bundle().sha256


@pytest.mark.slow
def test_a_wheel_holds_the_same_release_as_the_checkout(tmp_path: Path) -> None:
    """What a site installs and what a coordinator has checked out are one approval."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in ("data_contracts", "models", "federation", "experiments"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignore)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), "."]
    subprocess.run([*pip, *build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "target"
    install = ["install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run([*pip, *install], cwd=tmp_path, check=True, capture_output=True)
    assert digest(target, tmp_path) == installed_bundle().sha256


def test_the_app_is_loaded_from_the_bundle_where_another_federation_is_installed(
    tmp_path: Path,
) -> None:
    """`federation` is installed here; -I and the path's order must keep it out."""
    folder = tmp_path / "app"
    installed_bundle().unpack(folder)
    marked = folder / "federation" / "client_app.py"
    told = f"\nimport os, data_contracts, models\nPath({str(tmp_path / 'seen')!r}).write_text("
    told += "' '.join([__file__, data_contracts.__file__, models.__file__]))\n"
    marked.write_text(marked.read_text() + told)
    script = ROOT / "federation/deployment/app_process.py"
    command = [sys.executable, "-I", str(script), str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    files = (tmp_path / "seen").read_text().split()
    assert len(files) == 3
    assert all(Path(file).is_relative_to(folder) for file in files)
