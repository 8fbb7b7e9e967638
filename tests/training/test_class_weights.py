"""Balanced class weights: scikit-learn's weights, PyTorch's loss with label smoothing, and equal classes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import sepnet
from sepnet.data import Dataset
from sepnet.recipes.recipe import Recipe
from sepnet.training.step import TrainingStep, balanced_weights
from tests.training.support import patterns, tiny

pytestmark = pytest.mark.usefixtures("pytorch_alone")

RECIPE = Recipe(name="test", epochs=2, batch_size=32, class_weights="balanced", label_smoothing=0.1)


def _unequal() -> Dataset:
    whole = patterns()
    kept = torch.nonzero((whole.train.labels != 2) | (torch.arange(150) % 5 == 0)).flatten()
    return replace(whole, train=whole.train.select(kept))


def test_weights_are_inverse_to_the_classes_sizes() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = balanced_weights(labels, 4)
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 10 / 9, 0.0, 10 / 3]))  # of the three that there are
    assert weights[labels].mean() == pytest.approx(1)


@pytest.mark.slow
def test_the_loss_is_the_weighted_mean_that_pytorch_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, seen = _unequal(), []
    update = TrainingStep._update_weights

    def check(step: TrainingStep, images: torch.Tensor, targets: torch.Tensor) -> Any:
        loss, logits = update(step, images, targets)
        counts = dataset.train.labels.bincount().double()
        weights = counts.sum() / (len(counts) * counts)
        surprise = -logits.double().log_softmax(1)
        own, all_ = surprise.gather(1, targets[:, None])[:, 0] * weights[targets], (surprise * weights).sum(1)
        expected = (0.9 * own.sum() + 0.1 / 3 * all_.sum()) / weights[targets].sum()
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
        seen.append(float(expected))
        return loss, logits

    monkeypatch.setattr(TrainingStep, "_update_weights", check)
    run = sepnet.train(tiny(), dataset, RECIPE, device="cpu", precision="fp32", out=tmp_path)
    assert len(seen) == 2 * -(-len(dataset.train) // 32)
    logits, labels = run.logits()
    plain = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert run.history[-1].val_loss == pytest.approx(float(plain), rel=1e-5)


@pytest.mark.slow
def test_equal_classes_are_trained_as_without(tmp_path: Path) -> None:
    weights = [
        sepnet.train(
            tiny, patterns(), replace(RECIPE, class_weights=kind), device="cpu", precision="fp32", out=tmp_path / kind
        ).weights()
        for kind in ("none", "balanced")
    ]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)
