"""From a network to its anatomy."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sepnet.anatomy.anatomy import Anatomy, Convolution, Layer, Peak
from sepnet.anatomy.graph import Graph, Operation, Value, read_graph
from sepnet.anatomy.layers import Row, rows_of
from sepnet.anatomy.parameter_count import Ledger
from sepnet.anatomy.peak_memory import peak_memory
from sepnet.anatomy.receptive_field import AXES, Field
from sepnet.anatomy.separable_pairs import Pair, find_pairs
from sepnet.anatomy.steps import Step, walk
from sepnet.anatomy.training_memory import kept_for_backward
from sepnet.errors import SepnetError
from sepnet.settings import require_counts


def trace(
    model: nn.Module, image_shape: Sequence[int] = (3, 32, 32), *, name: str | None = None, one_output: bool = False
) -> Anatomy:
    """Return the anatomy of any feed-forward network for one image ``(C, H, W)``.

    The network is captured once, in evaluation mode; its weights, its mode and the random state are as before
    afterwards. ``name`` is the network's name in the result and in errors, by default its class. With ``one_output``
    a network is refused that returns anything but one tensor, as it cannot be trained.

    Raises:
        SepnetError: the network does not accept such an image, decides by the values in a tensor, or holds an
            operation whose receptive field is not one interval with one jump; the message names the layer.

    """
    reading = read(model, image_shape, name=name)
    graph, image = reading.graph, reading.graph.image
    if one_output and not isinstance(graph.result, Value):
        raise SepnetError(not_one_tensor(graph.network, graph.result))
    values, at = peak_memory(image, reading.steps)
    row_of = {step.operation: row for row in reading.rows for step in row.steps}
    channels, height, width = image.shape[1:]
    return Anatomy(
        network=graph.network,
        input=(channels, height, width),
        layers=tuple(_layers(model, reading, row_of)),
        convolutions=tuple(_convolutions(reading, row_of)),
        peak_activation=Peak(values=values, layer=row_of[at].name if at in row_of else at.path or at.name),
    )


def not_one_tensor(network: str, output: Any) -> str:
    """Return what to say of a network that returns something else than one tensor."""
    kind = next((kind.__name__ for kind in (tuple, list, dict) if isinstance(output, kind)), type(output).__name__)
    return f"network '{network}' returns a {kind}: expected one tensor (N, classes), a number for each class"


@dataclass(frozen=True)
class Reading:
    """A captured network: its graph, the steps on its image, its depthwise→pointwise pairs.

    ``alone`` says of each convolution in no pair why; ``rows`` are what a table has of the steps.
    """

    graph: Graph
    steps: list[Step]
    pairs: list[Pair]
    alone: dict[Operation, str]
    rows: list[Row]


def read(model: nn.Module, image_shape: Sequence[int] = (3, 32, 32), *, name: str | None = None) -> Reading:
    """Return the steps of any network that :func:`trace` does not refuse, for those who want more of them than rows."""
    require_counts(image_shape=image_shape)
    graph = read_graph(model, image_shape, name or type(model).__name__)
    steps = walk(graph)
    pairs, alone = find_pairs(steps)
    return Reading(graph, steps, pairs, alone, rows_of(steps, pairs))


def _layers(model: nn.Module, reading: Reading, row_of: dict[Operation, Row]) -> Iterator[Layer]:
    """Yield the rows, then one for each module with tensors that no layer uses, so that the columns add up."""
    ledger, kept = Ledger(model), _kept(reading, row_of)
    for row in reading.rows:
        field, rates = row.steps[-1].field, [step.operation["p"] for step in row.steps if step.kind == "dropout"]
        trainable, non_trainable = ledger.count(name for step in row.steps for name in step.operation.tensors)
        height, width = field.spans
        yield Layer(
            name=row.name,
            kind=row.kind,
            output=_output(field),
            receptive_field=field.receptive_field,
            jump=(height.jump, width.jump),
            start=(height.low, width.low),
            trainable=trainable,
            non_trainable=non_trainable,
            macs=sum(step.macs for step in row.steps),
            dropout_rate=float(rates[0]) if rates else None,
            kept_for_backward=kept[row],
        )
    nothing: dict[str, Any] = {"output": (), "macs": 0, "kept_for_backward": 0}
    nothing |= dict.fromkeys(("receptive_field", "jump", "start"), (0, 0))
    for owner, names in ledger.left_over().items():
        trainable, non_trainable = ledger.count(names)
        name = owner or reading.graph.network
        yield Layer(name=name, kind="unused", trainable=trainable, non_trainable=non_trainable, **nothing)


def _kept(reading: Reading, row_of: dict[Operation, Row]) -> Counter[Row]:
    """Return the bytes kept by each row: what an operation without one keeps counts at the next."""
    kept, found, row = kept_for_backward(reading.graph), Counter[Row](), reading.rows[-1]
    for op in reversed(reading.graph.operations):
        row = row_of.get(op, row)
        found[row] += kept[op]
    return found


def _convolutions(reading: Reading, row_of: dict[Operation, Row]) -> Iterator[Convolution]:
    names = {step.operation: row.name for row in reading.rows for row in row.halves or [row] for step in row.steps}
    pairs = {pair.depthwise: pair for pair in reading.pairs}
    for op in (step.operation for step in reading.steps):
        if op in pairs:
            pair, pointwise = pairs[op], pairs[op].pointwise
            halves, between = (names[op], names[pointwise]), tuple(names[one] for one in pair.between)
            yield Convolution(
                name="+".join(halves) if between else row_of[pointwise].name, parts=halves, between=between
            )
        elif op in reading.alone:
            yield Convolution(name=names[op], parts=(names[op],), reason=reading.alone[op])


def _output(field: Field) -> tuple[int, ...]:
    """Return the output without the batch, channels first wherever the network keeps them."""
    shape = field.shape
    carriers = [dim for axis in AXES for dim in range(len(shape)) if axis in field.axes([dim])]
    if len(shape) == 4 and len(set(carriers)) == 2:
        order = [dim for dim in range(4) if dim not in carriers] + carriers
        shape = tuple(shape[dim] for dim in order)
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
