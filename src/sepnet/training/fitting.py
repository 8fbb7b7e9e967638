"""Whether a network, a recipe and a dataset fit together: tried before anything is written."""

import copy
from dataclasses import replace

import torch
from torch import nn

from sepnet.anatomy import not_one_tensor
from sepnet.data.augment import shrink
from sepnet.data.dataset import Dataset
from sepnet.errors import SepnetError, first_line, where
from sepnet.recipes.recipe import Recipe
from sepnet.training.forward import lay_out
from sepnet.training.schedule import image_size


def require_smaller(recipe: Recipe, dataset: Dataset) -> None:
    """Raise if images are to be shifted, or squares to be cut out of them, by more than their size."""
    _, height, width = dataset.image_shape
    for name in ("crop", "cutout"):
        if getattr(recipe, name) > min(height, width):
            raise SepnetError(
                f"recipe: {name} is {getattr(recipe, name)}, and images of {dataset.name} are {height}×{width}: "
                f"expected at most {min(height, width)}; set {name} to a smaller one, 0 for none"
            )


def fitting_recipe(model: nn.Module, dataset: Dataset, name: str, recipe: Recipe, *, asked_for: bool) -> Recipe:
    """Return the recipe, with all images in their own size if the model takes no smaller ones, nor were they asked for.

    Raises:
        SepnetError: the model does not take the dataset's images.

    """
    try:
        _require_fit(model, dataset, name, recipe)
    except SepnetError:
        if asked_for or recipe.first_size == 1:
            raise
        recipe = replace(recipe, first_size=1.0)
        _require_fit(model, dataset, name, recipe)
    return recipe


def _require_fit(model: nn.Module, dataset: Dataset, name: str, recipe: Recipe) -> None:
    """Raise unless the model takes the dataset's images ``(N, C, H, W)`` and gives ``(N, classes)``.

    Tried on a copy, in evaluation and, with the last batch of an epoch, the smallest, in training, where the recipe's
    first images may be smaller ones.
    """
    device = next(model.parameters(), torch.zeros(0)).device
    trial, layout = lay_out(copy.deepcopy(model), dataset.image_shape, device)
    parameter = next(trial.parameters(), torch.zeros(0))
    last = len(dataset.train) % recipe.batch_size or min(recipe.batch_size, len(dataset.train))
    images = torch.zeros(max(2, last), *dataset.image_shape, device=parameter.device, dtype=parameter.dtype)
    trials = [(images[:2], False), (images[:last], True)]
    first = image_size(recipe, 0, recipe.epochs)
    trials += [(shrink(images[:last], first), True)] if first < 1 else []
    for given, training in trials:
        size = "×".join(map(str, given.shape[1:]))
        try:
            with torch.set_grad_enabled(training), torch.random.fork_rng():
                output = trial.train(training)(given.contiguous(memory_format=layout))
                if isinstance(output, torch.Tensor) and output.requires_grad:
                    output.sum().backward()
        except Exception as error:
            reason = where(error) + (first_line(error) or type(error).__name__)
            moment = f"in training, with a last batch of {len(given)}" if training else "in evaluation"
            raise SepnetError(
                f"network '{name}' does not take the images of {dataset.name}, {size}, {moment}: {reason}"
            ) from error
        if not isinstance(output, torch.Tensor):
            raise SepnetError(not_one_tensor(name, output))
        if output.shape != (len(given), len(dataset.classes)):
            raise SepnetError(
                f"network '{name}' gives {tuple(output.shape)} for {len(given)} images of {dataset.name}: "
                f"expected ({len(given)}, {len(dataset.classes)}), one number for each class"
            )
