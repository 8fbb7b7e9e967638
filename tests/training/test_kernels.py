"""Training with sepnet's kernels against training by PyTorch alone: the same curves, over seeds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sepnet
from sepnet.backend import native
from sepnet.data import Dataset, Split, sample
from sepnet.networks.layers import GlobalAveragePool, Residual, SeparableConv2d
from sepnet.recipes.recipe import Recipe

SEEDS = (0, 1, 2)
RECIPE = Recipe(
    name="test", epochs=4, batch_size=32, lr=0.2, crop=2, flip="alternating", average=0.9, label_smoothing=0.1
)

pytestmark = pytest.mark.skipif(native.native() is None, reason="no kernels were compiled that this processor runs")


def _network(dropout: float) -> nn.Module:
    """Return the champion's parts, few of them: a stem, a residual block, one that halves the image."""

    def pair(channels: int, filters: int, stride: int = 1) -> list[nn.Module]:
        return [SeparableConv2d(channels, filters, stride=stride), nn.BatchNorm2d(filters)]

    return nn.Sequential(
        *(nn.AvgPool2d(2), *pair(3, 16), nn.ReLU()),
        *(Residual(nn.Sequential(*pair(16, 16), nn.ReLU(), *pair(16, 16))), nn.ReLU()),
        *(*pair(16, 32, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout)),
        *(GlobalAveragePool(), nn.Linear(32, 10)),
    )


@pytest.fixture(scope="module")
def data() -> Dataset:
    """A part of the embedded sample."""
    whole = sample.load()
    train, test = (Split(images=s.images[:384], labels=s.labels[:384]) for s in (whole.train, whole.test))
    return Dataset(name=whole.name, classes=whole.classes, train=train, test=test)


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    """Choose the kernels anew after each test."""
    yield
    native._find.cache_clear()


def _losses(
    data: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch, kernels: str, *, precision: str, dropout: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the training loss of each seed ``(seeds, epochs)``."""
    if kernels:
        monkeypatch.setenv(native.SWITCH, kernels)
    else:
        monkeypatch.delenv(native.SWITCH, raising=False)
    native._find.cache_clear()
    runs = [
        sepnet.train(lambda: _network(dropout), data, RECIPE, out=out, seed=seed, precision=precision) for seed in SEEDS
    ]
    return np.array([[epoch.loss for epoch in run.history] for run in runs])


@pytest.mark.slow
def test_curves_agree_over_seeds(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three standard errors of the seeds' mean, or a hundredth: training took off twenty times that.

    Not closer, even seed by seed: rounding grows tenfold a step at this rate, and PyTorch in float32 leaves its own
    course in float64 within ten steps.
    """
    compiled = native.native()
    precision, dropout = ("bf16", 0.1) if compiled and compiled.computes(torch.bfloat16) else ("fp32", 0.0)
    own = _losses(data, tmp_path / "own", monkeypatch, "", precision=precision, dropout=dropout)
    plain = _losses(data, tmp_path / "plain", monkeypatch, "none", precision=precision, dropout=dropout)
    assert (own != plain).any()
    error = np.sqrt((own.var(axis=0, ddof=1) + plain.var(axis=0, ddof=1)) / len(SEEDS))
    assert (abs(own.mean(axis=0) - plain.mean(axis=0)) < np.maximum(3 * error, 0.01)).all()
    for losses in (own, plain):
        assert (losses[:, -1] < losses[:, 0] - 0.2).all()
