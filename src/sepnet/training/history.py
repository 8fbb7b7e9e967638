"""What an epoch measured, and how it is written."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch: ``epoch`` counts from 1, accuracies are shares of 1, ``seconds`` include the validation.

    ``loss`` and ``accuracy`` are means over the training images as they were seen, in the course of the epoch;
    ``val_loss`` and ``val_accuracy`` are of the network (its weight average, if the recipe keeps one) after it.
    """

    epoch: int
    steps: int
    seconds: float
    images_per_second: float
    """Of training alone, without the validation."""
    lr: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float

    @property
    def ms_per_step(self) -> float:
        """Milliseconds per training step, the validation's share included, as Keras counts."""
        return 1000 * self.seconds / self.steps

    def line(self) -> str:
        """Return the epoch in Keras's form."""
        return (
            f"{self.steps}/{self.steps} - {self.seconds:.0f}s {self.ms_per_step:.0f}ms/step"
            f" - loss: {self.loss:.4f} - accuracy: {self.accuracy:.4f}"
            f" - val_loss: {self.val_loss:.4f} - val_accuracy: {self.val_accuracy:.4f}"
        )


def best(history: Sequence[Epoch]) -> Epoch:
    """Return the first epoch with the highest validation accuracy."""
    return max(history, key=lambda epoch: epoch.val_accuracy)


def to_log(history: Sequence[Epoch], epochs: int) -> str:
    """Return the log as Keras prints it, two lines an epoch, with the total time once all are done."""
    lines = [line for epoch in history for line in (f"Epoch {epoch.epoch}/{epochs}", epoch.line())]
    if history and history[-1].epoch >= epochs:
        lines.append(f"Model took {sum(epoch.seconds for epoch in history):.2f} seconds to train")
    return "".join(f"{line}\n" for line in lines)


def to_csv(history: Iterable[Epoch]) -> str:
    """Return the history as CSV, floats in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(epoch) for epoch in history)
    return text.getvalue()


def from_csv(text: str) -> list[Epoch]:
    """Return the history written by :func:`to_csv`."""
    kinds: dict[str, Any] = {field.name: field.type for field in fields(Epoch)}
    return [
        Epoch(**{name: kinds[name](value) for name, value in row.items()}) for row in csv.DictReader(io.StringIO(text))
    ]
