"""What a worker does, in whatever process an executor runs it: take one trial further, and say how far it came."""

import contextlib
import functools
import math
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sepnet import __version__
from sepnet import data as datasets
from sepnet.data import Dataset
from sepnet.errors import SepnetError
from sepnet.runs import Run
from sepnet.runs.run import write_run
from sepnet.sweep.plan import Trial
from sepnet.training import experiment
from sepnet.training.interrupts import Interrupted, Paused

SLICE_SECONDS = 60.0
"""How long a worker trains before its checkpoint travels to the coordinator, where they share no storage."""
LOOK_SECONDS = 0.2
"""How often a worker looks whether it is still wanted."""
_ONE_AT_A_TIME = threading.Lock()
"""In a process, whose current folder and streams a trial takes, also where a cluster's worker has more threads."""
PATIENCE = 60.0
"""Seconds to wait for a worker of an earlier, killed coordinator to let go of a run."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A trial to take further, and where."""

    trial: Trial
    until: int
    """Epochs after which to stop."""
    out: str
    """The sweep's folder."""
    session: str
    """A file that is there while the coordinator wants the work, and by which a worker knows shared storage."""
    origin: Mapping[str, Any]
    """What a new run notes of its sweep: row, command, commit."""
    files: Mapping[str, bytes]
    """The run so far, for a worker without shared storage."""
    sources: Mapping[str, str]
    """Python files that the network is built from, for such a worker."""
    travels: bool
    """Whether the worker may lie where the sweep's folder does not."""
    folder: str
    """The coordinator's current folder, in which relative paths are seen."""
    version: str = __version__


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a trial has come."""

    epochs: int
    accuracy: float | None
    """After the last of these epochs, on held-out images."""
    finished: bool
    failed: str = ""
    """Why it can never be finished: the loss is no longer finite."""
    files: Mapping[str, bytes] | None = None
    """The run, from a worker without shared storage."""


def advance(order: Order) -> Progress:
    """Take a trial further, in its folder or in a temporary one, until its epochs are done or nobody wants it.

    Raises:
        SepnetError: this is another version of sepnet, or the trial cannot be trained.

    """
    if order.version != __version__:
        raise SepnetError(
            f"worker {platform.node()} has sepnet {__version__}, this sweep {order.version}: "
            "install the same version there"
        )
    shared = not order.travels or Path(order.session).exists()
    with _ONE_AT_A_TIME, contextlib.redirect_stdout(sys.stderr), _place(order, shared=shared) as out:
        run, failed = _train(order, out, _until(order, shared=shared))
        history = run.history
        return Progress(
            epochs=len(history),
            accuracy=history[-1].val_accuracy if history else None,
            finished=run.finished,
            failed=failed,
            files=None if shared else run.read_files(),
        )


def _train(order: Order, out: Path, pause: Callable[[int], bool]) -> tuple[Run, str]:
    """Train the trial's run under ``out``; return it, and why it cannot go on."""
    trial = order.trial
    data = _dataset(trial.data, Path.cwd()) if trial.data else None
    names = ("seed", "device", "precision", "validation", "teachers", "loggers")
    options: dict[str, Any] = {name: getattr(trial, name) for name in names}
    recipe = trial.resolve_recipe()
    if (out / trial.name).exists():
        job, run = experiment.reopen(trial.network, data, recipe, out=out, name=trial.name, **options)
        if run.config.recipe.epochs != recipe.epochs:
            raise SepnetError(
                f"run '{run.path}' has {run.config.recipe.epochs} epochs, this would have {recipe.epochs}: give the "
                "row another name"
            )
    else:
        assert data is not None
        job = experiment.prepare(trial.network, data, recipe, **options)
        run = Run.create(out, trial.name, job.config)
    if order.origin and not any("sweep" in session for session in run.sessions):
        run.note_session({"sweep": dict(order.origin)})
    try:
        experiment.train_run(job, run, pause=pause, patience=PATIENCE)
    except (Paused, Interrupted):
        pass
    except SepnetError:
        if not run.diverged:
            raise
        return run, run.diverged
    return run, ""


@functools.lru_cache(maxsize=1)
def _dataset(data: str, folder: Path) -> Dataset:  # noqa: ARG001, in which a relative path is seen
    return datasets.open_data(data)


def _until(order: Order, *, shared: bool) -> Callable[[int], bool]:
    """Return what says after so many epochs whether to stop."""
    begun, looked, wanted = math.inf, 0.0, True

    def stop(epochs: int) -> bool:
        nonlocal begun, looked, wanted
        now = time.monotonic()
        begun = min(begun, now)  # at the first step, so that each slice has one
        if shared and now - looked > LOOK_SECONDS:
            looked, wanted = now, Path(order.session).exists()
        return epochs >= order.until or not wanted or (not shared and now - begun > SLICE_SECONDS)

    return stop


@contextlib.contextmanager
def _place(order: Order, *, shared: bool) -> Iterator[Path]:
    """Work in the coordinator's folder, or in a temporary one that has what the trial needs; yield the runs' folder."""
    if shared:
        with contextlib.chdir(order.folder):
            yield Path(order.out)
        return
    with tempfile.TemporaryDirectory(prefix="sepnet-") as folder, contextlib.chdir(folder):
        for name, text in order.sources.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text, encoding="utf-8")
        if order.files:
            write_run(Path("runs", order.trial.name), order.files)
        yield Path("runs")


def begin_process(threads: int, log: str) -> None:
    """Set up a process of this machine: its share of the cores, silence, and an end with its coordinator's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the coordinator tells the workers
    torch.set_num_threads(threads)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
