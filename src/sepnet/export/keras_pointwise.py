"""Activations, dropout, norms and dense layers in Keras."""

from typing import Any

import numpy as np

from sepnet.anatomy.call import Call
from sepnet.anatomy.operations import ACTIVATIONS
from sepnet.export.keras_builder import Builder, Handler, Weight
from sepnet.export.keras_value import Inexpressible, Value

SAME_IN_KERAS = {
    "relu": "relu",
    "relu6": "relu6",
    "selu": "selu",
    "silu": "silu",
    "mish": "mish",
    "sigmoid": "sigmoid",
    "log sigmoid": "log_sigmoid",
    "tanh": "tanh",
    "softsign": "softsign",
    "hard swish": "hard_silu",
    "hard sigmoid": "hard_sigmoid",
    "tanhshrink": "tanh_shrink",
}
"""Kinds of activation without settings, and what Keras calls them."""

FUNCTIONS = "abs exp expm1 log log1p sqrt rsqrt square sin cos erf round floor ceil sign"
"""Functions of ``keras.ops`` by the same name."""


def activations() -> dict[str, Handler]:
    """Return the handlers of activations by the names under which PyTorch has them."""
    by_kind: dict[str, Handler] = {
        **{kind: _activation(name) for kind, name in SAME_IN_KERAS.items()},
        "leaky relu": leaky_relu,
        "elu": elu,
        "celu": _with_setting("celu", "celu", "alpha", 1.0),
        "gelu": gelu,
        "softplus": softplus,
        "hard tanh": hard_tanh,
        "soft shrink": _with_setting("soft_shrink", "lambd", "threshold", 0.5),
        "hard shrink": _with_setting("hard_shrink", "lambd", "threshold", 0.5),
        "threshold": threshold,
        "clamp": clamp,
        "prelu": prelu,
    }
    by_name = {name: by_kind[kind] for kind, names in ACTIVATIONS.items() if kind in by_kind for name in names.split()}
    return {**by_name, "celu": by_name["CELU"], **{name: _function(f"ops.{name}") for name in FUNCTIONS.split()}}


def add(build: Builder, value: Value, kind: str, **settings: Any) -> Value:
    """Add a layer that treats each place alike, whatever its order."""
    value = build.settle(value)
    return build.layer(kind, [value], value.index, value.shape, **settings)


def _activation(name: str) -> Handler:
    return lambda build, call: add(build, call.args[0], "Activation", activation=name)


def _function(name: str) -> Handler:
    return lambda build, call: add(build, call.args[0], name)


def _with_setting(name: str, attribute: str, setting: str, default: float) -> Handler:
    """Return the handler of an activation that Keras has as a layer for the default alone."""

    def handle(build: Builder, call: Call) -> Value:
        chosen = float(call.get(1, "alpha" if attribute == "celu" else attribute, default))
        if chosen == default:
            return add(build, call.args[0], "Activation", activation=name)
        return add(build, call.args[0], f"ops.{name}", **{setting: chosen})

    return handle


def leaky_relu(build: Builder, call: Call) -> Value:
    """Add a leaky ReLU; its default slope is 0.01 in PyTorch, 0.3 in Keras."""
    return add(build, call.args[0], "LeakyReLU", negative_slope=float(call.get(1, "negative_slope", 0.01)))


def elu(build: Builder, call: Call) -> Value:
    """Add an ELU."""
    return add(build, call.args[0], "ELU", alpha=float(call.get(1, "alpha", 1.0)))


def gelu(build: Builder, call: Call) -> Value:
    """Add a GELU: exact, or by its approximation through tanh."""
    if call.get(1, "approximate", "none") == "none":
        return add(build, call.args[0], "Activation", activation="gelu")
    return add(build, call.args[0], "ops.gelu", approximate=True)


def softplus(build: Builder, call: Call) -> Value:
    """Add a softplus of any steepness."""
    beta = float(call.get(1, "beta", 1.0))
    if beta == 1:
        return add(build, call.args[0], "Activation", activation="softplus")
    steep = add(build, call.args[0], "Rescaling", scale=beta)
    return add(build, add(build, steep, "Activation", activation="softplus"), "Rescaling", scale=1 / beta)


