"""Mistakes in the calls from Python: one line that names the value, before anything is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import sepnet
from sepnet.anatomy import KINDS
from tests.training.support import patterns, tiny

pytestmark = pytest.mark.usefixtures("pytorch_alone")


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = tiny()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layers(x)
        return logits, logits


API: Any = sepnet
"""Which is called with what no type checker would let pass."""
MISTAKES: dict[str, tuple[Callable[[Any], object], str]] = {
    "seed of letters": (
        lambda out: API.train(tiny(), patterns(), seed="a", out=out),
        "seed is 'a': expected a whole",
    ),
    "seed too long": (
        lambda out: API.train(tiny(), patterns(), seed=10**30, out=out),
        "from 0 to 9223372036854775807",
    ),
    "seed of 5,001 digits": (lambda out: API.train(tiny(), patterns(), seed=10**5000, out=out), "expected a whole"),
    "seed below 0": (lambda out: API.train(tiny(), patterns(), seed=-1, out=out), "seed is -1"),
    "rate": (lambda out: API.train(tiny(), patterns(), lr=1e30, out=out), "a number from 0 to 1e9"),
    "crop": (
        lambda out: API.train(tiny(), patterns(), settings={"crop": 9}, out=out),
        "are 8×8: expected at most 8",
    ),
    "cutout": (lambda out: API.train(tiny(), patterns(), settings={"cutout": 9}, out=out), "expected at most 8"),
    "name": (lambda out: API.train(tiny(), patterns(), name="\udcff", out=out), "expected printable characters"),
    "recipe's name": (lambda out: API.train(tiny(), patterns(), settings={"name": "x"}, out=out), "not a setting"),
    "a tuple trained": (lambda out: API.train(Two(), patterns(), out=out), "returns a tuple: expected one tensor"),
    "a tuple checked": (lambda _: API.check(Two()), "returns a tuple: expected one tensor"),
    "another dataset": (lambda out: API.train(tiny(), TensorDataset(torch.zeros(1)), out=out), "type TensorDataset"),
    "a flat shape": (lambda _: API.summary(tiny(), image_shape=(32, 32)), "is (32, 32): expected (C, H, W)"),
    "a negative shape": (lambda _: API.summary("base", image_shape=(3, -1, 32)), "three whole numbers"),
    "no network": (lambda _: API.summary([1]), "network has type list"),
    "classes": (lambda _: API.bench(classes=10**12), "classes is 1000000000000: expected a whole number from 1"),
    "size": (lambda _: API.bench(image_shape=(3, 10**6, 10**6)), "values: expected at most"),
    "arrays": (lambda _: API.Split(images=np.zeros(1), labels=np.zeros(1)), "images have type ndarray"),
    "float pixels": (lambda _: API.predict("champion", np.zeros((32, 32, 3))), "type float64 and shape (32, 32, 3)"),
    "kinds": (lambda _: API.Rules(allowed_layers=("conv",)), "did you mean 'convolution'?"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    call, message = MISTAKES[name]
    with pytest.raises(sepnet.SepnetError) as caught:
        call(tmp_path / "runs")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_pixels_are_predicted_as_the_file_of_them(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    [expected] = sepnet.predict("champion", tmp_path / "image.png", device=torch.device("cpu"))
    [found] = sepnet.predict("champion", pixels)
    assert found.guesses == expected.guesses


def test_every_kind_of_layer_may_be_allowed() -> None:
    allowed = sepnet.Rules(allowed_layers=KINDS)
    for name in ("base", "champion"):
        assert sepnet.check(name, allowed).kept
