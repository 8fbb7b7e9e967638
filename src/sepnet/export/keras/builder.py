"""The Keras layers of a network while they are put together, one operation after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from sepnet.anatomy.graph import Operation
from sepnet.anatomy.receptive_field import Field
from sepnet.export.keras.tensor import Array, Held, Inexpressible, Weight, moves, natural, plain

WINDOW: dict[str, Any] = {"strides": (1, 1), "padding": "valid", "dilation_rate": (1, 1), "use_bias": True}
DEFAULTS: dict[str, dict[str, Any]] = {
    "Conv2D": {**WINDOW, "groups": 1},
    "DepthwiseConv2D": {**WINDOW, "depth_multiplier": 1},
    "SeparableConv2D": {**WINDOW, "depth_multiplier": 1},
    "MaxPool2D": {"padding": "valid"},
    "AveragePooling2D": {"padding": "valid"},
    "Dense": {"use_bias": True},
    "BatchNormalization": {"momentum": 0.99, "epsilon": 1e-3, "center": True, "scale": True},
    "LayerNormalization": {"axis": -1, "epsilon": 1e-3, "center": True, "scale": True},
    "GroupNormalization": {"epsilon": 1e-3, "center": True, "scale": True},
    "ELU": {"alpha": 1.0},
    "Rescaling": {"offset": 0.0},
    "Softmax": {"axis": -1},
}
"""Keras's own defaults, which are left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KerasLayer:
    """One layer, or one further call of it.

    ``kind`` is a class of ``keras.layers``, a function as ``ops.pad``, or ``slice``. ``inputs`` and ``output`` number
    the tensors, 0 is the image. ``weights`` are in the order of ``layer.set_weights``, ``sources`` what PyTorch has of
    them. ``shape`` is the output's, channels last; ``field`` its receptive field. Calls with one ``identity`` are of
    the same layer: it is the ``output`` of the first. ``operation`` is the one that it was made for.
    """

    kind: str
    settings: dict[str, Any]
    inputs: tuple[int, ...]
    output: int
    weights: tuple[Array, ...]
    sources: tuple[Tensor, ...]
    trainable: int
    shape: tuple[int, ...]
    field: tuple[int, int]
    identity: int
    operation: Operation

    @property
    def parameters(self) -> int:
        """How many values its weights hold."""
        return sum(weight.size for weight in self.weights)

    @property
    def is_layer(self) -> bool:
        """Whether a sequential model can hold it."""
        return self.kind[0].isupper()

    def is_like(self, other: "KerasLayer") -> bool:
        """Whether a call of one is a call of the other."""
        same = (self.kind, self.settings, len(self.weights)) == (other.kind, other.settings, len(other.weights))
        return same and all(map(np.array_equal, self.weights, other.weights))


