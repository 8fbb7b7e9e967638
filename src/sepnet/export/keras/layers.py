"""Activations, dropout, norms and dense layers in Keras."""

from typing import Any

import numpy as np

from sepnet.anatomy.graph import Operation
from sepnet.export.keras.builder import Builder
from sepnet.export.keras.tensor import Array, Held, Inexpressible, Weight

RENAMED = {"lambd": "threshold", "value": "default_value"}
"""What Keras calls settings of activations otherwise."""


def pointwise(build: Builder, op: Operation, kind: str) -> Held:
    """Add a layer of Keras with its one setting, a function ``ops.…``, or an activation, by settings a function too."""
    is_layer, (_, *others) = kind[0].isupper(), op.target._schema.arguments
    given = others[:1] if is_layer else [one for one in others if op[one.name] != one.default_value]
    settings: dict[str, Any] = {
        RENAMED.get(one.name, one.name): op[one.name] == "tanh" or float(op[one.name]) for one in given
    }
    if is_layer or kind.startswith("ops."):
        return build.apply(kind, op.input, **settings)
    if settings:
        return build.apply(f"ops.{kind}", op.input, **settings)
    return build.apply("Activation", op.input, activation=kind)


def softplus(build: Builder, op: Operation) -> Held:
    """Add a softplus of any steepness."""
    beta = float(op["beta"])
    if beta == 1:
        return build.apply("Activation", op.input, activation="softplus")
    steep = build.apply("Activation", build.apply("Rescaling", op.input, scale=beta), activation="softplus")
    return build.apply("Rescaling", steep, scale=1 / beta)


def bounds(build: Builder, op: Operation) -> Held:
    """Add bounds, below, above or both: a clamp, a hard tanh."""
    low, high = (op["min"], op["max"]) if op["min_val"] is None else (op["min_val"], op["max_val"])
    if not all(bound is None or isinstance(bound, int | float) for bound in (low, high)):
        raise Inexpressible("its bounds are tensors", "give it plain numbers")
    named = {(0, None): "relu", (0, 6): "relu6", (-1, 1): "hard_tanh"}
    if (low, high) in named:
        return build.apply("Activation", op.input, activation=named[low, high])
    if low is None:
        return build.apply("ops.minimum", op.input, x2=float(high))
    if high is None:
        return build.apply("ops.maximum", op.input, x2=float(low))
    return build.apply("ops.clip", op.input, x_min=float(low), x_max=float(high))


def prelu(build: Builder, op: Operation) -> Held:
    """Add a ReLU with a learned slope, one for all or one for each channel."""
    (slope,) = build.weights(op, "weight")
    value, order = build.by_channel(op.input)
    count, single = value.index.ndim, slope.array.size == 1
    axes = list(range(1, count + 1 if single else count))
    array = slope.array.reshape(-1)[... if single else order].reshape(*[1] * (count - 1), -1)
    settings: dict[str, Any] = {"shared_axes": axes} if axes else {}
    return build.apply("PReLU", value, [Weight(slope.source, array)], **settings)


def softmax(build: Builder, op: Operation) -> Held:
    """Add a softmax, or its logarithm, along one dimension."""
    value, place = op.input, op["dim"] % len(op.shape) - 1
    if place < 0:
        raise Inexpressible("it runs along the batch", "give it dim=1")
    value = build.by_channel(value)[0] if len(value.shape) == 1 else build.natural(value)
    place = (2, 0, 1)[place] if len(value.shape) == 3 else place
    if place == value.index.ndim - 1:
        return build.apply("Activation", value, activation=op.name)
    if op.name == "log_softmax":
        raise Inexpressible("it runs along another dimension than the channels", "use softmax, then log")
    return build.apply("Softmax", value, axis=place + 1)


def dropout(build: Builder, op: Operation) -> Held:
    """Add dropout of single units, or of whole channels."""
    if op["train"]:
        raise Inexpressible("it drops in evaluation too", "give it training=self.training")
    kinds = {"dropout": "Dropout", "feature_dropout": "SpatialDropout2D", "alpha_dropout": "AlphaDropout"}
    if op.name not in kinds:
        raise Inexpressible("Keras has no such dropout", "use Dropout or Dropout2d")
    value = build.image(op.input) if op.name == "feature_dropout" else op.input
    return build.apply(kinds[op.name], value, rate=float(op["p"]))


def batch_norm(build: Builder, op: Operation) -> Held:
    """Add batch norm; PyTorch's momentum is the weight of the new value, Keras's that of the old."""
    if op["running_mean"] is None or op["running_var"] is None or op["training"]:
        raise Inexpressible("it keeps no moving statistics", "set track_running_stats=True")
    value, order = build.by_channel(op.input)
    statistics = build.weights(op, "running_mean", "running_var", order=order, statistic=True)
    momentum = op["momentum"] or 0.01  # an average over all batches, which Keras has not, is exported as 0
    old = float(f"{1 - momentum:.12g}")  # 0.9, not 0.9000000000000000222
    return _norm(build, op, "BatchNormalization", value, order, statistics, momentum=old)


def group_norm(build: Builder, op: Operation) -> Held:
    """Add group norm, or instance norm: that has one channel in each group."""
    if op["running_mean"] is not None or op["use_input_stats"] is False:
        raise Inexpressible("it keeps moving statistics, which Keras's has not", "set track_running_stats=False")
    value = build.natural(op.input)
    if len(value.shape) not in (1, 3):
        raise Inexpressible("it works neither on images nor on flat values")
    return _norm(build, op, "GroupNormalization", value, groups=int(op["num_groups"] or -1))


def layer_norm(build: Builder, op: Operation) -> Held:
    """Add layer norm, over the last dimension or over all."""
    count, value = len(op["normalized_shape"]), op.input
    if count == len(value.shape):
        axes = list(range(1, value.index.ndim + 1))
        return _norm(build, op, "LayerNormalization", value, value.index, axis=-1 if axes == [1] else axes)
    if count == 1:
        value, _, order = build.by_last(value)
        return _norm(build, op, "LayerNormalization", value, order, axis=-1)
    raise Inexpressible("it normalizes over some dimensions, not the last alone", "normalize over the channels")


def _norm(
    build: Builder, op: Operation, kind: str, value: Held, order: Any = None, statistics: Any = (), **settings: Any
) -> Held:
    """Add a norm with the scale and the shift that it has, each in the order of the places in Keras."""
    weights = [*build.weights(op, "weight", "bias", order=order), *statistics]
    settings |= {"epsilon": float(op["eps"]), "center": op["bias"] is not None, "scale": op["weight"] is not None}
    return build.apply(kind, value, weights, **settings)


def dense(build: Builder, op: Operation) -> Held:
    """Add a dense layer, its rows in the order in which Keras has the inputs."""
    (kernel,), biases = build.weights(op, "weight"), build.weights(op, "bias")
    value, rows, order = build.by_last(op.input)
    units = len(kernel.array)
    index: Array = (rows[..., None] * units + np.arange(units)).astype(np.int32)
    weights = [Weight(kernel.source, kernel.array.T[order]), *biases]
    return build.layer("Dense", [value], op.shape[1:], weights, index=index, units=units, use_bias=bool(biases))
