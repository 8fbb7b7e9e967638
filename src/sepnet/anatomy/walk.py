"""Walk a recording node by node and carry a receptive field to each."""

from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from sepnet.anatomy.call import Call, Operand, Outcome
from sepnet.anatomy.field import Field, FieldError
from sepnet.anatomy.operations import CONSTANTS, operate
from sepnet.anatomy.record import Recording, is_of_torch
from sepnet.errors import SepnetError

IN_PLACE_OPERATORS = {"iadd", "isub", "imul", "itruediv"}


@dataclass(frozen=True)
class Step:
    """One operation on something that depends on the image.

    ``path`` is the module called, or the one whose ``forward`` called the function; ``tensors`` names the
    parameters and buffers used.
    """

    node: fx.Node
    path: str
    call: Call
    outcome: Outcome
    tensors: tuple[str, ...]
    inputs: tuple[fx.Node, ...]

    @property
    def operation(self) -> str:
        """The name under which handlers know the operation."""
        return self.call.operation

    @property
    def output(self) -> Any:
        """The result's shape, or a tuple of shapes."""
        return self.call.output

    @property
    def kind(self) -> str | None:
        """The kind of layer, or ``None`` for a step that deserves no row."""
        return self.outcome.kind

    @property
    def field(self) -> Field:
        """The field of the result, or of the first of several."""
        return self.outcome.field[0] if isinstance(self.outcome.field, tuple) else self.outcome.field


def walk(model: nn.Module, recording: Recording, network: str) -> list[Step]:
    """Return the steps of a recorded network in the order of execution.

    Raises:
        SepnetError: an operation cannot be read; the message names it and its layer.

    """
    walker = _Walker(model, recording, network)
    return [step for node in recording.nodes if (step := walker.visit(node)) is not None]


class _Walker:
    def __init__(self, model: nn.Module, recording: Recording, network: str) -> None:
        self.model = model
        self.network = network
        self.owners = recording.owners
        self.shapes = {node: _plain(shape) for node, shape in recording.shapes.items()}
        self.operands: dict[fx.Node, Any] = {}

    def visit(self, node: fx.Node) -> Step | None:
        """Give the node's result its field; return a step if it depends on the image."""
        if node not in self.shapes:  # the output, and constants that only the output holds
            return None
        if node.op == "placeholder":
            self.operands[node] = Operand(self.shapes[node], Field.of_image(self.shapes[node]))
            return None
        call = self._call(node)
        if not call.fields or call.operation in CONSTANTS:
            self.operands[node] = _operand(call.output, None, self._sources(node))
            return None
        step = self._step(node, call)
        self.operands[node] = _operand(call.output, step.outcome.field, ())
        _overwrite(node, self.operands)
        return step

    def _call(self, node: fx.Node) -> Call:
        module = self.model.get_submodule(str(node.target)) if node.op == "call_module" else None
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda argument: self.operands[argument])
        return Call(_operation(node, module), args, kwargs, self.shapes[node], module)

    def _step(self, node: fx.Node, call: Call) -> Step:
        path = str(node.target) if call.module is not None else self.owners[node]
        try:
            outcome = operate(call)
            _check(outcome.field, call.output)
        except FieldError as error:
            place = f"layer '{path}' ({call.operation})" if path else f"operation '{call.operation}'"
            raise SepnetError(
                f"network '{self.network}' cannot be read: {place}: {error}; "
                "replace it, or summarise the network without it"
            ) from error
        given = tuple(name for operand in call.operands if operand.field is None for name in operand.tensors)
        inputs = tuple(source for source in node.all_input_nodes if _depends(self.operands[source]))
        own = _tensors_of(call.module, path) if call.module is not None else ()
        return Step(node, path, call, outcome, own + given, inputs)

    def _sources(self, node: fx.Node) -> tuple[str, ...]:
        """Return the parameters and buffers from which a constant is computed."""
        if node.op == "get_attr":
            return (str(node.target),)
        names = tuple(name for source in node.all_input_nodes for name in _names(self.operands[source]))
        if node.op == "call_module":
            names += _tensors_of(self.model.get_submodule(str(node.target)), str(node.target))
        return names


def _operation(node: fx.Node, module: nn.Module | None) -> str:
    """Return the name under which handlers know the operation: in place or not makes no difference."""
    if module is not None:
        kinds = type(module).__mro__
        return next(kind.__name__ for kind in kinds if kind.__module__ != "torch.nn.utils.parametrize")
    if node.op != "call_function":
        return str(node.target).removesuffix("_")
    if node.target is getattr:
        return str(node.args[1])
    name = getattr(node.target, "__name__", str(node.target))
    return name.removesuffix("_") if is_of_torch(node.target) else f"user's {name}"


def _operand(shape: Any, field: Any, tensors: tuple[str, ...]) -> Any:
    if all(isinstance(size, int) for size in shape):
        return Operand(shape, field, tensors)
    fields = field if isinstance(field, tuple) else [field] * len(shape)
    return tuple(_operand(one, its, tensors) for one, its in zip(shape, fields, strict=True))


def _overwrite(node: fx.Node, operands: dict[fx.Node, Any]) -> None:
    """After ``x.add_(y)`` or ``x += y`` all who hold ``x`` see the sum."""
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    target = node.args[0] if node.args else None
    if (name.endswith("_") or name in IN_PLACE_OPERATORS) and isinstance(target, fx.Node):
        operands[target] = operands[node]


def _tensors_of(module: nn.Module, path: str) -> tuple[str, ...]:
    names = [name for name, _ in module.named_parameters()] + [name for name, _ in module.named_buffers()]
    return tuple(f"{path}.{name}" for name in names)


def _check(field: Field | tuple[Field, ...], output: Any) -> None:
    """Refuse a field of another shape than the tensor's, so that no misreading passes unseen."""
    shape = tuple(one.shape for one in field) if isinstance(field, tuple) else field.shape
    if shape != output:
        raise FieldError(f"it gives {output} where {shape} was expected")


def _depends(operand: Any) -> bool:
    return any(_depends(one) for one in operand) if isinstance(operand, tuple) else operand.field is not None


def _names(operand: Any) -> tuple[str, ...]:
    if isinstance(operand, tuple):
        return tuple(name for one in operand for name in _names(one))
    return operand.tensors


def _plain(shape: Any) -> Any:
    """Return a ``torch.Size``, or several, as plain tuples."""
    return tuple(size if isinstance(size, int) else _plain(size) for size in shape)
