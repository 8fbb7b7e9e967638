"""Parameters, pairs, multiplications and memory, row by row."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepnet.anatomy import Anatomy, Layer, trace
from sepnet.anatomy.parameter_count import parameters_of
from sepnet.networks import NETWORKS, build

from .test_reading import Net, conv


def counts(anatomy: Anatomy) -> dict[str, tuple[int, int]]:
    return {layer.name: (layer.trainable, layer.non_trainable) for layer in anatomy.layers}


def only(anatomy: Anatomy, kind: str) -> Layer:
    (layer,) = (layer for layer in anatomy.layers if layer.kind == kind)
    return layer


def depthwise(channels: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, size, groups=channels, bias=False)


def pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def test_a_shared_layer_counts_once_and_multiplies_twice() -> None:
    anatomy = trace(Net(lambda net, x: net.c(net.c(x)), c=conv(3, 3)))
    assert counts(anatomy) == {"c": (84, 0), "c#2": (0, 0)}
    assert [layer.macs for layer in anatomy.layers] == [81 * 30 * 30, 81 * 28 * 28]


def test_tied_weights_count_once() -> None:
    model = nn.Sequential(conv(3, 3), conv(3, 3))
    model[1].weight = model[0].weight
    assert counts(trace(model)) == {"0": (84, 0), "1": (3, 0)}


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_known_without_a_capture(name: str) -> None:
    model = build(name)
    assert parameters_of(model) == trace(model).parameters


def test_without_a_capture_tied_weights_count_once_and_lazy_layers_are_unknown() -> None:
    model = nn.Sequential(conv(3, 3), conv(3, 3))
    model[1].weight = model[0].weight
    assert parameters_of(model) == 87
    assert parameters_of(nn.Sequential(conv(), nn.Flatten(), nn.LazyLinear(10))) is None


def test_frozen_parameters_and_statistics_are_not_trainable() -> None:
    model = nn.Sequential(conv().requires_grad_(False), nn.BatchNorm2d(4))
    assert counts(trace(model)) == {"0": (0, 112), "1": (8, 8)}


def test_weights_reached_through_arithmetic_count_where_they_are_used() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = (x - net.mean) / net.std
        weight = net.w - net.w.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight) * net.gamma

    model = Net(
        forward,
        mean=torch.rand(3, 1, 1),
        std=torch.ones(3, 1, 1),
        w=nn.Parameter(torch.rand(4, 3, 3, 3)),
        gamma=nn.Parameter(torch.ones(4, 1, 1)),
    )
    assert counts(trace(model)) == {"subtract": (0, 3), "divide": (0, 3), "conv2d": (108, 0), "multiply": (4, 0)}


def test_unused_parameters_have_rows_of_their_own() -> None:
    model = Net(lambda net, x: net.c(x), c=conv(), idle=conv(), extra=nn.Parameter(torch.rand(5)))
    anatomy = trace(model, name="mine")
    assert [(row.name, row.kind, row.trainable) for row in anatomy.layers] == [
        ("c", "convolution", 112),
        ("mine", "unused", 5),
        ("idle", "unused", 112),
    ]
    assert anatomy.trainable == sum(parameter.numel() for parameter in model.parameters())


def test_plain_neighbours_make_a_separable_row() -> None:
    anatomy = trace(nn.Sequential(depthwise(3), nn.Identity(), pointwise(3, 8), nn.ReLU()))
    row = anatomy.layers[0]
    assert (row.name, row.kind, row.output) == ("0+2", "separable", (8, 30, 30))
    assert (row.trainable, row.macs) == (27 + 24, (27 + 24) * 30 * 30)


def test_functional_neighbours_make_a_separable_row() -> None:
    model = Net(
        lambda net, x: F.conv2d(F.conv2d(x, net.d, groups=3), net.p),
        d=nn.Parameter(torch.rand(6, 1, 3, 3)),
        p=nn.Parameter(torch.rand(4, 6, 1, 1)),
    )
    assert only(trace(nn.Sequential(model)), "separable").name == "0"


NO_POINTWISE = "depthwise without a pointwise after it"
NO_DEPTHWISE = "pointwise without a depthwise before it"
BEFORE = "pointwise before depthwise"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([conv()], {"0": "plain 3×3 convolution"}),
        ([pointwise(3, 4)], {"0": NO_DEPTHWISE}),
        ([depthwise(3)], {"0": NO_POINTWISE}),
        ([depthwise(3), nn.MaxPool2d(2), pointwise(3, 4)], {"0": NO_POINTWISE, "2": NO_DEPTHWISE}),
        ([nn.Conv2d(3, 4, 1, stride=2)], {"0": "1×1 convolution with a stride or padding"}),
        ([nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 3, groups=4)], {"1": "grouped 3×3 convolution, 4 groups"}),
        ([pointwise(3, 4), depthwise(4)], {"0": BEFORE, "1": NO_POINTWISE}),
        ([pointwise(3, 4), nn.ReLU(), depthwise(4), pointwise(4, 4)], {"0": BEFORE, "2+3": None}),
        ([depthwise(3), nn.BatchNorm2d(3), nn.ReLU(), pointwise(3, 4)], {"0+3": None}),
        ([depthwise(3), pointwise(3, 4), pointwise(4, 4)], {"0+1": None, "2": NO_DEPTHWISE}),
    ],
)
def test_convolutions_are_paired_or_told_why_not(parts: list[nn.Module], expected: dict[str, str | None]) -> None:
    anatomy = trace(nn.Sequential(*parts))
    assert {convolution.name: convolution.reason for convolution in anatomy.convolutions} == expected


def test_layers_between_the_halves_are_named() -> None:
    parts = [depthwise(3), nn.BatchNorm2d(3), nn.ReLU(), pointwise(3, 4)]
    (pair,) = trace(nn.Sequential(*parts)).convolutions
    assert (pair.parts, pair.between) == (("0", "3"), ("1", "2"))
    assert pair.paired
    assert not pair.strict


def test_a_depthwise_used_twice_is_no_pair() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.d(x)
        return net.p(y) + y

    anatomy = trace(Net(forward, d=depthwise(3), p=pointwise(3, 3)))
    assert not any(convolution.paired for convolution in anatomy.convolutions)


@pytest.mark.slow
def test_one_channel_images_pair_as_any_other() -> None:
    anatomy = trace(build("published", image_shape=(1, 28, 28)), (1, 28, 28))
    assert all(convolution.strict for convolution in anatomy.convolutions)
    assert trace(nn.Sequential(nn.Conv2d(1, 8, 3)), (1, 28, 28)).layers[0].kind == "convolution"


def test_dropout_rates() -> None:
    model = Net(lambda net, x: F.dropout(net.d(x), 0.4, training=net.training), d=nn.Dropout2d(0.3))
    assert [layer.dropout_rate for layer in trace(model).layers] == [0.3, 0.4]


IMAGE = 3 * 32 * 32


@pytest.mark.parametrize(
    ("model", "values", "layer"),
    [
        (nn.Sequential(conv(3, 4, padding=1), nn.ReLU(), nn.BatchNorm2d(4)), IMAGE + 4 * 1024, "0"),
        (nn.Sequential(conv(3, 2, padding=1), nn.Flatten(), nn.Linear(2048, 5000)), 2048 + 5000, "2"),
        (nn.Sequential(pointwise(3, 5), depthwise(5, 1), pointwise(5, 2)), 2 * 5 * 1024, "1+2"),
        (Net(lambda net, x: net.c(x) + x, c=conv(3, 3, padding=1)), 3 * IMAGE, "add"),
        (Net(lambda net, x: F.relu(x) + x), 3 * IMAGE, "add"),
        (Net(lambda net, x: torch.cat(x.chunk(3, 1), 1)), 2 * IMAGE, "cat"),
        (Net(lambda net, x: torch.cat(x.chunk(3, 1)[::-1], 1)), 2 * IMAGE, "cat"),
    ],
)
def test_peak_activation(model: nn.Module, values: int, layer: str) -> None:
    peak = trace(model).peak_activation
    assert (peak.values, peak.layer) == (values, layer)


def test_constants_that_build_on_each_other_are_counted_in_one_pass() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        scale = net.gamma
        for _ in range(60):  # 2⁶⁰ ways lead from the product back to the parameter
            scale = (scale + scale) / 2
        return x * scale

    assert counts(trace(Net(forward, gamma=nn.Parameter(torch.ones(3, 1, 1))))) == {"multiply": (3, 0)}
