"""The definition of the int8 plan: each operator in PyTorch's integers, to which every format is held.

Products are exact: a convolution's are computed in floating point only where no partial sum can leave the integers
that the type holds, 2²⁴ for float32 and 2⁵³ for float64.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sepnet.export.int8.layers import Pair
from sepnet.export.int8.plan import (
    HIGHEST,
    LOWEST,
    Average,
    Convolve,
    Join,
    Multiplier,
    Normalize,
    Operator,
    PadZeros,
    Plan,
    Pool,
    Scale,
    Sum,
    Table,
    View,
)

BATCH = 10
"""Images at a time: what they take stays in a processor's cache."""


def run(plan: Plan, images: Tensor, visit: Callable[[int, Tensor], None] = lambda *_: None) -> Tensor:
    """Return the int8 scores ``(N, classes)`` of images ``(N, C, H, W)``, uint8; ``visit`` sees each value, NHWC."""
    parts = [_run_batch(plan, batch.permute(0, 2, 3, 1), visit) for batch in images.split(BATCH)]
    return torch.cat(parts)


def logits(plan: Plan, images: Tensor) -> Tensor:
    """Return the scores as real numbers, float32 ``(N, classes)``."""
    scale = plan.scales[plan.output]
    return (run(plan, images).float() - scale.zero_point) * scale.scale


def _run_batch(plan: Plan, pixels: Tensor, visit: Callable[[int, Tensor], None]) -> Tensor:
    values = {0: pixels}
    last = {value: place for place, operator in enumerate(plan.operators) for value in operator.inputs}
    for place, operator in enumerate(plan.operators):
        values[operator.output] = apply(operator, plan, [values[value] for value in operator.inputs])
        visit(operator.output, values[operator.output])
        for value in operator.inputs:
            if last[value] == place:
                values.pop(value, None)
    return values[plan.output].flatten(1)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What an operator is given: ``values`` ``(N, H, W, C)``, how each is to be read, and how its result is."""

    values: list[Tensor]
    read: list[Scale]
    written: Scale


def apply(operator: Operator, plan: Plan, values: list[Tensor]) -> Tensor:
    """Return an operator's result ``(N, H, W, C)``, int8."""
    read = [plan.scales[value] for value in operator.inputs if value]
    return _compute(operator, Inputs(values, read, plan.scales[operator.output]))


@singledispatch
def _compute(operator: Operator, inputs: Inputs) -> Tensor:
    raise NotImplementedError(type(operator).__name__)


@_compute.register
def _(operator: Normalize, inputs: Inputs) -> Tensor:
    factor, offset = torch.tensor(operator.factor), torch.tensor(operator.offset)
    return _clamped((inputs.values[0].long() * factor + offset + (1 << 15)) >> 16)


@_compute.register
def _(operator: Convolve, inputs: Inputs) -> Tensor:
    x = inputs.values[0].int() - inputs.read[0].zero_point
    total = accumulate(operator, x) + torch.from_numpy(operator.bias)
    return _clamped(scaled(total, operator.factors) + inputs.written.zero_point)


@_compute.register
def _(operator: Table, inputs: Inputs) -> Tensor:
    return torch.from_numpy(operator.table)[inputs.values[0].int() - LOWEST]


@_compute.register
def _(operator: Sum, inputs: Inputs) -> Tensor:
    first, second = (x.int() - scale.zero_point for x, scale in zip(inputs.values, inputs.read, strict=True))
    total = first * operator.factors[0] + second * operator.factors[1] + (1 << operator.shift - 1)
    return _clamped((total >> operator.shift) + inputs.written.zero_point)


