"""Padding and cutting in Keras; zeros around an image wait for the convolution that may take them over."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sepnet.export.keras.builder import Builder, Call
from sepnet.export.keras.tensor import Held, Inexpressible, Padding, channels_last

Zeros = tuple[tuple[int, int], ...]


def pad(build: Builder, call: Call) -> Held:
    """Note zeros around an image for the next convolution; add any other padding, and cut where it is negative."""
    value, widths, mode, filling = call.input, call["pad"], call["mode"], float(call["value"] or 0)
    sides = [*zip(widths[::2], widths[1::2], strict=True)]
    sides = ([(0, 0)] * (len(call.output) - 1 - len(sides)) + sides[::-1])[-len(value.shape) :]
    if len(sides) != len(value.shape) or len(widths) > 2 * len(value.shape):
        raise Inexpressible("it pads the batch", "pad the images alone")
    if min(widths) < 0:
        value = crop(build, value, [(max(-before, 0), max(-after, 0)) for before, after in sides])
        sides = [(max(before, 0), max(after, 0)) for before, after in sides]
    if not any(map(any, sides)):
        return value
    if len(sides) != 3:
        value = build.plain(value)
        return _pad_axes(build, value, sides, mode, filling)
    value = build.image(value)
    if mode == "constant" and not filling and sides[0] == (0, 0):
        return zeros_around(value, tuple(sides[1:]))
    return _pad_axes(build, value, [*sides[1:], sides[0]], mode, filling)


def zeros_around(value: Held, zeros: Zeros) -> Held:
    """Return an image with zeros around it that the next convolution may take over."""
    if not any(map(any, zeros)):
        return value
    channels, height, width = value.shape
    shape = (channels, height + sum(zeros[0]), width + sum(zeros[1]))
    return Held(value.number, shape, channels_last(shape), value.field, Padding(value, zeros))


def filled(build: Builder, value: Held, axes: Sequence[tuple[int, int]], mode: str) -> Held:
    """Add a padding by ``keras.ops.pad`` that is no constant: ``mode`` in NumPy's words."""
    if mode != "reflect":
        raise Inexpressible(f"it pads by mode '{mode}', which not all of Keras's backends know", "pad with zeros")
    return ops_pad(build, value, axes, mode="reflect")


def ops_pad(build: Builder, value: Held, axes: Sequence[tuple[int, int]], **settings: Any) -> Held:
    """Add a padding by ``keras.ops.pad``: a number for each Keras axis, the batch's none."""
    axes = [*axes, *[(0, 0)] * (value.index.ndim - len(axes))]
    shape = tuple(size + sum(sides) for size, sides in zip(value.index.shape, axes, strict=True))
    if len(value.shape) == 3:
        shape = (shape[2], *shape[:2])
        index = channels_last(shape)
    else:
        index = np.arange(prod(shape)).reshape(shape)
    return build.layer("ops.pad", [value], index, shape, field=value.field, pad_width=((0, 0), *axes), **settings)


def crop(build: Builder, value: Held, sides: Sequence[tuple[int, int]]) -> Held:
    """Cut positions (before, after) off each dimension."""
    slices = [slice(before, size - after) for (before, after), size in zip(sides, value.shape, strict=True)]
    return cut(build, value, slices)


def cut(build: Builder, value: Held, slices: Sequence[slice]) -> Held:
    """Take a slice along each dimension of PyTorch's shape."""
    value = build.natural(value)
    slices = [slice(*one.indices(size)) for one, size in zip(slices, value.shape, strict=True)]
    if all(len(range(size)[one]) == size for one, size in zip(slices, value.shape, strict=True)):
        return value
    taken = value.viewed(np.arange(prod(value.shape)).reshape(value.shape)[tuple(slices)])
    axes = [*slices[1:], slices[0]] if len(slices) == 3 else slices
    index = taken.index[tuple(axes)]
    spatial = len(slices) == 3 and len(range(value.shape[0])[slices[0]]) == value.shape[0]
    if spatial and all(one.step == 1 for one in slices):
        sides = tuple((one.start, size - one.stop) for one, size in zip(axes[:2], value.shape[1:], strict=True))
        return build.layer("Cropping2D", [value], index, taken.shape, cropping=sides)
    ranges = tuple(_short(one, size) for one, size in zip(axes, value.index.shape, strict=True))
    return build.layer("slice", [value], index, taken.shape, ranges=ranges)


def _short(one: slice, size: int) -> slice:
    """Return a slice as one would write it."""
    return slice(one.start or None, None if one.stop >= size else one.stop, None if one.step == 1 else one.step)


def _pad_axes(build: Builder, value: Held, axes: Sequence[tuple[int, int]], mode: str, filling: float) -> Held:
    if mode != "constant":
        return filled(build, value, axes, mode)
    settings = {"constant_values": filling} if filling else {}
    return ops_pad(build, value, axes, **settings)
