"""From a network to the Keras layers that compute the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepnet.anatomy.graph import Graph, Value
from sepnet.anatomy.operators import ARITHMETIC
from sepnet.anatomy.steps import Step, place_of
from sepnet.anatomy.trace import Reading, read
from sepnet.errors import SepnetError
from sepnet.export.keras import arithmetic, layers, views, windows
from sepnet.export.keras.builder import Builder, Handler, KerasLayer
from sepnet.export.keras.tensor import Constant, Held, Inexpressible

CONSTANT_VIEWS = {
    *("view", "reshape", "unsqueeze", "squeeze", "flatten", "contiguous", "expand", "slice", "select"),
    *("detach", "alias", "lift_fresh_copy"),
}
BROADCASTING = {*" ".join(ARITHMETIC.values()).split(), "expand", "expand_as"}

TRANSLATORS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        *(arithmetic.arithmetic, arithmetic.concat),
        *(layers.softplus, layers.bounds, layers.prelu, layers.softmax, layers.dropout),
        *(layers.batch_norm, layers.group_norm, layers.layer_norm, layers.dense),
        *(windows.convolution, windows.max_pool, windows.average_pool, windows.adaptive_pool),
        *(views.unchanged, views.expand, views.reshape, views.permute, views.move, views.pick),
        *(views.pad, views.reduction),
    )
}
"""What writes an operator whose name in the table of operators is no layer, activation or ``ops.…`` of Keras."""


@dataclass(frozen=True, kw_only=True)
class KerasPlan:
    """A network as Keras layers, in the order of execution.

    ``image`` is ``(H, W, C)``; ``output`` numbers the result's tensor. ``left_out`` counts the parameters of the
    PyTorch network that nothing of its result depends on.
    """

    network: str
    image: tuple[int, int, int]
    layers: tuple[KerasLayer, ...]
    output: int
    left_out: int

    @property
    def distinct(self) -> list[KerasLayer]:
        """Each layer once, however often it is called."""
        first: dict[int, KerasLayer] = {}
        for layer in self.layers:
            first.setdefault(layer.identity, layer)
        return list(first.values())

    @property
    def parameters(self) -> int:
        """Keras's total."""
        return sum(layer.parameters for layer in self.distinct)

    @property
    def trainable(self) -> int:
        """How many of the parameters training changes."""
        return sum(layer.trainable for layer in self.distinct)

    @property
    def sequential(self) -> bool:
        """Whether each layer takes the result of the one before and nothing else."""
        chain = all(layer.inputs == (before,) for before, layer in zip(self._outputs, self.layers, strict=False))
        return chain and all(layer.is_layer for layer in self.layers) and len(self.distinct) == len(self.layers)

    @property
    def gives_probabilities(self) -> bool:
        """Whether the network ends in a softmax."""
        last = self.layers[-1]
        return last.kind == "Softmax" or last.settings.get("activation") == "softmax"

    @property
    def _outputs(self) -> list[int]:
        return [0, *(layer.output for layer in self.layers)]


def plan(model: nn.Module, image_shape: Sequence[int] = (3, 32, 32), *, name: str | None = None) -> KerasPlan:
    """Return the Keras layers, with their weights, that compute what the network does in evaluation mode.

    Args:
        model: any feed-forward network.
        image_shape: ``(C, H, W)`` of one image.
        name: the network's, its class when absent.

    Raises:
        SepnetError: it cannot be read, or an operation has no counterpart in Keras; the layer is named.

    """
    return _Planner(model, read(model, image_shape, name=name)).plan()


