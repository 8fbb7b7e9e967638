"""What the tests of reports share: runs of tiny networks, and finished runs without any training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from sepnet.recipes.recipe import Recipe
from sepnet.runs import Run, RunConfig
from sepnet.runs.history import Epoch
from sepnet.training import trained_network
from tests.training.support import CLASSES, tiny

CONFIG = RunConfig(
    network="tiny",
    fingerprint="0",
    data_sha256="0" * 64,
    data="patterns",
    validation="test",
    classes=CLASSES,
    image_shape=(3, 8, 8),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    seed=0,
    device="cpu",
    precision="fp32",
    recipe=Recipe(epochs=2),
)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def finished_run(
    out: Path,
    network: str,
    right: int,
    *,
    seed: int = 0,
    recipe: Recipe | None = None,
    history: Sequence[float] = (),
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """Write a finished run whose network answers the first ``right`` of 8 images right and all others wrong.

    ``changes`` replace fields of its configuration; its folder is called by ``network`` all the same.
    """
    accuracies = [*history, right / len(LABELS)]
    recipe = replace(recipe or Recipe(), epochs=len(accuracies))
    run = Run.create(
        out, f"{network}-{seed}", replace(CONFIG, **{"network": network, "seed": seed, "recipe": recipe, **changes})
    )
    trained_network.record(run, tiny())
    answers = torch.where(torch.arange(len(LABELS)) < right, LABELS, (LABELS + 1) % 3)
    logits = torch.nn.functional.one_hot(answers, 3).float() * 4 - 2
    epochs = [_epoch(number, accuracy) for number, accuracy in enumerate(accuracies, 1)]
    loss = float(torch.nn.functional.cross_entropy(logits, LABELS, label_smoothing=recipe.label_smoothing))
    run.write_history([*epochs[:-1], replace(epochs[-1], val_loss=loss)])
    run.write_outcome({"weight": torch.zeros(1)}, logits, LABELS)
    return run


def _epoch(number: int, accuracy: float) -> Epoch:
    return Epoch(
        epoch=number,
        steps=3,
        seconds=0.75,
        images_per_second=1000.0,
        lr=0.1,
        loss=1.5 / number,
        accuracy=accuracy * 0.9,
        val_loss=1.0 / number,
        val_accuracy=accuracy,
    )
