"""The processes that train on this machine: how many were asked for, or are measured to be fastest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sepnet import environment
from sepnet.errors import SepnetError
from sepnet.notices import notice
from sepnet.speed import throughput
from sepnet.sweep.engine import Processes
from sepnet.sweep.plan import Trial
from sepnet.training import experiment

AUTO = "auto"
SECONDS = 5.0
"""Of each measurement."""
Sizes = tuple[tuple[int, int, int], int, int]
"""Of a dataset: shape ``(C, H, W)``, classes and number of images to train on."""


def worker_count(workers: int | str | None) -> int | None:
    """Return how many workers are wanted, 0 for ``auto``, None where that was not said.

    Raises:
        SepnetError: it is neither ``auto`` nor a whole number of at least 1.

    """
    if workers is None or workers == AUTO:
        return None if workers is None else 0
    if not str(workers).isdecimal() or int(workers) < 1:
        raise SepnetError(f"workers is '{workers}': expected a whole number of at least 1, or {AUTO}")
    return int(workers)


def processes(count: int | None, trial: Trial, at_once: int, out: Path, sizes: Callable[[], Sizes]) -> Processes:
    """Return so many processes, as :func:`worker_count` has it, for trials like this one.

    Where that was not said they are one a core, or one on a GPU.
    """
    most = min(at_once, environment.cores())
    if count is None:
        count = 1 if experiment.resolve_device(trial.device).startswith("cuda") else most
    return Processes(count or _fastest(trial, most, out, sizes()), out)


def _fastest(trial: Trial, most: int, out: Path, sizes: Sizes) -> int:
    """Return the number of processes, a power of two or ``most``, that together train most images a second."""
    if most == 1:
        return 1
    counts = [count for count in (2**power for power in range(most.bit_length())) if count < most]
    rates = {count: _rate(trial, count, out, sizes) for count in [*counts, most]}
    best = max(rates, key=lambda count: rates[count])
    cores = environment.cores()
    measured = ", ".join(f"{count} of {max(1, cores // count)} cores: {rate:,.0f}" for count, rate in rates.items())
    notice(f"images/s of {trial.network} by workers and their cores: {measured}; taking {best}")
    return best


def _rate(trial: Trial, count: int, out: Path, sizes: Sizes) -> float:
    """Return the images a second that so many processes train on together, validation included."""
    shape, classes, number = sizes
    options: dict[str, Any] = {
        "image_shape": shape,
        "classes": classes,
        "training_images": number,
        "validation_images": max(1, number // 9),
        "seconds": SECONDS,
        "device": trial.device,
        "precision": trial.precision,
    }
    processes = Processes(count, out)
    try:
        speeds = [processes.submit(_measure, trial, options) for _ in range(count)]
        return sum(speed.result() for speed in speeds)
    finally:
        processes.close()


def _measure(trial: Trial, options: dict[str, Any]) -> float:
    speed = throughput.measure(trial.network, trial.resolve_recipe(), **options)
    return speed.epochs * speed.training_images / speed.recipe_seconds
