"""The networks beside the same ones in Keras: written there by hand, and as sepnet writes them."""

import os

os.environ["KERAS_BACKEND"] = "torch"

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

import sepnet
from sepnet.networks import NETWORKS, build
from sepnet.networks.layers import SeparableConv2d
from tests.export.support import execute, in_order_of_creation, trainable

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras

Array = np.ndarray[Any, np.dtype[np.float32]]


def _base() -> keras.Model:
    """The assignment's base network, its softmax left out."""
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for filters in (48, 96, 192):
        model.add(layers.Conv2D(filters, (3, 3), padding="same"))
        model.add(layers.Activation("relu"))
        model.add(layers.Conv2D(filters, (3, 3)))
        model.add(layers.Activation("relu"))
        model.add(layers.MaxPooling2D(pool_size=(2, 2)))
        model.add(layers.Dropout(0.25))
    model.add(layers.Flatten())
    model.add(layers.Dense(512))
    model.add(layers.Activation("relu"))
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(256))
    model.add(layers.Activation("relu"))
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(10))
    return model


def _published() -> keras.Model:
    """The model definition in the assignment's README, its softmax left out."""
    model = keras.Sequential([keras.Input((32, 32, 3))])

    def separable(filters: int, size: int) -> None:
        model.add(layers.SeparableConv2D(filters, (size, size), padding="same", use_bias=False))
        model.add(layers.Activation("relu"))
        model.add(layers.BatchNormalization())

    def pool() -> None:
        model.add(layers.MaxPool2D(pool_size=(2, 2)))
        model.add(layers.Dropout(0.1))

    separable(48, 3)
    separable(96, 3)
    separable(192, 3)
    separable(32, 1)
    pool()
    separable(48, 3)
    separable(96, 3)
    separable(192, 3)
    separable(32, 1)
    pool()
    separable(48, 3)
    separable(96, 3)
    separable(192, 3)
    pool()
    model.add(layers.SeparableConv2D(10, (1, 1), padding="same", use_bias=False))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(10))
    return model


def _resnet8() -> keras.Model:
    """MLPerf Tiny's ``resnet_v1_eembc``, its softmax left out: biases everywhere, no norm on a shortcut."""
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same")(image)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = layers.Conv2D(filters, 3, strides=strides, padding="same")(x)
        y = layers.BatchNormalization()(y)
        y = layers.Activation("relu")(y)
        y = layers.Conv2D(filters, 3, padding="same")(y)
        y = layers.BatchNormalization()(y)
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides=strides, padding="same")(x)
        x = layers.Activation("relu")(layers.add([x, y]))
    x = layers.AveragePooling2D(pool_size=8)(x)
    x = layers.Flatten()(x)
    return keras.Model(image, layers.Dense(10)(x))


KERAS: dict[str, Callable[[], keras.Model]] = {"base": _base, "published": _published, "resnet8": _resnet8}


def _listing(network: str) -> keras.Model:
    return execute(sepnet.keras_definition(network))


def _counts(model: nn.Module) -> tuple[int, int]:
    """Return Keras's total and how much of it is trained."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    trained = sum(parameter.numel() for parameter in model.parameters())
    return trained + sum(2 * norm.num_features for norm in norms), trained


@pytest.mark.slow
@pytest.mark.parametrize(("network", "total"), [("base", 1_172_410), ("published", 96_009), ("resnet8", 78_666)])
def test_counts_are_kerass(network: str, total: int) -> None:
    for peer in (KERAS[network](), _listing(network)):
        assert peer.count_params() == total
        assert (peer.count_params(), trainable(peer)) == _counts(build(network))


def test_counts_of_the_champions_listing() -> None:
    peer = _listing("champion")
    assert (peer.count_params(), trainable(peer)) == _counts(build("champion"))


def _randomize(model: nn.Module) -> None:
    """Draw weights that keep the signal alive, biases that matter, and moving statistics far from 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.2, 0.2)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3.0)


def _kernel(module: nn.Conv2d | nn.Linear, before_flatten: tuple[int, int, int]) -> Array:
    """Return a kernel as Keras lays it out."""
    kernel = module.weight.detach()
    if isinstance(module, nn.Linear):
        channels, height, width = before_flatten
        if module.in_features == channels * height * width > channels:
            # PyTorch flattens (C, H, W), Keras (H, W, C).
            kernel = kernel.view(-1, channels, height, width).permute(0, 2, 3, 1).flatten(1)
        return kernel.T.numpy()
    if module.groups > 1:  # depthwise (C · multiplier, 1, H, W) to (H, W, C, multiplier)
        return kernel.view(module.groups, -1, *module.kernel_size).permute(2, 3, 0, 1).numpy()
    return kernel.permute(2, 3, 1, 0).numpy()  # (out, in, H, W) to (H, W, in, out)


def _copy(model: nn.Module, peer: keras.Model, before_flatten: tuple[int, int, int]) -> None:
    """Give the layers of each kind in Keras, in the order they were made, the tensors of that kind in PyTorch."""
    waiting = in_order_of_creation(peer)
    halves = [half for module in model.modules() if isinstance(module, SeparableConv2d) for half in module]
    for module in model.modules():
        if isinstance(module, SeparableConv2d):
            kernels = [_kernel(module.depthwise, before_flatten), _kernel(module.pointwise, before_flatten)]
            waiting["SeparableConv2D"].pop(0).set_weights(kernels)
        elif isinstance(module, nn.BatchNorm2d):
            tensors = [module.weight, module.bias, module.running_mean, module.running_var]
            waiting["BatchNormalization"].pop(0).set_weights([t.detach().numpy() for t in tensors if t is not None])
        elif isinstance(module, nn.Conv2d | nn.Linear) and module not in halves:
            bias = [] if module.bias is None else [module.bias.detach().numpy()]
            kind = "Dense" if isinstance(module, nn.Linear) else "Conv2D"
            waiting[kind].pop(0).set_weights([_kernel(module, before_flatten), *bias])
    assert not any(waiting.values())


def _assert_same_logits(model: nn.Module, peer: keras.Model, before_flatten: tuple[int, int, int]) -> None:
    _randomize(model)
    _copy(model, peer, before_flatten)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        ours = model(images).numpy()
    theirs = keras.ops.convert_to_numpy(peer(images.permute(0, 2, 3, 1).numpy(), training=False))
    assert ours.std(axis=0).min() > 1e-2, "the images have to make a difference"
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


BEFORE_FLATTEN = {"base": (192, 2, 2)}
"""What the flatten takes, where a network has one."""


@pytest.mark.parametrize("network", KERAS)
def test_the_same_weights_give_the_same_logits(network: str) -> None:
    torch.manual_seed(3)
    _assert_same_logits(build(network).eval(), KERAS[network](), BEFORE_FLATTEN.get(network, (1, 1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_weights_give_the_listings_logits(network: str) -> None:
    torch.manual_seed(3)
    _assert_same_logits(build(network).eval(), _listing(network), BEFORE_FLATTEN.get(network, (1, 1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["base", "published"])
def test_listings_are_what_was_written_by_hand(network: str) -> None:
    def settings(model: keras.Model) -> list[tuple[str, dict[str, Any]]]:
        every = [(type(layer).__name__, layer.get_config()) for layer in model.layers]
        return [(kind, {key: value for key, value in config.items() if key != "name"}) for kind, config in every]

    assert settings(_listing(network)) == settings(KERAS[network]())
