"""What the fusion reads from the nodes of Dynamo's graph, and what it computes of weights in front of a stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import statically_known_true


@dataclass(frozen=True)
class Layer:
    """A convolution that is depthwise or pointwise."""

    weight: fx.Node
    bias: fx.Node | None
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    depthwise: bool
    channels: int
    channels_out: int

    @classmethod
    def from_node(cls, node: fx.Node) -> "Layer | str | None":
        """Return the layer that a node is; else why PyTorch computes it, or None if it is no convolution."""
        if (node.op, node.target) != ("call_function", torch.conv2d):
            return None
        arguments: Any = node.args
        options: Any = node.kwargs
        return cls.of(node, *arguments[1:], **options)

    @classmethod
    def of(
        cls,
        node: fx.Node,
        weight: fx.Node,
        bias: fx.Node | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> "Layer | str":
        """Return the layer of a convolution's arguments."""
        weights = [meta(source) for source in (weight, bias) if source is not None]
        if any(value.dtype != torch.float32 for value in weights):
            return f"{name(node)}: weights that are not float32"
        out, per_group, *kernel = weights[0].shape
        stride, dilation = pair(stride), pair(dilation)
        around = zero_padding(padding, kernel, dilation)
        if len(kernel) != 2 or around is None:
            return f"{name(node)}: uneven padding"
        depthwise = per_group == 1 and groups > 1 and out % groups == 0
        pointwise = groups == 1 and (*kernel, *stride, *around) == (1, 1, 1, 1, 0, 0)
        if not depthwise and not pointwise:
            size = "×".join(map(str, kernel))
            return f"{name(node)} {size}" + (f" with stride {stride[0]}" if kernel == [1, 1] else f", groups {groups}")
        if any(p > d * (k - 1) for p, d, k in zip(around, dilation, kernel, strict=True)):
            return f"{name(node)}: padding wider than the kernel"
        return cls(weight, bias, tuple(kernel), stride, around, dilation, depthwise, groups * per_group, out)


def meta(node: fx.Node) -> Any:
    """Return the fake value that Dynamo found for a node."""
    return node.meta.get("example_value")


def name(node: fx.Node) -> str:
    """Return what a layer is called in PyTorch."""
    return str(getattr(node.target, "__name__", node.target))


def pair(value: Any) -> tuple[int, int]:
    """Return rows and columns of a setting that may be one number for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def zero_padding(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, int] | None:
    """Return how many zeros a convolution puts at either end of rows and columns; None if the ends differ."""
    if padding == "valid":
        return 0, 0
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return (total[0] // 2, total[1] // 2) if total[0] % 2 == total[1] % 2 == 0 else None
    return pair(padding)


def is_contiguous(fake: Tensor) -> bool:
    """Tell whether a tensor is in the default memory format and not in the one of channels innermost."""
    return fake.is_contiguous() and not fake.is_contiguous(memory_format=torch.channels_last)


def same_images(first: Tensor, second: Tensor) -> bool:
    """Tell whether images have the same shape and type, without asking more of sizes that may change."""
    same = all(statically_known_true(a == b) for a, b in zip(first.shape, second.shape, strict=True))
    return first.dtype == second.dtype and same


def number(setting: Any) -> float:
    """Return a setting. One that Dynamo made a variable, since it changed after an earlier graph, is guarded again."""
    return float(meta(setting)) if isinstance(setting, fx.Node) else float(setting)


def count_positions(x: Tensor) -> int:
    """Return how many values of a channel there are in images ``(N, C, H, W)``."""
    return x.shape[0] * x.shape[2] * x.shape[3]


def repeat_channels(images: Tensor, times: int) -> Tensor:
    """Return images with each channel so many times in a row, one for each filter of a depthwise layer."""
    repeated = images.permute(0, 2, 3, 1)[..., None].expand(-1, -1, -1, -1, times)
    return repeated.flatten(3).permute(0, 3, 1, 2)


def carry(pointwise: Tensor, shift: Tensor, bias: Tensor | None) -> Tensor:
    """Return the bias that a shift of every input channel and a pointwise layer's own bias come to."""
    carried = (pointwise.flatten(1) * shift).sum(1)  # a matrix product would be rounded to bf16 under autocast
    return carried if bias is None else carried + bias


def scale_inputs(pointwise: Tensor, scale: Tensor) -> Tensor:
    """Return the pointwise weights that take in a scale of every input channel."""
    return pointwise * scale.view(1, -1, 1, 1)
