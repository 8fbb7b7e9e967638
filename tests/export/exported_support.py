"""What the tests of exported files share: a small network's file in each format."""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import torch
from torch import nn

from sepnet.export.artifacts import ENDINGS, Exporter
from tests.export.int8_support import MEAN, STD, pixels, randomized

CLASSES = ("cat", "dög", "horse")
SHAPE = (3, 12, 10)


def exporter() -> Exporter:
    """Return what writes a small network of its own, untrained."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)]
    settings = {"name": "small", "classes": CLASSES, "mean": MEAN, "std": STD}
    model = randomized(nn.Sequential(*layers))
    return Exporter(model=model, image_shape=SHAPE, images=lambda: pixels(20, SHAPE), **settings)  # type: ignore[arg-type]


def write_files(folder: Path, formats: tuple[str, ...] = tuple(ENDINGS)) -> dict[str, Path]:
    """Write the network in each format into a folder; return the files by format."""
    made = exporter()
    files = {name: folder / f"small{ENDINGS[name]}" for name in formats}
    for name, file in files.items():
        made.make(name, "small").write(file)
    return files
