"""Arithmetic and concatenation in Keras."""

from typing import Any

import numpy as np

from sepnet.anatomy.graph import Operation
from sepnet.anatomy.operators import ARITHMETIC
from sepnet.export.keras.builder import Builder
from sepnet.export.keras.tensor import Held, Inexpressible, Weight

MERGES = {
    **{kind: kind.capitalize() for kind in ("add", "subtract", "multiply", "maximum", "minimum")},
    **{kind: f"ops.{kind}" for kind in ("divide", "power")},
}
"""What Keras calls arithmetic on two tensors."""

KINDS = {name: kind for kind, names in ARITHMETIC.items() for name in names.split()}


def arithmetic(build: Builder, op: Operation) -> Held:
    """Add arithmetic on two tensors, or on one and a number, a parameter or a buffer."""
    kind, first, second = KINDS[op.name], op["self"], op["exponent"] if op["other"] is None else op["other"]
    plainly = op["alpha"] in (None, 1) and op["rounding_mode"] is None
    if not plainly or first is None or second is None or kind not in MERGES:
        raise Inexpressible("Keras has no layer for this arithmetic", "write it with + - * / alone")
    if op.name == "rsub":
        first, second = second, first
    if isinstance(first, Held) and isinstance(second, Held):
        first, second = _aligned(build, first, second, op.shape[1:])
        index = None if first.shape != second.shape else first.index
        return build.layer(MERGES[kind], [first, second], op.shape[1:], index=index)
    reverse = isinstance(second, Held)
    value, other = (second, first) if reverse else (first, second)
    if isinstance(other, Weight):
        return _with_constant(build, kind, value, other, reverse=reverse)
    if not isinstance(other, int | float):
        raise Inexpressible("it takes a tensor that is computed apart from the image", "use a number or a buffer")
    if kind in ("maximum", "minimum") or (kind == "power" and not reverse):
        return build.apply(f"ops.{kind}", value, x2=float(other))
    if kind == "divide" and reverse:
        kind, value = "multiply", build.apply("ops.reciprocal", value)
    return _rescale(build, kind, value, other, reverse=reverse)


def concat(build: Builder, op: Operation) -> Held:
    """Add a concatenation."""
    parts, dim = op["tensors"], op["dim"] % len(op.shape) - 1
    if dim < 0 or not all(isinstance(part, Held) for part in parts):
        raise Inexpressible("it joins tensors that do not depend on the image, or joins the batch")
    shape = op.shape[1:]
    if len(parts) == 1:
        return parts[0]
    if len(shape) == 1:
        parts, orders = zip(*map(build.by_channel, parts), strict=True)
        starts = np.cumsum([0, *map(len, orders)])
        index = np.concatenate([order + start for order, start in zip(orders, starts, strict=False)])
        return build.layer("Concatenate", parts, shape, index=index.astype(np.int32))
    axis = (2, 0, 1)[dim] if len(shape) == 3 else dim
    settings: dict[str, Any] = {} if axis == len(shape) - 1 else {"axis": axis + 1}
    return build.layer("Concatenate", [build.natural(part) for part in parts], shape, **settings)


def _aligned(build: Builder, first: Held, second: Held, shape: tuple[int, ...]) -> tuple[Held, Held]:
    """Return two values whose Keras tensors can be broadcast against each other."""
    if first.shape == second.shape == shape and np.array_equal(first.index, second.index):
        return first, second
    if len(first.shape) != len(second.shape):
        raise Inexpressible("its two tensors have different numbers of dimensions", "reshape one of them first")
    if np.broadcast_shapes(first.shape, second.shape) != shape:
        raise Inexpressible("it repeats values that no full tensor stands beside", "leave expand out")
    return build.natural(first), build.natural(second)


def _rescale(build: Builder, kind: str, value: Held, numbers: Any, *, reverse: bool) -> Held:
    """Add arithmetic on a value and a number, or one for each channel; ``reverse`` says that the number is first."""
    if kind == "divide" and not reverse:
        if not np.all(numbers):
            raise Inexpressible("it divides by 0")
        kind, numbers = "multiply", 1 / numbers
    forms = {"add": (1.0, numbers), "multiply": (numbers, 0.0)}
    forms["subtract"] = (-1.0, numbers) if reverse else (1.0, -numbers)
    if kind not in forms:
        raise Inexpressible("Keras has no layer for this arithmetic", "write it with + - * / alone")
    scale, offset = map(_shortest, forms[kind])
    return build.apply("Rescaling", value, scale=scale, offset=offset)


def _with_constant(build: Builder, kind: str, value: Held, constant: Weight, *, reverse: bool) -> Held:
    """Add arithmetic on a value and a parameter or buffer that holds a number for each channel, or one."""
    try:
        spread = np.broadcast_to(constant.array, (1, *value.shape)).reshape(-1)[value.index]
    except ValueError:
        raise Inexpressible("its tensor does not fit the image", "give it one number for each channel") from None
    numbers = spread.reshape(-1, spread.shape[-1])[0]
    if not np.array_equal(spread, np.broadcast_to(numbers, spread.shape)):
        raise Inexpressible("its tensor holds more than a number for each channel", "give it one for each channel")
    if kind == "multiply" and constant.source.requires_grad:
        if value.index.ndim != 3 or constant.array.size != len(numbers):
            reason = "Keras has no layer for a learned factor but for each channel of an image"
            raise Inexpressible(reason, "use a buffer")
        weights = [Weight(constant.source, numbers.reshape(1, 1, -1, 1))]
        return build.apply("DepthwiseConv2D", value, weights, kernel_size=(1, 1), padding="same", use_bias=False)
    if constant.source.requires_grad:
        raise Inexpressible(f"Keras has no layer that trains what it is to {kind}", "use a bias, or a buffer")
    build.placed.add(id(constant.source))
    build.written.add(id(constant.source))
    return _rescale(build, kind, value, numbers, reverse=reverse)


def _shortest(numbers: Any) -> float | list[float]:
    """Return one number for all channels, or a list of them."""
    values = [float(number) for number in np.atleast_1d(numbers)]
    return values[0] if len(set(values)) == 1 else values
