"""The folder of a run: what lies where, and when one may be written to.

runs/<id>/config.json     the settings, as run
runs/<id>/network/        the folder of sites, unless the settings name one
runs/<id>/tasks/<task>/   plan.json, result.json, figures.json of each task
runs/<id>/results.json    every figure that is printed or drawn
runs/<id>/report.html     what people look at
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from data_contracts.errors import GroundTruthError
from experiments.config import ExperimentConfig
from federation.settings import parse

IfPresent = Literal["refuse", "resume", "overwrite"]
CONFIG_NAME = "config.json"
LOCK_NAME = ".lock"


class FolderInUseError(GroundTruthError):
    """The output folder holds something that the run must not touch."""


def settings_of(folder: Path) -> ExperimentConfig:
    """The settings of the run in a folder.

    Raises:
        FolderInUseError: It holds none.
        ConfigError: They are those of another release.
    """
    try:
        raw = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FolderInUseError(f"{folder} holds no run to go on with (no {CONFIG_NAME})") from None
    return parse(ExperimentConfig, raw, f"{folder / CONFIG_NAME}")


@contextmanager
def open_run(folder: Path, config: ExperimentConfig, if_present: IfPresent) -> Iterator[None]:
    """Make the folder of a run, or go on with one, and let nobody else run there meanwhile.

    Args:
        folder: The folder.
        config: The run's settings.
        if_present: What to do where the folder holds something already.

    Raises:
        FolderInUseError: The folder is not empty (refuse), is no run (overwrite), or holds a run
            with other settings (resume); or a run is going on there.
    """
    lock = FileLock(folder / LOCK_NAME, blocking=False)
    try:
        try:
            if (folder / CONFIG_NAME).is_file():
                lock.acquire()
            _prepare(folder, config, if_present)
            lock.acquire()
        except Timeout:
            raise FolderInUseError(
                f"a run is going on in {folder}: wait for it, or name another folder with --out"
            ) from None
        yield
    finally:
        if lock.is_locked:
            lock.release(force=True)
            (folder / LOCK_NAME).unlink(missing_ok=True)


def _prepare(folder: Path, config: ExperimentConfig, if_present: IfPresent) -> None:
    if folder.is_file():
        raise FolderInUseError(f"{folder} is a file; name a folder")
    settings = json.dumps(asdict(config), indent=2, sort_keys=True) + "\n"
    file = folder / CONFIG_NAME
    made = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if if_present == "resume" and CONFIG_NAME not in made:
        raise FolderInUseError(f"{folder} holds no run to go on with (no {CONFIG_NAME})")
    made -= {CONFIG_NAME, LOCK_NAME}  # settings alone are what a run leaves that could not start
    if made:
        if if_present == "refuse":
            raise FolderInUseError(
                f"{folder} is not empty: go on with --resume, replace it with --overwrite, or "
                "name another folder with --out"
            )
        if not file.is_file():
            raise FolderInUseError(
                f"{folder} holds no run (no {CONFIG_NAME}), so it is left alone; name another "
                "folder with --out"
            )
        if if_present == "overwrite":
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK_NAME:
                    path.unlink()
        elif file.read_text(encoding="utf-8") != settings:
            raise FolderInUseError(
                f"{folder} was started with other settings, so it cannot be resumed; compare "
                f"{file}, or start again with --overwrite"
            )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(settings, encoding="utf-8")