class Builder:
    """Takes layers one by one, and brings values into the order that a layer needs.

    ``pairs`` are the strict ones, the depthwise half by the pointwise one. ``layers[n]`` gives ``held[n + 1]``;
    ``held[0]`` is the image. ``operation`` and ``field`` are of the current step.
    ``placed`` holds the ids of the tensors that have their place in a layer, ``written`` of those that are there as
    plain numbers and no weights.
    """

    def __init__(self, image: tuple[int, ...], pairs: dict[Operation, Operation]) -> None:
        self.layers: list[KerasLayer] = []
        self.held = [Held(0, image, natural(image), (1, 1))]
        self.placed: set[int] = set()
        self.written: set[int] = set()
        self.pairs = pairs
        self.operation: Operation
        self.field: Field
        self._made: dict[tuple[int, str, str], Held] = {}

    def layer(
        self,
        kind: str,
        inputs: Sequence[Held],
        shape: tuple[int, ...],
        weights: Sequence[Weight] = (),
        *,
        index: Array | None = None,
        field: tuple[int, int] | None = None,
        **settings: Any,
    ) -> Held:
        """Append a layer, whose weights must be all frozen or all trained.

        ``shape`` and ``index`` are its result's, by default in its natural order; ``field`` is the current step's
        unless given.
        """
        index = natural(shape) if index is None else index
        trained = {weight.source.requires_grad for weight in weights if not weight.statistic}
        if len(trained) == 2:
            raise Inexpressible(
                "some of its tensors are frozen, others not; a Keras layer trains all or none",
                "set requires_grad alike on its weight and bias",
            )
        defaults = DEFAULTS.get(kind, {})
        kept = {name: value for name, value in settings.items() if name not in defaults or defaults[name] != value}
        layer = KerasLayer(
            kind=kind,
            settings={**kept, "trainable": False} if trained == {False} else kept,
            inputs=tuple(value.number for value in inputs),
            output=len(self.held),
            weights=tuple(np.ascontiguousarray(weight.array) for weight in weights),
            sources=tuple(weight.source for weight in weights),
            trainable=sum(weight.array.size for weight in weights if not weight.statistic and True in trained),
            shape=index.shape,
            field=field or self.field.receptive_field,
            identity=len(self.held),
            operation=self.operation,
        )
        self.placed.update(map(id, layer.sources))
        self.layers.append(layer)
        self.held.append(Held(layer.output, shape, index, layer.field))
        return self.held[-1]

    def apply(self, kind: str, value: Held, weights: Sequence[Weight] = (), **settings: Any) -> Held:
        """Append a layer that leaves each value at its place."""
        return self.layer(kind, [value], value.shape, weights, index=value.index, **settings)

    def once(self, kind: str, value: Held, shape: tuple[int, ...], index: Array, **settings: Any) -> Held:
        """Append a layer without weights that pads or moves a value, or return the one that does."""
        key = (value.number, kind, str(settings))
        if key not in self._made:
            self._made[key] = self.layer(kind, [value], shape, index=index, field=value.field, **settings)
        return self._made[key]

    def before(self, value: Held, kind: str) -> KerasLayer | None:
        """Return the layer that gave a value, if it is of a kind."""
        layer = self.layers[value.number - 1] if value.number else None
        return layer if layer is not None and layer.kind == kind else None

    def weights(self, op: Operation, *names: str, order: Any = None, statistic: bool = False) -> list[Weight]:
        """Return those of its tensors that a layer was given, flat and in another order if ``order`` is given."""
        found = []
        for name in (name for name in names if op[name] is not None):
            if not isinstance(op[name], Weight) or op[name].array.size != op[name].source.numel():
                advice = "give it a parameter of its own, without a parametrization"
                raise Inexpressible(f"its {name} is computed", advice)
            array = op[name].array if order is None else op[name].array.reshape(-1)[order]
            found.append(Weight(op[name].source, array, statistic))
        return found

    def arrange(self, value: Held, target: Array) -> Held:
        """Return the value in the order ``target``, by layers that move values where need be."""
        for kind, settings, index in moves(value.index, target):
            value = replace(value, number=self.once(kind, value, value.shape, index, **settings).number, index=index)
        return value

    def image(self, value: Held) -> Held:
        """Return an image ``(C, H, W)`` as Keras has it, channels last; any other tensor is refused."""
        if len(value.shape) != 3:
            shape = "×".join(map(str, ("N", *value.shape)))
            raise Inexpressible(f"it works on {shape} and not on images N×C×H×W")
        return self.natural(value)

    def natural(self, value: Held) -> Held:
        """Return an image channels last, anything else in PyTorch's own order."""
        return self.arrange(value, natural(value.shape))

    def by_channel(self, value: Held) -> tuple[Held, Array]:
        """Return an image, or a flat value ``(F,)``, and which channel each place of the last axis holds."""
        if len(value.shape) == 1:
            value = self.arrange(value, value.index.ravel())
            return value, value.index
        value = self.image(value)
        return value, np.arange(value.shape[0])

    def by_last(self, value: Held) -> tuple[Held, Array, Array]:
        """Return a value whose last axis in Keras runs along its last dimension, for dense layers and norms.

        Beside it: for each row of the Keras tensor which row it is in PyTorch, and, along the last axis, which
        place each holds.
        """
        size = value.shape[-1]
        rows, places = value.index // size, value.index % size
        order = places.reshape(-1, places.shape[-1])[0]
        if len(order) != size or not (rows == rows[..., :1]).all() or not (places == order).all():
            return self.by_last(self.arrange(value, plain(value.shape)))
        return value, rows[..., 0], order


Handler = Callable[[Builder, Operation], Any]
"""Adds the layers of one operation, and returns its result: a tensor, or a tuple of them.

The operation's tensors are given as :class:`Held`, its parameters and buffers as :class:`Weight`.
"""
