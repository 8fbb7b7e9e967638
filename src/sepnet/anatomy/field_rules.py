"""The receptive field of each operator's results, from those of the tensors that it is given."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod
from typing import Any

from sepnet.anatomy.broadcasting import concatenate, merge
from sepnet.anatomy.graph import Operation, Value
from sepnet.anatomy.receptive_field import Field, FieldError

Fields = Field | tuple[Field, ...]
Rule = Callable[[Operation, list[Field]], Fields]
"""From an operation and the fields of the tensors given that depend on the image, in their order."""


def pointwise(op: Operation, fields: list[Field]) -> Field:
    """Broadcast the tensors to the result's shape."""
    return merge(fields, op.shape)


def unchanged(op: Operation, fields: list[Field]) -> Field:
    """Leave every unit where it is."""
    return fields[0]


def refused(reason: str) -> Rule:
    """Return the rule of an operator that cannot be read."""

    def rule(op: Operation, fields: list[Field]) -> Field:
        raise FieldError(reason)

    return rule


def convolution(op: Operation, fields: list[Field]) -> Field:
    """Slide a window over the last one, two or three dimensions, and mix the channels."""
    out_channels, _, *kernel = weight_shape(op)
    dilation = each(op["dilation"], kernel)
    padding = padding_before(op["padding"], kernel, dilation)
    field, channels = fields[0], len(op.shape) - len(kernel) - 1
    if op["groups"] > 1 and field.axes([channels]):
        raise FieldError("its channel groups hold image positions")
    field = field.mix([channels]).resize(channels, out_channels)
    return _slide(field, op.shape, kernel, each(op["stride"], kernel), padding, dilation)


def dense(op: Operation, fields: list[Field]) -> Field:
    """Mix the last dimension."""
    last = len(op.shape) - 1
    return fields[0].mix([last]).resize(last, weight_shape(op)[0])


def pool(op: Operation, fields: list[Field]) -> Field:
    """Slide a pooling window over the last one, two or three dimensions."""
    places = range(int(op.name.removesuffix("_with_indices")[-2]))
    kernel = each(op["kernel_size"], places)
    stride = each(op["stride"], places) or kernel
    return _slide(fields[0], op.shape, kernel, stride, each(op["padding"], places), each(op["dilation"] or 1, places))


