"""The learning rate, step by step."""

from sepnet.training.recipe import Recipe


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
