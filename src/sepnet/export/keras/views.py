"""Views, slices and reductions in Keras: most views need no layer, for a value knows its order."""

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch

from sepnet.anatomy.field_rules import dims_of, order_of
from sepnet.anatomy.graph import Operation
from sepnet.export.keras.builder import Builder
from sepnet.export.keras.tensor import Array, Held, Inexpressible, Weight, places_in, plain
from sepnet.export.keras.windows import pad_by, whole_image, zeros_around

REDUCTIONS = {"mean": "ops.mean", "sum": "ops.sum", "amax": "ops.max", "amin": "ops.min", "prod": "ops.prod"}


def unchanged(_: Builder, op: Operation) -> Any:
    """Pass a tensor on; one that is expanded too, as Keras broadcasts by itself where two tensors meet."""
    other = op["other"]
    kinds = {op["dtype"], other.source.dtype if isinstance(other, Weight) else None}
    if kinds - {None, torch.float32}:
        raise Inexpressible("it changes the precision", "compute in float32 throughout")
    return op.input


def reshape(build: Builder, op: Operation) -> tuple[Held, ...]:
    """Give the same values another shape."""
    if not op.shape or op.shape[0] != 1 or op.shape == (1,):
        raise Inexpressible("for one image it does away with the batch", "keep the first dimension: flatten(1)")
    return move(build, op)


def permute(build: Builder, op: Operation) -> tuple[Held, ...]:
    """Exchange dimensions."""
    if order_of(build.operation)[0] != 0:
        raise Inexpressible("it moves the batch to another dimension", "keep the batch first")
    return move(build, op)


def pick(build: Builder, op: Operation) -> tuple[Held, ...]:
    """Take positions along one dimension: a slice or, by ``chunk`` and ``split``, several."""
    if op["dim"] % len(build.operation.input.shape) == 0 and (op.name != "slice" or op.shape[0] != 1):
        raise Inexpressible("it cuts the batch", "leave the first dimension whole")
    return move(build, op)


def move(build: Builder, op: Operation) -> tuple[Held, ...]:
    """Take some or all values in another order: the operator tells which when it is given the numbers of the places."""
    value = op.input
    found = build.operation.on(torch.from_numpy(plain(value.shape).copy())[None])
    return tuple(take(build, value, places[0].numpy()) for places in found)


def take(build: Builder, value: Held, places: Array) -> Held:
    """Return what holds ``places`` of the flattened value: a view of all, else a slice along each axis of Keras."""
    if places.size == value.index.size:
        value = replace(value, shape=places.shape, index=places_in(places, places.size)[value.index])
        return build.arrange(value, value.index.ravel()) if places.ndim == 1 else value
    value = build.natural(value)
    kept = np.isin(value.index, places)
    held = [np.flatnonzero(kept.any(axis=tuple({*range(kept.ndim)} - {axis}))).tolist() for axis in range(kept.ndim)]
    steps = [one[1] - one[0] if len(one) > 1 else 1 for one in held]
    ranges = tuple(slice(one[0], one[-1] + step, step) for one, step in zip(held, steps, strict=True))
    index = places_in(places, value.index.size)[value.index[ranges]]
    if kept.ndim == 3 and set(steps) == {1} and len(held[2]) == kept.shape[2]:
        sides = tuple((one[0], size - one[-1] - 1) for one, size in zip(held[:2], kept.shape, strict=False))
        return build.layer("Cropping2D", [value], places.shape, index=index, cropping=sides)
    short = tuple(_short(one, size) for one, size in zip(ranges, kept.shape, strict=True))
    return build.layer("slice", [value], places.shape, index=index, ranges=short)


def _short(one: slice, size: int) -> slice:
    """Return a slice as one would write it."""
    return slice(one.start or None, None if one.stop >= size else one.stop, None if one.step == 1 else one.step)


def pad(build: Builder, op: Operation) -> Held:
    """Note zeros around an image for the next convolution; add any other padding, and cut where it is negative."""
    value, widths, filling = op.input, op["pad"], float(op["value"] or 0)
    sides = [*zip(widths[::2], widths[1::2], strict=True)][::-1]
    sides = [(0, 0)] * (len(value.shape) - len(sides)) + sides
    if len(sides) > len(value.shape):
        raise Inexpressible("it pads the batch", "pad the images alone")
    if min(widths) < 0:
        kept = zip(sides, value.shape, strict=True)
        inner = tuple(slice(max(-before, 0), size - max(-after, 0)) for (before, after), size in kept)
        value = take(build, value, plain(value.shape)[inner])
    around = tuple((max(before, 0), max(after, 0)) for before, after in sides)
    if not any(map(any, around)):
        return value
    value = build.natural(value)
    if op["mode"] == "constant" and not filling and len(around) == 3 and around[0] == (0, 0):
        return zeros_around(build, value, around[1:])
    if op["mode"] not in ("constant", "reflect"):
        raise Inexpressible(f"it pads by mode '{op['mode']}', which not all of Keras's backends know", "pad with zeros")
    settings = {"mode": "reflect"} if op["mode"] == "reflect" else {"constant_values": filling} if filling else {}
    return pad_by(build, value, around, **settings)


def reduction(build: Builder, op: Operation) -> Held:
    """Add a reduction over dimensions; the mean over the image is a pooling layer."""
    if op["dim"] in (None, []) or op.name not in REDUCTIONS:
        raise Inexpressible("Keras has no layer for this reduction", "use mean, sum, amax or amin over dimensions")
    value, gone = op.input, sorted(dim - 1 for dim in dims_of(build.operation))
    if gone[0] < 0:
        raise Inexpressible("it reduces the batch", "reduce dimensions after the first")
    if gone == [1, 2] and len(value.shape) == 3 and op.name in ("mean", "amax"):
        return whole_image(build, build.image(value), "Average" if op.name == "mean" else "Max", op.shape[1:])
    if prod(value.shape[dim] for dim in gone) == 1:
        return take(build, value, plain(op.shape[1:]))
    value = value if _axes(value, gone) else build.natural(value)
    axes, kept = _axes(value, gone), _kept(value, gone)
    keepdims: dict[str, Any] = {"keepdims": True} if len(axes) == kept.ndim else {}
    index = kept[tuple(slice(1 if axis in axes else None) for axis in range(kept.ndim))]
    index = index if keepdims else index.squeeze(tuple(axes))
    if op.name == "mean" and axes == [0, 1] and kept.ndim == 3:
        return build.layer("GlobalAveragePooling2D", [value], op.shape[1:], index=index)
    axis = axes[0] + 1 if len(axes) == 1 else tuple(axis + 1 for axis in axes)
    return build.layer(REDUCTIONS[op.name], [value], op.shape[1:], index=index, axis=axis, **keepdims)


def _axes(value: Held, gone: list[int]) -> list[int]:
    """Return the Keras axes along which exactly the dimensions ``gone`` run, none if there are no such."""
    kept = _kept(value, gone)
    axes = [axis for axis, size in enumerate(kept.shape) if size > 1 and (kept == kept.take([0], axis)).all()]
    return axes if prod(kept.shape[axis] for axis in axes) == prod(value.shape[dim] for dim in gone) else []


def _kept(value: Held, gone: list[int]) -> Array:
    """Return, for each place in Keras, the place that is left of it once the dimensions ``gone`` are reduced."""
    left = plain(tuple(1 if dim in gone else size for dim, size in enumerate(value.shape)))
    places: Array = np.broadcast_to(left, value.shape).reshape(-1)[value.index]
    return places