class _Planner:
    def __init__(self, model: nn.Module, reading: Reading) -> None:
        self.graph, self.steps = reading.graph, reading.steps
        self.build = Builder(_image(self.graph), {pair.depthwise for pair in reading.pairs if not pair.between})
        self.values: dict[Value, Held] = {self.graph.image: self.build.image_value}
        self.network = reading.graph.network
        self.tensors: dict[str, Tensor] = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
        }

    def plan(self) -> KerasPlan:
        for step in self.steps:
            self.build.operation, self.build.field = step.operation, step.field
            try:
                self._require_whole(step)
                found = self._translate(step)
                self._require_placed(step)
            except Inexpressible as error:
                raise SepnetError(self._complaint(error, step)) from error
            results = found if isinstance(found, tuple) else (found,)
            self.values.update(zip(step.operation.results, results, strict=False))
        return self._finish()

    def _translate(self, step: Step) -> Any:
        op, keras = step.operation, step.operator.keras
        if op.overwritten is not None:
            raise Inexpressible(f"'{op.overwritten.name}' changed in place what it uses as it was", "use inplace=False")
        if keras is None:
            raise Inexpressible("Keras has no layer for it, or none that sepnet knows")
        given = replace(op, arguments=pytree.tree_map_only(Value, self._argument, op.arguments))
        if keras in TRANSLATORS:
            return TRANSLATORS[keras](self.build, given)
        return layers.pointwise(self.build, given, keras)

    def _argument(self, value: Value) -> Any:
        """Return a tensor of the image, a parameter or buffer, or what else does not depend on the image."""
        if value.sees_image:
            if value not in self.values:
                raise Inexpressible("it uses the places of maxima", "leave return_indices out")
            return self.values[value]
        if value.name is not None:
            tensor = self.graph.tensors[value.name]
            return Constant(tensor, tensor)
        op = value.operation
        assert op is not None
        source = self._argument(op.inputs[0]) if op.name in CONSTANT_VIEWS else None
        if not isinstance(source, Constant):
            return _Computed()
        tensors = {op.inputs[0]: source.tensor}
        op.run(tensors)
        return replace(source, tensor=tensors[value])

    def _finish(self) -> KerasPlan:
        result = self.graph.result
        value = self.values.get(result) if isinstance(result, Value) else None
        if value is None:
            raise SepnetError(self._refusal("it gives several tensors, or none that sees the image: expected one"))
        try:
            value = self.build.natural(value)
        except Inexpressible as error:
            raise SepnetError(self._complaint(error, self.steps[-1])) from error
        needed = _needed(self.build.layers, value.number)
        if not needed:
            raise SepnetError(self._refusal("it leaves its image as it is: expected at least one layer"))
        channels, height, width = _image(self.graph)
        found = KerasPlan(
            network=self.network,
            image=(height, width, channels),
            layers=tuple(needed),
            output=value.number,
            left_out=0,
        )
        every = {id(tensor): tensor for tensor in self.tensors.values() if tensor.is_floating_point()}
        total = sum(tensor.numel() for tensor in every.values() if id(tensor) not in self.build.written)
        return replace(found, left_out=total - found.parameters)

    def _refusal(self, reason: str) -> str:
        return f"network '{self.network}' cannot be written in Keras: {reason}"

    def _complaint(self, error: Inexpressible, step: Step) -> str:
        return self._refusal(f"{place_of(step.operation)}: {error}; {error.advice}")

    def _require_whole(self, step: Step) -> None:
        """Refuse a value that PyTorch expanded where no other tensor broadcasts it."""
        for value in step.operation.images:
            held = self.values.get(value)
            if held is not None and (1, *held.shape) != value.shape and step.operation.name not in BROADCASTING:
                raise Inexpressible("it works on values that were expanded, which Keras has no layer for")

    def _require_placed(self, step: Step) -> None:
        """Refuse a layer some of whose tensors would be lost, as those of a weight norm."""
        for name in step.operation.tensors:
            tensor = self.tensors.get(name)
            if tensor is not None and tensor.is_floating_point() and id(tensor) not in self.build.placed:
                raise Inexpressible(f"its tensor '{name.rpartition('.')[2]}' has no place in a Keras layer")


def _image(graph: Graph) -> tuple[int, int, int]:
    _, channels, height, width = graph.image.shape
    return channels, height, width


class _Computed:
    """A tensor computed apart from the image."""


def _needed(layers: list[KerasLayer], output: int) -> list[KerasLayer]:
    """Return the layers on which the output depends."""
    wanted, kept = {output}, []
    for layer in reversed(layers):
        if layer.output in wanted:
            wanted.update(layer.inputs)
            kept.append(layer)
    return kept[::-1]
