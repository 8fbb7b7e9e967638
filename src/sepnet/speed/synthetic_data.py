"""Training without data: random images, and the step that a run would take on them."""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sepnet.data import Dataset, Split
from sepnet.errors import SepnetError
from sepnet.recipes.recipe import Recipe
from sepnet.settings import require_counts
from sepnet.training import experiment
from sepnet.training.forward import BATCH, Normalizer, lay_out
from sepnet.training.step import TrainingStep, resident

MOST_IMAGES = 10**12
RESIDENT_BYTES = 2**28
"""Of a split of random images; of more or larger ones, the same are taken again."""


def random_dataset(
    image_shape: tuple[int, int, int], classes: int, training_images: int, validation_images: int
) -> Dataset:
    """Return a dataset of random pixels and labels, of at most so many images and 256 MiB a split.

    Raises:
        SepnetError: a number is below 1 or too large.

    """
    require_counts(image_shape=image_shape, classes=classes)
    for name, number in {"training images": training_images, "validation images": validation_images}.items():
        if not 1 <= number <= MOST_IMAGES:
            raise SepnetError(f"{name}: {number}, expected a whole number from 1 to {MOST_IMAGES:,}")
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        count = min(count, max(BATCH, RESIDENT_BYTES // math.prod(image_shape)))
        pixels = torch.empty(count, *image_shape, dtype=torch.uint8).random_(generator=generator)
        return Split(images=pixels, labels=torch.randint(classes, (count,), generator=generator))

    names = tuple(str(number) for number in range(classes))
    return Dataset(name="random", classes=names, train=split(training_images), test=split(validation_images))


def training_step(
    network: experiment.Network, dataset: Dataset, recipe: Recipe, *, device: str, precision: str
) -> TrainingStep:
    """Return the step that a run of this recipe would take, its model in training mode; a module is trained itself."""
    where = torch.device(device)
    built = experiment.build_network(network, dataset, recipe, seed=0).train()
    channels = len(dataset.train.images[0])
    model, layout = lay_out(built, dataset.image_shape, where)
    return TrainingStep(
        model,
        resident(dataset.train, where),
        recipe,
        classes=len(dataset.classes),
        seed=0,
        precision=precision,
        normalize=Normalizer([0.5] * channels, [0.25] * channels, where, layout),
    )


def batches(step: TrainingStep) -> Iterator[tuple[Tensor, int, int]]:
    """Yield full batches without end, as what :class:`TrainingStep` is called with: indices, epoch, step.

    After the recipe's last epoch comes its first again; the smaller batch at the end of an epoch is left out.
    """
    full = min(step.recipe.batch_size, len(step.split))
    for epoch in itertools.cycle(range(step.recipe.epochs)):
        for number, indices in enumerate(step.order(epoch).split(full)):
            if len(indices) == full:
                yield indices, epoch, number
