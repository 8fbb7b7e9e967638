"""What an epoch measured, and how it is written."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sepnet.errors import SepnetError
from sepnet.settings import check_type, shown, to_settings


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

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            check_type(field.name, value, field.type)
            lowest, highest = _RANGES.get(field.name, (0, math.inf))
            if not lowest <= value <= highest:
                expected = f"from {lowest} to {highest}" if highest < math.inf else f"of at least {lowest}"
                raise SepnetError(f"{field.name} is {shown(value)}: expected a number {expected}")

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


_RANGES = {"epoch": (1, math.inf), "steps": (1, math.inf), "accuracy": (0, 1), "val_accuracy": (0, 1)}


def best(history: Sequence[Epoch]) -> Epoch:
    """Return the first epoch with the highest validation accuracy."""
    return max(history, key=lambda epoch: epoch.val_accuracy)


def to_columns(history: Iterable[Epoch]) -> dict[str, list[Any]]:
    """Return the history as columns by name: a table, as pandas and polars take it."""
    rows = [asdict(epoch) for epoch in history]
    return {field.name: [row[field.name] for row in rows] for field in fields(Epoch)}


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


def from_csv(text: str, *, source: str) -> list[Epoch]:
    """Return the history written by :func:`to_csv`.

    Raises:
        SepnetError: the text is another one, a value is out of range, or the epochs are not 1, 2, 3 …; ``source`` is
            named.

    """
    kinds: dict[str, Any] = {field.name: field.type for field in fields(Epoch)}
    try:
        header, *rows = csv.reader(io.StringIO(text))
    except (ValueError, csv.Error) as error:
        raise SepnetError(f"'{source}' is not the history of a run: {error or 'it is empty'}") from error
    if header != list(kinds):
        raise SepnetError(f"'{source}' is not the history of a run: expected the columns {', '.join(kinds)}")
    history = []
    for number, row in enumerate(rows, 1):
        where = f"'{source}', epoch {number}"
        if len(row) != len(kinds):
            raise SepnetError(f"{where}: {len(row)} values, expected {len(kinds)}")
        values = {name: _number(cell, kind) for cell, (name, kind) in zip(row, kinds.items(), strict=True)}
        history.append(to_settings(Epoch, values, source=where))
    require_in_order(history, source=source)
    return history


def require_in_order(history: Sequence[Epoch], *, source: str) -> None:
    """Raise unless the epochs are 1, 2, 3 …; ``source`` is named."""
    for number, epoch in enumerate(history, 1):
        if epoch.epoch != number:
            raise SepnetError(f"'{source}' has epoch {shown(epoch.epoch)} in place {number}: expected 1, 2, 3 …")


def _number(cell: str, kind: Any) -> Any:
    """Return the number that a cell holds, or the cell, for an error that shows it."""
    try:
        return kind(cell)
    except ValueError:
        return cell
