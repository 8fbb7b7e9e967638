"""Arithmetic and concatenation in Keras."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sepnet.anatomy.operators import ARITHMETIC
from sepnet.export.keras.builder import Builder, Call, Weight
from sepnet.export.keras.layers import add
from sepnet.export.keras.tensor import Array, Constant, Held, Inexpressible, natural

MERGES = {
    "add": "Add",
    "subtract": "Subtract",
    "multiply": "Multiply",
    "maximum": "Maximum",
    "minimum": "Minimum",
    "divide": "ops.divide",
    "power": "ops.power",
}
"""What Keras calls arithmetic on two tensors."""

KINDS = {name: kind for kind, names in ARITHMETIC.items() for name in names.split()}


def arithmetic(build: Builder, call: Call) -> Held:
    """Add arithmetic on two tensors, or on one and a number, a parameter or a buffer."""
    kind = KINDS[call.name]
    operands = [call["self"], call["exponent"] if call["other"] is None else call["other"]]
    if call["alpha"] not in (None, 1) or call["rounding_mode"] is not None or None in operands or kind not in MERGES:
        raise Inexpressible("Keras has no layer for this arithmetic", "write it with + - * / alone")
    if call.name == "rsub":
        operands.reverse()
    values = [operand for operand in operands if isinstance(operand, Held)]
    if len(values) == 2:
        inputs, index = _aligned(build, values, call.output)
        return build.layer(MERGES[kind], inputs, index, call.output[1:])
    reverse = isinstance(operands[1], Held)
    other = operands[0] if reverse else operands[1]
    if isinstance(other, int | float):
        return _with_number(build, kind, values[0], float(other), reverse=reverse)
    if isinstance(other, Constant):
        return _with_constant(build, kind, values[0], other, reverse=reverse)
    raise Inexpressible("it takes a tensor that is computed apart from the image", "use a number or a buffer")


def concat(build: Builder, call: Call) -> Held:
    """Add a concatenation."""
    parts, dim = call["tensors"], call["dim"] % len(call.output) - 1
    if dim < 0 or not all(isinstance(part, Held) for part in parts):
        raise Inexpressible("it joins tensors that do not depend on the image, or joins the batch")
    shape = call.output[1:]
    if len(parts) == 1:
        return build.settle(parts[0])
    if len(shape) == 1:
        flat = [build.by_channel(part) for part in parts]
        starts = np.cumsum([0, *(len(order) for _, order in flat)])
        index = np.concatenate([order + start for (_, order), start in zip(flat, starts, strict=False)])
        return build.layer("Concatenate", [value for value, _ in flat], index.astype(np.int32), shape)
    parts = [build.natural(part) for part in parts]
    axis = (2, 0, 1)[dim] if len(shape) == 3 else dim
    settings: dict[str, Any] = {} if axis == len(shape) - 1 else {"axis": axis + 1}
    return build.layer("Concatenate", parts, natural(shape), shape, **settings)


def _aligned(build: Builder, values: Sequence[Held], output: Any) -> tuple[list[Held], Array]:
    """Return two values whose Keras tensors can be broadcast against each other, and the order of the result."""
    first, second = (build.settle(value) for value in values)
    if first.shape == second.shape == output[1:] and np.array_equal(first.index, second.index):
        return [first, second], first.index
    if len(first.shape) != len(second.shape):
        raise Inexpressible("its two tensors have different numbers of dimensions", "reshape one of them first")
    if np.broadcast_shapes(first.shape, second.shape) != output[1:]:
        raise Inexpressible("it repeats values that no full tensor stands beside", "leave expand out")
    return [build.natural(first), build.natural(second)], natural(output[1:])


def _with_number(build: Builder, kind: str, value: Held, number: float, *, reverse: bool) -> Held:
    """Add arithmetic on a value and a number; ``reverse`` says that the number comes first."""
    if kind == "divide" and reverse:
        return _with_number(build, "multiply", add(build, value, "ops.reciprocal"), number, reverse=False)
    if kind == "power" and not reverse:
        return add(build, value, "ops.power", x2=number)
    if kind in ("maximum", "minimum"):
        return add(build, value, f"ops.{kind}", x2=number)
    scale, offset = _affine(kind, number, reverse=reverse)
    return add(build, value, "Rescaling", scale=float(scale), offset=float(offset))


def _affine(kind: str, number: Any, *, reverse: bool) -> tuple[Any, Any]:
    """Return the scale and the offset of arithmetic with a number, or with an array of them."""
    if kind == "add":
        return 1.0 + 0 * number, number
    if kind == "subtract":
        return (-1.0 + 0 * number, number) if reverse else (1.0 + 0 * number, -number)
    if kind == "multiply":
        return number, 0.0 * number
    if kind == "divide" and not reverse:
        return 1 / number, 0.0 * number
    raise Inexpressible("Keras has no layer for this arithmetic", "write it with + - * / alone")


def _with_constant(build: Builder, kind: str, value: Held, constant: Constant, *, reverse: bool) -> Held:
    """Add arithmetic on a value and a parameter or buffer that holds a number for each channel, or one."""
    value = build.settle(value)
    try:
        spread = np.broadcast_to(constant.array, (1, *value.shape)).reshape(-1)[value.index]
    except ValueError:
        raise Inexpressible("its tensor does not fit the image", "give it one number for each channel") from None
    numbers = spread.reshape(-1, spread.shape[-1])[0]
    if not np.array_equal(spread, np.broadcast_to(numbers, spread.shape)):
        raise Inexpressible("its tensor holds more than a number for each channel", "give it one for each channel")
    if kind == "multiply" and constant.source.requires_grad:
        return _scale(build, value, constant, numbers)
    if constant.source.requires_grad:
        raise Inexpressible(f"Keras has no layer that trains what it is to {kind}", "use a bias, or a buffer")
    build.placed.add(id(constant.source))
    build.written.add(id(constant.source))
    scale, offset = _affine(kind, numbers if constant.tensor.numel() > 1 else numbers[:1], reverse=reverse)
    return add(build, value, "Rescaling", scale=_plain(scale), offset=_plain(offset))


def _scale(build: Builder, value: Held, constant: Constant, numbers: Array) -> Held:
    """Add a learned factor for each channel: a depthwise 1×1 convolution."""
    if value.index.ndim != 3 or constant.tensor.numel() != len(numbers):
        raise Inexpressible("Keras has no layer for a learned factor but for each channel of an image", "use a buffer")
    weights = [Weight(constant.source, numbers.reshape(1, 1, -1, 1))]
    settings: dict[str, Any] = {"kernel_size": (1, 1), "padding": "same", "use_bias": False}
    return build.layer("DepthwiseConv2D", [value], value.index, value.shape, weights, **settings)


def _plain(numbers: Array) -> float | list[float]:
    """Return one number for all channels, or a list of them."""
    values = [float(number) for number in np.atleast_1d(numbers)]
    return values[0] if len(set(values)) == 1 else values
