# mypy: disable-error-code="operator, union-attr, arg-type"
# A module's attributes, which the networks here are made of, are modules or tensors to mypy.
"""Plain networks in the manner of public code: each with an idiom that a tracer or a compiler has to follow."""

from collections import OrderedDict
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(channels: int, filters: int, size: int = 3, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, size, stride, size // 2, groups=groups, bias=bias)


def conv_norm(channels: int, filters: int, size: int = 3, **options: Any) -> nn.Sequential:
    return nn.Sequential(conv(channels, filters, size, **options), nn.BatchNorm2d(filters))


def classifier(channels: int, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class TutorialLeNet(nn.Module):
    """Functional pooling and ``view(-1, …)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, self.features_of(x))
        x = F.relu(self.fc1(x))
        return self.fc3(F.relu(self.fc2(x)))

    def features_of(self, x: Tensor) -> int:
        features = 1
        for size in x.size()[1:]:
            features *= size
        return features


class BasicBlock(nn.Module):
    """An optional shortcut, added in place."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, filters, stride=stride), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = conv(filters, filters), nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = conv_norm(channels, filters, 1, stride=stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """A separate ``_forward_impl`` for the scripting compiler, and stages made by a method."""

    def __init__(self, block: type[nn.Module] = BasicBlock) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = conv(3, 16), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, 16, 16, 1)
        self.layer2 = self._make_layer(block, 16, 32, 2)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(32, 10)

    def _make_layer(self, block: type[nn.Module], channels: int, filters: int, stride: int) -> nn.Sequential:
        return nn.Sequential(block(channels, filters, stride), block(filters, filters, 1))

    def _forward_impl(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self._forward_impl(x)


class PreActivationBlock(nn.Module):
    """A shortcut that exists only if it is needed, asked for with ``hasattr``."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, filters, stride=stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(filters), conv(filters, filters)
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(conv(channels, filters, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        out += shortcut
        return out


class PreActResNet(ResNet):
    def __init__(self) -> None:
        super().__init__(PreActivationBlock)


class InvertedResidual(nn.Module):
    """Stages found by ``getattr``, guarded by ``assert``."""

    def __init__(self, channels: int, filters: int, stride: int, expand: int) -> None:
        super().__init__()
        assert stride in (1, 2)
        width = channels * expand
        self.add_module("expand", nn.Sequential(*conv_norm(channels, width, 1), nn.ReLU6(inplace=True)))
        self.add_module(
            "spatial", nn.Sequential(*conv_norm(width, width, stride=stride, groups=width), nn.ReLU6(inplace=True))
        )
        self.add_module("project", conv_norm(width, filters, 1))
        self.channels = channels
        self.use_residual = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels, f"expected {self.channels} channels, got {x.shape[1]}"
        out = x
        for name in ("expand", "spatial", "project"):
            out = getattr(self, name)(out)
        return x + out if self.use_residual else out


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        rows = [(16, 16, 1, 1), (16, 24, 2, 6), (24, 24, 1, 6), (24, 32, 2, 6)]
        stem = nn.Sequential(*conv_norm(3, 16, stride=2), nn.ReLU6(inplace=True))
        self.features = nn.Sequential(stem, *(InvertedResidual(*row) for row in rows))
        self.dropout, self.classifier = nn.Dropout(0.2), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean([2, 3])
        return self.classifier(self.dropout(x))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def scale(self, x: Tensor) -> Tensor:
        return F.hardsigmoid(self.fc2(F.relu(self.fc1(self.avgpool(x)), inplace=True)), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(x) * x


class MobileNetV3(nn.Module):
    """Layers by name in an ``OrderedDict``, and layer classes made by ``partial``."""

    def __init__(self) -> None:
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)
        self.features = nn.Sequential(
            OrderedDict(
                stem=nn.Sequential(conv(3, 16, stride=2), norm(16), nn.Hardswish(inplace=True)),
                depthwise=nn.Sequential(conv(16, 16, 5, groups=16), norm(16), nn.Hardswish(inplace=True)),
                gate=SqueezeExcitation(16),
                project=nn.Sequential(conv(16, 24, 1), norm(24)),
                widen=nn.Sequential(conv(24, 48, 1), norm(48), nn.Hardswish()),
            )
        )
        self.classifier = nn.Sequential(nn.Linear(48, 32), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(x.flatten(1))


class ScriptingBranches(nn.Module):
    """Asks whether it is being scripted, and has methods for the scripting compiler alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16)
        self.body = nn.Sequential(conv(16, 16, groups=16), conv(16, 32, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.auxiliary: nn.Module | None = None
        self.head = classifier(32)

    @torch.jit.unused
    def eager_outputs(self, x: Tensor, auxiliary: Tensor | None) -> Tensor:
        return x if auxiliary is None else x + auxiliary

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(F.relu(self.stem(x)))
        auxiliary = self.auxiliary(x) if self.auxiliary is not None and self.training else None
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self.head(x)
        return self.eager_outputs(self.head(x), auxiliary)


class Outputs(NamedTuple):
    logits: Tensor
    auxiliary: Tensor | None


class Inception(nn.Module):
    """Branches in a list, joined; a second output in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(3, 16), nn.ReLU(), nn.MaxPool2d(3, stride=2, ceil_mode=True))
        self.branches = nn.ModuleList(
            [
                conv_norm(16, 8, 1),
                nn.Sequential(*conv_norm(16, 8, 1), nn.ReLU(), *conv_norm(8, 12)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *conv_norm(16, 8, 1)),
            ]
        )
        self.head, self.extra = classifier(28), classifier(16)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = F.relu(torch.cat([branch(x) for branch in self.branches], 1))
        return Outputs(self.head(y), self.extra(x)) if self.training else self.head(y)


class DropPath(nn.Module):
    """Whole samples of a residual branch dropped at random, as in stochastic depth."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if self.probability == 0.0 or not self.training:
            return x
        keep = 1 - self.probability
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)


class ConvNeXtBlock(nn.Module):
    """Channels moved last for a norm and two dense layers, and a learned scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = conv(channels, channels, 7, groups=channels, bias=True)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1, self.act = nn.Linear(channels, 4 * channels), nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 0.5))
        self.drop_path = DropPath(0.0)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        x = self.gamma * self.pwconv2(self.act(self.pwconv1(x)))
        return shortcut + self.drop_path(x.permute(0, 3, 1, 2))


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, kernel_size=2, stride=2)
        self.stage = nn.Sequential(*(ConvNeXtBlock(20) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(20), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stage(self.stem(x)).mean([-2, -1])))


def vgg() -> nn.Module:
    """Layers from a list of numbers and letters."""
    layers: list[nn.Module] = []
    channels = 3
    for entry in (16, "M", 32, 32, "M", 48, "M"):
        if isinstance(entry, int):
            layers += [conv(channels, entry, bias=True), nn.BatchNorm2d(entry), nn.ReLU(inplace=True)]
            channels = entry
        else:
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    head = (nn.Linear(48 * 16, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 10))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten(), *head)


class StochasticDepth(nn.Module):
    """Residual branches of separable convolutions, each dropped for some of the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(3, 16), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(16, 16, groups=16), conv(16, 16, 1), nn.BatchNorm2d(16), nn.SiLU()) for _ in range(3)
        )
        self.drop_path = DropPath(0.2)
        self.head = classifier(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + self.drop_path(block(x))
        return self.head(x)
