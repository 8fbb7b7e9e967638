"""The int8 plan: a network as integer operators, from which every int8 format is written.

A value is int8, channels last, ``real = scale · (q − zero_point)``; weights are int8, symmetric, with a scale for each
output channel; accumulators are int32. What each operator computes is in :mod:`sepnet.export.int8.reference`.
"""

from dataclasses import dataclass, field
from math import frexp, prod

import numpy as np

from sepnet.export.int8.layers import Pair, Shape

Array = np.ndarray
LOWEST, HIGHEST = -128, 127
ADD_BITS = 20
"""Binary digits after the point in a sum's multipliers, of which the larger is below 2: 9 + 21 bits and a sign."""


@dataclass(frozen=True)
class Scale:
    """How int8 stands for real numbers: ``real = scale · (q − zero_point)``, one pair for the whole tensor."""

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """The least number that it stands for."""
        return self.scale * (LOWEST - self.zero_point)

    @property
    def high(self) -> float:
        """The greatest number that it stands for."""
        return self.scale * (HIGHEST - self.zero_point)


@dataclass(frozen=True, kw_only=True)
class Multiplier:
    """A positive real factor as ``mantissa · 2^−shift``, mantissa in [2³⁰, 2³¹).

    ``x`` times it is ``(x · mantissa + 2^(shift − 1)) >> shift`` in 64 bits: nearest, a half up. TFLite and CMSIS-NN
    call it single rounding; gemmlowp's own rounds twice.
    """

    mantissa: int
    shift: int

    @classmethod
    def of(cls, factor: float) -> "Multiplier":
        """Return the nearest to a real factor between 2⁻³¹ and 2³⁰; a smaller one is taken for 2⁻³¹."""
        fraction, exponent = frexp(max(factor, 2.0**-31))
        mantissa = round(fraction * (1 << 31))
        if mantissa == 1 << 31:
            mantissa, exponent = 1 << 30, exponent + 1
        assert exponent <= 30
        return cls(mantissa=mantissa, shift=31 - exponent)


@dataclass(kw_only=True, eq=False)
class Operator:
    """One operator: ``inputs`` number the values it takes, 0 are the pixels; ``output`` is its own, of ``shape``."""

    inputs: tuple[int, ...]
    output: int
    shape: Shape
    path: str = ""


@dataclass(kw_only=True, eq=False)
class Normalize(Operator):
    """uint8 pixels to int8: ``(pixel · factor[c] + offset[c] + 2¹⁵) >> 16``, clamped."""

    factor: tuple[int, ...]
    offset: tuple[int, ...]


@dataclass(kw_only=True, eq=False)
class Convolve(Operator):
    """A convolution: ``weight`` int8 ``(F, kh, kw, C / groups)``, ``bias`` int32 ``(F,)`` of scale input · weight.

    ``factors`` has one multiplier for each filter, input · weight / output. Padding holds the input's zero point.
    """

    weight: Array
    weight_scale: Array
    bias: Array
    factors: tuple[Multiplier, ...]
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    groups: int

    @property
    def is_depthwise(self) -> bool:
        """Whether each filter looks at one channel, and there are several."""
        return self.groups > 1 and self.weight.shape[3] == 1

    @property
    def is_pointwise(self) -> bool:
        """Whether it takes each pixel alone, and all its channels."""
        kernel = self.weight.shape[1:3]
        return self.groups == 1 and kernel == (1, 1) and self.stride == (1, 1) and self.padding == ((0, 0), (0, 0))


@dataclass(kw_only=True, eq=False)
class Table(Operator):
    """Any function of one number: ``table[q + 128]``, int8 ``(256,)``."""

    table: Array
    name: str


@dataclass(kw_only=True, eq=False)
class Sum(Operator):
    """``(Σ (q − zero_point) · factor + 2^(shift − 1)) >> shift`` of two values, in 32 bits."""

    factors: Pair
    shift: int


@dataclass(kw_only=True, eq=False)
class Pool(Operator):
    """The maximum or the mean of windows, over the pixels that are there; the scale stays.

    A mean is that of the int8 numbers themselves, rounded to the nearest, halves away from zero, as TFLite's is.
    """

    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    averages: bool


@dataclass(kw_only=True, eq=False)
class Average(Operator):
    """The mean of each channel: the sum of ``q − zero_point`` times ``factor``."""

    factor: Multiplier


@dataclass(kw_only=True, eq=False)
class PadZeros(Operator):
    """The input's zero point around the image, and before and after its channels."""

    height: Pair
    width: Pair
    channels: Pair


@dataclass(kw_only=True, eq=False)
class Join(Operator):
    """Values of one scale side by side, along their channels."""


@dataclass(kw_only=True, eq=False)
class View(Operator):
    """The same bytes in another shape."""


@dataclass(kw_only=True, eq=False)
class Plan:
    """Integer operators in the order of execution; the last one's output are the scores, one for each class.

    Images are pixels 0 to 255, ``(H, W, C)``. ``scales`` says how each value is to be read; value 0, the pixels, has
    none.
    """

    network: str
    image: Shape
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    operators: list[Operator] = field(default_factory=list)
    scales: dict[int, Scale] = field(default_factory=dict)

    @property
    def output(self) -> int:
        """The number of the value that holds the scores."""
        return self.operators[-1].output

    @property
    def shapes(self) -> dict[int, Shape]:
        """The shape of each value."""
        return {0: self.image, **{operator.output: operator.shape for operator in self.operators}}

    def size(self, value: int) -> int:
        """Return how many bytes a value takes."""
        return prod(self.shapes[value])

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights, biases, multipliers and tables."""
        return sum(constant_bytes(operator) for operator in self.operators)


def constant_bytes(operator: Operator) -> int:
    """Return the bytes of an operator's constants: int8 weights and shifts, int32 biases and mantissas."""
    if isinstance(operator, Convolve):
        return int(operator.weight.size) + 9 * len(operator.bias)
    if isinstance(operator, Table):
        return len(operator.table)
    if isinstance(operator, Normalize):
        return 8 * len(operator.factor)
    return 0
