"""The one table of operators: what sepnet knows of each, by its ATen name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sepnet.anatomy import field_rules as rules
from sepnet.anatomy.graph import Operation
from sepnet.anatomy.receptive_field import AXES, Field, FieldError
from sepnet.anatomy.separable_pairs import Settings
from sepnet.anatomy.windows import windows

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


def find(op: Operation) -> Operator:
    """Return what is known of an operation.

    Raises:
        FieldError: nothing is.

    """
    if op.name not in OPERATORS:
        raise FieldError("what its units see is not known to sepnet")
    return OPERATORS[op.name]


def _activation(kind: str | Kind, keras: str | None = None) -> Operator:
    return Operator(kind, rules.pointwise, keras, reuses=True, between=True)


def _function(name: str, kind: str) -> Operator:
    """Return a function of ``keras.ops`` by the same name."""
    return _activation(kind, f"ops.{name}")


def _arithmetic(kind: str, keras: str = "arithmetic") -> Operator:
    """Return pointwise arithmetic; with a plain number it is no layer and has no row."""
    return Operator(lambda op, before, after: kind if len(op.inputs) > 1 else None, rules.pointwise, keras)


def _norm(kind: str, dims: Callable[[Operation], Iterable[int]], keras: str | None = None) -> Operator:
    """Return a norm over some dimensions."""
    return Operator(kind, rules.mixing(dims), keras, reuses=True, between=True)


def _batch_dims(op: Operation) -> list[int]:
    moving = op["running_mean"] is not None and not op["training"]
    return [] if moving else [0, *range(2, len(op.shape))]


def _instance_dims(op: Operation) -> range:
    return range(2, len(op.shape) if op["use_input_stats"] else 2)


def _group_dims(op: Operation) -> range:
    return range(1, len(op.shape))


def _last_dims(op: Operation) -> range:
    return range(len(op.shape) - len(op["normalized_shape"]), len(op.shape))


def _convolution_kind(op: Operation, before: Field, after: Field) -> str:
    settings = Settings.of(op)
    if settings.is_depthwise:
        return "depthwise"
    if settings.can_be_pointwise:
        return "pointwise"
    return "grouped convolution" if settings.groups > 1 else "convolution"


def _adaptive_kind(kind: str) -> Kind:
    def name(op: Operation, before: Field, after: Field) -> str:
        whole = all(window.out == 1 for window in windows(op))
        return f"{'global' if whole else 'adaptive'} {kind}"

    return name


def _reduction_kind(op: Operation, before: Field, after: Field) -> str | None:
    if rules.is_arithmetic(op):
        return {"max": "maximum", "min": "minimum"}.get(op.name, op.name)
    pools = {"mean": "average pool", "amax": "max pool", "max": "max pool"}
    whole_image = before.axes(rules.dims_of(op)) == set(AXES)
    return f"global {pools[op.name]}" if whole_image and op.name in pools else op.name


def _flatten_kind(op: Operation, before: Field, after: Field) -> str | None:
    return "flatten" if before.shape != after.shape else None


def _view_kind(op: Operation, before: Field, after: Field) -> str | None:
    """Return ``flatten`` when one dimension remains beside the batch."""
    return "flatten" if len(op.shape) == 2 < len(before.dims) and op.shape[0] == before.shape[0] else None


def _cut_kind(op: Operation, before: Field, after: Field) -> str | None:
    """Give a row to a cut through the image, none to one through the channels."""
    cut = after.spans != before.spans or any(after.count(axis) != before.count(axis) for axis in AXES)
    return "slice" if cut else None


def _hard_tanh_kind(op: Operation, before: Field, after: Field) -> str:
    return "relu6" if (op["min_val"], op["max_val"]) == (0, 6) else "hard tanh"


UPSAMPLING = Operator(
    None,
    rules.refused("upsampling gives neighbouring units the same receptive field, which no jump describes"),
)
TRANSPOSED = Operator(None, rules.refused("a transposed convolution gives units of different receptive fields"))
PRODUCT = Operator(
    None,
    rules.refused("attention and products of two tensors are not layers of a feed-forward convolutional network"),
)
RECURRENT = Operator(None, rules.refused("a recurrent layer is not a layer of a feed-forward convolutional network"))
VALUE = Operator(None, rules.refused("it takes a number from the values in a tensor"))
VIEW = Operator(_view_kind, rules.reshape, "reshape")
FLATTEN = Operator(_flatten_kind, rules.reshape, "reshape")
RESHAPE = Operator(None, rules.reshape, "reshape")
TRANSPOSE = Operator(None, rules.permute, "permute")
UNCHANGED = Operator(None, rules.unchanged, "unchanged")
EXPAND = Operator(None, rules.pointwise, "expand")
PARTS = Operator(None, rules.pick, "pick")
SLICE = Operator(_cut_kind, rules.pick, "pick")
DROPOUT = Operator("dropout", rules.unchanged, "dropout", reuses=True, between=True)
PAD = Operator("pad", rules.pad, "pad")
CONVOLUTION = Operator(_convolution_kind, rules.convolution, "convolution", multiplies=True)
CONCAT = Operator("concat", rules.concat, "concat")
CLAMP = _activation("clamp", "bounds")

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

OPERATORS: dict[str, Operator] = {
    "relu": _activation("relu", "relu"),
    "relu6": _activation("relu6", "relu6"),
    "leaky_relu": _activation("leaky relu", "LeakyReLU"),
    "prelu": _activation("prelu", "prelu"),
    "rrelu": _activation("rrelu"),
    "elu": _activation("elu", "ELU"),
    "celu": _activation("celu", "celu"),
    "selu": _activation("selu", "selu"),
    "gelu": _activation("gelu", "gelu"),
    "silu": _activation("silu", "silu"),
    "mish": _activation("mish", "mish"),
    "sigmoid": _activation("sigmoid", "sigmoid"),
    "log_sigmoid": _activation("log sigmoid", "log_sigmoid"),
    "tanh": _activation("tanh", "tanh"),
    "softplus": _activation("softplus", "softplus"),
    "hardswish": _activation("hard swish", "hard_silu"),
    "hardsigmoid": _activation("hard sigmoid", "hard_sigmoid"),
    "hardtanh": _activation(_hard_tanh_kind, "bounds"),
    "softshrink": _activation("soft shrink", "soft_shrink"),
    "hardshrink": _activation("hard shrink", "hard_shrink"),
    "threshold": _activation("threshold", "threshold"),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "clip"), CLAMP),
    "abs": _function("abs", "abs"),
    "atan": _activation("arctangent", "ops.arctan"),
    **{name: _function(name, "exp") for name in ("exp", "expm1")},
    **{name: _function(name, "log") for name in ("log", "log1p")},
    **{name: _function(name, "sqrt") for name in ("sqrt", "rsqrt")},
    "square": _function("square", "square"),
    **{name: _function(name, "sine") for name in ("sin", "cos", "erf")},
    **{name: _function(name, "round") for name in ("round", "floor", "ceil", "sign")},
    **{name: _arithmetic(kind) for kind, names in ARITHMETIC.items() for name in names.split()},
    "reciprocal": _arithmetic("divide", "ops.reciprocal"),
    **dict.fromkeys(("neg", "negative"), _arithmetic("negative", "ops.negative")),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), DROPOUT),
    "batch_norm": _norm("batch norm", _batch_dims, "batch_norm"),
    "instance_norm": _norm("instance norm", _instance_dims, "group_norm"),
    "group_norm": _norm("group norm", _group_dims, "group_norm"),
    "layer_norm": _norm("layer norm", _last_dims, "layer_norm"),
    "rms_norm": _norm("rms norm", _last_dims),
    "softmax": Operator("softmax", rules.mixing(rules.dims_of), "softmax", reuses=True),
    "log_softmax": Operator("log softmax", rules.mixing(rules.dims_of), "softmax", reuses=True),
    "glu": Operator("glu", rules.glu),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), CONVOLUTION),
    "linear": Operator("dense", rules.dense, "dense", multiplies=True),
    **{f"max_pool{n}d": Operator("max pool", rules.pool, "max_pool") for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": Operator("max pool", rules.pool, "max_pool") for n in (1, 2, 3)},
    **{f"avg_pool{n}d": Operator("average pool", rules.pool, "average_pool") for n in (1, 2, 3)},
    **{
        f"adaptive_{short}_pool{n}d": Operator(_adaptive_kind(kind), rules.pool, "adaptive_pool")
        for short, kind in (("avg", "average pool"), ("max", "max pool"))
        for n in (1, 2, 3)
    },
    "pixel_unshuffle": Operator("pixel unshuffle", rules.pixel_unshuffle),
    **{
        name: Operator(_reduction_kind, rules.reduction, "reduction")
        for name in ("mean", "sum", "amax", "amin", "max", "min", "std", "var", "prod", "linalg_vector_norm")
    },
    **dict.fromkeys(("cat", "concat", "concatenate"), CONCAT),
    "stack": Operator("stack", rules.concat),
    **dict.fromkeys(("reshape", "view", "view_as", "reshape_as"), VIEW),
    **dict.fromkeys(("flatten", "ravel"), FLATTEN),
    **dict.fromkeys(("squeeze", "unsqueeze", "unflatten"), RESHAPE),
    **dict.fromkeys(("permute", "transpose", "swapaxes", "swapdims"), TRANSPOSE),
    "channel_shuffle": Operator("channel shuffle", rules.channel_shuffle, "move"),
    **dict.fromkeys(("contiguous", "clone", "detach", "to", "type_as", "alias"), UNCHANGED),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), EXPAND),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unbind"), PARTS),
    **dict.fromkeys(("slice", "narrow", "select"), SLICE),
    "pad": PAD,
    **dict.fromkeys(("index",), Operator(None, rules.refused("it indexes by a tensor or a list"))),
    **dict.fromkeys(("pixel_shuffle", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), UPSAMPLING),
    **{f"conv_transpose{n}d": TRANSPOSED for n in (1, 2, 3)},
    **dict.fromkeys(("matmul", "bmm", "mm", "einsum", "baddbmm", "scaled_dot_product_attention"), PRODUCT),
    **dict.fromkeys(("gru", "lstm", "rnn_tanh", "rnn_relu"), RECURRENT),
    **dict.fromkeys(("item", "_local_scalar_dense"), VALUE),
}
