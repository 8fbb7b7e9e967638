"""How a run is made again: as a command, and as a call from Python."""

import shlex
from typing import Any

from sepnet.data import DATASETS
from sepnet.networks import NETWORKS
from sepnet.runs import RunConfig
from sepnet.training.recipe import PRESETS, Recipe, load_recipe

OVERRIDES = ("epochs", "batch_size", "lr")
"""The fields of a recipe that ``sepnet train`` has flags for."""


def can_be_made_again(config: RunConfig) -> bool:
    """Whether names alone tell how to make the run: no object of a Python session went into it, nor a second start."""
    named = config.network in NETWORKS or config.network.rpartition(":")[0].endswith(".py")
    return named and config.data in DATASETS and not config.initial_weights and not config.extended_from


def train_command(config: RunConfig, recipe_file: str) -> str:
    """Return the ``sepnet train`` command; ``recipe_file`` is where a recipe that is no preset will lie."""
    preset = _preset(config.recipe)
    recipe, overrides = (recipe_file, {}) if preset is None else preset
    options: dict[str, Any] = {"data": config.data, "recipe": recipe, **overrides, **_settings(config)}
    words = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in options.items()]
    return " ".join(["sepnet train", shlex.quote(config.network), *words])


def train_call(config: RunConfig, *, name: str, seed: str | None = None) -> str:
    """Return the call of ``sepnet.train`` that makes the run in the folder one is in, or goes on with it.

    ``name``, of its folder, and ``seed`` are expressions.
    """
    preset = _preset(config.recipe)
    options = {key: repr(value) for key, value in _settings(config).items()}
    if preset is None:
        fields = ", ".join(f"{name}={value!r}" for name, value in config.recipe.to_dict().items())
        recipe = f"sepnet.Recipe({fields})"
    else:
        recipe = repr(preset[0])
        options = {**{key: repr(value) for key, value in preset[1].items()}, **options}
    if seed is not None:
        options["seed"] = seed
    arguments = [
        repr(config.network),
        repr(config.data),
        recipe,
        *(f"{name}={value}" for name, value in options.items()),
        f"name={name}",
        "out='.'",
        "reuse=True",
    ]
    return "sepnet.train(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"


def has_preset(recipe: Recipe) -> bool:
    """Whether a preset and the flags of ``sepnet train`` give this recipe."""
    return _preset(recipe) is not None


def _preset(recipe: Recipe) -> tuple[str, dict[str, Any]] | None:
    """Return the preset a recipe is made from and what is changed in it, or None."""
    if recipe.name not in PRESETS:
        return None
    ours, theirs = recipe.to_dict(), load_recipe(recipe.name).to_dict()
    changed = {name: value for name, value in ours.items() if theirs.get(name) != value}
    given = {"epochs": recipe.epochs, **{name: changed[name] for name in OVERRIDES if name in changed}}
    return (recipe.name, given) if load_recipe(recipe.name, **given) == recipe else None


def _settings(config: RunConfig) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "device": config.device,
        "precision": config.precision,
        "validation": config.validation,
    }
