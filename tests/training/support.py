"""What the tests of training share: a tiny network and a tiny dataset."""

import json
from pathlib import Path

import torch
from torch import nn

from sepnet.data import Dataset, Split
from sepnet.networks.layers import GlobalAveragePool, SeparableConv2d
from sepnet.runs.manifest import write_manifest
from sepnet.runs.run import FILES

CLASSES = ("dark", "light", "striped")


def tiny() -> nn.Module:
    return nn.Sequential(
        SeparableConv2d(3, 8),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        SeparableConv2d(8, 8, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        GlobalAveragePool(),
        nn.Linear(8, len(CLASSES)),
    )


def patterns(train: int = 150, test: int = 60, *, seed: int = 0) -> Dataset:
    """Noisy 8×8 images of three patterns, which the tiny network learns in a few epochs."""
    generator = torch.Generator().manual_seed(seed)

    def split(count: int) -> Split:
        labels = torch.arange(count) % 3
        light = torch.tensor([60, 180, 120])[labels].view(-1, 1, 1, 1).repeat(1, 3, 8, 8)
        stripes = 60 * (labels == 2).view(-1, 1, 1, 1) * torch.tensor([1, -1]).repeat(4)
        noise = torch.randint(-40, 41, (count, 3, 8, 8), generator=generator)
        return Split(images=(light + stripes + noise).clamp(0, 255).to(torch.uint8), labels=labels)

    return Dataset(name="patterns", classes=CLASSES, train=split(train), test=split(test))


def unseal(folder: Path) -> None:
    """Turn a finished run into one of a version that made no manifests, whose figures alone are checked."""
    (folder / "manifest.json").unlink(missing_ok=True)
    result = json.loads((folder / "result.json").read_text())
    result.pop("sealed_by", None)
    (folder / "result.json").write_text(json.dumps(result))


def seal(folder: Path) -> None:
    """Seal a finished run's files as they are now, as a stranger may."""
    write_manifest(folder, FILES)
