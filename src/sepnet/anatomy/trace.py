"""From a network to its anatomy."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sepnet.anatomy.anatomy import Anatomy, Convolution, Layer, Peak
from sepnet.anatomy.graph import Graph, Operation, Value, read_graph
from sepnet.anatomy.layers import Names, Row, rows_of
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
    if one_output and not isinstance(reading.graph.result, Value):
        raise SepnetError(not_one_tensor(reading.graph.network, reading.graph.result))
    return _Builder(model, reading).anatomy()


def not_one_tensor(network: str, output: Any) -> str:
    """Return what to say of a network that returns something else than one tensor."""
    kind = next((kind.__name__ for kind in (tuple, list, dict) if isinstance(output, kind)), type(output).__name__)
    return f"network '{network}' returns a {kind}: expected one tensor (N, classes), a number for each class"


@dataclass(frozen=True)
class Reading:
    """A captured network: its graph, the steps on its image, its depthwise→pointwise pairs, its rows.

    ``alone`` says of each convolution in no pair why.
    """

    graph: Graph
    steps: list[Step]
    pairs: list[Pair]
    alone: dict[Operation, str]


def read(model: nn.Module, image_shape: Sequence[int] = (3, 32, 32), *, name: str | None = None) -> Reading:
    """Return the steps of any feed-forward network, for those who want more of them than rows.

    Raises:
        SepnetError: as :func:`trace`, whose conditions hold here too.

    """
    require_counts(image_shape=image_shape)
    graph = read_graph(model, image_shape, name or type(model).__name__)
    steps = walk(graph)
    return Reading(graph, steps, *find_pairs(steps))


def named_steps(model: nn.Module, reading: Reading) -> dict[Step, str]:
    """Return the last step of each row, and the row's name."""
    builder = _Builder(model, reading)
    return {row.steps[-1]: builder.name(row.last) for row in builder.rows if row.last not in builder.inside}


class _Builder:
    """Turns rows into layers, the rows of a strict pair into one."""

    def __init__(self, model: nn.Module, reading: Reading) -> None:
        self.reading = reading
        self.ledger = Ledger(model)
        self.rows = rows_of(reading.steps)
        self.names = Names(self.rows)
        self.kept = kept_for_backward(reading.graph)
        strict = [pair for pair in reading.pairs if not pair.between]
        self.strict = {pair.pointwise: pair for pair in strict}
        self.inside = {pair.depthwise for pair in strict}
        self.pair_names: dict[Operation, str] = {}
        for pair in strict:
            self.pair_names[pair.depthwise] = self.pair_names[pair.pointwise] = self.names.of_pair(pair)

    def anatomy(self) -> Anatomy:
        graph = self.reading.graph
        values, at = peak_memory(graph.image, self.reading.steps)
        image: Any = graph.image.shape[1:]
        return Anatomy(
            network=graph.network,
            input=image,
            layers=(*self._layers(), *self._unused()),
            convolutions=self._convolutions(),
            peak_activation=Peak(values=values, layer=self.name(at)),
        )

    def name(self, op: Operation) -> str:
        """Return the name of the row that an operation belongs to."""
        return self.pair_names.get(op) or self.names.of(op)

    def _layers(self) -> list[Layer]:
        halves = {row.last: row.steps for row in self.rows if row.last in self.inside}
        merged = {
            row: (halves[self.strict[row.last].depthwise] if row.last in self.strict else ()) + row.steps
            for row in self.rows
            if row.last not in self.inside
        }
        kept = self._kept({step.operation: row for row, steps in merged.items() for step in steps})
        return [self._layer(row, steps, kept[row]) for row, steps in merged.items()]

    def _kept(self, row_of: dict[Operation, Row]) -> Counter[Row]:
        """Return the bytes kept by each row: what an operation without one keeps counts at the next."""
        found: Counter[Row] = Counter()
        waiting, row = 0, self.rows[-1]
        for op in self.reading.graph.operations:
            waiting += self.kept[op]
            if op in row_of:
                row = row_of[op]
                found[row] += waiting
                waiting = 0
        found[row] += waiting
        return found

    def _layer(self, row: Row, steps: tuple[Step, ...], kept: int) -> Layer:
        trainable, non_trainable = self.ledger.count(name for step in steps for name in step.operation.tensors)
        field = steps[-1].field
        height, width = field.spans
        rates = [float(step.operation["p"]) for step in steps if step.kind == "dropout"]
        return Layer(
            name=self.name(row.last),
            kind="separable" if row.last in self.strict else row.kind,
            output=_output(field),
            receptive_field=field.receptive_field,
            jump=(height.jump, width.jump),
            start=(height.low, width.low),
            trainable=trainable,
            non_trainable=non_trainable,
            macs=sum(step.macs for step in steps),
            dropout_rate=rates[0] if rates else None,
            kept_for_backward=kept,
        )

    def _unused(self) -> list[Layer]:
        """Return rows for the tensors that no layer uses, so that the columns add up to the whole model."""
        rows = []
        for owner, names in self.ledger.left_over().items():
            trainable, non_trainable = self.ledger.count(names)
            if trainable + non_trainable:
                rows.append(_unused_row(owner or self.reading.graph.network, trainable, non_trainable))
        return rows

    def _convolutions(self) -> tuple[Convolution, ...]:
        pairs = {pair.depthwise: pair for pair in self.reading.pairs}
        found = []
        for step in self.reading.steps:
            op = step.operation
            if op in pairs:
                found.append(self._pair(pairs[op]))
            elif op in self.reading.alone:
                name = self.names.of(op)
                found.append(Convolution(name=name, parts=(name,), reason=self.reading.alone[op]))
        return tuple(found)

    def _pair(self, pair: Pair) -> Convolution:
        halves = (self.names.of(pair.depthwise), self.names.of(pair.pointwise))
        return Convolution(
            name="+".join(halves) if pair.between else self.name(pair.pointwise),
            parts=halves,
            between=tuple(self.names.of(op) for op in pair.between),
        )


def _output(field: Field) -> tuple[int, ...]:
    """Return the output without the batch, channels first wherever the network keeps them."""
    shape = field.shape
    carriers = [dim for axis in AXES for dim in range(len(shape)) if axis in field.axes([dim])]
    if len(shape) == 4 and len(set(carriers)) == 2:
        order = [dim for dim in range(4) if dim not in carriers] + carriers
        shape = tuple(shape[dim] for dim in order)
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def _unused_row(name: str, trainable: int, non_trainable: int) -> Layer:
    return Layer(
        name=name,
        kind="unused",
        output=(),
        receptive_field=(0, 0),
        jump=(0, 0),
        start=(0, 0),
        trainable=trainable,
        non_trainable=non_trainable,
        macs=0,
        kept_for_backward=0,
    )
