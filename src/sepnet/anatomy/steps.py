"""Carry a receptive field through a graph, operation by operation."""

from dataclasses import dataclass
from math import prod

from sepnet.anatomy.field_rules import pointwise
from sepnet.anatomy.graph import Graph, Operation, Value
from sepnet.anatomy.operators import OPERATORS, Operator
from sepnet.anatomy.receptive_field import Field, FieldError
from sepnet.errors import SepnetError


@dataclass(frozen=True, eq=False)
class Step:
    """One operation on something that depends on the image, what is known of its operator, and its results' fields.

    ``kind`` is the kind of layer, or ``None`` for a step that deserves no row.
    """

    operation: Operation
    operator: Operator
    fields: tuple[Field, ...]
    kind: str | None

    @property
    def field(self) -> Field:
        """The field of the result, or of the first of several."""
        return self.fields[0]

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution."""
        return self.operator.keras == "convolution"

    @property
    def reuses_input(self) -> bool:
        """Whether its result may overwrite its input: an activation, a norm, arithmetic on one tensor alone."""
        return self.operator.reuses or (self.operator.field is pointwise and len(self.operation.inputs) == 1)

    @property
    def macs(self) -> int:
        """Its multiplications: a window of the weight, or a row, for each result."""
        op = self.operation
        return prod(op.shape) * prod(op["weight"].shape[1:]) if self.operator.multiplies else 0


def walk(graph: Graph) -> list[Step]:
    """Return the steps of a network in the order of execution; a SepnetError names an operation that cannot be read."""
    fields = {graph.image: Field.of_image(graph.image.shape)}
    steps = []
    for op in (op for op in graph.operations if op.sees_image):
        try:
            steps.append(_step(op, fields))
        except FieldError as error:
            raise SepnetError(
                f"network '{graph.network}' cannot be read: {place_of(op)}: {error}; "
                "replace it, or summarise the network without it"
            ) from error
        fields.update(zip(op.results, steps[-1].fields, strict=True))
    if not any(step.kind for step in steps):
        raise SepnetError(f"network '{graph.network}' returns its image unchanged: expected at least one layer")
    return steps


def place_of(op: Operation) -> str:
    """Return what an error calls an operation: its layer and what it is there."""
    kind = op.module.rpartition(".")[2] if op.is_leaf else op.name
    return f"layer '{op.path}' ({kind})" if op.path else f"operation '{op.name}'"


def _step(op: Operation, known: dict[Value, Field]) -> Step:
    if op.overwritten is not None and len(op.overwritten.images) > 1:
        raise FieldError(f"it uses a tensor of which '{op.overwritten.name}' changed a part in place")
    if op.name not in OPERATORS:
        raise FieldError("what its units see is not known to sepnet")
    operator = OPERATORS[op.name]
    given = [known[value] for value in op.images]
    found = operator.field(op, given)
    fields = found if isinstance(found, tuple) else (found,) * len(op.results)
    for field, value in zip(fields, op.results, strict=True):
        if field.shape != value.shape:
            raise FieldError(f"it gives {value.shape} where {field.shape} was expected")
    kind = operator.kind if isinstance(operator.kind, str | None) else operator.kind(op, given[0], fields[0])
    return Step(op, operator, fields, kind)