def hard_tanh(build: Builder, call: Call) -> Value:
    """Add a hard tanh, between any two bounds."""
    return _between(build, call, float(call.get(1, "min_val", -1.0)), float(call.get(2, "max_val", 1.0)))


def clamp(build: Builder, call: Call) -> Value:
    """Add bounds, below, above or both."""
    if call.operation == "clamp_max":
        return _between(build, call, None, call.get(1, "max"))
    return _between(build, call, call.get(1, "min"), call.get(2, "max"))


def _between(build: Builder, call: Call, low: Any, high: Any) -> Value:
    if not all(bound is None or isinstance(bound, int | float) for bound in (low, high)):
        raise Inexpressible("its bounds are tensors", "give it plain numbers")
    named = {(0, None): "relu", (0, 6): "relu6", (-1, 1): "hard_tanh"}
    if (low, high) in named:
        return add(build, call.args[0], "Activation", activation=named[low, high])
    if low is None:
        return add(build, call.args[0], "ops.minimum", x2=float(high))
    if high is None:
        return add(build, call.args[0], "ops.maximum", x2=float(low))
    return add(build, call.args[0], "ops.clip", x_min=float(low), x_max=float(high))


def threshold(build: Builder, call: Call) -> Value:
    """Add a threshold below which all is one number."""
    settings: dict[str, Any] = {
        "threshold": float(call.get(1, "threshold")),
        "default_value": float(call.get(2, "value")),
    }
    return add(build, call.args[0], "ops.threshold", **settings)


def prelu(build: Builder, call: Call) -> Value:
    """Add a ReLU with a learned slope, one for all or one for each channel."""
    slope = build.constant(call, 1, "weight")
    assert slope is not None
    value, order = build.by_channel(call.args[0])
    axes, array = list(range(1, value.index.ndim)), slope.array.reshape(-1)
    if array.size == 1:
        axes.append(value.index.ndim)
    else:
        array = array[order]
    array = array.reshape(*[1] * (value.index.ndim - 1), -1)
    settings: dict[str, Any] = {"shared_axes": axes} if axes else {}
    weights = [Weight(slope.source, array)]
    return build.layer("PReLU", [value], value.index, value.shape, weights, **settings)


def softmax(kind: str) -> Handler:
    """Return the handler of a softmax, or of its logarithm, along one dimension."""

    def handle(build: Builder, call: Call) -> Value:
        dim = -3 if call.operation == "Softmax2d" else call.get(1, "dim")
        if not isinstance(dim, int) or dim % len(call.output) == 0:
            raise Inexpressible("it does not say along which dimension", "give it dim=1")
        value = call.args[0]
        place = dim % len(call.output) - 1
        if len(value.shape) == 1:
            value, _ = build.by_channel(value)
        else:
            value = build.natural(value)
            place = (2, 0, 1)[place] if len(value.shape) == 3 else place
        if place == value.index.ndim - 1:
            return add(build, value, "Activation", activation=kind)
        if kind == "log_softmax":
            raise Inexpressible("it runs along another dimension than the channels", "use softmax, then log")
        return add(build, value, "Softmax", axis=place + 1)

    return handle


def dropout(build: Builder, call: Call) -> Value:
    """Add dropout of single units, or of whole channels."""
    if call.module is None and bool(call.get(2, "training", call.operation.startswith("dropout"))):
        raise Inexpressible("it drops in evaluation too", "give it training=self.training")
    kinds = {"dropout": "Dropout", "dropout2d": "SpatialDropout2D", "alphadropout": "AlphaDropout"}
    kind = kinds.get(call.operation.lower().replace("_", ""))
    if kind is None:
        raise Inexpressible("Keras has no such dropout", "use Dropout or Dropout2d")
    value = build.image(call.args[0]) if kind == "SpatialDropout2D" else call.args[0]
    return add(build, value, kind, rate=float(call.get(1, "p", 0.5)))


