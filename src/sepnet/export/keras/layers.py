"""Activations, dropout, norms and dense layers in Keras."""

from typing import Any

import numpy as np

from sepnet.anatomy.operators import find
from sepnet.export.keras.builder import Builder, Call, Handler, Weight
from sepnet.export.keras.tensor import Held, Inexpressible


def add(build: Builder, value: Held, kind: str, **settings: Any) -> Held:
    """Add a layer that treats each place alike, whatever its order."""
    value = build.settle(value)
    return build.layer(kind, [value], value.index, value.shape, **settings)


def with_setting(setting: str, default: float) -> Handler:
    """Return the handler of an activation that Keras has as a layer for the default setting alone."""
    renamed = {"lambd": "threshold"}

    def handle(build: Builder, call: Call) -> Held:
        chosen, name = float(call[setting]), find(call.operation).keras
        if chosen == default:
            return add(build, call.input, "Activation", activation=name)
        return add(build, call.input, f"ops.{name}", **{renamed.get(setting, setting): chosen})

    return handle


def leaky_relu(build: Builder, call: Call) -> Held:
    """Add a leaky ReLU; its default slope is 0.01 in PyTorch, 0.3 in Keras."""
    return add(build, call.input, "LeakyReLU", negative_slope=float(call["negative_slope"]))


def elu(build: Builder, call: Call) -> Held:
    """Add an ELU."""
    return add(build, call.input, "ELU", alpha=float(call["alpha"]))


def gelu(build: Builder, call: Call) -> Held:
    """Add a GELU: exact, or by its approximation through tanh."""
    if call["approximate"] == "none":
        return add(build, call.input, "Activation", activation="gelu")
    return add(build, call.input, "ops.gelu", approximate=True)


def softplus(build: Builder, call: Call) -> Held:
    """Add a softplus of any steepness."""
    beta = float(call["beta"])
    if beta == 1:
        return add(build, call.input, "Activation", activation="softplus")
    steep = add(build, call.input, "Rescaling", scale=beta)
    return add(build, add(build, steep, "Activation", activation="softplus"), "Rescaling", scale=1 / beta)


def bounds(build: Builder, call: Call) -> Held:
    """Add bounds, below, above or both: a clamp, a hard tanh."""
    low, high = (call["min"], call["max"]) if call["min_val"] is None else (call["min_val"], call["max_val"])
    if not all(bound is None or isinstance(bound, int | float) for bound in (low, high)):
        raise Inexpressible("its bounds are tensors", "give it plain numbers")
    named = {(0, None): "relu", (0, 6): "relu6", (-1, 1): "hard_tanh"}
    if (low, high) in named:
        return add(build, call.input, "Activation", activation=named[low, high])
    if low is None:
        return add(build, call.input, "ops.minimum", x2=float(high))
    if high is None:
        return add(build, call.input, "ops.maximum", x2=float(low))
    return add(build, call.input, "ops.clip", x_min=float(low), x_max=float(high))


def threshold(build: Builder, call: Call) -> Held:
    """Add a threshold below which all is one number."""
    settings: dict[str, Any] = {
        "threshold": float(call["threshold"]),
        "default_value": float(call["value"]),
    }
    return add(build, call.input, "ops.threshold", **settings)


def prelu(build: Builder, call: Call) -> Held:
    """Add a ReLU with a learned slope, one for all or one for each channel."""
    slope = build.constant(call, "weight")
    assert slope is not None
    value, order = build.by_channel(call.input)
    axes, array = list(range(1, value.index.ndim)), slope.array.reshape(-1)
    if array.size == 1:
        axes.append(value.index.ndim)
    else:
        array = array[order]
    array = array.reshape(*[1] * (value.index.ndim - 1), -1)
    settings: dict[str, Any] = {"shared_axes": axes} if axes else {}
    weights = [Weight(slope.source, array)]
    return build.layer("PReLU", [value], value.index, value.shape, weights, **settings)


def softmax(build: Builder, call: Call) -> Held:
    """Add a softmax, or its logarithm, along one dimension."""
    value, place = call.input, call["dim"] % len(call.output) - 1
    if place < 0:
        raise Inexpressible("it runs along the batch", "give it dim=1")
    if len(value.shape) == 1:
        value, _ = build.by_channel(value)
    else:
        value = build.natural(value)
        place = (2, 0, 1)[place] if len(value.shape) == 3 else place
    if place == value.index.ndim - 1:
        return add(build, value, "Activation", activation=call.name)
    if call.name == "log_softmax":
        raise Inexpressible("it runs along another dimension than the channels", "use softmax, then log")
    return add(build, value, "Softmax", axis=place + 1)


