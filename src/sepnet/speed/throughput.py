"""How fast this machine trains a network, and how long a recipe will take here: measured on random images."""

import copy
import itertools
import math
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sepnet import environment
from sepnet.backend import describe
from sepnet.backend import network as network_of
from sepnet.errors import SepnetError
from sepnet.notices import notice
from sepnet.recipes.recipe import Recipe
from sepnet.speed.synthetic_data import batches, random_dataset, training_step
from sepnet.training import experiment
from sepnet.training.forward import BATCH, infer, process_settings
from sepnet.training.schedule import sizes_begin
from sepnet.training.step import resident

SECONDS = 20.0
"""Spent on measuring, warm-up included, unless told otherwise."""
TRAINING_SHARE = 0.8
"""Of these seconds; the rest is for validation."""
WARM_UP = 0.2
FEWEST = 3
"""A share of the time goes untimed, at least one repetition; then at least so many are timed."""
STEPS_IN_A_ROW = 20
"""On a GPU, whose launches queue up between two looks at the clock as they do in training."""

WIDTH, INDENT = 80, 13
"""Columns of a line for a person, and of what is before its text."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one piece of work, timed again and again: median and quartiles."""

    median: float
    lower: float
    upper: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Return the median and the quartiles of at least one measurement."""
        lower, median, upper = np.quantile(seconds, (0.25, 0.5, 0.75)).tolist()
        return cls(median=median, lower=lower, upper=upper, count=len(seconds))


@dataclass(frozen=True, kw_only=True)
class SizedSteps:
    """The steps of a recipe whose images have one size."""

    size: float
    """Height and width, as a share of the images' own."""
    share: float
    """Of the recipe's steps."""
    seconds: Timing
    """A whole training step: loading, augmentation, forward, backward, optimizer, average."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Speed:
    """What was measured of one network on one machine; rates and the recipe's time follow from it."""

    network: str
    image_shape: tuple[int, int, int]
    recipe: str
    epochs: int
    batch_size: int
    """Images in a timed step."""
    training_images: int
    validation_batch: int
    validation_images: int
    device: str
    precision: str
    computed_by: str
    """The path of computation that this processor takes."""
    threads: int
    processor: str
    gpu: str | None
    steps: tuple[SizedSteps, ...]
    """One for each size that the recipe's images have, smallest first."""
    loading_seconds: Timing
    """The first part of a step of the largest images: a batch taken, augmented and normalized."""
    validation_batch_seconds: Timing
    """A batch of validation."""
    peak_memory_mib: float | None
    """Of this process, since it began."""
    peak_gpu_memory_mib: float | None

    @property
    def step_seconds(self) -> Timing:
        """A training step of the largest images."""
        return self.steps[-1].seconds

    @property
    def mean_step_seconds(self) -> float:
        """A step of the recipe on average, where images grow."""
        return sum(steps.share * steps.seconds.median for steps in self.steps)

    @property
    def images_per_second(self) -> float:
        """Images of the largest size trained on in a second, by the median step."""
        return self.batch_size / self.step_seconds.median

    @property
    def validation_images_per_second(self) -> float:
        """Images validated in a second, by the median batch."""
        return self.validation_batch / self.validation_batch_seconds.median

    @property
    def loading_share(self) -> float:
        """Share of a training step that loading and augmentation take."""
        return self.loading_seconds.median / self.step_seconds.median

    @property
    def epoch_training_seconds(self) -> float:
        """Seconds of training in one epoch of the largest images."""
        return self.training_images / self.images_per_second

    @property
    def epoch_validation_seconds(self) -> float:
        """Seconds of validation after one epoch."""
        return self.validation_images / self.validation_images_per_second

    @property
    def recipe_seconds(self) -> float:
        """Seconds that the whole recipe will take: all epochs, each with its validation."""
        training = self.training_images / self.batch_size * self.mean_step_seconds
        return self.epochs * (training + self.epoch_validation_seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured and what follows from it as plain values."""
        derived = (
            "mean_step_seconds",
            "images_per_second",
            "validation_images_per_second",
            "loading_share",
            "epoch_training_seconds",
            "epoch_validation_seconds",
            "recipe_seconds",
        )
        values = {**asdict(self), "step_seconds": asdict(self.step_seconds)}
        return {**values, **{name: getattr(self, name) for name in derived}}

    def __repr__(self) -> str:
        return to_text(self)


def measure(
    network: experiment.Network,
    recipe: str | Path | Recipe | None = None,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    training_images: int,
    validation_images: int,
    seconds: float,
    device: str | torch.device,
    precision: str,
    **overrides: Any,
) -> Speed:
    """Train a network on random images for about so many seconds, and return its speed.

    ``overrides`` replace fields of the recipe where they are not None. A module that is given stays as it is.

    Raises:
        SepnetError: an unknown name, a value out of range, or the network does not take such images.

    """
    if not 0 < seconds < math.inf:
        raise SepnetError(f"seconds is {seconds}: expected a number above 0, the time to measure for")
    dataset = random_dataset(image_shape, classes, training_images, validation_images)
    if isinstance(network, nn.Module):
        network = copy.deepcopy(network)
    with process_settings(), torch.random.fork_rng():
        config = experiment.prepare(network, dataset, recipe, device=device, precision=precision, **overrides).config
        notice(f"training {config.network} on random images for about {seconds:g} s")
        step = training_step(network, dataset, config.recipe, device=config.device, precision=config.precision)
        upcoming = batches(step)
        batch_size = min(config.recipe.batch_size, len(dataset.train))

        begin = sizes_begin(config.recipe, step.in_all)

        def timed_from(number: int) -> list[Timing]:
            # One size after the other, as in training: steps of one size in a row repeat their calls.
            moment = divmod(number, step.per_epoch)
            works = [lambda: step(next(upcoming)[0], *moment), lambda: step.batch(next(upcoming)[0], *moment)]
            return _time(works, seconds * TRAINING_SHARE / len(begin), step.device)

        trained, loaded = zip(*map(timed_from, begin.values()), strict=True)
        counts = np.diff([*begin.values(), step.in_all]).tolist()
        judged = (step.average.model if step.average else step.model).eval()
        judge = network_of(judged, step.device) if step.average else step.network
        images = resident(dataset.test, step.device).images[:BATCH]
        (validation,) = _time(
            [lambda: infer(judge, step.normalize(images), step.precision)],
            seconds * (1 - TRAINING_SHARE),
            step.device,
        )
    machine = environment.describe()
    on_gpu = step.device.type == "cuda"
    return Speed(
        network=config.network,
        image_shape=image_shape,
        recipe=config.recipe.name,
        epochs=config.recipe.epochs,
        batch_size=batch_size,
        training_images=training_images,
        validation_batch=len(images),
        validation_images=validation_images,
        device=config.device,
        precision=config.precision,
        computed_by=describe(step.device.type, step.precision),
        threads=machine["threads"],
        processor=machine["processor"],
        gpu=machine["gpu"] if on_gpu else None,
        steps=tuple(
            SizedSteps(size=size, share=count / step.in_all, seconds=timing)
            for size, count, timing in zip(begin, counts, trained, strict=True)
        ),
        loading_seconds=loaded[-1],
        validation_batch_seconds=validation,
        peak_memory_mib=environment.peak_memory_mib(),
        peak_gpu_memory_mib=torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
    )


def _time(works: Sequence[Callable[[], object]], seconds: float, device: torch.device) -> list[Timing]:
    """Time pieces of work in turn, for about so many seconds together."""
    rounds: list[list[float]] = []
    began = time.perf_counter()
    for number in itertools.count():
        elapsed = time.perf_counter() - began
        if len(rounds) >= FEWEST and elapsed >= seconds:
            break
        timed = [_seconds(work, device) for work in works]
        if number and elapsed >= WARM_UP * seconds:
            rounds.append(timed)
    return [Timing.of(column) for column in zip(*rounds, strict=True)]


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    on_gpu = device.type == "cuda"
    repetitions = STEPS_IN_A_ROW if on_gpu else 1
    wait: Callable[[], None] = partial(torch.cuda.synchronize, device) if on_gpu else lambda: None
    wait()
    began = time.perf_counter()
    for _ in range(repetitions):
        work()
    wait()
    return (time.perf_counter() - began) / repetitions


def to_text(speed: Speed) -> str:
    """Return the speed for a person, in 80 columns."""
    fast, slow = speed.batch_size / speed.step_seconds.lower, speed.batch_size / speed.step_seconds.upper
    rows = [
        ("training", f"{_rate(speed.images_per_second)} images/s (half of the steps {_rate(slow)} to {_rate(fast)})"),
        ("a step", f"{1000 * speed.step_seconds.median:,.1f} ms, median of {speed.step_seconds.count:,}"),
        *_growing(speed),
        ("loading", f"{100 * speed.loading_share:.1f} % of a step, augmentation included"),
        ("validation", f"{_rate(speed.validation_images_per_second)} images/s"),
        (
            "an epoch",
            f"{_clock(speed.epoch_training_seconds)} for {speed.training_images:,} images, "
            f"{_clock(speed.epoch_validation_seconds)} to validate on {speed.validation_images:,}",
        ),
        ("the recipe", f"{_clock(speed.recipe_seconds)} for {speed.epochs:,} epochs by recipe {speed.recipe}"),
        ("peak memory", ", ".join(_memory(speed))),
        ("computed by", f"{speed.computed_by}, precision {speed.precision}, threads: {speed.threads}"),
        ("processor", speed.processor),
    ]
    if speed.gpu:
        rows.append(("GPU", speed.gpu))
    size = "×".join(map(str, speed.image_shape))
    heading = f"{speed.network}, random images {size}, batch {speed.batch_size}"
    lines = (
        textwrap.fill(text, WIDTH, initial_indent=f"{name:<{INDENT}}", subsequent_indent=" " * INDENT)
        for name, text in rows
    )
    return "\n".join([heading, "", *lines])


def _growing(speed: Speed) -> list[tuple[str, str]]:
    if len(speed.steps) == 1:
        return []
    small, large = speed.steps[0], speed.steps[-1]
    first = f"{1000 * small.seconds.median:,.1f} ms at {small.size:g} of the images' height and width"
    mean = f"{1000 * speed.mean_step_seconds:,.1f} ms on average as they grow to {large.size:g}"
    return [("small steps", f"{first}, {mean}")]


def _memory(speed: Speed) -> list[str]:
    amounts = [(speed.peak_memory_mib, "MiB"), (speed.peak_gpu_memory_mib, "MiB on the GPU")]
    return [f"{amount:,.0f} {unit}" for amount, unit in amounts if amount is not None] or ["unknown"]


def _rate(images_per_second: float) -> str:
    return f"{images_per_second:,.{0 if images_per_second >= 100 else 1}f}"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
