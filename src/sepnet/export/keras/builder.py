"""The Keras layers of a network while they are put together, one operation after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from sepnet.anatomy.graph import Operation
from sepnet.anatomy.receptive_field import Field
from sepnet.export.keras.tensor import (
    Array,
    Constant,
    Depthwise,
    Held,
    Inexpressible,
    Padding,
    channels_last,
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


@dataclass(frozen=True, eq=False)
class Weight:
    """One weight of a Keras layer, in Keras's layout; ``statistic`` says that no training step changes it."""

    source: Tensor
    array: Array
    statistic: bool = False


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
        self.image_value = Held(0, image, channels_last(image), (1, 1))
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
        index: Array,
        shape: tuple[int, ...],
        weights: Sequence[Weight] = (),
        *,
        field: tuple[int, int] | None = None,
        **settings: Any,
    ) -> Held:
        """Append a layer; ``index`` and ``shape`` are its result's, ``field`` the current step's unless given.

        Raises:
            Inexpressible: some of its weights are frozen and others are not, or another layer has some of them.

        """
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

    def constant(self, call: "Call", name: str) -> Constant | None:
        """Return a tensor that a layer was given, None where it has none.

        Raises:
            Inexpressible: it is computed and not a parameter or buffer itself.

        """
        found = call[name]
        if found is None or (isinstance(found, Constant) and found.tensor.numel() == found.source.numel()):
            return found
        raise Inexpressible(f"its {name} is computed", "give it a parameter of its own, without a parametrization")

    def settle(self, value: Held) -> Held:
        """Return the value with what was waiting made a layer of its own."""
        if isinstance(value.waiting, Padding):
            return self._pad(value, value.waiting)
        if isinstance(value.waiting, Depthwise):
            half = value.waiting
            weights = [Weight(half.kernel.source, half.array)]
            return self.layer(
                "DepthwiseConv2D",
                [half.base],
                value.index,
                value.shape,
                weights,
                field=value.field,
                use_bias=False,
                **half.settings,
            )
        return value

    def _pad(self, value: Held, padding: Padding) -> Held:
        key = (padding.base.number, padding.zeros)
        if key not in self._padded:
            rows, columns = padding.zeros
            zeros = (rows[0], columns[0]) if rows[0] == rows[1] and columns[0] == columns[1] else padding.zeros
            self._padded[key] = self.layer(
                "ZeroPadding2D", [padding.base], value.index, value.shape, field=padding.base.field, padding=zeros
            )
        return self._padded[key]

    def arrange(self, value: Held, target: Array) -> Held:
        """Return the value in the order ``target``, by layers that move values where need be."""
        value = self.settle(value)
        for kind, settings, index in moves(value.index, target):
            key = (value.number, kind, str(settings))
            if key not in self._moved:
                self._moved[key] = self.layer(kind, [value], index, value.shape, field=value.field, **settings).number
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
        return self.arrange(value, channels_last(value.shape))

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


@dataclass(frozen=True)
class Call:
    """One operation with its arguments: tensors as :class:`Held`, parameters and buffers as :class:`Constant`."""

    operation: Operation
    arguments: dict[str, Any]

    @property
    def name(self) -> str:
        """The operator's name."""
        return self.operation.name

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of its first result, with the batch."""
        return self.operation.shape

    @property
    def input(self) -> Held:
        """Its first argument."""
        value: Held = next(iter(self.arguments.values()))
        return value

    def __getitem__(self, name: str) -> Any:
        """Return an argument, ``None`` if the operator has none of that name."""
        return self.arguments.get(name)


Handler = Callable[[Builder, Call], Any]
"""Adds the layers of one operation, and returns its result: a tensor, or a tuple of them."""
