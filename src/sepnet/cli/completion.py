"""What a shell completes: names of networks, datasets and recipes, and a recipe's fields; without PyTorch."""

from dataclasses import fields
from typing import Literal, get_args, get_origin

from sepnet.recipes.recipe import PRESETS, Recipe

NETWORKS = ("base", "published", "champion", "resnet8")
"""The names in the registry, which imports PyTorch."""
DATASETS = ("cifar10", "cifar100", "fashion-mnist", "sample")


def complete_networks(incomplete: str) -> list[str]:
    """Return the networks whose names begin so."""
    return _beginning(NETWORKS, incomplete)


def complete_datasets(incomplete: str) -> list[str]:
    """Return the datasets whose names begin so."""
    return _beginning(DATASETS, incomplete)


def complete_recipes(incomplete: str) -> list[str]:
    """Return the recipes whose names begin so."""
    return _beginning(PRESETS, incomplete)


def complete_fields(incomplete: str) -> list[str]:
    """Return the recipe's fields as ``field=``, and after that the values of a field that has a few."""
    settings = []
    for field in fields(Recipe):
        if field.name == "name":
            continue
        settings.append(f"{field.name}=")
        if "=" in incomplete and get_origin(field.type) is Literal:
            settings += [f"{field.name}={value}" for value in get_args(field.type)]
    return [setting for setting in _beginning(settings, incomplete) if setting != incomplete]


def _beginning(names: tuple[str, ...] | list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
