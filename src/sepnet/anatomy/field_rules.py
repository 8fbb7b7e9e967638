"""The receptive field of each operator's results, from those of the tensors that it is given."""

from collections.abc import Callable, Iterable

import torch

from sepnet.anatomy.graph import Operation, Value
from sepnet.anatomy.receptive_field import Field, FieldError, merge
from sepnet.anatomy.windows import Window, windows

Fields = Field | tuple[Field, ...]
Rule = Callable[[Operation, list[Field]], Fields]
"""From an operation and the fields of the tensors given that depend on the image, in their order."""


def pointwise(op: Operation, fields: list[Field]) -> Field:
    """Broadcast the tensors to the result's shape."""
    return merge(fields, op.shape)


def refused(reason: str) -> Rule:
    """Return the rule of an operator that cannot be read."""

    def rule(op: Operation, fields: list[Field]) -> Field:
        raise FieldError(reason)

    return rule


def mixing(dims: Callable[[Operation], Iterable[int]]) -> Rule:
    """Return the rule of a norm or a softmax, whose units see all positions along some dimensions."""
    return lambda op, fields: fields[0].mix(dims(op))


def convolution(op: Operation, fields: list[Field]) -> Field:
    """Slide a window over the last dimensions, and mix the channels."""
    out_channels, _, *kernel = weight_shape(op)
    field, channels = fields[0], len(op.shape) - len(kernel) - 1
    if op["groups"] > 1 and field.axes([channels]):
        raise FieldError("its channel groups hold image positions")
    return pool(op, [field.mix([channels]).resize(channels, out_channels)])


def dense(op: Operation, fields: list[Field]) -> Field:
    """Mix the last dimension."""
    last = len(op.shape) - 1
    return fields[0].mix([last]).resize(last, weight_shape(op)[0])


def pool(op: Operation, fields: list[Field]) -> Field:
    """Slide a window over the last dimensions; to one position it sees all, to several it needs a divisor of them."""
    field, found = fields[0], windows(op)
    adaptive = op["output_size"] is not None
    for dim, window in enumerate(found, len(op.shape) - len(found)):
        size, out = window[:2]
        if adaptive and (1 in (size, out) or not field.axes([dim])):
            field = field.mix([dim]).resize(dim, out)
        elif adaptive and size % out:
            raise FieldError(f"it pools {size} positions to {out}, which needs windows of different sizes")
        else:
            field = field.slide(dim, window)
    return field


def pixel_unshuffle(op: Operation, fields: list[Field]) -> Field:
    """Let each unit see a block of positions, now in its channels."""
    field, factor, channels = fields[0], op["downscale_factor"], len(op.shape) - 3
    for dim in (channels + 1, channels + 2):
        field = field.slide(dim, Window(field.shape[dim], op.shape[dim], factor, factor))
    return field.resize(channels, op.shape[channels])


def glu(op: Operation, fields: list[Field]) -> Field:
    """Gate one half of a dimension by the other."""
    (dim,) = dims_of(op)
    if fields[0].axes([dim]):
        raise FieldError("it pairs units of one half of the image with units of the other")
    return fields[0].resize(dim, op.shape[dim])


def reduction(op: Operation, fields: list[Field]) -> Field:
    """See all positions along some dimensions, which vanish or keep one position."""
    if len(op.inputs) > 1:  # arithmetic: max(x, y)
        return pointwise(op, fields)
    field, dims = fields[0], dims_of(op)
    mixed = field.mix(dims)
    for dim in dims:
        mixed = mixed.resize(dim, 1)
    return mixed if len(op.shape) == len(field.dims) else _without(mixed, dims)


def concat(op: Operation, fields: list[Field]) -> Field:
    """Put tensors one after the other, by ``stack`` along a new dimension; constants are seen by nobody."""
    count, dim = len(op.shape), op["dim"] % len(op.shape)
    if op.name == "stack":
        fields = [field.arrange([*range(dim), None, *range(dim, count - 1)]) for field in fields]
    if any(field.axis_of(dim) is not None for field in fields):
        raise FieldError("it concatenates along an image axis")
    one_position = [*op.shape[:dim], 1, *op.shape[dim + 1 :]]
    return merge([field.resize(dim, 1) for field in fields], one_position).resize(dim, op.shape[dim])


def channel_shuffle(op: Operation, fields: list[Field]) -> Field:
    """Exchange channels among groups."""
    if fields[0].axes([1]):
        raise FieldError("its channels hold image positions")
    return fields[0]


def pick(op: Operation, fields: list[Field]) -> Fields:
    """Pick positions along one dimension: a slice, or several parts; where one is left, the dimension may vanish."""
    count = len(fields[0].dims)
    dim = op["dim"] % count
    positions = torch.arange(fields[0].shape[dim]).view([-1 if place == dim else 1 for place in range(count)])
    found = []
    for part in op.on(positions):
        start, second = [*part.flatten().tolist(), 0, 0][:2]
        step = second - start if part.numel() > 1 else 1
        field = fields[0].slide(dim, Window(fields[0].shape[dim], part.numel(), 1, step, before=-start))
        found.append(field if part.ndim == count else _without(field, [dim]))
    return tuple(found)


def pad(op: Operation, fields: list[Field]) -> Field:
    """Add positions by any filling; negative padding cuts."""
    field, last = fields[0], len(op.shape) - 1
    for place, (before, after) in enumerate(zip(op["pad"][::2], op["pad"][1::2], strict=True)):
        if before or after:
            dim = last - place
            field = field.slide(dim, Window(field.shape[dim], op.shape[dim], 1, 1, before=before))
    return field


def _without(field: Field, dims: list[int]) -> Field:
    return field.arrange(dim for dim in range(len(field.dims)) if dim not in dims)


def weight_shape(op: Operation) -> tuple[int, ...]:
    """Return the shape of the weight, which must not depend on the image."""
    weight: Value = op["weight"]
    if weight.sees_image:
        raise FieldError("its weights are computed from the image")
    if weight.is_drawn:
        raise FieldError("its weights are made in forward, anew for each image: make the layer in __init__")
    return weight.shape


def dims_of(op: Operation) -> list[int]:
    """Return the dimensions along which an operator works: all where none is given."""
    count, dims = len(op.inputs[0].shape), op["dim"]
    if dims is None or dims == []:
        return list(range(count))
    return [dim % count for dim in ([dims] if isinstance(dims, int) else dims)]


def order_of(op: Operation) -> tuple[int, ...]:
    """Return the order in which a permutation or transposition puts the dimensions."""
    (numbered,) = op.on(torch.empty(tuple(range(len(op.shape)))))
    return tuple(numbered.shape)
