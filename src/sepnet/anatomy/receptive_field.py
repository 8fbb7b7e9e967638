"""Receptive fields as interval arithmetic: which input pixels each unit of a tensor can see.

The arithmetic is that of Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional neural
networks" (Distill), carried per axis and with offsets. Nothing is clipped to the image.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from sepnet.anatomy.windows import Window

HEIGHT, WIDTH = 0, 1
AXES = (HEIGHT, WIDTH)


class FieldError(Exception):
    """An operation is refused: its receptive field is not one interval with one jump. The message says why."""


class Span(NamedTuple):
    """Which input pixels the units see along one axis.

    Unit ``i`` sees the pixels ``low + jump * i`` to ``high + jump * i``, both included. A jump of 0 means that
    every unit sees the same pixels.
    """

    low: int
    high: int
    jump: int

    @property
    def size(self) -> int:
        """The receptive field, in pixels."""
        return self.high - self.low + 1

    def slide(self, window: Window) -> "Span":
        """Return the span after a sliding window."""
        low = self.low - window.before * self.jump
        high = self.high + ((window.kernel - 1) * window.dilation - window.before) * self.jump
        return Span(low, high, self.jump * window.stride)

    def hull(self, count: int) -> "Span":
        """Return the span of a unit that sees all of ``count`` positions: global pooling, a dense layer."""
        return Span(self.low, self.high + (count - 1) * self.jump, 0)


class Factor(NamedTuple):
    """``size`` positions of a tensor dimension: along an image axis, or, for ``None``, along none."""

    size: int
    axis: int | None


Dim = tuple[Factor, ...]


def free(size: int) -> Dim:
    """Return a dimension of ``size`` positions along no image axis."""
    return (Factor(size, None),)


@dataclass(frozen=True)
class Field:
    """The receptive fields of all units of one tensor.

    ``spans`` holds one :class:`Span` for the image's height and one for its width. ``dims`` says, for each
    dimension of the tensor, which image axes run along it, slowest first: an image ``(N, C, H, W)`` has
    none, none, height, width, and its flattened form has one dimension with channel, height and width.
    """

    spans: tuple[Span, ...]
    dims: tuple[Dim, ...]

    @classmethod
    def of_image(cls, shape: Sequence[int]) -> "Field":
        """Return the field of the image ``(N, C, H, W)`` itself: each unit sees its own pixel."""
        batch, channels, height, width = shape
        spatial = ((Factor(height, HEIGHT),), (Factor(width, WIDTH),))
        return normal((Span(0, 0, 1), Span(0, 0, 1)), (free(batch), free(channels), *spatial))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return tuple(prod(factor.size for factor in dim) for dim in self.dims)

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Height and width of what a unit sees, in pixels, unclipped."""
        return self.spans[HEIGHT].size, self.spans[WIDTH].size

    def axes(self, dims: Iterable[int]) -> set[int]:
        """Return the image axes that run along any of ``dims``."""
        return {factor.axis for dim in dims for factor in self.dims[dim] if factor.axis is not None}

    def count(self, axis: int) -> int:
        """Return the number of positions along an image axis: 1 when no dimension carries it."""
        return next((factor.size for dim in self.dims for factor in dim if factor.axis == axis), 1)

    def slide(self, dim: int, window: Window) -> "Field":
        """Return the field after a sliding window along ``dim``, or raise what :meth:`axis_of` does."""
        axis = self.axis_of(dim)
        spans = tuple(span.slide(window) if place == axis else span for place, span in enumerate(self.spans))
        return Field(spans, self.dims).resize(dim, window.out, axis)

    def mix(self, dims: Iterable[int]) -> "Field":
        """Return the field after an operation in which every unit sees all positions along ``dims``."""
        mixed = self.axes(dims)
        spans = (span.hull(self.count(axis)) if axis in mixed else span for axis, span in enumerate(self.spans))
        return normal(tuple(spans), self.dims)

    def resize(self, dim: int, size: int, axis: int | None = None) -> "Field":
        """Return the field with ``size`` positions along ``dim``, which carries ``axis`` or none of the image's."""
        return normal(self.spans, (*self.dims[:dim], (Factor(size, axis),), *self.dims[dim + 1 :]))

    def arrange(self, order: Iterable[int | None]) -> "Field":
        """Return the field with its dimensions in another order, perhaps fewer; ``None`` is one of one position."""
        return normal(self.spans, tuple(() if dim is None else self.dims[dim] for dim in order))

    def reshape(self, shape: Sequence[int]) -> "Field":
        """Return the field of the same units, in the same order, under another shape that cuts no image axis."""
        waiting = list(_joined(factor for dim in self.dims for factor in dim))
        return normal(self.spans, tuple(_take(waiting, size) for size in shape))

    def axis_of(self, dim: int) -> int | None:
        """Return the image axis along ``dim``, or ``None``; refuse one into which image positions were flattened."""
        factors = self.dims[dim]
        if len(factors) == 1:
            return factors[0].axis
        if any(factor.size > 1 for factor in factors if factor.axis is not None):
            raise FieldError("it works along a dimension into which image positions were flattened")
        return None


