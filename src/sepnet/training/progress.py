"""What a person sees while a network trains: a live bar on a terminal and in a notebook, plain lines elsewhere."""

import sys
import time
from html import escape
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from sepnet.notices import in_notebook, notice
from sepnet.runs.history import Epoch

REFRESH_SECONDS = 0.2
WIDE = 100


class TrainingProgress:
    """Shows one training on standard error, or in a notebook's output; use as a context."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: _TerminalBar | _NotebookBar | None = None
        if in_notebook():
            self._bar = _NotebookBar()
        elif sys.stderr.isatty():
            self._bar = _TerminalBar()
        self._drawn = 0.0

    def __enter__(self) -> "TrainingProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def due(self) -> bool:
        """Whether it is time to draw again; figures are read off the device, and the loss is checked, only then."""
        now = time.monotonic()
        if now - self._drawn < REFRESH_SECONDS:
            return False
        self._drawn = now
        return True

    def step(
        self,
        *,
        epoch: int,
        step: int,
        steps: int,
        loss: float,
        accuracy: float,
        rate: float,
        seconds_left: float,
    ) -> None:
        """Show the running means of one epoch (counted from 0), images per second and seconds left of the run."""
        if self._bar:
            self._bar.draw(
                f"{epoch + 1}/{self._epochs} {step}/{steps} loss {loss:.3f} accuracy {accuracy:.3f} "
                f"{rate:,.0f} images/s {clock(seconds_left)} left",
                step,
                steps,
            )

    def epoch(self, epoch: Epoch) -> None:
        """Print a finished epoch in Keras's form."""
        lines = f"Epoch {epoch.epoch}/{self._epochs}\n{epoch.line()}"
        if isinstance(self._bar, _TerminalBar):
            self._bar.progress.console.print(lines, highlight=False, soft_wrap=True)
        else:
            notice(lines)


class _TerminalBar:
    """One line: the figures, and a bar where the terminal is wide enough for both."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        figures = TextColumn("{task.description}")
        columns = (figures, BarColumn(bar_width=20)) if console.width >= WIDE else (figures,)
        self.progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID = self.progress.add_task("", total=None)

    def start(self) -> None:
        self.progress.start()

    def draw(self, description: str, step: int, steps: int) -> None:
        self.progress.update(self._task, description=description, completed=step, total=steps)

    def stop(self) -> None:
        self.progress.stop()


class _NotebookBar:
    """The same line and bar as an output of the cell, which vanishes at the end."""

    _handle: Any

    def start(self) -> None:
        from IPython.display import HTML, display  # there is one where this is called, see in_notebook

        self._html = HTML
        self._handle = display(HTML(""), display_id=True)

    def draw(self, description: str, step: int, steps: int) -> None:
        bar = f'<progress value="{step}" max="{steps}"></progress>'
        self._handle.update(self._html(f"{bar} <code>{escape(description)}</code>"))

    def stop(self) -> None:
        self._handle.update(self._html(""))


def clock(seconds: float) -> str:
    """Return seconds as minutes and seconds, or hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
