"""Trains the rows that the ledger lacks, several at a time, each on its own share of the cores."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ablation.rows import Outcome, Row, add_to_ledger, read_ledger
from benchmarks.record import commit
from sepnet.anatomy import trace
from sepnet.environment import describe
from sepnet.errors import SepnetError
from sepnet.networks import build
from sepnet.runs import Run

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "ablation"


@dataclass
class Training:
    """A row that is being trained, in a process of its own."""

    row: Row
    seed: int
    process: subprocess.Popen[bytes]
    commit: str

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return RUNS / self.row.run_name(self.seed)


def train_missing(rows: list[Row], *, jobs: int) -> None:
    """Train what is missing, ``jobs`` rows at a time; a broken-off run is taken up.

    Raises:
        SepnetError: a training failed; its log is named.

    """
    done = read_ledger()
    waiting = [(row, seed) for row in rows for seed in row.seeds if (row.name, seed) not in done]
    active: list[Training] = []
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                active.append(_begin(*waiting.pop(0), jobs=jobs))
            time.sleep(0.5)
            for training in [each for each in active if each.process.poll() is not None]:
                active.remove(training)
                if training.process.returncode:
                    raise SepnetError(f"row '{training.row.name}' failed: see '{training.folder}.log'")
                outcome = _outcome(training)
                add_to_ledger(outcome)
                print(f"{outcome.row} seed {outcome.seed}: {100 * outcome.accuracy:.2f} %, loss {outcome.loss:.4f}")
    finally:
        for training in active:
            training.process.terminate()  # which saves, as Ctrl-C does
        for training in active:
            training.process.wait()


def _begin(row: Row, seed: int, *, jobs: int) -> Training:
    RUNS.mkdir(parents=True, exist_ok=True)
    name = row.run_name(seed)
    resumed = ["--resume"] if (RUNS / name).exists() else []
    arguments = [*row.arguments(seed), "--name", name, "--out", str(RUNS), *resumed]
    threads = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // jobs))}
    with (RUNS / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sepnet", *arguments],
            cwd=ROOT,
            env={**os.environ, **threads},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return Training(row, seed, process, commit() or "")


def _outcome(training: Training) -> Outcome:
    row, seed, run = training.row, training.seed, Run.open(training.folder)
    history, config = run.history, run.config
    anatomy = trace(build(config.network), config.image_shape, name=config.network)
    return Outcome(
        row=row.name,
        seed=seed,
        command=row.command(seed),
        parameters=anatomy.parameters,
        macs=anatomy.macs,
        epochs=len(history),
        accuracy=history[-1].val_accuracy,
        loss=history[-1].val_loss,
        train_accuracy=history[-1].accuracy,
        seconds=run.result["seconds"],
        commit=training.commit,
        machine=_machine(),
        history=[(epoch.val_loss, epoch.val_accuracy) for epoch in history],
    )


def _machine() -> str:
    machine = describe()
    return f"{machine['processor']}, {machine['cores']} cores, PyTorch {machine['torch']}"
