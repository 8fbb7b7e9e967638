"""The recipe: every setting of training, its default, and its check."""

import tomllib
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from sepnet.errors import SepnetError
from sepnet.settings import check_type, hint, read_toml, to_settings

PRESETS = ("published", "champion")
PRECISIONS = ("auto", "bf16", "fp32")
VALIDATIONS = {"test": "test images", "holdout": "held-out training images"}
"""What accuracy is measured on, and its name in words."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. Every field can be set in a TOML file; see ``training/recipes``."""

    name: str = "custom"
    epochs: int = 50
    batch_size: int = 128
    optimizer: Literal["adam", "sgd"] = "sgd"
    lr: float = 0.1
    """Learning rate; the highest one of ``one_cycle``."""
    momentum: float = 0.9
    """Nesterov momentum of ``sgd``; the first moment's decay of ``adam``."""
    eps: float = 1e-8
    """Epsilon of ``adam``."""
    weight_decay: float = 0.0
    """On the weights of convolutions and dense layers only: for ``sgd`` added to the gradient, for ``adam``
    decoupled (Loshchilov and Hutter 2019)."""
    schedule: Literal["constant", "one_cycle"] = "one_cycle"
    """``one_cycle`` rises linearly from 0 over the share ``warmup`` of all steps, then falls linearly to 0."""
    warmup: float = 0.2
    label_smoothing: float = 0.0
    normalize: Literal["unit", "standard"] = "standard"
    """``unit`` divides pixels by 255; ``standard`` also gives each channel mean 0 and deviation 1 over the
    training images."""
    crop: int = 0
    """Images are shifted by up to this many pixels each way, the border filled by reflection."""
    flip: Literal["none", "random", "alternating"] = "none"
    """Horizontal flips; ``alternating`` flips a random half of the images in even epochs and the other half
    in odd ones (Jordan 2024, airbench)."""
    average: float = 0.0
    """Decay per step of the moving average of the weights that is validated and saved; 0 for none."""
    initializer: Literal["default", "glorot_uniform"] = "default"
    """``glorot_uniform`` sets every weight as Keras does, and every bias to 0; ``default`` is the network's own."""
    norm_eps: float | None = None
    """Batch norm's epsilon; the network's own when absent."""
    norm_momentum: float | None = None
    """Batch norm's momentum, in PyTorch's sense; the network's own when absent."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check_type(f"recipe: {field.name}", getattr(self, field.name), field.type)
        for name, (low, high, expected) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise SepnetError(f"recipe: {name} is {value}: expected {expected}")
        if self.lr == 0:
            raise SepnetError(f"recipe: lr is {self.lr}: expected a number above 0")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, as written to TOML."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


_COUNT = (1, 10**9, "a whole number of at least 1")
_NOT_NEGATIVE = (0.0, 1e9, "a number of at least 0")
_SHARE = (0.0, 1.0, "a number from 0 to 1")
_BELOW_ONE = (0.0, 0.999_999, "a number from 0 to below 1")
_RANGES: dict[str, tuple[float, float, str]] = {
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "lr": _NOT_NEGATIVE,
    "momentum": _BELOW_ONE,
    "eps": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "warmup": _SHARE,
    "label_smoothing": _BELOW_ONE,
    "crop": (0, 10**4, "a whole number of pixels, 0 for none"),
    "average": _BELOW_ONE,
    "norm_eps": _NOT_NEGATIVE,
    "norm_momentum": _SHARE,
}


def load_recipe(name: str, **overrides: Any) -> Recipe:
    """Return the preset called ``name``, or the recipe of the TOML file at that path.

    Overrides that are None leave the recipe's own value.

    Raises:
        SepnetError: no such preset or file, an unknown key, or a value out of range.

    """
    if name in PRESETS:
        text = resources.files("sepnet.training").joinpath(f"recipes/{name}.toml").read_text("utf-8")
        recipe = recipe_from_dict({"name": name, **tomllib.loads(text)}, source=f"recipe {name}")
    elif name.endswith(".toml"):
        path = Path(name)
        recipe = recipe_from_dict({"name": path.stem, **read_toml(path, "recipe file")}, source=name)
    else:
        otherwise = f"expected {', '.join(PRESETS)}, or a .toml file"
        raise SepnetError(f"unknown recipe '{name}': {hint(name, PRESETS, otherwise=otherwise)}")
    return replace(recipe, **{key: value for key, value in overrides.items() if value is not None})


def recipe_from_dict(values: dict[str, Any], *, source: str) -> Recipe:
    """Return the recipe with these fields; ``source`` is named in errors."""
    return to_settings(Recipe, values, source=source)
