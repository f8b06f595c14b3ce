"""Progress: bars on a terminal, plain lines in a log."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


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
            yield Steps()
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            yield Steps((progress, progress.add_task(title, total=total)))


class Steps:
    """A bar that moves; nothing where there is no terminal."""

    def __init__(self, bar: tuple[Progress, TaskID] | None = None) -> None:
        self._bar = bar

    def advance(self, by: int = 1) -> None:
        """Move on."""
        if self._bar is not None:
            progress, task = self._bar
            progress.advance(task, by)

    def reach(self, done: int) -> None:
        """Move to an absolute count."""
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, completed=done)
