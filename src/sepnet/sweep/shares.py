"""How many processes train a network fastest on this machine: measured."""

from pathlib import Path
from typing import Any

from sepnet import environment
from sepnet.notices import notice
from sepnet.speed import throughput
from sepnet.sweep.designs import images
from sepnet.sweep.engine import Processes
from sepnet.sweep.plan import Trial

SECONDS = 5.0
"""Of each measurement."""


def fastest(trial: Trial, most: int, out: Path) -> int:
    """Return the number of processes, a power of two or ``most``, that together train most images a second."""
    if most == 1:
        return 1
    counts = [count for count in (2**power for power in range(most.bit_length())) if count < most]
    rates = {count: _rate(trial, count, out) for count in [*counts, most]}
    best = max(rates, key=lambda count: rates[count])
    cores = environment.cores()
    measured = ", ".join(f"{count} of {max(1, cores // count)} cores: {rate:,.0f}" for count, rate in rates.items())
    notice(f"images/s of {trial.network} by workers and their cores: {measured}; taking {best}")
    return best


def _rate(trial: Trial, count: int, out: Path) -> float:
    """Return the images a second that so many processes train on together, validation included."""
    shape, classes, number = images(trial.data)
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
