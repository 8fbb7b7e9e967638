"""Parameters and multiplications as other tools count them."""

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torchinfo
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sepnet.anatomy import trace
from sepnet.networks import NETWORKS, build
from sepnet.networks.layers import SeparableConv2d

SHAPE = (3, 32, 32)


def odd_network() -> nn.Module:
    """Return kernels, strides, groups, dilation and padding of every sort."""
    return nn.Sequential(
        nn.Conv2d(3, 8, (3, 5), stride=(1, 2), padding=(2, 0)),
        nn.Conv2d(8, 12, 3, dilation=2, groups=4, bias=False),
        nn.Conv2d(12, 12, (1, 4), padding="same", groups=12),
        nn.Flatten(),
        nn.Linear(12 * 30 * 10, 7),
        nn.Linear(7, 5, bias=False),
    )


def flops(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *SHAPE))
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_are_half_of_flop_counter(name: str) -> None:
    model = build(name)
    assert trace(model).macs * 2 == flops(model)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_macs_of_odd_layers_are_half_of_flop_counter() -> None:
    model = odd_network()
    assert trace(model).macs * 2 == flops(model)


@pytest.mark.parametrize("name", NETWORKS)
def test_trainable_parameters_and_outputs_as_torchinfo(name: str) -> None:
    model = build(name)
    info = torchinfo.summary(model, input_size=(1, *SHAPE), verbose=0, depth=10)
    anatomy = trace(model)
    assert anatomy.trainable == info.trainable_params
    kinds = ("convolution", "separable", "batch norm", "max pool", "dense")
    classes = ("Conv2d", "BatchNorm2d", "MaxPool2d", "Linear")
    theirs = [
        tuple(layer.output_size[1:])
        for layer in info.summary_list
        if layer.class_name in classes and layer.var_name != "depthwise"
    ]
    assert [layer.output for layer in anatomy.layers if layer.kind in kinds] == theirs


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", os.fspath(tmp_path))
    return importlib.import_module("keras")


@pytest.mark.filterwarnings("ignore")
def test_separable_stack_counts_as_keras(keras: ModuleType) -> None:
    layers = keras.layers
    theirs = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.SeparableConv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.SeparableConv2D(24, 5, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )
    ours = trace(
        nn.Sequential(
            SeparableConv2d(3, 16),
            nn.BatchNorm2d(16),
            SeparableConv2d(16, 24, 5, stride=2, bias=True),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(24, 10),
        )
    )
    assert ours.parameters == theirs.count_params()
    assert ours.trainable == sum(_size(tuple(weight.shape)) for weight in theirs.trainable_weights)
    rows = [layer for layer in ours.layers if layer.trainable]
    counts = [layer.count_params() for layer in theirs.layers if layer.count_params()]
    assert [row.trainable + row.non_trainable for row in rows] == counts
    sizes = [tuple(layer.output.shape)[1:] for layer in theirs.layers if layer.count_params()]
    assert [row.output for row in rows] == [(*size[2:], *size[:2]) if len(size) == 3 else size for size in sizes]


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
