"""Receptive fields where several tensors meet: arithmetic, gates, concatenation."""

from collections import Counter
from collections.abc import Sequence

from sepnet.anatomy.receptive_field import AXES, Field, FieldError, Span, free, normal


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


def concatenate(fields: Sequence[Field], dim: int, shape: Sequence[int]) -> Field:
    """Return the field of tensors put one after the other along ``dim``.

    Raises:
        FieldError: an image axis runs along ``dim``.

    """
    if any(field.axis_of(dim) is not None for field in fields):
        raise FieldError("it concatenates along an image axis")
    one_position = [*shape[:dim], 1, *shape[dim + 1 :]]
    return merge([field.resize(dim, 1) for field in fields], one_position).resize(dim, shape[dim])


def _union(fields: Sequence[Field], axis: int, *, apart: bool) -> Span:
    moving = [field for field in fields if field.count(axis) > 1]
    jumps = {field.spans[axis].jump for field in moving or fields}
    together = len(jumps) == 1 and len(moving) in (0, len(fields)) and not apart
    spans = [field.spans[axis] if together else field.spans[axis].hull(field.count(axis)) for field in fields]
    low, high = min(span.low for span in spans), max(span.high for span in spans)
    return Span(low, high, spans[0].jump if together else 0)
