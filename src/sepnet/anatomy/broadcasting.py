"""Receptive fields where several tensors meet: arithmetic, gates, concatenation."""

from collections import Counter
from collections.abc import Sequence
from math import prod

from sepnet.anatomy.receptive_field import AXES, Dim, Field, FieldError, Span, free, normal


def merge(fields: Sequence[Field], shape: Sequence[int]) -> Field:
    """Return the field of a pointwise operation on several tensors, broadcast to ``shape``.

    Where the tensors move over the image at the same jump the result is exact: the union. Where one does not
    move (a squeeze-and-excitation gate), or they move at different jumps, every unit is given the hull of all
    positions, which is exact for a gate and never too small.
    """
    aligned = [(None,) * (len(shape) - len(field.dims)) + field.dims for field in fields]
    columns = list(zip(*aligned, strict=True))
    dims = [_shared(column, size) for column, size in zip(columns, shape, strict=True)]
    seen = Counter(factor.axis for candidates in dims for factor in candidates if factor.axis is not None)
    tangled = {axis for axis, times in seen.items() if times > 1}
    tangled |= {
        factor.axis
        for column, size in zip(columns, shape, strict=True)
        if len(_distinct(column, size)) > 1
        for dim in _distinct(column, size)
        for factor in dim
        if factor.axis is not None
    }
    spans = tuple(_union(fields, axis, apart=axis in tangled) for axis in AXES)
    return normal(spans, tuple(dims))


def concatenate(fields: Sequence[Field], dim: int, shape: Sequence[int]) -> Field:
    """Return the field of tensors put one after the other along ``dim``.

    Raises:
        FieldError: an image axis runs along ``dim``.

    """
    dim %= len(shape)
    if any(field.axis_of(dim) is not None for field in fields):
        raise FieldError("it concatenates along an image axis")
    one_position = [*shape[:dim], 1, *shape[dim + 1 :]]
    return merge([field.resize(dim, 1) for field in fields], one_position).resize(dim, shape[dim])


def _distinct(column: Sequence[Dim | None], size: int) -> set[Dim]:
    """Return the different ways in which image axes run along one broadcast dimension."""
    full = [dim for dim in column if dim is not None and prod(factor.size for factor in dim) == size]
    return {dim for dim in full if any(factor.axis is not None for factor in dim)}


def _shared(column: Sequence[Dim | None], size: int) -> Dim:
    return min(_distinct(column, size), default=free(size), key=repr)


def _union(fields: Sequence[Field], axis: int, *, apart: bool) -> Span:
    moving = [field for field in fields if field.count(axis) > 1]
    still = [field for field in fields if field.count(axis) == 1]
    jumps = {field.spans[axis].jump for field in moving or still}
    together = len(jumps) == 1 and not (moving and still) and not apart
    spans = [field.spans[axis] if together else field.spans[axis].hull(field.count(axis)) for field in fields]
    low, high = min(span.low for span in spans), max(span.high for span in spans)
    return Span(low, high, spans[0].jump if together else 0)
