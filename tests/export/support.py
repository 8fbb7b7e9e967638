"""What the tests of the Keras export share: weights that matter, executed listings, and their outputs."""

import os

os.environ["KERAS_BACKEND"] = "torch"

from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor, nn

from sepnet.anatomy import trace
from sepnet.errors import SepnetError
from sepnet.export.keras.listing import to_source
from sepnet.export.keras.plan import KerasPlan, plan

Array = np.ndarray[Any, np.dtype[np.float32]]


def randomize(model: nn.Module, seed: int = 3) -> nn.Module:
    """Draw all weights anew, so that signals stay alive and no bias, scale or moving statistic is neutral."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.normal_(0, (2 / fan_in) ** 0.5)
            else:
                tensor.uniform_(0.3, 1.2)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.5, 0.5)
            if name.endswith("running_var"):
                buffer.uniform_(0.3, 3.0)
    return model.eval()


def execute(source: str) -> keras.Model:
    """Run a listing as a reader would, and return its ``model``."""
    names: dict[str, Any] = {}
    exec(compile(source, "listing", "exec"), names)
    model: keras.Model = names["model"]
    return model


def in_order_of_creation(model: keras.Model) -> dict[str, list[keras.Layer]]:
    """Return the layers that have weights by class, those made first at the front: Keras numbers their names."""
    found: dict[str, list[keras.Layer]] = {}
    for layer in model.layers:
        if layer.weights:
            found.setdefault(type(layer).__name__, []).append(layer)
    for layers in found.values():
        layers.sort(key=_number)
    return found


def _number(layer: keras.Layer) -> int:
    last = layer.name.rpartition("_")[2]
    return int(last) if last.isdecimal() else 0


def copy_weights(layers: KerasPlan, model: keras.Model) -> None:
    """Give an executed listing the weights of the plan it was written from."""
    made = in_order_of_creation(model)
    for layer in layers.distinct:
        if layer.weights:
            made[layer.kind].pop(0).set_weights(list(layer.weights))
    assert not any(made.values())


def torch_output(model: nn.Module, images: Tensor) -> Array:
    """Return PyTorch's output on images ``(N, C, H, W)``, an image's channels moved last as Keras has them."""
    with torch.no_grad():
        output: Array = model(images.clone()).numpy()
    return output.transpose(0, 2, 3, 1) if output.ndim == 4 else output


def keras_output(model: keras.Model, images: Tensor) -> Array:
    """Return Keras's output on the same images ``(N, C, H, W)``."""
    output = model(images.permute(0, 2, 3, 1).numpy(), training=False)
    array: Array = keras.ops.convert_to_numpy(output)
    return array


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def assert_same(model: nn.Module, image_shape: tuple[int, int, int], tolerance: float = 1e-4) -> str:
    """Execute the listing of a model, compare its counts and outputs with PyTorch's, and return the listing.

    The tolerance is relative to the size of the outputs, where that is above 1.
    """
    layers = plan(model, image_shape)
    source = to_source(layers)
    peer = execute(source)
    copy_weights(layers, peer)
    anatomy = trace(model, image_shape)
    assert (peer.count_params(), trainable(peer)) == (anatomy.parameters, anatomy.trainable)
    images = torch.rand(3, *image_shape, generator=torch.Generator().manual_seed(1)) * 2 - 0.6
    ours, theirs = torch_output(model, images), keras_output(peer, images)
    assert ours.size
    assert ours.size == theirs.size
    np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, atol=tolerance * max(1.0, float(abs(ours).max())))
    return source


def refusal(model: nn.Module, image_shape: tuple[int, int, int], tolerance: float = 1e-4) -> str:
    """Return why a model is refused; empty where it is not, and then its listing gives the same."""
    try:
        assert_same(model, image_shape, tolerance)
    except SepnetError as error:
        return str(error)
    return ""
