"""The ledger: what every run of a sweep came to, one line each, rebuilt from the runs' folders at any time."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sepnet.errors import SepnetError
from sepnet.files import exists, read_text, write_atomically
from sepnet.notices import notice
from sepnet.runs import Run
from sepnet.runs.run import run_folders
from sepnet.settings import parse_json, to_settings

FILE = "ledger.jsonl"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run came to, on the held-out images; accuracies are shares of 1."""

    row: str
    seed: int
    command: str
    parameters: int | None
    macs: int | None
    epochs: int
    accuracy: float
    """After the last epoch, as ``loss``; ``train_accuracy`` is of the training images in its course."""
    loss: float
    train_accuracy: float
    seconds: float
    """Of the epochs, on a machine that may have trained others at the same time."""
    commit: str
    machine: str
    history: list
    """Loss and accuracy after each epoch."""
    planned: int | None = None
    """Epochs of the whole run, where it is not finished."""

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.planned is None


Ledger = dict[tuple[str, int], Outcome]
"""By row and seed."""


def read_ledger(out: Path) -> Ledger:
    """Return what the folder's runs came to; of runs that are no longer there, what the ledger's file kept.

    Raises:
        SepnetError: the file is damaged; a run that cannot be read is left out, with a notice.

    """
    outcomes = []
    if exists(out / FILE):
        lines = read_text(out / FILE).splitlines()
        sources = [f"'{out / FILE}', line {number}" for number in range(1, len(lines) + 1)]
        outcomes = [
            to_settings(Outcome, parse_json(line, source), source=source)
            for line, source in zip(lines, sources, strict=True)
        ]
    for folder in run_folders(out):
        try:
            run = Run.open(folder)
            outcomes += [outcome_of(run)] if run.history else []
        except SepnetError as error:
            notice(f"skipping {folder}: {error}")
    return {(outcome.row, outcome.seed): outcome for outcome in outcomes}


def outcome_of(run: Run) -> Outcome:
    """Return what a run with at least one epoch came to.

    Raises:
        SepnetError: it is damaged, or no sweep's.

    """
    sessions, history, anatomy = run.sessions, run.history, run.anatomy
    origin = next((session["sweep"] for session in sessions if "sweep" in session), None)
    if origin is None:
        raise SepnetError(f"run '{run.path}' is no sweep's: it does not say of which row it is")
    machine = sessions[-1]
    return Outcome(
        **origin,
        seed=run.config.seed,
        parameters=anatomy.parameters if anatomy else None,
        macs=anatomy.macs if anatomy else None,
        epochs=len(history),
        accuracy=history[-1].val_accuracy,
        loss=history[-1].val_loss,
        train_accuracy=history[-1].accuracy,
        seconds=round(run.seconds, 2),
        machine=f"{machine['processor']}, {machine['cores']} cores, PyTorch {machine['torch']}",
        history=[[epoch.val_loss, epoch.val_accuracy] for epoch in history],
        planned=None if run.finished else run.config.recipe.epochs,
    )


def write_ledger(out: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the ledger's file: a line of JSON for each run."""
    lines = [json.dumps(asdict(outcome), ensure_ascii=False) + "\n" for outcome in outcomes]
    write_atomically(out / FILE, "".join(lines))


def of_row(ledger: Ledger, row: str, seeds: Sequence[int]) -> list[Outcome]:
    """Return the finished outcomes of a row's seeds."""
    found = [ledger[row, seed] for seed in seeds if (row, seed) in ledger]
    return [outcome for outcome in found if outcome.finished]
