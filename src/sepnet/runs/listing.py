"""The runs of a folder and their figures, as rows."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sepnet import html
from sepnet.errors import SepnetError
from sepnet.notices import notice, printable
from sepnet.recipes.recipe import VALIDATIONS
from sepnet.runs.history import best
from sepnet.runs.run import Run, run_folders
from sepnet.text_table import text_table


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run. Accuracies are shares of 1, None before the first epoch is done."""

    run: str
    """Its folder."""
    network: str
    data: str
    validation: str
    recipe: str
    seed: int
    epochs_done: int
    epochs: int
    final_accuracy: float | None
    best_accuracy: float | None
    best_epoch: int | None
    seconds: float


def list_runs(folder: str | Path = "runs") -> list[RunRow]:
    """Return a row for each run in a folder, sorted by name; of one that cannot be read a notice says why.

    Raises:
        SepnetError: there is no such folder.

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SepnetError(f"'{folder}' is not a folder: expected one that holds runs, as `sepnet train` makes")
    rows = []
    for path in run_folders(folder):
        try:
            rows.append(_row(Run.open(path)))
        except SepnetError as error:
            notice(f"skipping {path}: {error}")
    return rows


def _row(run: Run) -> RunRow:
    config, history = run.config, run.history
    top = best(history) if history else None
    return RunRow(
        run=str(run.path),
        network=config.network,
        data=config.data,
        validation=config.validation,
        recipe=config.recipe.name,
        seed=config.seed,
        epochs_done=len(history),
        epochs=config.recipe.epochs,
        final_accuracy=history[-1].val_accuracy if history else None,
        best_accuracy=top.val_accuracy if top else None,
        best_epoch=top.epoch if top else None,
        seconds=round(run.seconds, 2),
    )


def to_csv(rows: Sequence[RunRow]) -> str:
    """Return the rows as CSV; what a run does not have yet is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(RunRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def to_text(rows: Sequence[RunRow]) -> str:
    """Return the rows as a table, accuracies in per cent."""
    heads = (
        "run",
        "network",
        "data",
        "scored on",
        "recipe",
        "seed",
        "epochs",
        "last %",
        "best %",
        "at epoch",
        "seconds",
    )
    cells = [
        (
            *(row.run, row.network, row.data, row.validation, row.recipe, str(row.seed)),
            f"{row.epochs_done}/{row.epochs}",
            _percent(row.final_accuracy),
            _percent(row.best_accuracy),
            str(row.best_epoch or "-"),
            f"{row.seconds:,.0f}",
        )
        for row in rows
    ]
    table = [heads, *(tuple(printable(cell) for cell in row) for row in cells)]
    return text_table(table, left=range(5))


def to_html(run: Run) -> str:
    """Return one run as a small table and the curve of its accuracy."""
    config, columns = run.config, run.columns
    scores, images = columns["val_accuracy"], VALIDATIONS[config.validation]
    rows = [
        ("network", config.network),
        ("data", config.data),
        ("recipe", f"{config.trained_by}, seed {config.seed}, {config.precision}"),
        ("epochs", f"{len(scores)} of {config.recipe.epochs}, in {sum(columns['seconds']):,.0f} s"),
        (f"accuracy, {images}", f"{100 * scores[-1]:.2f} %, best {100 * max(scores):.2f} %" if scores else "–"),
    ]
    curves = {"validation": columns["val_accuracy"], "training": columns["accuracy"]}
    return html.table(("", ""), rows, caption=str(run.path), words=2) + html.curves(
        {name: [100 * share for share in shares] for name, shares in curves.items()},
        title=f"Accuracy in per cent after each epoch, {images}, and while training",
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
