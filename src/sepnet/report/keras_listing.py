"""A run's network in Keras as a report shows it: in narrow lines, and with what it was trained by."""

import textwrap

from sepnet.recipes.recipe import Recipe
from sepnet.runs import Run
from sepnet.training.trained_network import describe

WIDTH = 72
"""Characters of a line that are seen whole in a notebook, and on its printed page."""

OPTIMIZERS = {"adam": "Adam", "sgd": "SGD with Nesterov momentum", "muon": "Muon and SGD (sepnet/training/muon.py)"}


def listing(run: Run) -> str:
    """Return the definition of a run's network in Keras, as a report shows it.

    :func:`~sepnet.training.trained_network.describe` may raise.
    """
    return in_narrow_lines(describe(run).definition, run.config.recipe)


def in_narrow_lines(definition: str, recipe: Recipe) -> str:
    """Return a definition in Keras, with a comment on how it was trained before it is compiled."""
    lines: list[str] = []
    for line in definition.splitlines():
        code, separator, comment = line.partition("  # Receptive field ")
        if separator and len(line) > WIDTH:
            indent = code[: len(code) - len(code.lstrip())]
            lines.append(f"{indent}# Receptive field {comment}")
            line = code
        if line.startswith("model.compile("):
            comment = f"sepnet trained it {_training(recipe)}; the next line only completes a Keras model."
            lines += textwrap.wrap(comment, WIDTH, initial_indent="# ", subsequent_indent="# ")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _training(recipe: Recipe) -> str:
    return f"by {OPTIMIZERS[recipe.optimizer]}, learning rate {recipe.lr:g} ({recipe.schedule}), recipe '{recipe.name}'"
