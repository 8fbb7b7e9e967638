"""Which Keras layers stand for which operation, by the name of its module class, function or method."""

from sepnet.anatomy.operations import ARITHMETIC, DROPOUTS, UNCHANGED
from sepnet.export import keras_merging, keras_moving, keras_padding, keras_pointwise, keras_windows
from sepnet.export.keras_builder import Handler

VIEWS = "reshape view view_as reshape_as flatten Flatten ravel squeeze unsqueeze unflatten Unflatten"
PADS = "ZeroPad ConstantPad ReflectionPad ReplicationPad CircularPad"
REDUCTIONS = "mean sum amax amin prod"

SINGLE: dict[str, Handler] = {
    "neg negative": keras_merging.negative,
    "reciprocal": keras_merging.reciprocal,
    "cat concat concatenate": keras_merging.concat,
    "Linear linear": keras_pointwise.dense,
    "BatchNorm1d BatchNorm2d SyncBatchNorm batch_norm": keras_pointwise.batch_norm,
    "GroupNorm group_norm": keras_pointwise.group_norm,
    "InstanceNorm1d InstanceNorm2d instance_norm": keras_pointwise.instance_norm,
    "LayerNorm layer_norm": keras_pointwise.layer_norm,
    "Softmax Softmax2d softmax": keras_pointwise.softmax("softmax"),
    "LogSoftmax log_softmax": keras_pointwise.softmax("log_softmax"),
    "Conv1d Conv2d Conv3d conv1d conv2d conv3d": keras_windows.convolution,
    "MaxPool2d max_pool2d max_pool2d_with_indices": keras_windows.max_pool,
    "AvgPool2d avg_pool2d": keras_windows.average_pool,
    "AdaptiveAvgPool2d adaptive_avg_pool2d": keras_windows.adaptive_pool("Average"),
    "AdaptiveMaxPool2d adaptive_max_pool2d": keras_windows.adaptive_pool("Max"),
    "pad": keras_padding.pad,
    "expand expand_as broadcast_to": keras_moving.expand,
    "permute": keras_moving.permute,
    "transpose swapaxes swapdims": keras_moving.transpose,
    "ChannelShuffle channel_shuffle": keras_moving.channel_shuffle,
    "chunk split": keras_moving.parts,
    "narrow": keras_moving.narrow,
    "select": keras_moving.select,
    "getitem": keras_moving.getitem,
}

HANDLERS: dict[str, Handler] = {
    **{name: keras_merging.arithmetic(kind) for kind, names in ARITHMETIC.items() for name in names.split()},
    **keras_pointwise.activations(),
    **dict.fromkeys(UNCHANGED.split(), keras_moving.unchanged),
    **dict.fromkeys(DROPOUTS.split(), keras_pointwise.dropout),
    **dict.fromkeys(VIEWS.split(), keras_moving.reshape),
    **{name: keras_moving.reduction(name) for name in REDUCTIONS.split()},
    **{f"{name}{size}d": keras_padding.pad for name in PADS.split() for size in (1, 2, 3)},
    **{name: handler for names, handler in SINGLE.items() for name in names.split()},
}
