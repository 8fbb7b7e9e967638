"""The operations that leave every unit where it is, and those that mix whole dimensions."""

from typing import Any

from sepnet.anatomy.call import Call, Operand, Outcome
from sepnet.anatomy.field import AXES, FieldError
from sepnet.anatomy.merging import concatenate, merge


def activation(kind: str) -> Any:
    """Return the handler of an activation function of this kind."""

    def handle(call: Call) -> Outcome:
        return Outcome(merge(call.fields, call.output), kind, memory="in place")

    return handle


def arithmetic(kind: str) -> Any:
    """Return the handler of pointwise arithmetic; with a plain number it is no layer and has no row."""

    def handle(call: Call) -> Outcome:
        alone = len(call.operands) == 1
        field = merge(call.fields, call.output)
        return Outcome(field, None if alone else kind, memory="in place" if alone else "own")

    return handle


def unchanged(call: Call) -> Outcome:
    """Handle what only copies, casts or names a tensor."""
    return Outcome(call.input, memory="view")


def expand(call: Call) -> Outcome:
    """Handle broadcasting to a larger shape."""
    return Outcome(merge([call.input], call.output), memory="view")


def dropout(call: Call) -> Outcome:
    """Handle dropout of units or channels; its rate is kept."""
    return Outcome(call.input, "dropout", dropout_rate=float(call.get(1, "p", 0.5)), memory="in place")


def batch_norm(call: Call) -> Outcome:
    """Handle batch norm: pointwise by its moving statistics, else over all positions."""
    by_batch = call.module is None and call.get(5, "training", False)
    moving = call.get(1, "running_mean") is not None and not by_batch
    field = call.input if moving else call.input.mix([0, *range(2, len(call.output))])
    return Outcome(field, "batch norm", memory="in place")


def layer_norm(call: Call) -> Outcome:
    """Handle layer norm and RMS norm over the last dimensions."""
    count = len(call.get(1, "normalized_shape"))
    kind = "rms norm" if "rms" in call.operation.lower() else "layer norm"
    dims = range(len(call.output) - count, len(call.output))
    return Outcome(call.input.mix(dims), kind, memory="in place")


def group_norm(call: Call) -> Outcome:
    """Handle group norm, whose statistics are over all positions of an image."""
    return Outcome(call.input.mix(range(1, len(call.output))), "group norm", memory="in place")


def instance_norm(call: Call) -> Outcome:
    """Handle instance norm, whose statistics are over all positions unless moving ones are kept."""
    moving = call.module is not None and getattr(call.module, "running_mean", None) is not None
    field = call.input if moving else call.input.mix(range(2, len(call.output)))
    return Outcome(field, "instance norm", memory="in place")


def channel_norm(call: Call) -> Outcome:
    """Handle local response norm, over neighbouring channels."""
    return Outcome(call.input.mix([1]), "local response norm", memory="in place")


def along_dim(kind: str, position: int = 1, default: int | None = None) -> Any:
    """Return the handler of an operation over whole dimensions that keeps the shape, as softmax."""

    def handle(call: Call) -> Outcome:
        dims = _dims(call.get(position, "dim", default), len(call.output))
        return Outcome(call.input.mix(dims), kind, memory="in place")

    return handle


def reduction(kind: str) -> Any:
    """Return the handler of a reduction over dimensions: the mean, the maximum and their like."""

    def handle(call: Call) -> Outcome:
        if len(call.operands) > 1:
            return arithmetic(kind)(call)
        field = call.input
        dims = _dims(call.get(1, "dim", call.kwargs.get("axis")), len(field.dims))
        whole_image = field.axes(dims) == set(AXES)
        field = field.mix(dims)
        several = len(call.output) > 0 and not isinstance(call.output[0], int)
        kept = len(call.output[0] if several else call.output) == len(field.dims)
        for dim in dims:
            field = field.resize(dim, 1)
        field = field if kept else field.drop(dims)
        names = {"mean": "average pool", "amax": "max pool", "max": "max pool"}
        label = f"global {names[kind]}" if whole_image and kind in names else kind
        return Outcome(tuple(field for _ in call.output) if several else field, label)

    return handle


def concat(call: Call) -> Outcome:
    """Handle concatenation; constants among the tensors are seen by nobody."""
    dim = call.get(1, "dim", call.kwargs.get("axis", 0))
    return Outcome(concatenate(call.fields, int(dim), call.output), "concat")


def stack(call: Call) -> Outcome:
    """Handle stacking along a new dimension."""
    dim = int(call.get(1, "dim", 0)) % len(call.output)
    return Outcome(concatenate([field.insert(dim) for field in call.fields], dim, call.output), "stack")


def gated_half(call: Call) -> Outcome:
    """Handle GLU: one half of the channels gates the other."""
    dim = int(call.get(1, "dim", -1)) % len(call.output)
    if call.input.axes([dim]):
        raise FieldError("it pairs units of one half of the image with units of the other")
    return Outcome(call.input.resize(dim, call.output[dim]), "glu")


def _dims(dims: Any, count: int) -> list[int]:
    if dims is None:
        return list(range(count))
    if isinstance(dims, Operand):
        raise FieldError("its dimensions are a tensor")
    return [dim % count for dim in ([dims] if isinstance(dims, int) else dims)]