def batch_norm(build: Builder, call: Call) -> Value:
    """Add batch norm; PyTorch's momentum is the weight of the new value, Keras's that of the old."""
    mean, variance = build.constant(call, 1, "running_mean"), build.constant(call, 2, "running_var")
    if mean is None or variance is None or (call.module is None and call.get(5, "training", False)):
        raise Inexpressible("it keeps no moving statistics", "set track_running_stats=True")
    value, order = build.by_channel(call.args[0])
    scale, shift = build.constant(call, 3, "weight"), build.constant(call, 4, "bias")
    weights = [Weight(one.source, one.array[order]) for one in (scale, shift) if one is not None]
    weights += [Weight(one.source, one.array[order], statistic=True) for one in (mean, variance)]
    momentum = call.get(6, "momentum", 0.1)
    settings: dict[str, Any] = {
        "momentum": 0.99 if momentum is None else _round(1 - momentum),
        "epsilon": float(call.get(7, "eps", 1e-5)),
        "center": shift is not None,
        "scale": scale is not None,
    }
    return build.layer("BatchNormalization", [value], value.index, value.shape, weights, **settings)


def group_norm(build: Builder, call: Call) -> Value:
    """Add group norm."""
    return _grouped(build, call, int(call.get(1, "num_groups")), (2, 3, 4))


def instance_norm(build: Builder, call: Call) -> Value:
    """Add instance norm: a group norm with one channel in each group."""
    kept = call.get(1, "running_mean") is not None
    if kept or not (call.module is not None or call.get(5, "use_input_stats", True)):
        raise Inexpressible("it keeps moving statistics, which Keras's has not", "set track_running_stats=False")
    return _grouped(build, call, -1, (3, 4, 7))


def _grouped(build: Builder, call: Call, groups: int, positions: tuple[int, int, int]) -> Value:
    value = build.natural(call.args[0])
    if len(value.shape) not in (1, 3):
        raise Inexpressible("it works neither on images nor on flat values")
    scale, shift = build.constant(call, positions[0], "weight"), build.constant(call, positions[1], "bias")
    settings: dict[str, Any] = {
        "groups": groups,
        "epsilon": float(call.get(positions[2], "eps", 1e-5)),
        "center": shift is not None,
        "scale": scale is not None,
    }
    weights = [Weight(one.source, one.array) for one in (scale, shift) if one is not None]
    return build.layer("GroupNormalization", [value], value.index, value.shape, weights, **settings)


def layer_norm(build: Builder, call: Call) -> Value:
    """Add layer norm, over the last dimension or over all."""
    count = len(call.get(1, "normalized_shape"))
    value = build.settle(call.args[0])
    scale, shift = build.constant(call, 2, "weight"), build.constant(call, 3, "bias")
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
        "epsilon": float(call.get(4, "eps", 1e-5)),
        "center": shift is not None,
        "scale": scale is not None,
    }
    weights = [Weight(one.source, one.array.reshape(-1)[order]) for one in (scale, shift) if one is not None]
    return build.layer("LayerNormalization", [value], value.index, value.shape, weights, **settings)


def dense(build: Builder, call: Call) -> Value:
    """Add a dense layer, its rows in the order in which Keras has the inputs."""
    kernel, bias = build.constant(call, 1, "weight"), build.constant(call, 2, "bias")
    assert kernel is not None
    value, rows, order = build.by_last(call.args[0])
    units = len(kernel.tensor)
    index = (rows[..., None] * units + np.arange(units)).astype(np.int32)
    weights = [Weight(kernel.source, kernel.array.T[order])]
    weights += [] if bias is None else [Weight(bias.source, bias.array)]
    return build.layer("Dense", [value], index, call.output[1:], weights, units=units, use_bias=bias is not None)


def _round(number: float) -> float:
    """Return 0.9 for 0.9000000000000000222."""
    return float(f"{number:.12g}")
