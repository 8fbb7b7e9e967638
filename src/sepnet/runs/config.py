"""The configuration of a run: everything that determines it but the machine."""

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any

import tomli_w

from sepnet.data.pictures import Pictures
from sepnet.errors import SepnetError
from sepnet.notices import printable
from sepnet.recipes.recipe import PRECISIONS, VALIDATIONS, Recipe
from sepnet.settings import MOST_VALUES, check_type, parse_toml, shown, to_settings

DEVICES = ("cpu", "cuda")
SMALLEST_DEVIATION = 1e-8
"""Of a channel: one pixel in 10¹² differs by one of 255 steps."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a run but the machine. Two runs of one :meth:`identity` are the same run."""

    network: str
    fingerprint: str
    """Of the network's layers; see ``networks.fingerprint``."""
    data: str
    data_sha256: str
    """Of the images and labels, training and validation; see ``Dataset.fingerprint``."""
    validation: str
    """``test`` or ``holdout``: what the validation figures were measured on."""
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Subtracted from, and divided out of, pixels in 0 … 1."""
    seed: int
    device: str
    precision: str
    initial_weights: str = ""
    """SHA-256 of the weights that training started from, where a module was given; empty where the seed drew them."""
    extended_from: tuple[int, ...] = ()
    """How many epochs the run was first made for, where it was resumed with more: its rates are another schedule's."""
    teachers: tuple[str, ...] = ()
    """The runs whose logits the network learned from, as they were given."""
    teacher_weights: str = ""
    """SHA-256 of their weights."""
    pictures: Pictures | None = None
    """How the data were read, where they are pictures of one's own; ``data`` is then their folder's name."""
    recipe: Recipe

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name not in ("recipe", "pictures"):
                check_type(field.name, getattr(self, field.name), field.type)
        for text in (
            self.network,
            self.data,
            self.device,
            self.precision,
            self.recipe.name,
            *self.classes,
            *self.teachers,
        ):
            if printable(text) != text:
                raise SepnetError(f"the name '{printable(text)}' holds a control character: expected printable ones")
        channels = self.image_shape[0]
        lengths = f"expected {channels} numbers, one for each channel"
        rules = {
            "validation": (self.validation in VALIDATIONS, f"expected {' or '.join(VALIDATIONS)}"),
            "classes": (len(set(self.classes)) == len(self.classes) > 0, "expected names, each once"),
            "image_shape": (
                min(self.image_shape) > 0 and math.prod(self.image_shape) <= MOST_VALUES,
                f"expected channels, height and width above 0, at most {MOST_VALUES:,} values in all",
            ),
            "mean": (len(self.mean) == channels and all(0 <= m <= 1 for m in self.mean), f"{lengths}, from 0 to 1"),
            "std": (
                len(self.std) == channels and all(SMALLEST_DEVIATION <= s <= 1 for s in self.std),
                f"{lengths}, from {SMALLEST_DEVIATION} to 1",
            ),
            "seed": (-(2**63) <= self.seed < 2**63, "expected a whole number of at most 63 bits"),
            "device": (self.device.split(":")[0] in DEVICES, f"expected {' or '.join(DEVICES)}"),
            "precision": (self.precision in PRECISIONS[1:], f"expected {' or '.join(PRECISIONS[1:])}"),
            "extended_from": (
                all(a < b for a, b in pairwise((0, *self.epochs_planned))),
                f"expected numbers of epochs above 0 that grow and stay below {self.recipe.epochs}",
            ),
        }
        for name, (kept, expected) in rules.items():
            if not kept:
                raise SepnetError(f"{name} is {shown(getattr(self, name))}: {expected}")

    @property
    def trained_by(self) -> str:
        """The recipe's name, and its teachers', if it had any."""
        return self.recipe.name + (f", taught by {', '.join(self.teachers)}" if self.teachers else "")

    @property
    def epochs_planned(self) -> tuple[int, ...]:
        """How many epochs the run was made for, first and after each extension."""
        return (*self.extended_from, self.recipe.epochs)

    def identity(self, *, auto: Collection[str] = ()) -> tuple[tuple[str, Any], ...]:
        """Return what says whether two runs are the same: what a person set, the data's hash, the fingerprint.

        Not among it are ``mean`` and ``std``, which follow from the data, nor ``pictures`` and ``teachers``, whose
        images and weights have a hash wherever they lie; nor the fields named in ``auto``, of ``device`` and
        ``precision``: those that were left to the machine.
        """
        left_out = {"mean", "std", "pictures", "teachers", *auto}
        return tuple((field.name, getattr(self, field.name)) for field in fields(self) if field.name not in left_out)

    def difference_of_origin(self, other: "RunConfig") -> str | None:
        """Return the name of the first field by which the other run is not this one at an earlier moment, or None."""
        epochs = self.epochs_planned
        if epochs[: len(other.epochs_planned)] != other.epochs_planned:
            return "recipe.epochs"
        recipe = replace(other.recipe, epochs=self.recipe.epochs)
        same = replace(other, extended_from=self.extended_from, recipe=recipe)
        names = [field.name for field in fields(self) if getattr(self, field.name) != getattr(same, field.name)]
        return names[0] if names else None

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["pictures"] = None if self.pictures is None else asdict(self.pictures)
        values["recipe"] = self.recipe.to_dict()
        return {name: value for name, value in values.items() if value is not None}

    def to_toml(self) -> str:
        """Return the configuration as TOML."""
        return tomli_w.dumps(self.to_dict())

    @staticmethod
    def from_toml(text: str, *, source: str) -> "RunConfig":
        """Return the configuration written by :meth:`to_toml`.

        Raises:
            SepnetError: the text is another one, or a value is out of range; ``source`` is named.

        """
        return to_settings(RunConfig, parse_toml(text, f"'{source}'"), source=f"'{source}'")
