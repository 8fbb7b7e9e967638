"""Views, slices and reductions in Keras: most views need no layer, for a value knows its order."""

from dataclasses import replace
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import torch

from sepnet.anatomy.field_rules import order_of, picked
from sepnet.export.keras.builder import Builder, Call
from sepnet.export.keras.padding import cut
from sepnet.export.keras.tensor import Array, Constant, Held, Inexpressible
from sepnet.export.keras.windows import whole_image

REDUCTIONS = {"mean": "ops.mean", "sum": "ops.sum", "amax": "ops.max", "amin": "ops.min", "prod": "ops.prod"}


def unchanged(_: Builder, call: Call) -> Held:
    """Pass a tensor on."""
    other = call["other"]
    kinds = {call["dtype"], other.tensor.dtype if isinstance(other, Constant) else None}
    if kinds - {None, torch.float32}:
        raise Inexpressible("it changes the precision", "compute in float32 throughout")
    return call.input


def expand(build: Builder, call: Call) -> Held:
    """Pass a value on: Keras broadcasts by itself where two tensors meet."""
    value: Held = call.input
    return build.settle(value)


def reshape(build: Builder, call: Call) -> Held:
    """Give the same values another shape: a ``Flatten`` where one dimension is left, else no layer yet."""
    if not call.output or call.output[0] != 1 or call.output == (1,):
        raise Inexpressible("for one image it does away with the batch", "keep the first dimension: flatten(1)")
    return _reshaped(build, build.settle(call.input), call.output[1:])


def _reshaped(build: Builder, value: Held, shape: tuple[int, ...]) -> Held:
    value = replace(value, shape=shape)
    return build.arrange(value, value.index.ravel()) if len(shape) == 1 else value


def permute(build: Builder, call: Call) -> Held:
    """Exchange dimensions, without a layer."""
    order = order_of(call.operation)
    if order[0] != 0:
        raise Inexpressible("it moves the batch to another dimension", "keep the batch first")
    value = build.settle(call.input)
    return value.viewed(_places(value).transpose([dim - 1 for dim in order[1:]]))


def channel_shuffle(build: Builder, call: Call) -> Held:
    """Exchange channels among groups; the next layer that minds the order makes a transposition of it."""
    value, groups = build.settle(call.input), int(call["groups"])
    places = _places(value)
    folded = places.reshape(groups, -1, *value.shape[1:])
    return value.viewed(folded.swapaxes(0, 1).reshape(value.shape))


def parts(build: Builder, call: Call) -> tuple[Held, ...]:
    """Add a slice for each part of ``chunk`` and ``split``."""
    dim = call["dim"] % len(call.output) - 1
    if dim < 0:
        raise Inexpressible("it cuts the batch", "cut the channels, dim=1")
    sizes = [value.shape[dim + 1] for value in call.operation.results]
    starts = accumulate(sizes, initial=0)
    return tuple(
        _cut_along(build, call.input, dim, slice(start, start + size))
        for start, size in zip(starts, sizes, strict=False)
    )


def slice_(build: Builder, call: Call) -> Held:
    """Add a slice along one dimension; ``select`` takes one position, and the dimension vanishes."""
    value = build.settle(call.input)
    dim, positions = picked(call.operation, (1, *value.shape))
    if dim == 0:
        if call.name == "select" or len(positions) != 1:
            raise Inexpressible("it indexes the batch", "leave the first dimension whole")
        return value
    value = _cut_along(build, value, dim - 1, slice(positions.start, positions.stop, positions.step))
    return replace(value, shape=call.output[1:])


def _cut_along(build: Builder, value: Held, dim: int, positions: slice) -> Held:
    slices = [slice(None)] * len(value.shape)
    slices[dim] = positions
    return build.settle(cut(build, value, slices))


def reduction(build: Builder, call: Call) -> Held:
    """Add a reduction over dimensions; the mean over the image is a pooling layer."""
    name, dims = call.name, call["dim"]
    if dims in (None, []) or name not in REDUCTIONS:
        raise Inexpressible("Keras has no layer for this reduction", "use mean, sum, amax or amin over dimensions")
    value = build.settle(call.input)
    count = len(value.shape) + 1
    gone = sorted({int(dim) % count - 1 for dim in ([dims] if isinstance(dims, int) else dims)})
    if -1 in gone:
        raise Inexpressible("it reduces the batch", "reduce dimensions after the first")
    if gone == [1, 2] and len(value.shape) == 3 and name in ("mean", "amax"):
        return whole_image(build, build.image(value), "Average" if name == "mean" else "Max", call.output[1:])
    if prod(value.shape[dim] for dim in gone) == 1:
        return _reshaped(build, value, call.output[1:])
    axes = _axes(value, gone)
    if axes is None:
        value = build.natural(value)
        axes = _axes(value, gone)
    assert axes is not None
    kept = _kept(value, gone)[value.index]
    keep = len(axes) == kept.ndim
    index = kept[tuple(slice(1 if axis in axes else None) for axis in range(kept.ndim))]
    if name == "mean" and axes == [0, 1] and kept.ndim == 3:
        return build.layer("GlobalAveragePooling2D", [value], index[0, 0], call.output[1:])
    settings: dict[str, Any] = {"axis": axes[0] + 1 if len(axes) == 1 else tuple(axis + 1 for axis in axes)}
    if keep:
        settings["keepdims"] = True
    else:
        index = index.squeeze(tuple(axes))
    return build.layer(REDUCTIONS[name], [value], index, call.output[1:], **settings)


def _axes(value: Held, gone: list[int]) -> list[int] | None:
    """Return the Keras axes along which exactly the dimensions ``gone`` run, or None."""
    kept = _kept(value, gone)[value.index]
    axes = [
        axis
        for axis, size in enumerate(kept.shape)
        if size > 1 and np.array_equal(kept, np.repeat(kept.take([0], axis), size, axis))
    ]
    return axes if prod(kept.shape[axis] for axis in axes) == prod(value.shape[dim] for dim in gone) else None


def _kept(value: Held, gone: list[int]) -> Array:
    """Return, for each flat place, the place that is left of it once the dimensions ``gone`` are reduced."""
    left = [1 if dim in gone else size for dim, size in enumerate(value.shape)]
    return np.broadcast_to(np.arange(prod(left)).reshape(left), value.shape).reshape(-1)


def _places(value: Held) -> Array:
    return np.arange(prod(value.shape)).reshape(value.shape)