def adaptive_pool(op: Operation, fields: list[Field]) -> Field:
    """Pool to one position, or to a divisor of the input's positions."""
    field = fields[0]
    for dim in pooled_dims(op):
        before, size = field.shape[dim], op.shape[dim]
        if 1 in (before, size) or not field.axes([dim]):
            field = field.mix([dim]).resize(dim, size)
        elif before % size:
            raise FieldError(f"it pools {before} positions to {size}, which needs windows of different sizes")
        else:
            field = field.window(dim, size, before // size, before // size, 0, 1)
    return field


def pixel_unshuffle(op: Operation, fields: list[Field]) -> Field:
    """Let each unit see a block of positions, now in its channels."""
    field, factor, dims = fields[0], op["downscale_factor"], len(op.shape)
    for dim in (dims - 2, dims - 1):
        field = field.window(dim, op.shape[dim], factor, factor, 0, 1)
    return field.resize(dims - 3, op.shape[-3])


def batch_norm(op: Operation, fields: list[Field]) -> Field:
    """Stay pointwise by moving statistics, else see all positions."""
    moving = op["running_mean"] is not None and not op["training"]
    return fields[0] if moving else fields[0].mix([0, *range(2, len(op.shape))])


def instance_norm(op: Operation, fields: list[Field]) -> Field:
    """See all positions unless moving statistics are used."""
    return fields[0].mix(range(2, len(op.shape))) if op["use_input_stats"] else fields[0]


def group_norm(op: Operation, fields: list[Field]) -> Field:
    """See all positions of an image."""
    return fields[0].mix(range(1, len(op.shape)))


def layer_norm(op: Operation, fields: list[Field]) -> Field:
    """See all of the last dimensions."""
    count = len(op.shape)
    return fields[0].mix(range(count - len(op["normalized_shape"]), count))


def along_dim(op: Operation, fields: list[Field]) -> Field:
    """See all positions along one dimension, as a softmax."""
    return fields[0].mix(dims_of(op))


def glu(op: Operation, fields: list[Field]) -> Field:
    """Gate one half of a dimension by the other."""
    (dim,) = dims_of(op)
    if fields[0].axes([dim]):
        raise FieldError("it pairs units of one half of the image with units of the other")
    return fields[0].resize(dim, op.shape[dim])


def reduction(op: Operation, fields: list[Field]) -> Field:
    """See all positions along some dimensions, which vanish or keep one position."""
    if is_arithmetic(op):
        return pointwise(op, fields)
    field, dims = fields[0], dims_of(op)
    mixed = field.mix(dims)
    for dim in dims:
        mixed = mixed.resize(dim, 1)
    return mixed if len(op.shape) == len(field.dims) else mixed.drop(dims)


def concat(op: Operation, fields: list[Field]) -> Field:
    """Put tensors one after the other; constants among them are seen by nobody."""
    return concatenate(fields, op["dim"], op.shape)


def stack(op: Operation, fields: list[Field]) -> Field:
    """Put tensors one after the other along a new dimension."""
    dim = op["dim"] % len(op.shape)
    return concatenate([field.insert(dim) for field in fields], dim, op.shape)


def reshape(op: Operation, fields: list[Field]) -> Field:
    """Give the same units in the same order another shape."""
    return fields[0].reshape(op.shape)


def permute(op: Operation, fields: list[Field]) -> Field:
    """Order the dimensions anew."""
    return fields[0].permute(order_of(op))


def channel_shuffle(op: Operation, fields: list[Field]) -> Field:
    """Exchange channels among groups."""
    if fields[0].axes([1]):
        raise FieldError("its channels hold image positions")
    return fields[0]


def parts(op: Operation, fields: list[Field]) -> Fields:
    """Cut consecutive parts along one dimension."""
    dim = op["dim"] % len(op.shape)
    sizes = [value.shape[dim] for value in op.results]
    starts = accumulate(sizes, initial=0)
    return tuple(fields[0].pick(dim, size, start) for size, start in zip(sizes, starts, strict=False))


def unbind(op: Operation, fields: list[Field]) -> Fields:
    """Give each position along one dimension by itself."""
    dim = op["dim"] % (len(op.shape) + 1)
    return tuple(fields[0].pick(dim, 1, start).drop([dim]) for start in range(len(op.results)))


def slice_(op: Operation, fields: list[Field]) -> Field:
    """Pick positions along one dimension: by ``slice``, ``narrow`` or, one of them, ``select``."""
    dim, positions = picked(op, fields[0].shape)
    field = fields[0].pick(dim, len(positions), positions.start, positions.step)
    return field.drop([dim]) if op.name == "select" else field


def pad(op: Operation, fields: list[Field]) -> Field:
    """Add positions by any filling; negative padding cuts."""
    field, last = fields[0], len(op.shape) - 1
    for place, (before, after) in enumerate(zip(op["pad"][::2], op["pad"][1::2], strict=True)):
        if before or after:
            field = field.pick(last - place, op.shape[last - place], -before)
    return field


def weight_shape(op: Operation) -> tuple[int, ...]:
    """Return the shape of the weight, which must not depend on the image."""
    weight: Value = op["weight"]
    if weight.sees_image:
        raise FieldError("its weights are computed from the image")
    if weight.is_drawn:
        raise FieldError("its weights are made in forward, anew for each image: make the layer in __init__")
    return weight.shape


def is_arithmetic(op: Operation) -> bool:
    """Whether a reduction's name stands for arithmetic on two tensors, as ``max(x, y)``."""
    return len(op.inputs) > 1


def dims_of(op: Operation) -> list[int]:
    """Return the dimensions along which an operator works: all where none is given."""
    count, dims = len(op.inputs[0].shape), op["dim"]
    if dims is None or dims == []:
        return list(range(count))
    return [dim % count for dim in ([dims] if isinstance(dims, int) else dims)]


def order_of(op: Operation) -> list[int]:
    """Return the order in which a permutation or transposition puts the dimensions."""
    order = list(range(len(op.shape)))
    if op["dims"] is not None:
        return [dim % len(order) for dim in op["dims"]]
    first, second = (op[f"{kind}{place}"] for place in (0, 1) for kind in ("dim", "axis") if f"{kind}0" in op.arguments)
    order[first], order[second] = order[second], order[first]
    return order


def picked(op: Operation, shape: Sequence[int]) -> tuple[int, range]:
    """Return the dimension along which positions are picked, and which."""
    dim = op["dim"] % len(shape)
    size = shape[dim]
    if op.name == "slice":
        return dim, range(size)[slice(op["start"], op["end"], op["step"])]
    start = (op["index"] if op.name == "select" else op["start"]) % size
    return dim, range(start, start + (op["length"] or 1 if op.name == "narrow" else 1))


def pooled_dims(op: Operation) -> range:
    """Return the dimensions over which an adaptive pooling slides."""
    count = int(op.name[-2])
    return range(len(op.shape) - count, len(op.shape))


def padding_before(padding: Any, kernel: list[int], dilation: list[int]) -> list[int]:
    """Return the zeros before the first position; ``same`` puts the odd one after the last."""
    if padding == "same":
        return [step * (size - 1) // 2 for size, step in zip(kernel, dilation, strict=True)]
    return [0 for _ in kernel] if padding == "valid" else each(padding, kernel)


def each(setting: Any, places: Any) -> list[int]:
    """Return a setting for each axis: one number stands for all."""
    if isinstance(setting, int):
        return [setting for _ in places]
    return list(setting) * len(list(places)) if len(setting) == 1 else list(setting)


def convolution_macs(op: Operation) -> int:
    """Return the multiplications of a convolution."""
    return prod(op.shape) * prod(op["weight"].shape[1:])


def dense_macs(op: Operation) -> int:
    """Return the multiplications of a dense layer."""
    return prod(op.shape) * int(op["weight"].shape[1])


def _slide(field: Field, output: Sequence[int], *settings: list[int]) -> Field:
    """Return the field after a window over the last dimensions: kernel, stride, padding before, dilation."""
    first = len(output) - len(settings[0])
    for place, (kernel, stride, padding, dilation) in enumerate(zip(*settings, strict=True)):
        field = field.window(first + place, output[first + place], kernel, stride, padding, dilation)
    return field