def dropout(build: Builder, call: Call) -> Held:
    """Add dropout of single units, or of whole channels."""
    if call["train"]:
        raise Inexpressible("it drops in evaluation too", "give it training=self.training")
    kinds = {"dropout": "Dropout", "feature_dropout": "SpatialDropout2D", "alpha_dropout": "AlphaDropout"}
    kind = kinds.get(call.name)
    if kind is None:
        raise Inexpressible("Keras has no such dropout", "use Dropout or Dropout2d")
    value = build.image(call.input) if kind == "SpatialDropout2D" else call.input
    return add(build, value, kind, rate=float(call["p"]))


def batch_norm(build: Builder, call: Call) -> Held:
    """Add batch norm; PyTorch's momentum is the weight of the new value, Keras's that of the old."""
    mean, variance = build.constant(call, "running_mean"), build.constant(call, "running_var")
    if mean is None or variance is None or call["training"]:
        raise Inexpressible("it keeps no moving statistics", "set track_running_stats=True")
    value, order = build.by_channel(call.input)
    scale, shift = build.constant(call, "weight"), build.constant(call, "bias")
    weights = [Weight(one.source, one.array[order]) for one in (scale, shift) if one is not None]
    weights += [Weight(one.source, one.array[order], statistic=True) for one in (mean, variance)]
    momentum = call["momentum"] or 0.01  # an average over all batches, which Keras has not, is exported as 0
    settings: dict[str, Any] = {
        "momentum": _round(1 - momentum),
        "epsilon": float(call["eps"]),
        "center": shift is not None,
        "scale": scale is not None,
    }
    return build.layer("BatchNormalization", [value], value.index, value.shape, weights, **settings)


def group_norm(build: Builder, call: Call) -> Held:
    """Add group norm."""
    return _grouped(build, call, int(call["num_groups"]))


def instance_norm(build: Builder, call: Call) -> Held:
    """Add instance norm: a group norm with one channel in each group."""
    if call["running_mean"] is not None or not call["use_input_stats"]:
        raise Inexpressible("it keeps moving statistics, which Keras's has not", "set track_running_stats=False")
    return _grouped(build, call, -1)


def _grouped(build: Builder, call: Call, groups: int) -> Held:
    value = build.natural(call.input)
    if len(value.shape) not in (1, 3):
        raise Inexpressible("it works neither on images nor on flat values")
    scale, shift = build.constant(call, "weight"), build.constant(call, "bias")
    settings: dict[str, Any] = {
        "groups": groups,
        "epsilon": float(call["eps"]),
        "center": shift is not None,
        "scale": scale is not None,
    }
    weights = [Weight(one.source, one.array) for one in (scale, shift) if one is not None]
    return build.layer("GroupNormalization", [value], value.index, value.shape, weights, **settings)


def layer_norm(build: Builder, call: Call) -> Held:
    """Add layer norm, over the last dimension or over all."""
    count = len(call["normalized_shape"])
    value = build.settle(call.input)
    scale, shift = build.constant(call, "weight"), build.constant(call, "bias")
    if count == len(value.shape):
        axis: Any = list(range(1, value.index.ndim + 1))
        order = value.index
    elif count == 1:
        value, _, order = build.by_last(value)
        axis = -1
    else:
        raise Inexpressible("it normalizes over some dimensions, not the last alone", "normalize over the channels")
    settings: dict[str, Any] = {
        "axis": -1 if axis == [1] else axis,
        "epsilon": float(call["eps"]),
        "center": shift is not None,
        "scale": scale is not None,
    }
    weights = [Weight(one.source, one.array.reshape(-1)[order]) for one in (scale, shift) if one is not None]
    return build.layer("LayerNormalization", [value], value.index, value.shape, weights, **settings)


def dense(build: Builder, call: Call) -> Held:
    """Add a dense layer, its rows in the order in which Keras has the inputs."""
    kernel, bias = build.constant(call, "weight"), build.constant(call, "bias")
    assert kernel is not None
    value, rows, order = build.by_last(call.input)
    units = len(kernel.tensor)
    index = (rows[..., None] * units + np.arange(units)).astype(np.int32)
    weights = [Weight(kernel.source, kernel.array.T[order])]
    weights += [] if bias is None else [Weight(bias.source, bias.array)]
    return build.layer("Dense", [value], index, call.output[1:], weights, units=units, use_bias=bias is not None)


def _round(number: float) -> float:
    """Return 0.9 for 0.9000000000000000222."""
    return float(f"{number:.12g}")
