"""Progress: bars on a terminal, plain lines in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_LINE_SECONDS: Final = 10.0


class Reporter:
    """Tells a person what is going on.

    Args:
        console: Where to write; standard error, so that results can be piped.
        quiet: Say nothing.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def steps(self, title: str, total: int) -> Iterator["Steps"]:
        """A counted piece of work; its bar stays on the screen when it is done."""
        if not self._console.is_terminal:
            self.say(f"{title} ...")
            yield Steps(_Lines(self, title, total))
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            yield Steps(_Bar(progress, progress.add_task(title, total=total)))


class _Bar:
    """A bar on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def show(self, done: int) -> None:
        self._progress.update(self._task, completed=done)


class _Lines:
    """Now and then a line in a log."""

    def __init__(self, reporter: Reporter, title: str, total: int) -> None:
        self._reporter, self._title, self._total = reporter, title, total
        self._told_at = time.monotonic()

    def show(self, done: int) -> None:
        if (now := time.monotonic()) - self._told_at >= _LINE_SECONDS:
            self._reporter.say(f"{self._title}: {done} of {self._total}")
            self._told_at = now


class Steps:
    """How much of a counted piece of work is done."""

    def __init__(self, shown: _Bar | _Lines) -> None:
        self._shown, self._done = shown, 0

    def advance(self, by: int = 1) -> None:
        """Move on."""
        self.reach(self._done + by)

    def reach(self, done: int) -> None:
        """Move to an absolute count."""
        self._done = done
        self._shown.show(done)
