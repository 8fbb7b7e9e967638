"""The recipe: every setting of training, its default, and its check."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from sepnet.errors import SepnetError
from sepnet.settings import check_type, hint, parse_toml, read_toml, shown, to_settings

PRESETS = ("published", "champion", "short")
PRECISIONS = ("auto", "bf16", "fp32")
VALIDATIONS = {"test": "test images", "holdout": "held-out training images"}
"""What accuracy is measured on, and its name in words."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. Every field can be set in a TOML file; see the ones beside this file."""

    name: str = "custom"
    epochs: int = 50
    """How often every training image is seen."""
    batch_size: int = 128
    """Images per step; the last step of an epoch takes what is left."""
    optimizer: Literal["adam", "sgd", "muon"] = "sgd"
    """``muon`` is Muon (Jordan 2024) for pointwise weights that a batch norm follows, and ``sgd`` for all others."""
    lr: float = 0.1
    """Learning rate; the highest one of ``one_cycle``."""
    muon_lr: float = 0.05
    """Relative step size ‖ΔW‖ / ‖W‖ of ``muon``'s pointwise weights, which takes the place of ``lr`` there."""
    vector_lr: float = 1.0
    """Factor on ``lr`` for biases and for batch norm's scales and shifts."""
    momentum: float = 0.9
    """Nesterov momentum of ``sgd`` and ``muon``; the first moment's decay of ``adam``."""
    eps: float = 1e-8
    """Epsilon of ``adam``."""
    weight_decay: float = 0.0
    """On the weights of convolutions and dense layers only: for ``sgd`` added to the gradient, for ``adam``
    decoupled (Loshchilov and Hutter 2019)."""
    schedule: Literal["constant", "one_cycle"] = "one_cycle"
    """``one_cycle`` rises linearly from 0 over the share ``warmup`` of all steps, then falls linearly to 0."""
    warmup: float = 0.2
    """The share of all steps in which ``one_cycle`` rises."""
    distillation: float = 0.5
    """With teachers, the share of the loss that comes from them; the rest is of the labels. (Hinton et al. 2015.)"""
    temperature: float = 2.0
    """By which the teachers' and the network's logits are divided before they are compared."""
    label_smoothing: float = 0.0
    """The share of each label that is spread evenly over all classes. (Szegedy et al. 2016.)"""
    class_weights: Literal["none", "balanced"] = "none"
    """``balanced`` weighs a training image's loss by (images / classes) / (images of its class), as scikit-learn's
    ``compute_class_weight`` does, so that every class counts alike. Validation losses are not weighted."""
    normalize: Literal["unit", "standard"] = "standard"
    """``unit`` divides pixels by 255; ``standard`` also gives each channel mean 0 and deviation 1 over the
    training images."""
    crop: int = 0
    """Images are shifted by up to this many pixels each way, the border filled by reflection."""
    flip: Literal["none", "random", "alternating"] = "none"
    """Horizontal flips; ``alternating`` flips a random half of the images in even epochs and the other half
    in odd ones (Jordan 2024, airbench)."""
    resized_crop: float = 1.0
    """A random rectangle of each image, of at least this share of its area and an aspect ratio of 3/4 to 4/3, is
    enlarged to the whole; 1 for none. (Szegedy et al. 2015, section 6.)"""
    color_jitter: float = 0.0
    """Each image's brightness, contrast and saturation are multiplied by factors within this much of 1; 0 for none.
    (Howard 2013, section 2.)"""
    cutout: int = 0
    """Side in pixels of a square of each image that is set to 0, the mean where images are ``standard``.
    (DeVries and Taylor 2017.)"""
    mixup: float = 0.0
    """Each image is mixed with another one of its batch, and its label with that one's, by a share that is drawn for
    the batch from Beta(``mixup``, ``mixup``); the larger part is its own. (Zhang et al. 2018.)"""
    first_size: float = 1.0
    """The first images' height and width, as a share of their own: fewer pixels, faster steps. They grow evenly, the
    share rounded down to eighths. (Tan and Le 2021, EfficientNetV2, section 4.)"""
    grown: float = 0.5
    """The share of all steps after which images have their own size."""
    average: float = 0.0
    """Decay per step of the moving average of the weights that is validated and saved; 0 for none."""
    initializer: Literal["default", "glorot_uniform", "identity"] = "default"
    """``glorot_uniform`` sets every weight as Keras does, and every bias to 0; ``default`` is the network's own;
    ``identity`` adds 1 to the centre of its depthwise kernels of one filter a channel. (For dense ones: Zagoruyko and
    Komodakis 2017, "DiracNets".)"""
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
                raise SepnetError(f"recipe: {name} is {shown(value)}: expected {expected}")
        for name in ("lr", "muon_lr", "vector_lr"):
            if getattr(self, name) == 0:
                raise SepnetError(f"recipe: {name} is {getattr(self, name)}: expected a number above 0, up to 1e9")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, as written to TOML."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