def normal(spans: tuple[Span, ...], dims: tuple[Dim, ...]) -> Field:
    """Return the field in its one normal form: an axis is carried by a dimension, or has jump 0, not both."""
    carried = {factor.axis for dim in dims for factor in dim}
    spans = tuple(span if axis in carried else Span(span.low, span.high, 0) for axis, span in enumerate(spans))
    moving = {axis for axis, span in enumerate(spans) if span.jump != 0}
    relabelled = ([Factor(size, axis if axis in moving else None) for size, axis in dim] for dim in dims)
    return Field(spans, tuple(map(_joined, relabelled)))


def merge(fields: Sequence[Field], shape: Sequence[int]) -> Field:
    """Return the field of a pointwise operation on several tensors, broadcast to ``shape``.

    Where the tensors move over the image at the same jump the result is exact: the union. Where one does not
    move (a squeeze-and-excitation gate), or they move at different jumps, every unit is given the hull of all
    positions, which is exact for a gate and never too small.
    """
    places = [*zip(range(-len(shape), 0), shape, strict=True)]
    carriers = [
        {one.dims[dim] for one in fields if -dim <= len(one.dims) and one.shape[dim] == size and one.axes([dim])}
        for dim, size in places
    ]
    factors = [(factor.axis, len(column)) for column in carriers for dim in column for factor in dim]
    times = Counter(axis for axis, _ in factors)
    apart = {axis for axis, ways in factors if ways > 1 or times[axis] > 1}
    spans = tuple(_union(fields, axis, apart=axis in apart) for axis in AXES)
    dims = (min(column, default=free(size), key=repr) for column, (_, size) in zip(carriers, places, strict=True))
    return normal(spans, tuple(dims))


def _union(fields: Sequence[Field], axis: int, *, apart: bool) -> Span:
    moving = [field for field in fields if field.count(axis) > 1]
    jumps = {field.spans[axis].jump for field in moving or fields}
    together = len(jumps) == 1 and len(moving) in (0, len(fields)) and not apart
    spans = [field.spans[axis] if together else field.spans[axis].hull(field.count(axis)) for field in fields]
    low, high = min(span.low for span in spans), max(span.high for span in spans)
    return Span(low, high, spans[0].jump if together else 0)


def _joined(factors: Iterable[Factor]) -> Dim:
    """Join neighbours along no axis, and leave out those of one position."""
    joined: list[Factor] = []
    for factor in factors:
        if factor == Factor(1, None):
            continue
        if factor.axis is None and joined and joined[-1].axis is None:
            joined[-1] = Factor(joined[-1].size * factor.size, None)
        else:
            joined.append(factor)
    return tuple(joined)


def _take(waiting: list[Factor], size: int) -> Dim:
    """Remove from the front of ``waiting`` what fills a dimension of ``size`` positions."""
    taken: list[Factor] = []
    if size == 1 and waiting and waiting[0].size == 1:
        return (waiting.pop(0),)
    while size > 1:
        factor = waiting.pop(0)
        if size % factor.size == 0:
            if factor.size > 1:
                taken.append(factor)
            size //= factor.size
        elif factor.axis is None and factor.size % size == 0:
            taken.append(Factor(size, None))
            waiting.insert(0, Factor(factor.size // size, None))
            size = 1
        else:
            raise FieldError("it cuts an image axis in pieces")
    return tuple(taken)
