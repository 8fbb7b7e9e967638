"""The operations that anatomy can read, by the name of their module class, function or method."""

from collections.abc import Callable

from sepnet.anatomy import moving, pointwise, sliding
from sepnet.anatomy.call import Call, Outcome
from sepnet.anatomy.field import FieldError

Handler = Callable[[Call], Outcome]

ACTIVATIONS = {
    "relu": "ReLU relu",
    "relu6": "ReLU6 relu6",
    "leaky relu": "LeakyReLU leaky_relu",
    "prelu": "PReLU prelu",
    "rrelu": "RReLU rrelu",
    "elu": "ELU elu",
    "celu": "CELU celu",
    "selu": "SELU selu",
    "gelu": "GELU gelu",
    "silu": "SiLU silu",
    "mish": "Mish mish",
    "sigmoid": "Sigmoid sigmoid",
    "log sigmoid": "LogSigmoid logsigmoid log_sigmoid",
    "tanh": "Tanh tanh",
    "softplus": "Softplus softplus",
    "softsign": "Softsign softsign",
    "hard swish": "Hardswish hardswish",
    "hard sigmoid": "Hardsigmoid hardsigmoid",
    "hard tanh": "Hardtanh hardtanh",
    "tanhshrink": "Tanhshrink tanhshrink",
    "soft shrink": "Softshrink softshrink",
    "hard shrink": "Hardshrink hardshrink",
    "threshold": "Threshold threshold _threshold",
    "clamp": "clamp clamp_min clamp_max clip",
    "abs": "abs",
    "exp": "exp expm1",
    "log": "log log1p",
    "sqrt": "sqrt rsqrt",
    "square": "square",
    "sine": "sin cos erf",
    "round": "round floor ceil sign",
}

ARITHMETIC = {
    "add": "add iadd radd addcmul addcdiv",
    "subtract": "sub subtract isub rsub",
    "multiply": "mul multiply imul",
    "divide": "truediv div divide true_divide itruediv reciprocal",
    "power": "pow float_power",
    "negative": "neg negative",
    "maximum": "maximum fmax",
    "minimum": "minimum fmin",
    "lerp": "lerp",
}

UNCHANGED = "Identity contiguous clone detach to type float double half bfloat16 cpu cuda type_as data"
DROPOUTS = (
    "Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout "
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"
)
CONSTANTS = {
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty"),
}

WHY_UNREADABLE = {
    "a transposed convolution gives units of different receptive fields": "ConvTranspose conv_transpose",
    "upsampling gives neighbouring units the same receptive field, which no jump describes": (
        "Upsample UpsamplingNearest UpsamplingBilinear interpolate upsample PixelShuffle pixel_shuffle"
    ),
    "attention and products of two tensors are not layers of a feed-forward convolutional network": (
        "MultiheadAttention Transformer scaled_dot_product_attention matmul bmm mm einsum baddbmm"
    ),
    "a recurrent layer is not a layer of a feed-forward convolutional network": "RNN LSTM GRU",
}


def operate(call: Call) -> Outcome:
    """Return the outcome of one operation on tensors that depend on the image.

    Raises:
        FieldError: the operation is unknown, or its receptive field is not one interval with one jump.

    """
    handler = HANDLERS.get(call.operation)
    if handler is None:
        raise FieldError(_why_unknown(call.operation))
    return handler(call)


def _why_unknown(operation: str) -> str:
    for reason, names in WHY_UNREADABLE.items():
        if any(operation.startswith(name) for name in names.split()):
            return reason
    return "what its units see is not known to sepnet"


def _table() -> dict[str, Handler]:
    sizes = ("1d", "2d", "3d")
    table: dict[str, Handler] = {
        **dict.fromkeys(UNCHANGED.split(), pointwise.unchanged),
        **dict.fromkeys(DROPOUTS.split(), pointwise.dropout),
        **{name: pointwise.activation(kind) for kind, names in ACTIVATIONS.items() for name in names.split()},
        **{name: pointwise.arithmetic(kind) for kind, names in ARITHMETIC.items() for name in names.split()},
        **{name: pointwise.reduction(name) for name in REDUCTIONS.split()},
        **{f"{name}{size}": sliding.convolution for name in ("Conv", "conv") for size in sizes},
        **{f"{name}{size}": sliding.adaptive_pool for name in ADAPTIVE_POOLS.split() for size in sizes},
        **{f"{name}{size}": sliding.pool for name in POOLS.split() for size in sizes},
        **{f"{name}{size}": moving.pad for name in PADS.split() for size in sizes},
        **{f"BatchNorm{size}": pointwise.batch_norm for size in sizes},
        **{f"InstanceNorm{size}": pointwise.instance_norm for size in sizes},
        **{name: handler for names, handler in SINGLE.items() for name in names.split()},
    }
    return table


REDUCTIONS = "mean sum amax amin max min std var prod"
POOLS = "MaxPool AvgPool LPPool max_pool avg_pool lp_pool"
ADAPTIVE_POOLS = "AdaptiveAvgPool AdaptiveMaxPool adaptive_avg_pool adaptive_max_pool"
PADS = "ZeroPad ConstantPad ReflectionPad ReplicationPad CircularPad"
SINGLE: dict[str, Handler] = {
    "max_pool2d_with_indices": sliding.pool,
    "Linear linear": sliding.dense,
    "PixelUnshuffle pixel_unshuffle": sliding.pixel_unshuffle,
    "batch_norm SyncBatchNorm": pointwise.batch_norm,
    "instance_norm": pointwise.instance_norm,
    "GroupNorm group_norm": pointwise.group_norm,
    "LayerNorm layer_norm RMSNorm rms_norm": pointwise.layer_norm,
    "LocalResponseNorm local_response_norm": pointwise.channel_norm,
    "Softmax softmax": pointwise.along_dim("softmax"),
    "LogSoftmax log_softmax": pointwise.along_dim("log softmax"),
    "Softmax2d": pointwise.along_dim("softmax", default=-3),
    "normalize": pointwise.along_dim("normalize", position=2, default=1),
    "GLU glu": pointwise.gated_half,
    "cat concat concatenate": pointwise.concat,
    "stack": pointwise.stack,
    "expand expand_as broadcast_to": pointwise.expand,
    "reshape view view_as reshape_as": moving.view,
    "flatten Flatten ravel": moving.flatten,
    "squeeze unsqueeze unflatten Unflatten": moving.reshape,
    "permute": moving.permute,
    "transpose swapaxes swapdims": moving.transpose,
    "ChannelShuffle channel_shuffle": moving.channel_shuffle,
    "chunk split": moving.parts,
    "unbind": moving.unbind,
    "narrow": moving.narrow,
    "select": moving.select,
    "getitem": moving.getitem,
    "pad": moving.pad,
}
HANDLERS = _table()

KINDS = (
    *("convolution", "depthwise", "pointwise", "separable", "grouped convolution", "dense"),
    *("max pool", "average pool", "power average pool", "adaptive max pool", "adaptive average pool"),
    *("global max pool", "global average pool", *REDUCTIONS.split()),
    *("batch norm", "layer norm", "rms norm", "group norm", "instance norm", "local response norm", "normalize"),
    *("dropout", "softmax", "log softmax", "glu", *ACTIVATIONS, *ARITHMETIC),
    *("concat", "stack", "flatten", "pad", "slice", "channel shuffle", "pixel unshuffle", "unused"),
)
"""Every kind of layer that a row of an anatomy may name."""
