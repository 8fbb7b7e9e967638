# mypy: disable-error-code="operator, union-attr, arg-type"
# A module's attributes, which the networks here are made of, are modules or tensors to mypy.
"""More plain networks in the manner of public code: short ones, and those with Python about them."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .idioms import SqueezeExcitation, classifier, conv, conv_norm


class Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


def conv_mixer(width: int = 24, depth: int = 3, size: int = 5) -> nn.Module:
    """Nothing but a nested ``Sequential``."""

    def after(layer: nn.Module) -> nn.Sequential:
        return nn.Sequential(layer, nn.GELU(), nn.BatchNorm2d(width))

    return nn.Sequential(
        after(nn.Conv2d(3, width, 2, stride=2)),
        *(
            nn.Sequential(
                Residual(after(nn.Conv2d(width, width, size, groups=width, padding="same"))),
                after(nn.Conv2d(width, width, 1)),
            )
            for _ in range(depth)
        ),
        *classifier(width),
    )


class StarBlock(nn.Module):
    """Two branches of one map, multiplied."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv, self.dwconv2 = conv_norm(channels, channels, 7, groups=channels), conv(channels, channels, 7)
        self.f1, self.f2 = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(channels, 2 * channels, 1)
        self.g, self.act = conv_norm(2 * channels, channels, 1), nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        input = x
        x = self.dwconv(x)
        x1, x2 = self.f1(x), self.f2(x)
        x = self.dwconv2(self.g(self.act(x1) * x2))
        return input + x


def star_net() -> nn.Module:
    return nn.Sequential(*conv_norm(3, 16, stride=2), nn.ReLU6(), StarBlock(16), StarBlock(16), *classifier(16))


class SpeedrunNet(nn.Module):
    """Norms without a learned scale, GELU, a frozen first layer and scaled logits, as in CIFAR-10 speed records."""

    def __init__(self) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2, padding=0, bias=True)
        self.whiten.weight.requires_grad_(False)
        self.layers = nn.Sequential(nn.GELU(), self.group(24, 32), self.group(32, 48), nn.MaxPool2d(3))
        self.head = nn.Linear(48 * 4, 10, bias=False)

    def group(self, channels: int, filters: int) -> nn.Sequential:
        norms = [nn.BatchNorm2d(filters, eps=1e-12, momentum=0.4) for _ in range(2)]
        for norm in norms:
            norm.weight.requires_grad_(False)
        first, second = conv(channels, filters), conv(filters, filters)
        return nn.Sequential(first, nn.MaxPool2d(2), norms[0], nn.GELU(), second, norms[1], nn.GELU())

    def forward(self, x: Tensor, whiten_bias_grad: bool = True) -> Tensor:
        bias = self.whiten.bias if whiten_bias_grad else self.whiten.bias.detach()
        x = F.conv2d(x, self.whiten.weight, bias)
        x = self.layers(x).view(len(x), -1)
        return self.head(x) / x.size(-1)


class DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, 4 * growth, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(4 * growth), conv(4 * growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return torch.cat([out, x], 1)


class DenseNet(nn.Module):
    """Features joined layer by layer, and a functional pooling at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, 16)
        self.dense1 = nn.Sequential(DenseLayer(16, 8), DenseLayer(24, 8))
        self.norm, self.transition = nn.BatchNorm2d(32), conv(32, 16, 1)
        self.dense2 = nn.Sequential(DenseLayer(16, 8), DenseLayer(24, 8))
        self.bn, self.linear = nn.BatchNorm2d(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.dense1(self.conv1(x))
        out = F.avg_pool2d(self.transition(F.relu(self.norm(out))), 2)
        out = F.avg_pool2d(F.relu(self.bn(self.dense2(out))), 16)
        return self.linear(out.view(out.size(0), -1))


class DenseNetOfLists(nn.Module):
    """Features kept in a list: the first concatenation has one entry."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 12)
        self.layers = nn.ModuleList(nn.Sequential(*conv_norm(12 + 6 * i, 6), nn.ReLU()) for i in range(3))
        self.head = classifier(30)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, dim=1)))
        return self.head(torch.cat(features, dim=1))


class ShuffleUnit(nn.Module):
    """Half of the channels pass by; then the halves are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            *(*conv_norm(half, half, 1), nn.ReLU(inplace=True)),
            *conv_norm(half, half, groups=half),
            *(*conv_norm(half, half, 1), nn.ReLU(inplace=True)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        out = torch.cat((x1, self.branch(x2)), dim=1)
        n, c, h, w = out.size()
        return out.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def shuffle_net() -> nn.Module:
    stem = (*conv_norm(3, 16, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, ShuffleUnit(16), ShuffleUnit(16), *classifier(16))


class SENet(nn.Module):
    """A gate whose pooling window is the map's size, read at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = conv(16, 16), nn.BatchNorm2d(16)
        self.fc1, self.fc2 = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.linear = nn.Linear(16 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(x))
        w = F.avg_pool2d(out, out.size(2))
        w = self.fc2(F.relu(self.fc1(w))).sigmoid()
        out = F.relu(out * w + x)
        return self.linear(torch.flatten(F.avg_pool2d(out, 8), 1))


class RepVGGBlock(nn.Module):
    """Three branches, or one after they were merged: ``hasattr`` tells which."""

    def __init__(self, channels: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        self.rbr_identity = nn.BatchNorm2d(channels) if channels == filters and stride == 1 else None
        self.rbr_dense = conv_norm(channels, filters, stride=stride)
        self.rbr_1x1 = conv_norm(channels, filters, 1, stride=stride)
        self.se = nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        if hasattr(self, "rbr_reparam"):
            return F.relu(self.se(self.rbr_reparam(inputs)))
        identity: Any = 0 if self.rbr_identity is None else self.rbr_identity(inputs)
        return F.relu(self.se(self.rbr_dense(inputs) + self.rbr_1x1(inputs) + identity))


def rep_vgg() -> nn.Module:
    return nn.Sequential(RepVGGBlock(3, 16, 2), RepVGGBlock(16, 16), RepVGGBlock(16, 32, 2), *classifier(32))


class Recurrent(nn.Module):
    """One block called three times, with a norm for each time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.block = nn.Sequential(conv(16, 16, groups=16), conv(16, 16, 1))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3))
        self.head = classifier(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm in self.norms:
            x = F.relu(norm(self.block(x)) + x)
        return self.head(x)


def logged(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Leave a mark for the profiler around a method."""

    @functools.wraps(function)
    def inner(self: nn.Module, *inputs: Tensor, **options: Any) -> Tensor:
        with torch.profiler.record_function(type(self).__name__):
            return function(self, *inputs, **options)

    return inner


class Decorated(nn.Module):
    """A decorated ``forward``, a subclass's ``super().forward``, ``isinstance`` over the children."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([*conv_norm(3, 16), nn.ReLU(), conv(16, 16, groups=16), conv(16, 32, 1)])
        self.head = classifier(32)

    @logged
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                x = F.hardswish(x)
        return self.head(x)


class Subclass(Decorated):
    def forward(self, x: Tensor, temperature: float = 2.0) -> Tensor:
        return super().forward(x) / temperature


class Mish(nn.Module):
    """An activation written out, compiled to TorchScript by its author."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tanh(F.softplus(x))


class ScriptedChild(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = nn.Sequential(*conv_norm(3, 16), nn.ReLU()), nn.MaxPool2d(2)
        self.mish: nn.Module = torch.jit.script(Mish())
        self.gate, self.head = SqueezeExcitation(16), classifier(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gate(self.mish(self.pool(self.stem(x)))))


def scripted_child() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which public code still uses
        return ScriptedChild()
