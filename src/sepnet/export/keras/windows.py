"""Convolutions and pooling in Keras: where the two libraries place their windows differently."""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np

from sepnet.export.keras.builder import Builder, Call, Weight
from sepnet.export.keras.padding import Zeros, ops_pad, zeros_around
from sepnet.export.keras.tensor import Constant, Depthwise, Held, Inexpressible, Padding, channels_last

NONE: Zeros = ((0, 0), (0, 0))


class Window(NamedTuple):
    """A window along one axis of ``size`` positions, of which it makes ``out``."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    before: int

    @property
    def reach(self) -> int:
        """How far the last window reaches over the end; negative where it stops short of it."""
        return (self.out - 1) * self.stride + (self.kernel - 1) * self.dilation + 1 - self.size - self.before

    @property
    def is_valid(self) -> bool:
        """Whether no window reaches over an end."""
        return self.before == 0 and self.reach <= 0

    @property
    def is_same(self) -> bool:
        """Whether the windows lie as by Keras's ``padding='same'``: the odd position comes after the last."""
        extent = (self.kernel - 1) * self.dilation + 1
        out = -(-self.size // self.stride)
        total = max((out - 1) * self.stride + extent - self.size, 0)
        return (self.out, self.before, max(self.reach, 0)) == (out, total // 2, total - total // 2)


def convolution(build: Builder, call: Call) -> Held:
    """Add a convolution: separable, depthwise, grouped or plain."""
    kernel, bias = build.constant(call, "weight"), build.constant(call, "bias")
    assert kernel is not None
    if kernel.tensor.ndim != 4:
        raise Inexpressible("it does not slide over height and width", "use a two-dimensional convolution")
    value = call.input
    if isinstance(value.waiting, Depthwise):
        if value.waiting.kernel.source.requires_grad == kernel.source.requires_grad:
            return _separable(build, call, value.waiting, kernel, bias)
        value = build.settle(value)
    strides, dilation = _two(call["stride"]), _two(call["dilation"])
    sides = tuple(kernel.tensor.shape[2:])
    dilation = tuple(1 if side == 1 else step for side, step in zip(sides, dilation, strict=True))
    if max(strides) > 1 and max(dilation) > 1:
        raise Inexpressible(
            f"it has stride {max(strides)} and dilation {max(dilation)}, of which Keras takes only one at a time",
            "give it one of the two",
        )
    base, zeros = _base(build, value)
    zeros = _sum(zeros, _own_padding(call, sides, dilation))
    base, padding = _placed(build, call.output, base, zeros, sides, strides, dilation)
    settings = {"kernel_size": sides, "strides": strides, "padding": padding, "dilation_rate": dilation}
    return _convolve(build, call, base, kernel, bias, settings)


def _convolve(
    build: Builder, call: Call, base: Held, kernel: Constant, bias: Constant | None, settings: dict[str, Any]
) -> Held:
    filters, groups, inputs = len(kernel.tensor), int(call["groups"]), base.shape[0]
    index, shape = channels_last(call.output[1:]), call.output[1:]
    array = kernel.array.transpose(2, 3, 1, 0)
    biases = [] if bias is None else [Weight(bias.source, bias.array)]
    alone = groups == inputs and (groups > 1 or build.begins_pair) and settings["strides"][0] == settings["strides"][1]
    if alone:
        multiplier = filters // inputs
        array = kernel.array.reshape(inputs, multiplier, *kernel.array.shape[2:]).transpose(2, 3, 0, 1)
        settings = {**settings, "depth_multiplier": multiplier}
        if build.begins_pair and bias is None:
            half = Depthwise(base, settings, kernel, array)
            build.placed.add(id(kernel.source))
            return Held(base.number, shape, index, build.field.receptive_field, half)
        kind = "DepthwiseConv2D"
    else:
        kind = "Conv2D"
        settings = {"filters": filters, **settings, "groups": groups}
    weights = [Weight(kernel.source, array), *biases]
    return build.layer(kind, [base], index, shape, weights, **settings, use_bias=bias is not None)


def _separable(build: Builder, call: Call, half: Depthwise, kernel: Constant, bias: Constant | None) -> Held:
    weights = [Weight(half.kernel.source, half.array), Weight(kernel.source, kernel.array.transpose(2, 3, 1, 0))]
    weights += [] if bias is None else [Weight(bias.source, bias.array)]
    settings = {"filters": len(kernel.tensor), **half.settings, "use_bias": bias is not None}
    shape = call.output[1:]
    return build.layer("SeparableConv2D", [half.base], channels_last(shape), shape, weights, **settings)


def max_pool(build: Builder, call: Call) -> Held:
    """Add max pooling; Keras, too, pads it with minus infinity."""
    if _two(call["dilation"]) != (1, 1):
        raise Inexpressible("its windows are dilated, which Keras's pooling has not", "use dilation 1")
    base = build.image(call.input)
    sides, strides = _sides(call)
    zeros = tuple((side, side) for side in _two(call["padding"]))
    windows = _windows(base, call.output, zeros, sides, strides)
    padding = _mode(windows)
    if padding is None:
        around = [(window.before, max(window.reach, 0)) for window in windows]
        base = ops_pad(build, base, around, constant_values=float("-inf"))
    return _pool(build, call, "MaxPool2D", base, sides, strides, padding)


def average_pool(build: Builder, call: Call) -> Held:
    """Add average pooling.

    PyTorch divides by the window's size, its own padding included unless told otherwise, but not what
    ``ceil_mode`` reaches beyond; Keras's ``'same'`` leaves all padding out.
    """
    base = build.image(call.input)
    sides, strides = _sides(call)
    own = _two(call["padding"])
    windows = _windows(base, call.output, tuple((side, side) for side in own), sides, strides)
    divisor = call["divisor_override"]
    padding = _mode(windows)
    if padding == "valid":
        pooled = _pool(build, call, "AveragePooling2D", base, sides, strides, padding)
    elif divisor or _counts_all(call, windows, own):
        around = tuple((window.before, max(window.reach, 0)) for window in windows)
        padded = build.settle(zeros_around(base, around))
        pooled = _pool(build, call, "AveragePooling2D", padded, sides, strides, "valid")
    elif padding == "same" and not _counts_some(call, own) and _agreed(windows):
        pooled = _pool(build, call, "AveragePooling2D", base, sides, strides, padding)
    else:
        raise Inexpressible(
            "its windows reach over the edge and divide by a count that Keras does not",
            "pad before it, or choose a kernel and stride that fit",
        )
    if divisor and divisor != prod(sides):
        pooled = build.layer("Rescaling", [pooled], pooled.index, pooled.shape, scale=prod(sides) / divisor)
    return pooled


def _counts_some(call: Call, own: tuple[int, ...]) -> bool:
    return bool(call["count_include_pad"]) and max(own) > 0


def _counts_all(call: Call, windows: list[Window], own: tuple[int, ...]) -> bool:
    """Say whether zeros stand for all positions beyond the edges."""
    inside = all(window.reach <= side for window, side in zip(windows, own, strict=True))
    return _counts_some(call, own) and inside


def _agreed(windows: list[Window]) -> bool:
    """Say whether Keras's backends agree on ``'same'``.

    Its PyTorch backend repeats the edge where the two sides differ, which is right only for windows of two.
    """
    sides = [(window.before, max(window.reach, 0), window.kernel) for window in windows]
    return all(before == after for before, after, _ in sides) or all(
        (before, after) == (0, 0) or kernel == 2 for before, after, kernel in sides
    )


def adaptive_pool(build: Builder, call: Call) -> Held:
    """Add adaptive pooling to one position, or to a divisor of the input's."""
    base, shape = build.image(call.input), call.output[1:]
    kind: Literal["Average", "Max"] = "Average" if "avg" in call.name else "Max"
    if shape[1:] == (1, 1):
        return whole_image(build, base, kind, shape)
    sides = tuple(size // out for size, out in zip(base.shape[1:], shape[1:], strict=True))
    if any(size % out for size, out in zip(base.shape[1:], shape[1:], strict=True)):
        raise Inexpressible("it pools to more positions than there are", "pool to a divisor")
    return _pool(build, call, "AveragePooling2D" if kind == "Average" else "MaxPool2D", base, sides, sides, "valid")


def whole_image(build: Builder, value: Held, kind: Literal["Average", "Max"], shape: tuple[int, ...]) -> Held:
    """Add pooling over all positions, which leaves the channels alone in Keras."""
    return build.layer(f"Global{kind}Pooling2D", [value], np.arange(value.shape[0]), shape)


def _base(build: Builder, value: Held) -> tuple[Held, Zeros]:
    """Return the image that a convolution works on, and the zeros around it that it may take over."""
    if isinstance(value.waiting, Padding):
        return value.waiting.base, value.waiting.zeros
    return build.image(value), NONE


def _placed(
    build: Builder, output: Any, base: Held, zeros: Zeros, sides: Any, strides: Any, dilation: Any
) -> tuple[Held, str]:
    """Return the image and the padding by which Keras places the windows as PyTorch does."""
    padding = _mode(_windows(base, output, zeros, sides, strides, dilation))
    if padding is None:
        return build.settle(zeros_around(base, zeros)), "valid"
    return base, padding


def _windows(base: Held, output: Any, zeros: Zeros, sides: Any, strides: Any, dilation: Any = (1, 1)) -> list[Window]:
    shape = output[1:]
    settings = zip(base.shape[1:], shape[1:], sides, strides, dilation, [before for before, _ in zeros], strict=True)
    return [Window(*setting) for setting in settings]


def _mode(windows: list[Window]) -> str | None:
    """Return Keras's padding; ``'same'`` for 1×1, where both are one, as the assignment writes it."""
    same = all(window.is_same for window in windows)
    if same and all(window.kernel == 1 for window in windows):
        return "same"
    if all(window.is_valid for window in windows):
        return "valid"
    return "same" if same else None


def _pool(build: Builder, call: Call, kind: str, base: Held, sides: Any, strides: Any, padding: str | None) -> Held:
    shape = call.output[1:]
    settings: dict[str, Any] = {"pool_size": tuple(sides)}
    if tuple(strides) != tuple(sides):
        settings["strides"] = tuple(strides)
    return build.layer(kind, [base], channels_last(shape), shape, **settings, padding=padding or "valid")


def _own_padding(call: Call, sides: Sequence[int], dilation: Sequence[int]) -> Zeros:
    padding = call["padding"]
    if padding == "same":
        totals = [step * (side - 1) for side, step in zip(sides, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return NONE if padding == "valid" else tuple((side, side) for side in _two(padding))


def _sum(first: Zeros, second: Zeros) -> Zeros:
    return tuple((a + c, b + d) for (a, b), (c, d) in zip(first, second, strict=True))


def _sides(call: Call) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a pooling's window and stride."""
    sides = _two(call["kernel_size"])
    stride = call["stride"]
    return sides, _two(stride) if stride else sides


def _two(setting: Any) -> tuple[int, ...]:
    """Return a setting for height and width: one number stands for both."""
    values = (setting,) if isinstance(setting, int) else tuple(int(value) for value in setting)
    return values * 2 if len(values) == 1 else values