_COUNT = (1, 10**9, "a whole number from 1 to 1,000,000,000")
_NOT_NEGATIVE = (0.0, 1e9, "a number from 0 to 1e9")
_PIXELS = (0, 10**4, "a whole number of pixels from 1 to 10,000, or 0 for none")
_SHARE = (0.0, 1.0, "a number from 0 to 1")
_BELOW_ONE = (0.0, 0.999_999, "a number from 0 to below 1")
_RANGES: dict[str, tuple[float, float, str]] = {
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "lr": _NOT_NEGATIVE,
    "muon_lr": _NOT_NEGATIVE,
    "vector_lr": _NOT_NEGATIVE,
    "momentum": _BELOW_ONE,
    "eps": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "warmup": _SHARE,
    "distillation": _SHARE,
    "temperature": (0.01, 1e3, "a number from 0.01 to 1,000"),
    "label_smoothing": _BELOW_ONE,
    "crop": _PIXELS,
    "cutout": _PIXELS,
    "mixup": _NOT_NEGATIVE,
    "resized_crop": (0.01, 1.0, "a number from 0.01 to 1"),
    "color_jitter": _SHARE,
    "first_size": (0.125, 1.0, "a number from 0.125 to 1"),
    "grown": _SHARE,
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
        text = resources.files("sepnet.recipes").joinpath(f"{name}.toml").read_text("utf-8")
        recipe = recipe_from_dict({"name": name, **tomllib.loads(text)}, source=f"recipe {name}")
    elif name.endswith(".toml"):
        path = Path(name)
        recipe = recipe_from_dict({"name": path.stem, **read_toml(path, "recipe file")}, source=name)
    else:
        otherwise = f"expected {', '.join(PRESETS)}, or a .toml file"
        raise SepnetError(f"unknown recipe '{name}': {hint(name, PRESETS, otherwise=otherwise)}")
    return override(recipe, overrides)


def override(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the values that are not None in place of its own.

    Raises:
        SepnetError: an unknown field, or a value out of range.

    """
    return replace(recipe, **{key: value for key, value in require_fields(values).items() if value is not None})


def require_fields(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values; raise if one of their names is not a field of a recipe that can be set."""
    known = [field.name for field in fields(Recipe) if field.name != "name"]  # that of its file or preset
    for key in values:
        if key == "name":
            raise SepnetError(f"recipe: name is not a setting: write a recipe file, {values[key]}.toml, to name it")
        if key not in known:
            raise SepnetError(f"recipe: unknown key '{key}': {hint(key, known)}")
    return values


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Return fields and values of ``field=value`` texts, the values as in TOML; a word there needs no quotation marks.

    Raises:
        SepnetError: a text has another form, or a field is set twice.

    """
    values: dict[str, Any] = {}
    for text in texts:
        key, value = _parse_setting(text)
        if key in values:
            raise SepnetError(f"{key} is set twice, to {values[key]} and to {value}: set it once")
        values[key] = value
    return values


def _parse_setting(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not (separator and key.isidentifier() and value) or "\n" in text:
        raise SepnetError(
            f"setting '{text}' is not understood: expected a field of the recipe and its value, as lr=0.1"
        )
    if value.isidentifier() and value not in ("true", "false", "inf", "nan"):
        return key, value
    try:
        return key, parse_toml(f"value = {value}", "value")["value"]
    except SepnetError as error:
        raise SepnetError(f"setting '{text}' is not understood: expected a value as in TOML, as lr=0.1") from error


def recipe_from_dict(values: dict[str, Any], *, source: str) -> Recipe:
    """Return the recipe with these fields; ``source`` is named in errors."""
    return to_settings(Recipe, values, source=source)
