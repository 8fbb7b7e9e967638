"""Listings, executed in real Keras: counts and outputs are PyTorch's, and each line says what anatomy says."""

import itertools
import re

import pytest
import torch
from torch import Tensor, nn

import sepnet
from sepnet.networks import NETWORKS, build
from tests.anatomy.foreign import FOREIGN

from .support import assert_same, randomize

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras

COMMENT = re.compile(r"# Receptive field (\d+)x(\d+), output size ([\dx]+)$")


def comments(source: str) -> list[tuple[tuple[int, int], tuple[int, ...]]]:
    """Return what the layers' comments say: receptive field, output size."""
    found = [match for line in source.splitlines() if (match := COMMENT.search(line))]
    return [((int(a), int(b)), tuple(int(size) for size in sizes.split("x"))) for a, b, sizes in map(_groups, found)]


def _groups(match: re.Match[str]) -> tuple[str, str, str]:
    return match[1], match[2], match[3]


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], shape[0])


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("image_shape", "classes"), [((3, 32, 32), 10), ((3, 33, 47), 10), ((1, 47, 40), 3), ((4, 46, 34), 7)]
)
def test_own_networks_give_the_same(network: str, image_shape: tuple[int, int, int], classes: int) -> None:
    model = randomize(build(network, classes=classes, image_shape=image_shape))
    assert_same(model, image_shape, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [31, 33, 45, 64])
@pytest.mark.parametrize("network", ["champion", "resnet8"])
def test_strides_at_odd_and_even_sizes(network: str, size: int) -> None:
    shape = (3, size, size + 1)
    assert_same(randomize(build(network, image_shape=shape)), shape, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREIGN)
def test_networks_of_others_give_the_same(name: str) -> None:
    assert_same(randomize(FOREIGN[name]()), (3, 32, 32))
    if name != "LeNet":
        assert_same(randomize(FOREIGN[name]()), (3, 51, 38))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["base", "published"])
def test_each_line_says_what_the_summary_says(network: str) -> None:
    rows = sepnet.summary(network).layers
    expected = [(row.receptive_field, channels_last(row.output)) for row in rows]
    assert comments(sepnet.keras_definition(network)) == expected


@pytest.mark.parametrize("network", ["champion", "resnet8"])
def test_lines_of_residual_networks_are_among_the_summarys(network: str) -> None:
    rows = sepnet.summary(network).layers
    expected = {(row.receptive_field, channels_last(row.output)) for row in rows if row.kind != "pad"}
    found = comments(sepnet.keras_definition(network))
    assert expected <= set(found)


def test_published_is_the_assignments_listing() -> None:
    source = sepnet.keras_definition("published")
    lines = [line for line in source.splitlines() if "SeparableConv2D(" in line or "MaxPool2D(" in line]
    fields = [int(match[1]) for line in lines if (match := COMMENT.search(line))]
    assert fields == [3, 5, 7, 7, 8, 12, 16, 20, 20, 22, 30, 38, 46, 50, 50]
    assert lines[0].startswith(
        "model.add(SeparableConv2D(filters=48, kernel_size=(3, 3), padding='same', use_bias=False))  # Receptive "
    )
    assert source.count("BatchNormalization()") == 11
    assert source.count("model.add(Dropout(0.1))") == 3


def test_resnet8_pads_as_its_reference_does() -> None:
    source = sepnet.keras_definition("resnet8")
    assert source.count("strides=(2, 2), padding='same'") == 4
    assert "ZeroPadding2D" not in source


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_layer_has_its_comment_and_lines_are_readable(network: str) -> None:
    source = sepnet.keras_definition(network)
    assert source == sepnet.keras_definition(network)
    lines = source.splitlines()
    assert max(map(len, lines)) <= 150
    layer = re.compile(r"model\.add\(|(x|y|skip\d+) = ")
    layers = [(before, line) for before, line in itertools.pairwise(lines) if layer.match(line)]
    assert len(layers) >= 20
    alone = [line for before, line in layers if not COMMENT.search(line) and not COMMENT.match(before)]
    assert alone == ["model.add(Input(shape=(32, 32, 3)))"] * ("Sequential" in source)


def test_a_flattened_value_keeps_its_order_through_what_follows() -> None:
    features = 5 * 4 * 3
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.Flatten(),
        nn.BatchNorm1d(features),
        nn.PReLU(features),
        nn.Dropout(0.2),
        nn.LayerNorm(features),
        nn.Linear(features, 4),
    )
    source = assert_same(randomize(model), (3, 6, 5))
    assert "Permute" not in source
    assert "Reshape" not in source


def test_a_network_that_ends_in_its_flattened_values_gives_them_in_its_own_order() -> None:
    assert_same(randomize(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten())), (3, 6, 5))


def test_a_layer_called_twice_is_one_layer_in_keras() -> None:
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    source = assert_same(randomize(nn.Sequential(convolution, nn.Tanh(), convolution)), (3, 6, 5))
    assert source.count("Conv2D(") == 1
    assert source.count("shared1(") == 2


def test_layers_are_listed_in_the_order_of_their_first_call() -> None:
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    assert_same(randomize(nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), first)), (3, 6, 5))


def test_a_concatenation_of_one_tensor_is_no_layer() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(5, 2, 1)])

        def forward(self, x: Tensor) -> Tensor:
            found = [x]
            for block in self.blocks:
                found.append(block(torch.cat(found, 1)))
            return torch.cat(found, 1)

    assert assert_same(randomize(Dense()), (3, 6, 5)).count("Concatenate()") == 2


def test_frozen_layers_are_counted_as_such() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    for parameter in model[:2].parameters():
        parameter.requires_grad_(False)
    source = assert_same(randomize(model), (3, 6, 5))
    assert source.count("trainable=False") == 2


@pytest.mark.parametrize(
    ("last", "loss"),
    [(nn.Softmax(1), "SparseCategoricalCrossentropy()"), (nn.Identity(), "(from_logits=True)")],
)
def test_the_loss_knows_whether_the_network_ends_in_a_softmax(last: nn.Module, loss: str) -> None:
    source = assert_same(randomize(nn.Sequential(nn.Flatten(), nn.Linear(30, 4), last)), (3, 2, 5))
    assert f"loss={loss}" in source or f"SparseCategoricalCrossentropy{loss}" in source


def test_parameters_without_effect_are_said_to_be_left_out() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 4))
    model.register_parameter("spare", nn.Parameter(nn.Linear(7, 1).weight.detach()))
    assert "# Left out: 7 parameters" in sepnet.keras_definition(model, image_shape=(3, 2, 5))
