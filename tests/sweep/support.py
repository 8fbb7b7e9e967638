"""What the tests of sweeps share: a folder with a small network, small images and sweep files, and workers in line."""

import contextlib
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sepnet.runs import Run
from sepnet.sweep import shares
from sepnet.sweep.sweep import Sweep
from tests.training.support import patterns

NETWORK = """
from torch import nn


def small(classes, width=4, wide=False):
    layers = [nn.Conv2d(3, width, 4, stride=4), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * width, classes))
"""
HEAD = """
network = "net.py:small"
recipe = "quick.toml"
data = "patterns.npz"
device = "cpu"
precision = "fp32"
"""
ROWS = """
[[row]]
name = "first"
seeds = [0, 1]

[[row]]
name = "wide"
parameters = { width = 8 }
settings = { lr = 0.1 }
"""


class Inline:
    """Workers that are this process: a trial is done when it is submitted."""

    lost: tuple[type[BaseException], ...] = (BrokenExecutor,)
    travels = False

    def __init__(self, *_: object) -> None:
        self.orders: list[Any] = []

    def capacity(self) -> int:
        return 1

    def submit(self, function: Callable[..., Any], order: Any) -> "Future[Any]":
        self.orders.append(order)
        future: Future[Any] = Future()
        try:
            future.set_result(function(order))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        pass


def prepare(folder: Path, text: str = HEAD + ROWS) -> Path:
    """Fill a folder; return the sweep's file in it."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = patterns()
    np.savez(
        folder / "patterns.npz",
        x_train=dataset.train.images.numpy().transpose(0, 2, 3, 1),
        y_train=dataset.train.labels.numpy(),
        x_test=dataset.test.images.numpy().transpose(0, 2, 3, 1),
        y_test=dataset.test.labels.numpy(),
    )
    (folder / "net.py").write_text(NETWORK)
    (folder / "quick.toml").write_text("epochs = 3\nbatch_size = 50\nlr = 0.05\naverage = 0.5\n")
    file = folder / "sweep.toml"
    file.write_text(text)
    return file


def undisturbed(file: Path, out: Path) -> Sweep:
    """Train a sweep here, with one thread as each process of a pool or a cluster has."""
    sweep, threads = Sweep.open(file, out), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(file.parent):
        patch.setattr(shares, "Processes", Inline)
        sweep.run()
    torch.set_num_threads(threads)
    return sweep


def weights(sweep: Sweep) -> dict[str, bytes]:
    """Return the final weights of the finished runs of a sweep by their names."""
    return {file.parent.name: file.read_bytes() for file in sorted(sweep.out.glob("*/weights.safetensors"))}


def epochs(sweep: Sweep, name: str) -> int:
    return len(Run.open(sweep.out / name).history)
