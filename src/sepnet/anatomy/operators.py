"""The one table of operators: what sepnet knows of each, by its ATen name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sepnet.anatomy import field_rules as rules
from sepnet.anatomy.graph import Operation
from sepnet.anatomy.receptive_field import AXES, Field
from sepnet.anatomy.windows import kind_of, windows

Kind = Callable[[Operation, Field, Field], str | None]
"""From an operation, the field of its first tensor and that of its first result, the kind of its row."""


@dataclass(frozen=True)
class Operator:
    """One operator.

    ``kind`` is what tables call it, ``None`` where it is no layer; ``field`` its receptive field's rule; ``keras``
    what writes it in Keras: an activation there, a function ``ops.…``, or a translator of :mod:`sepnet.export`.
    ``multiplies`` says that each result is a sum of products with a weight, ``reuses`` that the result may overwrite
    the input where nobody else needs that, ``between`` that it may stand between the halves of a separable pair.
    """

    kind: str | Kind | None
    field: rules.Rule
    keras: str | None = None
    multiplies: bool = False
    reuses: bool = False
    between: bool = False


def _all(names: str, operator: Operator) -> dict[str, Operator]:
    """Return an operator by all of its names, in which ``{}`` stands for 1, 2 and 3."""
    return {name.format(count): operator for name in names.split() for count in (1, 2, 3)}


def _activation(kind: str | Kind, keras: str | None = None) -> Operator:
    return Operator(kind, rules.pointwise, keras, reuses=True, between=True)


def _arithmetic(kind: str, keras: str = "arithmetic") -> Operator:
    """Return pointwise arithmetic; with a plain number it is no layer and has no row."""
    return Operator(lambda op, *_: kind if len(op.inputs) > 1 else None, rules.pointwise, keras)


def _norm(kind: str, dims: Callable[[Operation], Iterable[int]], keras: str | None = None) -> Operator:
    """Return a norm over some dimensions."""
    return Operator(kind, rules.mixing(dims), keras, reuses=True, between=True)


def _view(kind: Kind | None = None) -> Operator:
    return Operator(kind, lambda op, fields: fields[0].reshape(op.shape), "reshape")


def _batch_dims(op: Operation) -> list[int]:
    moving = op["running_mean"] is not None and not op["training"]
    return [] if moving else [0, *range(2, len(op.shape))]


def _last_dims(op: Operation) -> range:
    return range(len(op.shape) - len(op["normalized_shape"]), len(op.shape))


def _adaptive_kind(op: Operation, before: Field, after: Field) -> str:
    extent = "global" if all(window.out == 1 for window in windows(op)) else "adaptive"
    return f"{extent} {'average' if 'avg' in op.name else 'max'} pool"


def _reduction_kind(op: Operation, before: Field, after: Field) -> str | None:
    if len(op.inputs) > 1:  # max(x, y)
        return {"max": "maximum", "min": "minimum"}.get(op.name, op.name)
    pools = {"mean": "average pool", "amax": "max pool", "max": "max pool"}
    whole_image = before.axes(rules.dims_of(op)) == set(AXES)
    return f"global {pools[op.name]}" if whole_image and op.name in pools else op.name


def _view_kind(op: Operation, before: Field, after: Field) -> str | None:
    """Return ``flatten`` when one dimension remains beside the batch."""
    return "flatten" if len(op.shape) == 2 < len(before.dims) and op.shape[0] == before.shape[0] else None


def _cut_kind(op: Operation, before: Field, after: Field) -> str | None:
    """Give a row to a cut through the image, none to one through the channels."""
    cut = after.spans != before.spans or any(after.count(axis) != before.count(axis) for axis in AXES)
    return "slice" if cut else None


ACTIVATIONS = "relu relu6 celu selu gelu silu mish sigmoid tanh softplus threshold"
"""Activations that tables and Keras call as PyTorch does."""

FUNCTIONS = {
    **{kind: kind for kind in ("abs", "square")},
    "exp": "exp expm1",
    "log": "log log1p",
    "sqrt": "sqrt rsqrt",
    "sine": "sin cos erf",
    "round": "round floor ceil sign",
}
"""Functions that ``keras.ops`` has by the same name, by their kind."""

ARITHMETIC = {
    "add": "add addcmul addcdiv",
    "subtract": "sub subtract rsub",
    "multiply": "mul multiply",
    "divide": "div divide true_divide reciprocal",
    "power": "pow float_power",
    "negative": "neg negative",
    "maximum": "maximum fmax",
    "minimum": "minimum fmin",
    "lerp": "lerp",
}
"""Operators of arithmetic by their kind."""

UNCHANGED = rules.mixing(lambda op: ())
"""Every unit stays where it is."""

REFUSED = {
    "upsampling gives neighbouring units the same receptive field, which no jump describes": (
        "pixel_shuffle upsample_nearest2d upsample_bilinear2d upsample_bicubic2d"
    ),
    "a transposed convolution gives units of different receptive fields": (
        "conv_transpose1d conv_transpose2d conv_transpose3d"
    ),
    "attention and products of two tensors are not layers of a feed-forward convolutional network": (
        "matmul bmm mm einsum baddbmm scaled_dot_product_attention"
    ),
    "a recurrent layer is not a layer of a feed-forward convolutional network": "gru lstm rnn_tanh rnn_relu",
    "it takes a number from the values in a tensor": "item _local_scalar_dense",
    "it indexes by a tensor or a list": "index",
}
"""Operators that cannot be read, by the reason."""

OPERATORS: dict[str, Operator] = {
    **{name: _activation(name, name) for name in ACTIVATIONS.split()},
    "leaky_relu": _activation("leaky relu", "LeakyReLU"),
    "prelu": _activation("prelu", "prelu"),
    "rrelu": _activation("rrelu"),
    "elu": _activation("elu", "ELU"),
    "log_sigmoid": _activation("log sigmoid", "log_sigmoid"),
    "hardswish": _activation("hard swish", "hard_silu"),
    "hardsigmoid": _activation("hard sigmoid", "hard_sigmoid"),
    "hardtanh": _activation(
        lambda op, *_: "relu6" if (op["min_val"], op["max_val"]) == (0, 6) else "hard tanh", "bounds"
    ),
    "softshrink": _activation("soft shrink", "soft_shrink"),
    "hardshrink": _activation("hard shrink", "hard_shrink"),
    **_all("clamp clamp_min clamp_max clip", _activation("clamp", "bounds")),
    "atan": _activation("arctangent", "ops.arctan"),
    **{name: _activation(kind, f"ops.{name}") for kind, names in FUNCTIONS.items() for name in names.split()},
    **{name: _arithmetic(kind) for kind, names in ARITHMETIC.items() for name in names.split()},
    "reciprocal": _arithmetic("divide", "ops.reciprocal"),
    **_all("neg negative", _arithmetic("negative", "ops.negative")),
    **_all(
        "dropout feature_dropout alpha_dropout feature_alpha_dropout",
        Operator("dropout", UNCHANGED, "dropout", reuses=True, between=True),
    ),
    "batch_norm": _norm("batch norm", _batch_dims, "batch_norm"),
    "instance_norm": _norm(
        "instance norm", lambda op: range(2, len(op.shape) if op["use_input_stats"] else 2), "group_norm"
    ),
    "group_norm": _norm("group norm", lambda op: range(1, len(op.shape)), "group_norm"),
    "layer_norm": _norm("layer norm", _last_dims, "layer_norm"),
    "rms_norm": _norm("rms norm", _last_dims),
    "softmax": Operator("softmax", rules.mixing(rules.dims_of), "softmax", reuses=True),
    "log_softmax": Operator("log softmax", rules.mixing(rules.dims_of), "softmax", reuses=True),
    "glu": Operator("glu", rules.glu),
    **_all("conv{}d", Operator(lambda op, *_: kind_of(op), rules.convolution, "convolution", multiplies=True)),
    "linear": Operator("dense", rules.dense, "dense", multiplies=True),
    **_all("max_pool{}d max_pool{}d_with_indices", Operator("max pool", rules.pool, "max_pool")),
    **_all("avg_pool{}d", Operator("average pool", rules.pool, "average_pool")),
    **_all("adaptive_avg_pool{}d adaptive_max_pool{}d", Operator(_adaptive_kind, rules.pool, "adaptive_pool")),
    "pixel_unshuffle": Operator("pixel unshuffle", rules.pixel_unshuffle),
    **_all(
        "mean sum amax amin max min std var prod linalg_vector_norm",
        Operator(_reduction_kind, rules.reduction, "reduction"),
    ),
    **_all("cat concat concatenate", Operator("concat", rules.concat, "concat")),
    "stack": Operator("stack", rules.concat),
    **_all("reshape view view_as reshape_as", _view(_view_kind)),
    **_all("flatten ravel", _view(lambda op, before, after: "flatten" if before.shape != after.shape else None)),
    **_all("squeeze unsqueeze unflatten", _view()),
    **_all(
        "permute transpose swapaxes swapdims",
        Operator(None, lambda op, fields: fields[0].arrange(rules.order_of(op)), "permute"),
    ),
    "channel_shuffle": Operator("channel shuffle", rules.channel_shuffle, "move"),
    **_all("contiguous clone detach to type_as alias", Operator(None, UNCHANGED, "unchanged")),
    **_all("expand expand_as broadcast_to", Operator(None, rules.pointwise, "unchanged")),
    **_all("chunk split split_with_sizes tensor_split unbind", Operator(None, rules.pick, "pick")),
    **_all("slice narrow select", Operator(_cut_kind, rules.pick, "pick")),
    "pad": Operator("pad", rules.pad, "pad"),
    **{name: Operator(None, rules.refused(reason)) for reason, names in REFUSED.items() for name in names.split()},
}
