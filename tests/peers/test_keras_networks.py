"""The assignment's networks beside the same networks written in Keras, layer for layer."""

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

from sepnet.networks import build

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
    """MLPerf Tiny's ``resnet_v1_eembc``: biases in every convolution, no norm on a shortcut."""
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


def _keras_trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize(("network", "total"), [("base", 1_172_410), ("published", 96_009), ("resnet8", 78_666)])
def test_counts_are_kerass(network: str, total: int) -> None:
    peer, model = KERAS[network](), build(network)
    statistics = [b for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
    trainable = sum(parameter.numel() for parameter in model.parameters())
    assert peer.count_params() == total
    assert _keras_trainable(peer) == trainable
    assert peer.count_params() == trainable + sum(buffer.numel() for buffer in statistics)


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


def _kernels(module: nn.Module, image_before_flatten: tuple[int, int, int]) -> list[Array]:
    """Return one PyTorch layer's tensors as Keras lays them out."""
    if isinstance(module, nn.BatchNorm2d):
        tensors = [module.weight, module.bias, module.running_mean, module.running_var]
        return [tensor.detach().numpy() for tensor in tensors if tensor is not None]
    assert isinstance(module, nn.Conv2d | nn.Linear)
    kernel = module.weight.detach()
    if isinstance(module, nn.Linear):
        channels, height, width = image_before_flatten
        if module.in_features == channels * height * width > channels:
            # PyTorch flattens (C, H, W), Keras (H, W, C).
            kernel = kernel.view(-1, channels, height, width).permute(0, 2, 3, 1).flatten(1)
        kernel = kernel.T
    elif module.groups > 1:
        kernel = kernel.permute(2, 3, 0, 1)  # (C, 1, H, W) to (H, W, C, 1)
    else:
        kernel = kernel.permute(2, 3, 1, 0)  # (out, in, H, W) to (H, W, in, out)
    return [np.ascontiguousarray(kernel.numpy())] + ([] if module.bias is None else [module.bias.detach().numpy()])


@pytest.mark.parametrize(("network", "before_flatten"), [("base", (192, 2, 2)), ("published", (10, 1, 1))])
def test_the_same_weights_give_the_same_logits(network: str, before_flatten: tuple[int, int, int]) -> None:
    torch.manual_seed(3)
    model, peer = build(network).eval(), KERAS[network]()
    _randomize(model)
    tensors = [
        tensor
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d)
        for tensor in _kernels(module, before_flatten)
    ]
    peer.set_weights(tensors)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        ours = model(images).numpy()
    theirs = keras.ops.convert_to_numpy(peer(images.permute(0, 2, 3, 1).numpy(), training=False))
    assert ours.std(axis=0).min() > 1e-2, "the images have to make a difference"
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
