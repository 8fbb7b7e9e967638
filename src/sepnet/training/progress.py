"""What a person sees while a network trains: a live bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from sepnet.notices import notice
from sepnet.training.history import Epoch

REFRESH_SECONDS = 0.2
WIDE = 100


class TrainingProgress:
    """Shows one training on standard error; use as a context."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar = _Bar() if sys.stderr.isatty() else None
        self._drawn = 0.0

    def __enter__(self) -> "TrainingProgress":
        if self._bar:
            self._bar.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.progress.stop()

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
                f"{rate:,.0f} images/s {_clock(seconds_left)} left",
                step,
                steps,
            )

    def epoch(self, epoch: Epoch) -> None:
        """Print a finished epoch in Keras's form."""
        lines = f"Epoch {epoch.epoch}/{self._epochs}\n{epoch.line()}"
        if self._bar:
            self._bar.progress.console.print(lines, highlight=False, soft_wrap=True)
        else:
            notice(lines)


class _Bar:
    """One line: the figures, and a bar where the terminal is wide enough for both."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        figures = TextColumn("{task.description}")
        columns = (figures, BarColumn(bar_width=20)) if console.width >= WIDE else (figures,)
        self.progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID = self.progress.add_task("", total=None)

    def draw(self, description: str, step: int, steps: int) -> None:
        self.progress.update(self._task, description=description, completed=step, total=steps)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
