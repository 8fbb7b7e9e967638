"""The operations that move, cut or pad positions and compute nothing."""

from typing import Any

from sepnet.anatomy.call import Call, Operand, Outcome
from sepnet.anatomy.field import AXES, Field, FieldError


def reshape(call: Call) -> Outcome:
    """Handle another shape for the same values in the same order."""
    return Outcome(call.input.reshape(call.output), memory="view")


def flatten(call: Call) -> Outcome:
    """Handle flattening: each unit still sees what it saw; only the layer after it mixes."""
    field = call.input.reshape(call.output)
    return Outcome(field, "flatten" if field.shape != call.input.shape else None, memory="view")


def view(call: Call) -> Outcome:
    """Handle ``view`` and ``reshape``: a flatten when one dimension remains beside the batch."""
    is_flatten = len(call.output) == 2 and len(call.input.dims) > 2
    return flatten(call) if is_flatten and call.output[0] == call.input.shape[0] else reshape(call)


def permute(call: Call) -> Outcome:
    """Handle a new order of the dimensions."""
    order = call.args[1:] if call.args[1:] and isinstance(call.args[1], int) else call.get(1, "dims")
    return Outcome(call.input.permute([dim % len(order) for dim in order]), memory="view")


def transpose(call: Call) -> Outcome:
    """Handle the exchange of two dimensions."""
    order = list(range(len(call.output)))
    first, second = call.get(1, "dim0"), call.get(2, "dim1")
    order[first], order[second] = order[second], order[first]
    return Outcome(call.input.permute(order), memory="view")


def channel_shuffle(call: Call) -> Outcome:
    """Handle the exchange of channels among groups."""
    if call.input.axes([1]):
        raise FieldError("its channels hold image positions")
    return Outcome(call.input, "channel shuffle")


def parts(call: Call) -> Outcome:
    """Handle ``chunk`` and ``split``: consecutive parts along one dimension."""
    dim = int(call.get(2, "dim", 0)) % len(call.output[0])
    fields, start = [], 0
    for shape in call.output:
        fields.append(call.input.pick(dim, shape[dim], start))
        start += shape[dim]
    return Outcome(tuple(fields), memory="view")


def unbind(call: Call) -> Outcome:
    """Handle one result for each position along one dimension."""
    dim = int(call.get(1, "dim", 0)) % len(call.input.dims)
    fields = (call.input.pick(dim, 1, start).drop([dim]) for start in range(len(call.output)))
    return Outcome(tuple(fields), memory="view")


def narrow(call: Call) -> Outcome:
    """Handle a range of positions along one dimension."""
    dim, start, length = call.get(1, "dim"), call.get(2, "start"), call.get(3, "length")
    field = call.input.pick(dim % len(call.output), length, start % call.input.shape[dim])
    return _cut(call.input, field)


def select(call: Call) -> Outcome:
    """Handle one position along one dimension, which vanishes."""
    dim = call.get(1, "dim") % len(call.input.dims)
    index = call.get(2, "index") % call.input.shape[dim]
    return _cut(call.input, call.input.pick(dim, 1, index).drop([dim]))


def getitem(call: Call) -> Outcome:
    """Handle indexing by integers, slices, ``None`` and ``…``; a tuple of tensors gives one of them."""
    source, index = call.args
    if not isinstance(source, Operand):
        chosen = source[index]
        several = isinstance(chosen, tuple)
        return Outcome(tuple(one.field for one in chosen) if several else chosen.field, memory="view")
    field, gone = call.input, []
    for dim, item in enumerate(_full_index(index, len(field.dims))):
        if item is None:
            field = field.insert(dim)
        elif isinstance(item, int):
            field = field.pick(dim, 1, item % field.shape[dim])
            gone.append(dim)
        elif isinstance(item, slice):
            start, stop, step = item.indices(field.shape[dim])
            field = field.pick(dim, len(range(start, stop, step)), start, step)
        else:
            raise FieldError("it indexes by a tensor or a list")
    return _cut(call.input, field.drop(gone))


def pad(call: Call) -> Outcome:
    """Handle padding by any filling; negative padding cuts."""
    widths = call.get(1, "padding", call.kwargs.get("pad"))
    field, last = call.input, len(call.output) - 1
    for place, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        if before or after:
            field = field.pick(last - place, call.output[last - place], -before)
    return Outcome(field, "pad")


def _full_index(index: Any, dims: int) -> list[Any]:
    items = list(index) if isinstance(index, tuple) else [index]
    whole = [slice(None)] * (dims - sum(item is not None and item is not Ellipsis for item in items))
    place = next((place for place, item in enumerate(items) if item is Ellipsis), None)
    if place is None:
        return items + whole
    return items[:place] + whole + items[place + 1 :]


def _cut(before: Field, after: Field) -> Outcome:
    """Give a row to a cut through the image, none to one through the channels."""
    cut = after.spans != before.spans or any(after.count(axis) != before.count(axis) for axis in AXES)
    return Outcome(after, "slice" if cut else None, memory="view")
