"""Random feed-forward networks of every layer whose receptive field is one interval with one jump."""

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from sepnet.networks.layers import PadChannels, SeparableConv2d
from sepnet.networks.layers import Residual as ResidualWithShortcut

CHANNELS = 2


class Residual(nn.Module):
    def __init__(self, main: nn.Module) -> None:
        super().__init__()
        self.main = main

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class Branches(nn.Module):
    """Two branches side by side, brought back to the usual width."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right
        self.join = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.left(x), self.right(x)], dim=1))


class Slice(nn.Module):
    def __init__(self, top: int, left: int, step: int) -> None:
        super().__init__()
        self.top, self.left, self.step = top, left, step

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, self.top :: self.step, self.left : -1]


class FunctionalConvolution(nn.Module):
    def __init__(self, kernel: tuple[int, int], stride: int, dilation: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(CHANNELS, CHANNELS, *kernel))
        self.stride, self.dilation = stride, dilation

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(x, self.weight, stride=self.stride, dilation=self.dilation))


class Transposed(nn.Module):
    """A layer that works on the image turned over its diagonal, and back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(2, 3)).permute(0, 1, 3, 2).contiguous()


class ChannelsLastDense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Head(nn.Module):
    """Global pooling by one of several spellings, then a dense layer."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        self.dense = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "mean":
            return self.dense(x.mean((2, 3)))
        if self.spelling == "adaptive":
            return self.dense(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return self.dense(F.avg_pool2d(x, x.shape[2:]).view(x.size(0), -1))


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
steps = st.tuples(st.integers(1, 3), st.integers(1, 3))
dilations = st.tuples(st.integers(1, 2), st.integers(1, 2))


@st.composite
def padded_convolutions(draw: Any) -> nn.Module:
    kernel, dilation = draw(pairs), draw(dilations)
    padding = draw(st.sampled_from(["valid", "same", tuple(size // 2 for size in kernel), 1]))
    stride = 1 if padding == "same" else draw(steps)
    convolution = nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding, dilation, draw(st.sampled_from([1, 2])))
    return nn.Sequential(convolution, draw(st.sampled_from([nn.ReLU(), nn.BatchNorm2d(CHANNELS), nn.Identity()])))


@st.composite
def same_size(draw: Any) -> nn.Module:
    convolution = nn.Conv2d(CHANNELS, CHANNELS, draw(pairs), padding="same", dilation=draw(dilations))
    return nn.Sequential(convolution, nn.LeakyReLU())


@st.composite
def separables(draw: Any) -> nn.Module:
    depthwise = nn.Conv2d(CHANNELS, 2 * CHANNELS, draw(pairs), draw(steps), groups=CHANNELS)
    return nn.Sequential(depthwise, nn.Conv2d(2 * CHANNELS, CHANNELS, 1))


@st.composite
def pools(draw: Any) -> nn.Module:
    kernel = draw(st.integers(1, 3))
    kind = draw(st.sampled_from([nn.AvgPool2d, nn.MaxPool2d]))
    padding, ceil = draw(st.integers(0, kernel // 2)), draw(st.booleans())
    return kind(kernel, draw(st.integers(1, 3)), padding, ceil_mode=ceil)


layers = st.one_of(
    padded_convolutions(),
    separables(),
    pools(),
    same_size().map(Residual),
    st.builds(Branches, same_size(), same_size()),
    st.builds(Slice, st.integers(0, 2), st.integers(0, 2), st.integers(1, 2)),
    st.builds(FunctionalConvolution, pairs, st.integers(1, 2), dilations),
    st.tuples(*[st.integers(0, 2)] * 4).map(nn.ZeroPad2d),
    padded_convolutions().map(Transposed),
    st.builds(ChannelsLastDense),
)


@st.composite
def features(draw: Any) -> nn.Sequential:
    """Return one to four random layers, from an image of two channels to a map of two channels."""
    return nn.Sequential(*draw(st.lists(layers, min_size=1, max_size=4)))


@st.composite
def classifiers(draw: Any) -> nn.Sequential:
    """Return unpadded layers that skip no pixel, then global pooling and a dense layer."""
    unpadded = st.one_of(
        st.builds(FunctionalConvolution, pairs, st.just(1), st.just((1, 1))),
        st.integers(1, 3).map(lambda size: nn.AvgPool2d(size, 1)),
    )
    spelling = draw(st.sampled_from(["mean", "adaptive", "whole window"]))
    return nn.Sequential(*draw(st.lists(unpadded, min_size=1, max_size=3)), Head(spelling))


@st.composite
def residual_classifiers(draw: Any) -> nn.Module:
    """Return separable residual blocks, some with a pooled and padded shortcut, then a head on flattened values."""
    channels, blocks = CHANNELS, []
    for _ in range(draw(st.integers(1, 3))):
        wider, stride = channels + draw(st.integers(0, 2)), draw(st.integers(1, 2))
        size = draw(st.sampled_from([1, 3, 5]))
        main = nn.Sequential(
            SeparableConv2d(channels, wider, size, stride=stride, bias=draw(st.booleans())),
            nn.BatchNorm2d(wider),
            draw(st.sampled_from([nn.ReLU(inplace=True), nn.SiLU(), nn.Hardswish()])),
        )
        pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        blocks += [ResidualWithShortcut(main, nn.Sequential(pool, PadChannels(wider))), nn.ReLU()]
        channels = wider
    head = draw(st.lists(st.sampled_from([nn.ReLU(), nn.Dropout(0.3), nn.LazyBatchNorm1d()]), max_size=3))
    return nn.Sequential(*blocks, nn.Flatten(), *head, nn.LazyLinear(4))
