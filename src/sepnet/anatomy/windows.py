"""The windows of convolutions and pooling, along each dimension over which they slide, and what they make of them."""

import re
from typing import Any, NamedTuple

from sepnet.anatomy.graph import Operation


class Window(NamedTuple):
    """A window along a dimension of ``size`` positions, padded before and after, that leaves ``out`` of them."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def reach(self) -> int:
        """How far the last window reaches over the end; negative where it stops short of it."""
        return (self.out - 1) * self.stride + (self.kernel - 1) * self.dilation + 1 - self.size - self.before


def windows(op: Operation) -> list[Window]:
    """Return the windows of a convolution or a pooling along the last one, two or three dimensions."""
    named = re.search(r"\d(?=d)", op.name)
    assert named is not None
    count = int(named.group())
    sizes, outs = op.inputs[0].shape[-count:], op.shape[-count:]
    if op["output_size"] is not None:
        return [Window(size, out, size // out, size // out) for size, out in zip(sizes, outs, strict=True)]
    kernel = _each(op["kernel_size"] if op["weight"] is None else op["weight"].shape[2:], count)
    stride = _each(op["stride"], count) or kernel
    dilation = [1 if side == 1 else step for side, step in zip(kernel, _each(op["dilation"] or 1, count), strict=True)]
    totals = [step * (side - 1) for side, step in zip(kernel, dilation, strict=True)]
    if isinstance(op["padding"], str):  # the odd position of "same" comes after the last
        padding = [(total // 2, total - total // 2) if op["padding"] == "same" else (0, 0) for total in totals]
    else:
        padding = [(side, side) for side in _each(op["padding"], count)]
    settings = zip(sizes, outs, kernel, stride, dilation, padding, strict=True)
    return [Window(*others, *sides) for *others, sides in settings]


def kind_of(op: Operation) -> str:
    """Return what a convolution is: of a single input channel, it is depthwise only as a half of a pair."""
    if op["groups"] > 1:
        return "depthwise" if op["weight"].shape[1] == 1 else "grouped convolution"
    return "pointwise" if all(one[2:] == (1, 1, 1, 0, 0) for one in windows(op)) else "convolution"


def _each(setting: Any, count: int) -> list[int]:
    """Return a setting for each dimension: one number stands for all."""
    values = [setting] if isinstance(setting, int) else list(setting)
    return values * count if len(values) == 1 else values
