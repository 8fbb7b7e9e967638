"""The learning rate and the size of images, step by step."""

import math
from bisect import bisect_left

from sepnet.recipes.recipe import Recipe


def learning_rate(recipe: Recipe, step: int, total_steps: int) -> float:
    """Return the rate of step ``step`` (from 0) of ``total_steps``.

    A pure function of its arguments, so that a resumed run takes the same rates.
    """
    if recipe.schedule == "constant":
        return recipe.lr
    rising = recipe.warmup * total_steps
    done = step + 1
    if done < rising:
        return recipe.lr * done / rising
    return recipe.lr * (total_steps - step) / (total_steps - rising + 1)


def image_size(recipe: Recipe, step: int, total_steps: int) -> float:
    """Return height and width of the images of step ``step`` (from 0), as a share of their own: whole eighths."""
    growing = recipe.grown * total_steps
    if step >= growing or recipe.first_size == 1:
        return 1.0
    return math.floor(8 * (recipe.first_size + (1 - recipe.first_size) * step / growing) + 1e-9) / 8


def sizes_begin(recipe: Recipe, total_steps: int) -> dict[float, int]:
    """Return each size of :func:`image_size` that images have, smallest first, and the first step that has it."""

    def at(step: int) -> float:
        return image_size(recipe, step, total_steps)

    steps = range(total_steps)
    first = {size: bisect_left(steps, size, key=at) for size in (eighths / 8 for eighths in range(1, 9))}
    return {size: step for size, step in first.items() if step in steps and at(step) == size}
