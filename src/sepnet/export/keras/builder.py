"""The Keras layers of a network while they are put together, one operation after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sepnet.anatomy.graph import Operation
from sepnet.anatomy.receptive_field import Field
from sepnet.export.keras.tensor import (
    Array,
    Constant,
    Depthwise,
    Held,
    Inexpressible,
    Padding,
    Weight,
    moves,
    natural,
    plain,
)

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
    the tensors, 0 is the image. ``weights`` are in the order of ``layer.set_weights``. ``shape`` is the output's,
    channels last; ``field`` its receptive field. Calls with one ``identity`` are of the same layer.
    """

    kind: str
    settings: dict[str, Any]
    inputs: tuple[int, ...]
    output: int
    weights: tuple[Array, ...]
    trainable: int
    shape: tuple[int, ...]
    field: tuple[int, int]
    identity: int

    @property
    def parameters(self) -> int:
        """How many values its weights hold."""
        return sum(weight.size for weight in self.weights)

    @property
    def is_layer(self) -> bool:
        """Whether a sequential model can hold it."""
        return self.kind[0].isupper()


class Builder:
    """Takes layers one by one, and brings values into the order that a layer needs.

    ``placed`` holds the ids of the tensors that have their place in a layer, ``written`` of those that are there as
    plain numbers and no weights.
    """

    def __init__(self, image: tuple[int, int, int], separable: set[Operation]) -> None:
        self.layers: list[KerasLayer] = []
        self.image_value = Held(0, image, natural(image), (1, 1))
        self.placed: set[int] = set()
        self.written: set[int] = set()
        self.operation: Operation
        self.field: Field
        self._separable = separable
        self._owner: dict[int, tuple[int, ...]] = {}
        self._shared: dict[tuple[int, ...], KerasLayer] = {}
        self._padded: dict[tuple[int, Any], Held] = {}
        self._moved: dict[tuple[int, str, str], int] = {}

    @property
    def begins_pair(self) -> bool:
        """Whether the current step is the depthwise half of a strict pair."""
        return self.operation in self._separable

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
        """Append a layer.

        ``shape`` and ``index`` are its result's, by default in its natural order; ``field`` is the current step's
        unless given.

        Raises:
            Inexpressible: some of its weights are frozen and others are not, or another layer has some of them.

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
        if trained == {False}:
            kept["trainable"] = False
        layer = KerasLayer(
            kind=kind,
            settings=kept,
            inputs=tuple(value.number for value in inputs),
            output=len(self.layers) + 1,
            weights=tuple(np.ascontiguousarray(weight.array) for weight in weights),
            trainable=sum(weight.array.size for weight in weights if not weight.statistic and True in trained),
            shape=index.shape,
            field=field or self.field.receptive_field,
            identity=len(self.layers) + 1,
        )
        self.layers.append(self._share(layer, weights))
        return Held(layer.output, shape, index, layer.field)

    def apply(self, kind: str, value: Held, weights: Sequence[Weight] = (), **settings: Any) -> Held:
        """Append a layer that leaves each value at its place."""
        value = self.settle(value)
        return self.layer(kind, [value], value.shape, weights, index=value.index, **settings)

    def _share(self, layer: KerasLayer, weights: Sequence[Weight]) -> KerasLayer:
        """Return a layer of the same weights as an earlier one as a further call of that."""
        key = tuple(id(weight.source) for weight in weights)
        self.placed.update(key)
        first = self._shared.setdefault(key, layer) if key else layer
        if any(self._owner.setdefault(one, key) != key for one in key) or not _alike(first, layer):
            raise Inexpressible(
                "it shares weights with a layer of other settings, which Keras's layers cannot",
                "give it weights of its own",
            )
        return replace(layer, identity=first.identity)

    def constant(self, op: Operation, name: str) -> Constant | None:
        """Return a tensor that a layer was given, None where it has none.

        Raises:
            Inexpressible: it is computed and not a parameter or buffer itself.

        """
        found = op[name]
        if found is None or (isinstance(found, Constant) and found.tensor.numel() == found.source.numel()):
            return found
        raise Inexpressible(f"its {name} is computed", "give it a parameter of its own, without a parametrization")

    def weights(self, op: Operation, *names: str, order: Any = ..., statistic: bool = False) -> list[Weight]:
        """Return those of its tensors that a layer was given, flat and in another order."""
        found = [self.constant(op, name) for name in names]
        return [Weight(one.source, one.array.reshape(-1)[order], statistic) for one in found if one is not None]

    def wait(
        self, base: Held, shape: tuple[int, ...], what: Padding | Depthwise, field: tuple[int, int] | None = None
    ) -> Held:
        """Return the image that comes of ``what`` is not yet a layer, as the next one may take it into itself."""
        return Held(base.number, shape, natural(shape), field or self.field.receptive_field, what)

    def settle(self, value: Held) -> Held:
        """Return the value with what was waiting made a layer of its own."""
        if isinstance(value.waiting, Depthwise):
            half = value.waiting
            return self.layer(
                "DepthwiseConv2D", [half.base], value.shape, half.weights, field=value.field, **half.settings
            )
        if isinstance(value.waiting, Padding):
            base, zeros = value.waiting.base, value.waiting.zeros
            if (base.number, zeros) not in self._padded:
                rows, columns = zeros
                short = (rows[0], columns[0]) if rows[0] == rows[1] and columns[0] == columns[1] else zeros
                self._padded[base.number, zeros] = self.layer(
                    "ZeroPadding2D", [base], value.shape, field=base.field, padding=short
                )
            return self._padded[base.number, zeros]
        return value

    def arrange(self, value: Held, target: Array) -> Held:
        """Return the value in the order ``target``, by layers that move values where need be."""
        value = self.settle(value)
        for kind, settings, index in moves(value.index, target):
            key = (value.number, kind, str(settings))
            if key not in self._moved:
                self._moved[key] = self.layer(
                    kind, [value], value.shape, index=index, field=value.field, **settings
                ).number
            value = replace(value, number=self._moved[key], index=index)
        return value

    def image(self, value: Held) -> Held:
        """Return an image ``(C, H, W)`` as Keras has it, channels last.

        Raises:
            Inexpressible: it is none.

        """
        if len(value.shape) != 3:
            shape = "×".join(map(str, ("N", *value.shape)))
            raise Inexpressible(f"it works on {shape} and not on images N×C×H×W")
        return self.arrange(value, natural(value.shape))

    def plain(self, value: Held) -> Held:
        """Return the value in PyTorch's own order."""
        return self.arrange(value, plain(value.shape))

    def natural(self, value: Held) -> Held:
        """Return an image channels last, anything else in PyTorch's own order."""
        return self.arrange(value, natural(value.shape))

    def by_channel(self, value: Held) -> tuple[Held, Array]:
        """Return an image, or a flat value ``(F,)``, and which channel each place of the last axis holds."""
        if len(value.shape) == 1:
            value = self.settle(value)
            value = self.arrange(value, value.index.ravel())
            return value, value.index
        value = self.image(value)
        return value, np.arange(value.shape[0])

    def by_last(self, value: Held) -> tuple[Held, Array, Array]:
        """Return a value whose last axis in Keras runs along its last dimension, for dense layers and norms.

        Beside it: for each row of the Keras tensor which row it is in PyTorch, and, along the last axis, which
        place each holds.
        """
        value = self.settle(value)
        split = _split_last(value)
        if split is None:
            value = self.plain(value)
            split = _split_last(value)
        assert split is not None
        return value, *split


def _split_last(value: Held) -> tuple[Array, Array] | None:
    size = value.shape[-1]
    if value.index.shape[-1] != size:
        return None
    rows, places = value.index // size, value.index % size
    order = places.reshape(-1, size)[0]
    aligned = np.array_equal(rows, np.broadcast_to(rows[..., :1], rows.shape))
    return (rows[..., 0], order) if aligned and bool((places == order).all()) else None


def _alike(first: KerasLayer, layer: KerasLayer) -> bool:
    same = first.kind == layer.kind and first.settings == layer.settings and len(first.weights) == len(layer.weights)
    return same and all(np.array_equal(a, b) for a, b in zip(first.weights, layer.weights, strict=True))


Handler = Callable[[Builder, Operation], Any]
"""Adds the layers of one operation, and returns its result: a tensor, or a tuple of them.

The operation's tensors are given as :class:`Held`, its parameters and buffers as :class:`Constant`.
"""