@_compute.register
def _(operator: Pool, inputs: Inputs) -> Tensor:
    x = inputs.values[0]
    window = (operator.kernel, operator.stride, operator.padding, (1, 1))
    if not operator.averages:
        return torch.stack(list(_taps(x, *window, LOWEST))).amax(0)
    total = torch.stack(list(_taps(x.int(), *window, 0))).sum(0, dtype=torch.int32)
    counts = torch.stack(list(_taps(torch.ones_like(x[:1]), *window, 0))).sum(0, dtype=torch.int32)
    nearest = torch.div(total.abs() + counts // 2, counts, rounding_mode="floor")
    return (total.sign() * nearest).to(torch.int8)


@_compute.register
def _(operator: Average, inputs: Inputs) -> Tensor:
    total = (inputs.values[0].int() - inputs.read[0].zero_point).sum((1, 2), keepdim=True)
    return _clamped(scaled(total, (operator.factor,)) + inputs.written.zero_point)


@_compute.register
def _(operator: PadZeros, inputs: Inputs) -> Tensor:
    around = (*operator.channels, *operator.width, *operator.height)
    return functional.pad(inputs.values[0], around, value=inputs.read[0].zero_point)


@_compute.register
def _(_: Join, inputs: Inputs) -> Tensor:
    return torch.cat(inputs.values, 3)


@_compute.register
def _(operator: View, inputs: Inputs) -> Tensor:
    return inputs.values[0].reshape(len(inputs.values[0]), *operator.shape)


def accumulate(operator: Convolve, x: Tensor) -> Tensor:
    """Return the sums ``(N, H, W, F)`` of weights times ``x`` ``(N, H, W, C)``, exact, without the bias."""
    weight = torch.from_numpy(operator.weight)
    filters, *kernel, _ = weight.shape
    taps = _taps(x, (kernel[0], kernel[1]), operator.stride, operator.padding, operator.dilation, 0)
    by_tap = weight.permute(1, 2, 3, 0).flatten(0, 1)
    if operator.is_depthwise:
        each = filters // operator.groups
        total = torch.zeros((), dtype=torch.int32)
        for tap, factor in zip(taps, by_tap.int(), strict=True):
            total = torch.addcmul(total, tap if each == 1 else tap.repeat_interleave(each, 3), factor[0])
        return total
    exact = torch.float32 if largest_sum(operator) < 1 << 24 else torch.float64
    each = filters // operator.groups
    total = torch.zeros((), dtype=exact)
    for tap, factor in zip(taps, by_tap.to(exact), strict=True):
        parts = zip(tap.to(exact).chunk(operator.groups, 3), factor.split(each, 1), strict=True)
        total = total + torch.cat([part @ columns for part, columns in parts], 3)
    return total.int()


def largest_sum(operator: Convolve) -> int:
    """Return a bound of the accumulator's size, bias left out: no ``q − zero_point`` is larger than 255."""
    return int(np.abs(operator.weight.astype(np.int64)).reshape(len(operator.weight), -1).sum(1).max()) * 255


def scaled(total: Tensor, factors: tuple[Multiplier, ...]) -> Tensor:
    """Return integers times a factor for each channel, rounded as :class:`Multiplier` says."""
    mantissa = torch.tensor([factor.mantissa for factor in factors], dtype=torch.int64)
    shift = torch.tensor([factor.shift for factor in factors], dtype=torch.int64)
    half = torch.ones_like(shift) << (shift - 1)
    return total.long().mul_(mantissa).add_(half).__irshift__(shift)


def _clamped(x: Tensor) -> Tensor:
    return x.clamp_(LOWEST, HIGHEST).to(torch.int8)


def _taps(
    x: Tensor, kernel: Pair, stride: Pair, padding: tuple[Pair, Pair], dilation: Pair, around: int
) -> Iterator[Tensor]:
    """Yield, for each place in the kernel, what it sees from each window: ``(N, H, W, C)``."""
    (top, bottom), (left, right) = padding
    padded = functional.pad(x, (0, 0, left, right, top, bottom), value=around) if padding != ((0, 0), (0, 0)) else x
    rows, columns = (
        (size - step * (extent - 1) - 1) // jump + 1
        for size, extent, step, jump in zip(padded.shape[1:3], kernel, dilation, stride, strict=True)
    )
    for row in range(0, kernel[0] * dilation[0], dilation[0]):
        for column in range(0, kernel[1] * dilation[1], dilation[1]):
            last_row, last_column = row + (rows - 1) * stride[0], column + (columns - 1) * stride[1]
            yield padded[:, row : last_row + 1 : stride[0], column : last_column + 1 : stride[1]]
