"""From a network to the Keras layers that compute the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from sepnet.anatomy.field_rules import pointwise
from sepnet.anatomy.graph import Value, tensors_of
from sepnet.anatomy.steps import Step, place_of
from sepnet.anatomy.trace import Reading, read
from sepnet.errors import SepnetError
from sepnet.export.keras import arithmetic, layers, views, windows
from sepnet.export.keras.builder import Builder, Handler, KerasLayer
from sepnet.export.keras.tensor import Held, Inexpressible, Weight

TRANSLATORS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        *(arithmetic.arithmetic, arithmetic.concat),
        *(layers.softplus, layers.bounds, layers.prelu, layers.softmax, layers.dropout),
        *(layers.batch_norm, layers.group_norm, layers.layer_norm, layers.dense),
        *(windows.convolution, windows.max_pool, windows.average_pool, windows.adaptive_pool),
        *(views.unchanged, views.reshape, views.permute, views.move, views.pick),
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
        """Each layer once, at its first call, however often it is called."""
        return [layer for layer in self.layers if layer.identity == layer.output]

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
        outputs = [0, *(layer.output for layer in self.layers)]
        chain = all(layer.inputs == (before,) for before, layer in zip(outputs, self.layers, strict=False))
        return chain and all(layer.is_layer for layer in self.layers) and len(self.distinct) == len(self.layers)

    @property
    def gives_probabilities(self) -> bool:
        """Whether the network ends in a softmax."""
        last = self.layers[-1]
        return last.kind == "Softmax" or last.settings.get("activation") == "softmax"


def plan(model: nn.Module, image_shape: Sequence[int] = (3, 32, 32), *, name: str | None = None) -> KerasPlan:
    """Return the Keras layers, with their weights, that compute what a network does in evaluation mode.

    ``image_shape`` is ``(C, H, W)`` of one image; ``name`` is the network's, by default its class.

    Raises:
        SepnetError: it cannot be read, or an operation has no counterpart in Keras; the layer is named.

    """
    return _Planner(model, read(model, image_shape, name=name)).plan()


class _Planner:
    def __init__(self, model: nn.Module, reading: Reading) -> None:
        self.graph, self.steps = reading.graph, reading.steps
        strict = {pair.pointwise: pair.depthwise for pair in reading.pairs if not pair.between}
        self.build = Builder(self.graph.image.shape[1:], strict)
        self.values: dict[Value, Held] = {self.graph.image: self.build.held[0]}
        self.tensors = {name: one for name, one in tensors_of(model).items() if one.is_floating_point()}
        self.refusal = f"network '{reading.graph.network}' cannot be written in Keras: "

    def plan(self) -> KerasPlan:
        try:
            for step in self.steps:
                self.build.operation, self.build.field = step.operation, step.field
                if step.operator.field is not pointwise:
                    self._require_whole(step.operation.images)
                found = self._translate(step)
                self._require_placed(step)
                results = found if isinstance(found, tuple) else (found,)
                self.values.update(zip(step.operation.results, results, strict=False))
            return self._finish()
        except Inexpressible as error:
            raise SepnetError(f"{self.refusal}{place_of(self.build.operation)}: {error}; {error.advice}") from error

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
        """Return a tensor of the image, a parameter or buffer, or ``...`` for what is computed from these."""
        if value.sees_image:
            if value not in self.values:
                raise Inexpressible("it uses the places of maxima", "leave return_indices out")
            return self.values[value]
        op = value.operation
        if op is None:
            tensor = self.graph.tensors[value].detach()
            return Weight(self.graph.tensors[value], tensor.cpu().float().numpy())
        source = self._argument(op.inputs[0]) if op.views is not None or op.name == "lift_fresh_copy" else None
        if not isinstance(source, Weight):
            return ...
        tensors = {op.inputs[0]: torch.from_numpy(source.array)}
        op.run(tensors)
        return replace(source, array=tensors[value].numpy())

    def _finish(self) -> KerasPlan:
        result = self.graph.result
        if not isinstance(result, Value) or result not in self.values:
            raise SepnetError(f"{self.refusal}it gives several tensors, or none that sees the image: expected one")
        self._require_whole([result])
        value = self.build.natural(self.values[result])
        needed = self._shared(value.number)
        if not needed:
            raise SepnetError(f"{self.refusal}it returns its image unchanged: expected at least one layer")
        channels, height, width = self.graph.image.shape[1:]
        network, image = self.graph.network, (height, width, channels)
        found = KerasPlan(network=network, image=image, layers=tuple(needed), output=value.number, left_out=0)
        every = {id(tensor): tensor.numel() for tensor in self.tensors.values()}
        total = sum(count for tensor, count in every.items() if tensor not in self.build.written)
        return replace(found, left_out=total - found.parameters)

    def _shared(self, output: int) -> list[KerasLayer]:
        """Return the layers on which the output depends, those of the same weights as calls of one layer."""
        wanted = {output}
        needed: list[KerasLayer] = []
        for layer in reversed(self.build.layers):
            if layer.output in wanted:
                wanted.update(layer.inputs)
                needed.insert(0, layer)
        first: dict[int, KerasLayer] = {}
        for place, layer in enumerate(needed):
            owners = [first.setdefault(id(source), layer) for source in layer.sources]
            if any(owner is not owners[0] or not owner.is_like(layer) for owner in owners):
                self.build.operation = layer.operation
                raise Inexpressible(
                    "it shares weights with a layer of other settings, which Keras's layers cannot",
                    "give it weights of its own",
                )
            needed[place] = replace(layer, identity=owners[0].identity if owners else layer.identity)
        return needed

    def _require_whole(self, values: Iterable[Value]) -> None:
        """Refuse a value that PyTorch expanded where no other tensor broadcasts it."""
        for value in values:
            held = self.values.get(value)
            if held is not None and (1, *held.shape) != value.shape:
                raise Inexpressible("it works on values that were expanded, which Keras has no layer for")

    def _require_placed(self, step: Step) -> None:
        """Refuse a layer some of whose tensors would be lost, as those of a weight norm."""
        for name in step.operation.tensors:
            if name in self.tensors and id(self.tensors[name]) not in self.build.placed:
                raise Inexpressible(f"its tensor '{name.rpartition('.')[2]}' has no place in a Keras layer")
