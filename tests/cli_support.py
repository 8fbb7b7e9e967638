"""What the tests of the command line share: a folder with a user's networks, and commands that print JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

import sepnet
from sepnet.cli.app import run

USERS_FILE = """
from torch import nn
from torch.nn import functional as F


def small(*, classes=10, image_shape=(3, 32, 32)):
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, classes))


def larger():
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 10))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.reduce = nn.Conv2d(3, 6, 4, stride=4)
        self.inner = nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.dense = nn.Linear(6, 10)

    def forward(self, x):
        x = self.reduce(x)
        x = F.relu(x + self.norm(self.inner(x)))
        return self.dense(x.mean((2, 3)))


def bsconv():
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(7200, 10))


def five_classes():
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 5))


def misfit():
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(47, 10))
"""
RECIPE = "epochs = 1\nbatch_size = 500\nlr = 0.05\n"
TRAIN = "train net.py:small --recipe quick.toml --precision fp32 --device cpu"
Captured = pytest.CaptureFixture[str]


def prepare(folder: Path) -> None:
    """Put a user's networks as ``net.py`` and a quick recipe as ``quick.toml`` into a folder."""
    (folder / "net.py").write_text(USERS_FILE)
    (folder / "quick.toml").write_text(RECIPE)


def train_small(folder: Path) -> Path:
    """Train a user's small network on the sample for an epoch; return the run's folder."""
    prepare(folder)
    network, recipe = f"{folder / 'net.py'}:small", folder / "quick.toml"
    return sepnet.train(network, "sample", recipe, precision="fp32", device="cpu", out=folder).path


def run_json(arguments: str, capsys: Captured, *, code: int = 0) -> Any:
    """Run a command whose standard output has to be JSON and nothing else."""
    assert run([*arguments.split(), "--format", "json"]) == code
    return json.loads(capsys.readouterr().out)
