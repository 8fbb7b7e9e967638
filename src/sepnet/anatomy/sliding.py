"""The layers that slide a window over the image: convolutions and pooling."""

from collections.abc import Sequence
from math import prod
from typing import Any

from sepnet.anatomy.call import Call, Convolution2d, Outcome
from sepnet.anatomy.field import Field, FieldError


def convolution(call: Call) -> Outcome:
    """Handle a convolution over the last one, two or three dimensions, as a module or a function."""
    out_channels, per_group, *kernel = call.weight(1)
    stride, dilation = _each(call.get(3, "stride", 1), kernel), _each(call.get(5, "dilation", 1), kernel)
    padding = _padding_before(call.get(4, "padding", 0), kernel, dilation)
    groups = int(call.get(6, "groups", 1))
    field = _convolve_channels(call.input, len(call.output) - len(kernel) - 1, out_channels, groups)
    field = _slide(field, call.output, kernel, stride, padding, dilation)
    settings = Convolution2d(
        in_channels=per_group * groups,
        groups=groups,
        kernel=tuple(kernel),
        plain_steps=set(stride) == {1} and set(padding) == {0},
    )
    macs = prod(call.output) * per_group * prod(kernel)
    return Outcome(field, _convolution_kind(settings), macs, convolution=settings)


def pool(call: Call) -> Outcome:
    """Handle max, average and power-average pooling over the last one, two or three dimensions."""
    count = int(call.operation.lower().removesuffix("_with_indices")[-2])
    output = _one_shape(call.output)
    places = range(count)
    kernel = _each(call.get(_position(call, "kernel_size"), "kernel_size"), places)
    stride = _each(call.get(_position(call, "stride"), "stride", None) or kernel, places)
    power = "lp" in call.operation.lower()
    padding = _each(0 if power else call.get(3, "padding", 0), places)
    maximum = "max" in call.operation.lower()
    dilation = _each(call.get(4, "dilation", 1) if maximum else 1, places)
    field = _slide(call.input, output, kernel, stride, padding, dilation)
    kind = "max pool" if maximum else "power average pool" if power else "average pool"
    return Outcome(_as_output(field, call.output), kind)


def adaptive_pool(call: Call) -> Outcome:
    """Handle adaptive pooling to one position, or to a divisor of the input's positions."""
    count = int(call.operation.lower().removesuffix("_with_indices")[-2])
    output = _one_shape(call.output)
    field, first = call.input, len(output) - count
    for dim in range(first, len(output)):
        field = _adapt(field, dim, output[dim])
    name = "max pool" if "max" in call.operation.lower() else "average pool"
    kind = f"global {name}" if prod(output[first:]) == 1 else f"adaptive {name}"
    return Outcome(_as_output(field, call.output), kind)


def dense(call: Call) -> Outcome:
    """Handle a dense layer over the last dimension."""
    out_features, in_features = call.weight(1)
    last = len(call.output) - 1
    field = call.input.mix([last]).resize(last, out_features)
    return Outcome(field, "dense", prod(call.output) * in_features)


def pixel_unshuffle(call: Call) -> Outcome:
    """Handle space to depth: each unit sees a block of positions, now in its channels."""
    factor = int(call.get(1, "downscale_factor"))
    field, (*_, height, width) = call.input, call.output
    dims = len(call.output)
    field = field.window(dims - 2, height, factor, factor, 0, 1).window(dims - 1, width, factor, factor, 0, 1)
    return Outcome(field.resize(dims - 3, call.output[-3]), "pixel unshuffle")


def _slide(field: Field, output: Sequence[int], *settings: list[int]) -> Field:
    """Return the field after a window over the last dimensions: kernel, stride, padding before, dilation."""
    first = len(output) - len(settings[0])
    for place, (kernel, stride, padding, dilation) in enumerate(zip(*settings, strict=True)):
        field = field.window(first + place, output[first + place], kernel, stride, padding, dilation)
    return field


def _convolve_channels(field: Field, dim: int, out_channels: int, groups: int) -> Field:
    if groups > 1 and field.axes([dim]):
        raise FieldError("its channel groups hold image positions")
    return field.mix([dim]).resize(dim, out_channels)


def _convolution_kind(settings: Convolution2d) -> str:
    if settings.is_depthwise:
        return "depthwise"
    if settings.can_be_pointwise:
        return "pointwise"
    return "grouped convolution" if settings.groups > 1 else "convolution"


def _padding_before(padding: Any, kernel: list[int], dilation: list[int]) -> list[int]:
    """Return the zeros before the first position; ``same`` puts the odd one after the last."""
    if padding == "same":
        return [step * (size - 1) // 2 for size, step in zip(kernel, dilation, strict=True)]
    return [0 for _ in kernel] if padding == "valid" else _each(padding, kernel)


def _adapt(field: Field, dim: int, size: int) -> Field:
    before = field.shape[dim]
    if 1 in (before, size) or not field.axes([dim]):
        return field.mix([dim]).resize(dim, size)
    if before % size:
        raise FieldError(f"it pools {before} positions to {size}, which needs windows of different sizes")
    return field.window(dim, size, before // size, before // size, 0, 1)


def _each(setting: Any, places: Any) -> list[int]:
    """Return a setting for each axis: one number stands for all."""
    if isinstance(setting, int):
        return [setting for _ in places]
    values = [int(value) for value in setting]
    return values * len(list(places)) if len(values) == 1 else values


def _position(call: Call, name: str) -> int:
    """Return where a pooling function takes its argument: after the power in ``lp_pool``."""
    return {"kernel_size": 1, "stride": 2}[name] + call.operation.startswith("lp")


def _one_shape(output: Any) -> tuple[int, ...]:
    """Return the shape of the first result: pooling may return indices beside it."""
    return tuple(output if isinstance(output[0], int) else output[0])


def _as_output(field: Field, output: Any) -> Field | tuple[Field, ...]:
    return field if isinstance(output[0], int) else tuple(field for _ in output)
