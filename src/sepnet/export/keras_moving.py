"""Views, slices and reductions in Keras: most views need no layer, for a value knows its order."""

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from sepnet.anatomy.call import Call
from sepnet.export.keras_builder import Builder, Handler
from sepnet.export.keras_padding import cut
from sepnet.export.keras_value import Array, Inexpressible, Value
from sepnet.export.keras_windows import whole_image

REDUCTIONS = {"mean": "ops.mean", "sum": "ops.sum", "amax": "ops.max", "amin": "ops.min", "prod": "ops.prod"}


def unchanged(_: Builder, call: Call) -> Value:
    """Pass a value on."""
    kinds = [str(value) for value in (*call.args[1:], *call.kwargs.values()) if "torch." in str(value)]
    if call.operation in ("half", "bfloat16", "double") or any(kind != "torch.float32" for kind in kinds):
        raise Inexpressible("it changes the precision", "compute in float32 throughout")
    value: Value = call.args[0]
    return value


def expand(build: Builder, call: Call) -> Value:
    """Pass a value on: Keras broadcasts by itself where two tensors meet."""
    value: Value = call.args[0]
    return build.settle(value)


def reshape(build: Builder, call: Call) -> Value:
    """Give the same values another shape: a ``Flatten`` where one dimension is left, else no layer yet."""
    if not call.output or call.output[0] != 1 or call.output == (1,):
        raise Inexpressible("for one image it does away with the batch", "keep the first dimension: flatten(1)")
    return _reshaped(build, build.settle(call.args[0]), call.output[1:])


def _reshaped(build: Builder, value: Value, shape: tuple[int, ...]) -> Value:
    value = replace(value, shape=shape)
    return build.arrange(value, value.index.ravel()) if len(shape) == 1 else value


def permute(build: Builder, call: Call) -> Value:
    """Exchange dimensions, without a layer."""
    order = call.args[1:] if call.args[1:] and isinstance(call.args[1], int) else call.get(1, "dims")
    return _turned(build, call, [int(dim) % len(call.output) for dim in order])


def transpose(build: Builder, call: Call) -> Value:
    """Exchange two dimensions, without a layer."""
    order = list(range(len(call.output)))
    first, second = call.get(1, "dim0"), call.get(2, "dim1")
    order[first], order[second] = order[second], order[first]
    return _turned(build, call, order)


def _turned(build: Builder, call: Call, order: list[int]) -> Value:
    if order[0] != 0:
        raise Inexpressible("it moves the batch to another dimension", "keep the batch first")
    value = build.settle(call.args[0])
    return value.viewed(_places(value).transpose([dim - 1 for dim in order[1:]]))


def channel_shuffle(build: Builder, call: Call) -> Value:
    """Exchange channels among groups; the next layer that minds the order makes a transposition of it."""
    value, groups = build.settle(call.args[0]), int(call.get(1, "groups"))
    places = _places(value)
    folded = places.reshape(groups, -1, *value.shape[1:])
    return value.viewed(folded.swapaxes(0, 1).reshape(value.shape))


def parts(build: Builder, call: Call) -> tuple[Value, ...]:
    """Add a slice for each part of ``chunk`` and ``split``."""
    dim = int(call.get(2, "dim", 0)) % len(call.output[0])
    if dim == 0:
        raise Inexpressible("it cuts the batch", "cut the channels, dim=1")
    found, start = [], 0
    for shape in call.output:
        slices = [slice(None)] * (len(shape) - 1)
        slices[dim - 1] = slice(start, start + shape[dim])
        found.append(cut(build, call.args[0], slices))
        start += shape[dim]
    return tuple(found)


def narrow(build: Builder, call: Call) -> Value:
    """Add a slice along one dimension."""
    dim, start, length = call.get(1, "dim") % len(call.output), call.get(2, "start"), call.get(3, "length")
    start %= call.args[0].shape[dim - 1]
    return _picked(build, call, [slice(None)] * dim + [slice(start, start + length)])


def select(build: Builder, call: Call) -> Value:
    """Add a slice of one position."""
    dim = call.get(1, "dim") % (len(call.output) + 1)
    return _picked(build, call, [slice(None)] * dim + [call.get(2, "index")])


def getitem(build: Builder, call: Call) -> Any:
    """Take one of several tensors, or add a slice."""
    source, index = call.args
    if not isinstance(source, Value):
        return source[index]
    return _picked(build, call, list(index) if isinstance(index, tuple) else [index])


def reduction(name: str) -> Handler:
    """Return the handler of a reduction over dimensions; the mean over the image is a pooling layer."""

    def handle(build: Builder, call: Call) -> Value:
        value, dims = build.settle(call.args[0]), call.get(1, "dim", call.kwargs.get("axis"))
        if dims is None or name not in REDUCTIONS or not isinstance(call.output[0], int):
            raise Inexpressible("Keras has no layer for this reduction", "use mean, sum, amax or amin over dimensions")
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

    return handle


def _axes(value: Value, gone: list[int]) -> list[int] | None:
    """Return the Keras axes along which exactly the dimensions ``gone`` run, or None."""
    kept = _kept(value, gone)[value.index]
    axes = [
        axis
        for axis, size in enumerate(kept.shape)
        if size > 1 and np.array_equal(kept, np.repeat(kept.take([0], axis), size, axis))
    ]
    return axes if prod(kept.shape[axis] for axis in axes) == prod(value.shape[dim] for dim in gone) else None


def _kept(value: Value, gone: list[int]) -> Array:
    """Return, for each flat place, the place that is left of it once the dimensions ``gone`` are reduced."""
    left = [1 if dim in gone else size for dim, size in enumerate(value.shape)]
    return np.broadcast_to(np.arange(prod(left)).reshape(left), value.shape).reshape(-1)


def _places(value: Value) -> Array:
    return np.arange(prod(value.shape)).reshape(value.shape)


def _picked(build: Builder, call: Call, items: list[Any]) -> Value:
    """Add a slice, and let PyTorch's shape lose and gain dimensions of one position."""
    value = call.args[0]
    sizes = (1, *value.shape)
    wanted = sum(item is not None and item is not Ellipsis for item in items)
    if Ellipsis not in items:
        items = [*items, Ellipsis]
    place = items.index(Ellipsis)
    items = [*items[:place], *[slice(None)] * (len(sizes) - wanted), *items[place + 1 :]]
    slices = []
    for item, size in zip([item for item in items if item is not None], sizes, strict=True):
        if not isinstance(item, int | slice):
            raise Inexpressible("it indexes by a tensor or a list", "index by numbers and slices")
        slices.append(slice(item % size, item % size + 1) if isinstance(item, int) else item)
    if items[0] is None or isinstance(items[0], int) or slices[0].indices(1) != (0, 1, 1):
        raise Inexpressible("it indexes the batch", "leave the first dimension whole")
    value = build.settle(cut(build, value, slices[1:]))
    return replace(value, shape=call.output[1:])
