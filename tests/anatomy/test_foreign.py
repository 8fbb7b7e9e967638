"""Networks written by others: every layer's field against the gradient, and what the rows say."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sepnet.anatomy import Anatomy, Layer, trace

from .foreign import FOREIGN
from .support import gradient_support, make_positive, summing_max_pools, unit

IMAGES = {"LeNet": (3, 32, 32), "SqueezeNet": (3, 63, 59)}


def image_for(name: str) -> tuple[int, int, int]:
    """Return an image whose last row and column the strides reach, so that clipping is exact."""
    return IMAGES.get(name, (3, 64, 60))


def outputs_of(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return what each module gave the first time it was called."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Tensor) -> None:
            found.setdefault(path, output.clone())

        return hook

    hooks = [module.register_forward_hook(keep(path)) for path, module in model.named_modules()]
    with summing_max_pools():
        model(image)
    for hook in hooks:
        hook.remove()
    return found


def last_row_of(anatomy: Anatomy, path: str) -> Layer | None:
    """Return the row of a module, or the last of the rows of what it called."""
    prefix = f"{path}." if path else ""
    rows = [layer for layer in anatomy.layers if f"{layer.name}.".startswith(prefix)]
    is_half_of_a_pair = path and any("+" in layer.name for layer in rows)
    return rows[-1] if rows and not is_half_of_a_pair else None


def assert_sees(layer: Layer, output: Tensor, image: Tensor) -> None:
    """Compare the row's interval, clipped to the image, with the gradient's support for a central unit."""
    channels_last = output.ndim == 4 and tuple(output.shape[1:]) != layer.output
    sizes = [1, 1] if output.ndim < 4 else list(output.shape[1:3] if channels_last else output.shape[2:])
    place = [size // 2 for size in sizes]
    expected = tuple(
        (max(low, 0), min(low + field - 1, pixels - 1))
        for start, jump, index, field, pixels in zip(
            layer.start, layer.jump, place, layer.receptive_field, image.shape[2:], strict=True
        )
        for low in [start + jump * index]
    )
    assert gradient_support(unit(output, *place, channels_last=channels_last), image) == expected, layer.name


@pytest.mark.parametrize("name", FOREIGN)
def test_every_layer_sees_what_its_gradient_says(name: str) -> None:
    model = make_positive(FOREIGN[name]())
    anatomy = trace(model, image_for(name))
    image = torch.rand(1, *image_for(name), dtype=torch.float64).requires_grad_()
    outputs = outputs_of(model, image)
    rows = {path: last_row_of(anatomy, path) for path in outputs}
    checked = {path: row for path, row in rows.items() if row is not None and row.kind != "flatten"}
    assert len(checked) >= 3
    for path, row in checked.items():
        assert_sees(row, outputs[path], image)


@pytest.mark.parametrize("name", FOREIGN)
def test_columns_add_up_to_the_whole_model(name: str) -> None:
    model = FOREIGN[name]()
    anatomy = trace(model, image_for(name))
    buffers = sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())
    assert anatomy.trainable == sum(parameter.numel() for parameter in model.parameters())
    assert anatomy.non_trainable == buffers
    assert not [layer for layer in anatomy.layers if layer.kind == "unused"]


def kinds(anatomy: Anatomy) -> list[str]:
    return [layer.kind for layer in anatomy.layers]


def test_lenet_functional_layers_have_rows() -> None:
    anatomy = trace(FOREIGN["LeNet"]())
    assert kinds(anatomy) == [
        *("convolution", "relu", "max pool", "convolution", "relu", "max pool", "flatten"),
        *("dense", "relu", "dense", "relu", "dropout", "dense"),
    ]
    assert [layer.receptive_field for layer in anatomy.layers[:7]] == [(n, n) for n in (5, 5, 6, 14, 14, 16, 16)]
    assert anatomy.layers[7].receptive_field == (32, 32)
    assert anatomy.layers[11].dropout_rate == 0.4


def test_mobilenet_pairs_and_expansions() -> None:
    anatomy = trace(FOREIGN["MobileNetV2"]())
    pairs = [convolution for convolution in anatomy.convolutions if convolution.paired]
    alone = {convolution.name: convolution.reason for convolution in anatomy.convolutions if not convolution.paired}
    assert len(pairs) == 4
    assert not any(pair.strict for pair in pairs)
    assert pairs[1].parts == ("features.2.conv.3", "features.2.conv.6")
    assert pairs[1].between == ("features.2.conv.4", "features.2.conv.5")
    assert alone == {
        "features.0.0": "plain 3×3 convolution",
        "features.2.conv.0": "pointwise before depthwise",
        "features.3.conv.0": "pointwise before depthwise",
        "features.4.conv.0": "pointwise before depthwise",
    }


def test_shuffle_is_exact_and_has_no_row_of_its_own() -> None:
    anatomy = trace(FOREIGN["ShuffleNet"](), (3, 64, 64))
    concats = [layer for layer in anatomy.layers if layer.kind == "concat"]
    assert [layer.output for layer in concats] == [(16, 8, 8), (16, 8, 8)]
    assert [layer.jump for layer in concats] == [(8, 8), (8, 8)]


def test_layer_scale_counts_at_its_multiplication() -> None:
    anatomy = trace(FOREIGN["ConvNeXt"]())
    scale = next(layer for layer in anatomy.layers if layer.kind == "multiply")
    assert (scale.name, scale.trainable) == ("blocks.0.multiply", 6)
    assert scale.output == (6, 16, 16)


def test_gate_sees_the_whole_image_from_there_on() -> None:
    anatomy = trace(FOREIGN["SENet"](), (3, 31, 31))
    gated = next(layer for layer in anatomy.layers if layer.kind == "multiply")
    assert gated.jump == (0, 0)
    assert gated.receptive_field == (33, 33)
    last = next(layer for layer in anatomy.layers if layer.name == "conv3")
    assert (last.jump, last.receptive_field) == ((0, 0), (33, 33))


def test_pair_of_a_functional_and_a_module_convolution() -> None:
    anatomy = trace(FOREIGN["TensorFlowPadded"]())
    pair = next(layer for layer in anatomy.layers if layer.kind == "separable")
    assert pair.name == "depthwise.conv2d+pointwise"
    assert pair.trainable == 6 * 16 + 6 * 8 + 8
    (entry,) = (convolution for convolution in anatomy.convolutions if convolution.paired)
    assert entry.strict
