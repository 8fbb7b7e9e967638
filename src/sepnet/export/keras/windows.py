"""Convolutions and pooling in Keras: where the two libraries place their windows differently."""

from math import prod
from typing import Any

import numpy as np

from sepnet.anatomy.graph import Operation
from sepnet.anatomy.windows import Window, windows
from sepnet.export.keras.builder import Builder
from sepnet.export.keras.tensor import Held, Inexpressible, Sides, Weight, natural


def convolution(build: Builder, op: Operation) -> Held:
    """Add a convolution: separable, depthwise, grouped or plain."""
    (kernel,), biases = build.weights(op, "weight"), build.weights(op, "bias")
    if kernel.array.ndim != 4:
        raise Inexpressible("it does not slide over height and width", "use a two-dimensional convolution")
    value, shape, filters = op.input, op.shape[1:], len(kernel.array)
    weights = [Weight(kernel.source, kernel.array.transpose(2, 3, 1, 0)), *biases]
    biased: dict[str, Any] = {"use_bias": bool(biases)}
    half = build.before(value, "DepthwiseConv2D")
    paired = half is not None and build.pairs.get(build.operation) is half.operation and "use_bias" in half.settings
    if half and paired and half.sources[0].requires_grad == kernel.source.requires_grad:
        settings = {"filters": filters, **half.settings, **biased}
        depthwise = Weight(half.sources[0], half.weights[0])
        return build.layer("SeparableConv2D", [build.held[half.inputs[0]]], shape, [depthwise, *weights], **settings)
    base, found = _over(build, value)
    sides, strides, dilation = [tuple(column) for column in zip(*found, strict=True)][2:5]
    if max(strides) > 1 and max(dilation) > 1:
        raise Inexpressible(
            f"it has stride {max(strides)} and dilation {max(dilation)}, of which Keras takes only one at a time",
            "give it one of the two",
        )
    base, padding = _placed(build, base, found, 0.0)
    settings = {"kernel_size": sides, "strides": strides, "padding": padding, "dilation_rate": dilation}
    inputs, groups = base.shape[0], int(op["groups"])
    alone = groups == inputs and (groups > 1 or build.operation in build.pairs.values())
    if not alone or strides[0] != strides[1]:
        return build.layer("Conv2D", [base], shape, weights, filters=filters, **settings, groups=groups, **biased)
    weights = [Weight(kernel.source, kernel.array.reshape(inputs, -1, *sides).transpose(2, 3, 0, 1)), *biases]
    settings |= {"depth_multiplier": filters // inputs, **biased}
    return build.layer("DepthwiseConv2D", [base], shape, weights, **settings)


def max_pool(build: Builder, op: Operation) -> Held:
    """Add max pooling; Keras, too, pads it with minus infinity."""
    found = windows(build.operation)
    if any(window.dilation > 1 for window in found):
        raise Inexpressible("its windows are dilated, which Keras's pooling has not", "use dilation 1")
    base, padding = _placed(build, build.image(op.input), found, float("-inf"))
    return _pool(build, op, "MaxPool2D", base, found, padding)


def average_pool(build: Builder, op: Operation) -> Held:
    """Add average pooling.

    PyTorch divides by the window's size, its own padding included unless told otherwise, but not what
    ``ceil_mode`` reaches beyond; Keras's ``'same'`` leaves all padding out.
    """
    base, found, divisor = build.image(op.input), windows(build.operation), op["divisor_override"]
    padding, area = _mode(found), prod(window.kernel for window in found)
    counted = bool(op["count_include_pad"]) and any(window.before for window in found)
    zeros_count = counted and all(window.reach <= window.after for window in found)
    if padding != "valid" and (divisor or zeros_count):
        base, padding = zeros_around(build, base, _around(found)), "valid"
    elif padding is None or (padding == "same" and (counted or not _agreed(found))):
        raise Inexpressible(
            "its windows reach over the edge and divide by a count that Keras does not",
            "pad before it, or choose a kernel and stride that fit",
        )
    pooled = _pool(build, op, "AveragePooling2D", base, found, padding)
    return build.apply("Rescaling", pooled, scale=area / divisor) if divisor and divisor != area else pooled


def adaptive_pool(build: Builder, op: Operation) -> Held:
    """Add adaptive pooling to one position, or to a divisor of the input's."""
    base, found, average = build.image(op.input), windows(build.operation), "avg" in op.name
    if all(window.out == 1 for window in found):
        return whole_image(build, base, "Average" if average else "Max", op.shape[1:])
    if any(window.size % window.out for window in found):
        raise Inexpressible("it pools to more positions than there are", "pool to a divisor")
    return _pool(build, op, "AveragePooling2D" if average else "MaxPool2D", base, found, "valid")


def whole_image(build: Builder, value: Held, kind: str, shape: tuple[int, ...]) -> Held:
    """Add pooling over all positions, which leaves the channels alone in Keras."""
    return build.layer(f"Global{kind}Pooling2D", [value], shape, index=np.arange(value.shape[0]))


def zeros_around(build: Builder, value: Held, zeros: Sides) -> Held:
    """Add zeros around an image, which a convolution may take over."""
    rows, columns = zeros
    shape = (value.shape[0], value.shape[1] + sum(rows), value.shape[2] + sum(columns))
    short = (rows[0], columns[0]) if rows[0] == rows[1] and columns[0] == columns[1] else zeros
    return build.once("ZeroPadding2D", value, shape, natural(shape), padding=short)


def pad_by(build: Builder, value: Held, sides: Sides, **settings: Any) -> Held:
    """Add ``keras.ops.pad``: positions before and after each dimension but the batch."""
    shape = tuple(size + sum(pair) for size, pair in zip(value.shape, sides, strict=True))
    width = ((0, 0), *sides[1:], sides[0]) if len(sides) == 3 else ((0, 0), *sides)
    return build.once("ops.pad", value, shape, natural(shape), pad_width=width, **settings)


def _over(build: Builder, value: Held) -> tuple[Held, list[Window]]:
    """Return the image that a convolution works on, and its windows there, which take over zeros around the image."""
    value, own = build.image(value), windows(build.operation)
    padding = build.before(value, "ZeroPadding2D")
    if padding is None:
        return value, own
    base = build.held[padding.inputs[0]]
    zeros = [(side, side) if isinstance(side, int) else side for side in padding.settings["padding"]]
    around = zip(own, base.shape[1:], zeros, strict=True)
    return base, [one._replace(size=n, before=one.before + b, after=one.after + a) for one, n, (b, a) in around]


def _placed(build: Builder, base: Held, found: list[Window], filling: float) -> tuple[Held, str]:
    """Return the image, padded where need be, and the padding by which Keras places the windows as PyTorch does."""
    padding = _mode(found)
    if padding is not None:
        return base, padding
    if filling:
        return pad_by(build, base, ((0, 0), *_around(found)), constant_values=filling), "valid"
    return zeros_around(build, base, _around(found)), "valid"


def _around(found: list[Window]) -> Sides:
    return tuple((window.before, max(window.after, window.reach)) for window in found)


def _mode(found: list[Window]) -> str | None:
    """Return Keras's padding; ``'same'`` for 1×1, where both are one, as the assignment writes it."""
    same = all(map(_is_same, found))
    if same and all(window.kernel == 1 for window in found):
        return "same"
    if all(window.before == 0 and window.reach <= 0 for window in found):
        return "valid"
    return "same" if same else None


def _is_same(window: Window) -> bool:
    """Whether the windows lie as by Keras's ``padding='same'``: the odd position comes after the last."""
    out = -(-window.size // window.stride)
    total = max((out - 1) * window.stride + (window.kernel - 1) * window.dilation + 1 - window.size, 0)
    return (window.out, window.before, max(window.reach, 0)) == (out, total // 2, total - total // 2)


def _agreed(found: list[Window]) -> bool:
    """Say whether Keras's backends agree on ``'same'``.

    Its PyTorch backend repeats the edge where the two sides differ, which is right only for windows of two.
    """
    alike = all(window.before == max(window.reach, 0) for window in found)
    return alike or all(window.reach <= window.before == 0 or window.kernel == 2 for window in found)


def _pool(build: Builder, op: Operation, kind: str, base: Held, found: list[Window], padding: str) -> Held:
    sides, strides = tuple(window.kernel for window in found), tuple(window.stride for window in found)
    settings: dict[str, Any] = {"pool_size": sides} | ({} if strides == sides else {"strides": strides})
    return build.layer(kind, [base], op.shape[1:], **settings, padding=padding)
