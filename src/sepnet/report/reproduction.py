"""How a run is made again: as a command, and as a call from Python."""

import shlex
from typing import Any

from sepnet.data import DATASETS, Pictures, is_path
from sepnet.networks import is_own, split_name
from sepnet.recipes.recipe import PRESETS, Recipe, load_recipe
from sepnet.runs import RunConfig

OVERRIDES = ("epochs", "batch_size", "lr")
"""The fields of a recipe that ``sepnet train`` has flags for."""


def can_be_made_again(config: RunConfig) -> bool:
    """Whether names alone tell how to make the run: no object of a Python session went into it, nor a second start."""
    named = is_own(config.network) or split_name(config.network).file.endswith(".py")
    loadable = config.data in DATASETS or config.pictures is not None
    return named and loadable and not config.initial_weights and not config.extended_from


def train_command(config: RunConfig, recipe_file: str) -> str:
    """Return the ``sepnet train`` command; ``recipe_file`` is where a recipe that is no preset will lie."""
    preset = _preset(config.recipe)
    recipe, overrides = (recipe_file, {}) if preset is None else preset
    options: dict[str, Any] = {**_data_flags(config), "recipe": recipe, **overrides, **_settings(config)}
    if config.teachers:
        options["teacher"] = ",".join(config.teachers)
    words = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
        for name, value in options.items()
    ]
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
    if config.teachers:
        options["teacher"] = repr(config.teachers)
    arguments = [
        repr(config.network),
        _data_call(config),
        recipe,
        *(f"{name}={value}" for name, value in options.items()),
        f"name={name}",
        "out='.'",
        "reuse=True",
    ]
    return "sepnet.train(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"


def _data_flags(config: RunConfig) -> dict[str, Any]:
    if config.pictures is None:
        return {"data": config.data}
    path = config.pictures.path
    options = _picture_options(config.pictures)
    options["image_size"] = "x".join(map(str, options["image_size"]))
    return {"data": path if is_path(path) else f"./{path}", **options}


def _data_call(config: RunConfig) -> str:
    if config.pictures is None:
        return repr(config.data)
    options = {"data": config.pictures.path, **_picture_options(config.pictures)}
    return f"sepnet.load_data({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def _picture_options(pictures: Pictures) -> dict[str, Any]:
    """Return the image size, and what else is not as it is unless given."""
    plain = Pictures(path="")
    names = ("channels", "group_by", "test_share", "split_seed", "skip_broken")
    changed = {name: getattr(pictures, name) for name in names if getattr(pictures, name) != getattr(plain, name)}
    return {"image_size": pictures.image_size, **changed}


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
