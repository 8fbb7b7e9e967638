"""What a handler of one operation is given, and what it answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from sepnet.anatomy.field import Field, FieldError


@dataclass(frozen=True)
class Operand:
    """A tensor handed to an operation; ``field`` is ``None`` when it does not depend on the image.

    ``tensors`` names the parameters and buffers from which such a constant was computed.
    """

    shape: tuple[int, ...]
    field: Field | None = None
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Convolution2d:
    """The settings of one convolution by which it is told depthwise, pointwise or neither."""

    in_channels: int
    groups: int
    kernel: tuple[int, ...]
    plain_steps: bool

    @property
    def can_be_depthwise(self) -> bool:
        """Whether each input channel is convolved on its own."""
        return self.groups == self.in_channels

    @property
    def is_depthwise(self) -> bool:
        """Whether it is depthwise and, having several input channels, nothing else."""
        return self.in_channels > 1 and self.can_be_depthwise

    @property
    def can_be_pointwise(self) -> bool:
        """Whether it is 1×1 with stride 1, no padding, one group."""
        return self.groups == 1 and self.plain_steps and set(self.kernel) == {1}


@dataclass(frozen=True)
class Outcome:
    """The result of one operation.

    ``kind`` is the field's word for the layer, or ``None`` when the operation deserves no row. ``memory``
    says whether the result needs memory of its own, overwrites its input when nobody else needs it, or is a
    view.
    """

    field: Field | tuple[Field, ...]
    kind: str | None = None
    macs: int = 0
    convolution: Convolution2d | None = None
    dropout_rate: float | None = None
    memory: Literal["own", "in place", "view"] = "own"


@dataclass(frozen=True)
class Call:
    """One operation as the network called it: a module, a function or a method.

    Tensors among ``args`` and ``kwargs`` are :class:`Operand`; ``output`` is the result's shape, or a tuple
    of shapes.
    """

    operation: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    module: nn.Module | None = None

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """Return a setting: the module's attribute, or the function's argument by position or name."""
        if self.module is not None:
            return getattr(self.module, name, default)
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    @property
    def input(self) -> Field:
        """The field of the first tensor."""
        return self.fields[0]

    @property
    def operands(self) -> list[Operand]:
        """All tensors given, constants among them."""
        return list(_operands((self.args, self.kwargs)))

    @property
    def fields(self) -> list[Field]:
        """The fields of all tensors that depend on the image."""
        return [operand.field for operand in self.operands if operand.field is not None]

    def weight(self, position: int) -> tuple[int, ...]:
        """Return the shape of the weight, which must not depend on the image.

        Raises:
            FieldError: it does.

        """
        weight = self.get(position, "weight")
        if isinstance(weight, Operand) and weight.field is not None:
            raise FieldError("its weights are computed from the image")
        return tuple(weight.shape)


def _operands(value: Any) -> Iterator[Operand]:
    if isinstance(value, Operand):
        yield value
    elif isinstance(value, dict):
        yield from _operands(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _operands(item)
