"""From a network to the Keras layers that compute the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx, nn

from sepnet.anatomy.operations import ACTIVATIONS, ARITHMETIC, DROPOUTS
from sepnet.anatomy.trace import Reading, read
from sepnet.anatomy.walk import IN_PLACE_OPERATORS, Step
from sepnet.errors import SepnetError
from sepnet.export.keras_builder import Builder, KerasLayer
from sepnet.export.keras_layers import HANDLERS
from sepnet.export.keras_value import Constant, Inexpressible, Value

CONSTANT_VIEWS = {"view", "reshape", "unsqueeze", "squeeze", "flatten", "contiguous", "expand", "getitem"}
BROADCASTING = {name for names in ARITHMETIC.values() for name in names.split()} | {"expand", "expand_as"}
ACTIVATION_NAMES = {name for names in ACTIVATIONS.values() for name in names.split()}


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
        return list({layer.identity: layer for layer in reversed(self.layers)}.values())[::-1]

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
    reading = read(model, image_shape, name=name)
    return _Planner(model, reading).plan()


class _Planner:
    def __init__(self, model: nn.Module, reading: Reading) -> None:
        self.reading = reading
        self.tensors: dict[str, Tensor] = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
        }
        separable = {pair.depthwise.node for pair in reading.pairs if not pair.between}
        self.build = Builder(reading.image, separable)
        self.values: dict[fx.Node, Any] = {}
        self.homes: dict[fx.Node, fx.Node] = {}

    def plan(self) -> KerasPlan:
        by_node = {step.node: step for step in self.reading.steps}
        for place, step in enumerate(self.reading.steps):
            self.build.step = step
            try:
                self._require_whole(step, by_node)
                value = self._result(step)
                self._require_placed(step)
                self._overwrite(step, value, self.reading.steps[place + 1 :])
            except Inexpressible as error:
                raise SepnetError(self._complaint(error, step)) from error
            self.values[step.node] = value
        return self._finish()

    def _result(self, step: Step) -> Any:
        handler = HANDLERS.get(step.operation)
        if handler is None:
            raise Inexpressible("Keras has no layer for it, or none that sepnet knows")
        args, kwargs = fx.map_arg((step.node.args, step.node.kwargs), self._argument)
        if not args:  # the first one, given by its name
            name = next(iter(kwargs.keys() & {"input", "tensors"}))
            args, kwargs = (kwargs[name],), {key: value for key, value in kwargs.items() if key != name}
        return handler(self.build, replace(step.call, args=args, kwargs=kwargs))

    def _argument(self, node: fx.Node) -> Any:
        """Return a node's result: a value, a parameter or buffer, or what else does not depend on the image."""
        if node in self.values:
            return self.values[node]
        if node.op == "placeholder":
            return self.build.image_value
        if node.op == "get_attr" and str(node.target) in self.tensors:
            tensor = self.tensors[str(node.target)]
            return Constant(tensor, tensor)
        name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
        source = self._argument(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
        if name in CONSTANT_VIEWS and isinstance(source, Constant):
            rest: Any = node.args[1:]
            view = source.tensor[rest[0]] if name == "getitem" else getattr(source.tensor, name)(*rest, **node.kwargs)
            return replace(source, tensor=view)
        return _Computed()

    def _finish(self) -> KerasPlan:
        result = self.reading.result
        value = self._argument(result) if isinstance(result, fx.Node) else None
        if not isinstance(value, Value):
            raise SepnetError(self._refusal("it gives several tensors, or none that sees the image: expected one"))
        try:
            value = self.build.natural(value)
        except Inexpressible as error:
            raise SepnetError(self._complaint(error, self.build.step)) from error
        layers = _needed(self.build.layers, value.number)
        if not layers:
            raise SepnetError(self._refusal("it leaves its image as it is: expected at least one layer"))
        channels, height, width = self.reading.image
        found = KerasPlan(
            network=self.reading.network,
            image=(height, width, channels),
            layers=tuple(layers),
            output=value.number,
            left_out=0,
        )
        every = {id(tensor): tensor for tensor in self.tensors.values() if tensor.is_floating_point()}
        total = sum(tensor.numel() for tensor in every.values() if id(tensor) not in self.build.written)
        return replace(found, left_out=total - found.parameters)

    def _refusal(self, reason: str) -> str:
        return f"network '{self.reading.network}' cannot be written in Keras: {reason}"

    def _complaint(self, error: Inexpressible, step: Step) -> str:
        place = f"layer '{step.path}' ({step.operation})" if step.path else f"operation '{step.operation}'"
        return self._refusal(f"{place}: {error}; {error.advice}")

    def _require_whole(self, step: Step, by_node: dict[fx.Node, Step]) -> None:
        """Refuse a value that PyTorch expanded where no other tensor broadcasts it."""
        for node in step.inputs:
            value = self.values.get(node)
            short = isinstance(value, Value) and (1, *value.shape) != by_node[node].output
            if short and step.operation not in BROADCASTING:
                raise Inexpressible("it works on values that were expanded, which Keras has no layer for")

    def _require_placed(self, step: Step) -> None:
        """Refuse a layer some of whose tensors would be lost, as those of a weight norm."""
        for name in step.tensors:
            tensor = self.tensors.get(name)
            if tensor is not None and tensor.is_floating_point() and id(tensor) not in self.build.placed:
                raise Inexpressible(f"its tensor '{name.rpartition('.')[2]}' has no place in a Keras layer")

    def _overwrite(self, step: Step, value: Any, later: list[Step]) -> None:
        """After ``x += y`` or a ReLU in place, all who hold ``x`` see the result."""
        home = self.homes[step.node] = self._home(step)
        target = step.node.args[0] if step.node.args else None
        if not _in_place(step) or not isinstance(target, fx.Node):
            return
        waiting = {source for after in later for source in after.inputs}
        others = {node for node, its in self.homes.items() if its is home} | {home}
        if (others - {target, step.node}) & waiting:
            raise Inexpressible("it changes in place what a later layer uses as it was", "use inplace=False")
        self.values[target] = value

    def _home(self, step: Step) -> fx.Node:
        """Return the node whose memory the result shares: its own, or that of the tensor it is a view of."""
        source = step.inputs[0]
        shares = step.outcome.memory == "view" and step.operation != "clone"
        if shares or step.operation in DROPOUTS.split() or _in_place(step):
            return self.homes.get(source, source)
        return step.node


class _Computed:
    """A tensor computed apart from the image."""


def _in_place(step: Step) -> bool:
    name = str(step.node.target) if step.node.op == "call_method" else getattr(step.node.target, "__name__", "")
    if step.call.module is not None:
        return bool(getattr(step.call.module, "inplace", False)) and step.operation not in DROPOUTS.split()
    if step.operation in DROPOUTS.split():
        return False
    by_flag = step.call.kwargs.get("inplace", False) or any(value is True for value in step.call.args[1:])
    by_name = name in IN_PLACE_OPERATORS or (name.endswith("_") and not name.endswith("__"))
    return by_name or (step.operation in ACTIVATION_NAMES and bool(by_flag))


def _needed(layers: list[KerasLayer], output: int) -> list[KerasLayer]:
    """Return the layers on which the output depends."""
    wanted, kept = {output}, []
    for layer in reversed(layers):
        if layer.output in wanted:
            wanted.update(layer.inputs)
            kept.append(layer)
    return kept[::-1]
