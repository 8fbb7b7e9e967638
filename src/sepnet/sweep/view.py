"""What a person sees while a sweep runs: a live line on a terminal, plain lines elsewhere."""

import sys
import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sepnet.notices import notice
from sepnet.training.progress import clock


@dataclass(kw_only=True)
class Status:
    """How far a sweep has come."""

    total: int | None
    """Trials in all, where that is known."""
    done: int = 0
    pruned: int = 0
    rejected: int = 0
    failed: int = 0
    best: tuple[float, str] | None = None
    """The highest accuracy, and of which trial."""
    work: float = 0.0
    """The share of the work that is done."""

    def finish(self, accuracy: float, trial: str) -> None:
        """Count a trial that is done."""
        self.done += 1
        self.best = max(self.best or (0.0, ""), (accuracy, trial))

    def __str__(self) -> str:
        parts = [f"{self.done}{f' of {self.total}' if self.total else ''} trials"]
        parts += [f"{getattr(self, name)} {name}" for name in ("pruned", "rejected", "failed") if getattr(self, name)]
        parts += [f"best {100 * self.best[0]:.2f} % ({self.best[1]})"] if self.best else []
        return ", ".join(parts)


class View:
    """Shows one sweep on standard error; use as a context."""

    def __init__(self, status: Status) -> None:
        self.status = status
        self._bar: Progress | None = None
        self._begun, self._before = time.monotonic(), status.work
        if sys.stderr.isatty():
            columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> "View":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line about one trial; where there is no live line, with how far the sweep has come."""
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            notice(f"{text} ({self.status}{self._left()})")

    def watch(self, running: int) -> None:
        """Draw the live line anew."""
        if self._bar:
            description = f"{self.status}, {running} running{self._left()}"
            self._bar.update(self._task, description=description, completed=self.status.work)

    def _left(self) -> str:
        gained = self.status.work - self._before
        if gained <= 0:
            return ""
        seconds = (time.monotonic() - self._begun) * (1 - self.status.work) / gained
        return f", {clock(seconds)} left"
