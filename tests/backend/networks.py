# mypy: disable-error-code="operator, union-attr"
# A module's attributes, which the networks here are made of, are modules or tensors to mypy.
"""Small networks, each with something at which a computation in steps of its own could go astray."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def depthwise(channels: int, kernel_size: int = 3, **options: Any) -> nn.Conv2d:
    return _ready(
        nn.Conv2d(channels, channels, kernel_size, groups=channels, **{"padding": kernel_size // 2, **options})
    )


def pointwise(channels: int, filters: int, **options: Any) -> nn.Conv2d:
    return _ready(nn.Conv2d(channels, filters, 1, **options))


def _ready(layer: nn.Conv2d) -> nn.Conv2d:
    """Make the bias small: a mean that is many deviations away from 0 costs digits of any batch norm's variance."""
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -0.1, 0.1)
    return layer


class Parts(nn.Module):
    """Has the modules it is given."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class AddInPlace(Parts):
    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8), c=pointwise(8, 8), norm=nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.norm(self.c(self.b(x)))
        y += x
        return F.relu(y, inplace=True)


class ActivationsInPlace(Parts):
    """A stage remembers its output, which must not be changed under it."""

    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), act=nn.ELU(inplace=True), b=depthwise(8), last=nn.LeakyReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.b(self.act(self.a(x))))


class Smooth(Parts):
    """Smooth activations: after a norm, after a sum, after each other, before a pooling, of an input used again."""

    def __init__(self) -> None:
        super().__init__(
            a=pointwise(3, 8),
            norm=nn.BatchNorm2d(8),
            silu=nn.SiLU(),
            b=depthwise(8),
            c=pointwise(8, 8),
            hardswish=nn.Hardswish(inplace=True),
            pool=nn.MaxPool2d(2),
            last=pointwise(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.silu(self.norm(self.a(x)))
        y = F.silu(F.hardswish(self.c(self.b(x))))
        x = self.hardswish(self.c(F.silu(x + y, inplace=True)))
        return self.last(self.pool(F.relu(F.silu(x))))


class SharedNorm(Parts):
    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8), c=pointwise(8, 8), norm=nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.a(x)))
        return self.norm(self.c(self.b(x)))


class SharedConvolutions(Parts):
    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8), c=pointwise(8, 8), norm=nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        for _ in range(3):
            x = self.norm(self.c(self.b(x))).relu()
        return x


class SharedWeights(Parts):
    """Two layers, one parameter: its gradient is that of both together, once."""

    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8), c=depthwise(8), norm=nn.BatchNorm2d(8))
        self.c.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.norm(self.b(self.a(x))))


class SameUnderOtherNames(Parts):
    """PyTorch returns the very tensor, if there is nothing to do."""

    def __init__(self) -> None:
        super().__init__(a=nn.Conv2d(3, 8, 3), b=depthwise(8), same=nn.Identity(), drop=nn.Dropout(0.0))

    def forward(self, x: Tensor) -> Any:
        x = self.a(x)
        y = self.same(x)
        z = x.float()
        z = self.b(x + y) + self.drop(z) + z
        return z, self.same(z), self.drop(x)


class NormsInputUsedElsewhere(Parts):
    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), norm=nn.BatchNorm2d(8), other=nn.BatchNorm2d(8), b=depthwise(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.norm(x) + x * self.other(x) + self.b(x)


class BothBranchesNormed(Parts):
    def __init__(self) -> None:
        one, two = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        super().__init__(a=pointwise(3, 8), one=one, b=pointwise(3, 8), two=two, c=depthwise(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.one(self.a(x)) + self.two(self.b(x))))


class BothBranchesClipped(BothBranchesNormed):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.one(self.a(x))) + self.two(self.b(x)).relu())


class Broadcast(Parts):
    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), norm=nn.BatchNorm2d(8), b=depthwise(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.a(x))
        return self.b(x) + x.mean((2, 3), keepdim=True)


class InputUsedOften(Parts):
    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x)[:, :3] + self.b(x) + x + (x + x)


class SeveralOutputs(Parts):
    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), norm=nn.BatchNorm2d(8), b=depthwise(8))

    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.a(x))
        y = self.b(x)
        return x, (y, [y.relu()]), {"mean": x.mean(), "same": x}


class BuffersAndParameters(Parts):
    """PyTorch's tracer takes a buffer's value, unless told otherwise, as a constant."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8))
        self.register_buffer("scale", torch.full((1, 8, 1, 1), 2.0))
        self.gain = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) * (self.scale + 1) * self.gain.view(1, -1, 1, 1) + self.gain.sum()


class Mobile(Parts):
    """MobileNet's order: norm and activation between the two halves of a pair."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        def layer(convolution: nn.Conv2d) -> list[nn.Module]:
            return [convolution, nn.BatchNorm2d(convolution.out_channels), activation()]

        layers = [pointwise(3, 8), depthwise(8, stride=2), pointwise(8, 12), depthwise(12, 5), pointwise(12, 5)]
        super().__init__(layers=nn.Sequential(*(part for convolution in layers for part in layer(convolution))))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MobileReLU6(Mobile):
    def __init__(self) -> None:
        super().__init__(lambda: nn.ReLU6(inplace=True))  # type: ignore[arg-type]


class Viewed(Parts):
    """``view`` wants channels outermost in memory, as they are in PyTorch's own outputs."""

    def __init__(self) -> None:
        layers = nn.Sequential(depthwise(3), pointwise(3, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveMaxPool2d(4))
        super().__init__(a=pointwise(3, 3), layers=layers, dense=nn.Linear(64, 3))

    def forward(self, x: Tensor) -> Any:
        a = self.a(x)
        x = self.layers(x)
        return self.dense(x.view(x.size(0), -1)), a.view(a.size(0), 3, -1)


class Paddings(Parts):
    def __init__(self) -> None:
        super().__init__(
            even=nn.Conv2d(3, 3, 4, groups=3, padding="same"),
            oblong=nn.Conv2d(3, 3, (2, 5), groups=3, padding=(1, 2)),
            middle=pointwise(3, 3),
            valid=depthwise(3, padding="valid"),
            far=depthwise(3, 5, padding="same", dilation=2),
            circular=depthwise(3, padding_mode="circular"),
            wide=depthwise(3, padding=2),
            wider=depthwise(3, padding=3),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.far(self.valid(self.middle(self.oblong(self.even(x)))))
        return self.wider(self.wide(self.circular(x)))


class Folded(Parts):
    """1×1 depthwise layers, biases between the halves of a pair, a norm before a pointwise layer."""

    def __init__(self) -> None:
        super().__init__(
            layers=nn.Sequential(
                depthwise(3, 1),
                pointwise(3, 4, bias=False),
                depthwise(4),
                pointwise(4, 6),
                nn.BatchNorm2d(6),
                depthwise(6, 1, bias=False),
                pointwise(6, 7, bias=False),
                nn.BatchNorm2d(7),
                pointwise(7, 8),
                nn.Conv2d(8, 8, 1, groups=8, stride=2),
                pointwise(8, 3),
                nn.BatchNorm2d(3),
                nn.Conv2d(3, 3, 1, groups=3),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Multiplied(Parts):
    """Depthwise layers of several filters a channel: first, in the middle, of 1×1, of one channel, alone."""

    def __init__(self) -> None:
        def several(channels: int, times: int, kernel_size: int = 3, **options: Any) -> nn.Conv2d:
            padding = kernel_size // 2
            return _ready(
                nn.Conv2d(channels, channels * times, kernel_size, groups=channels, padding=padding, **options)
            )

        super().__init__(
            layers=nn.Sequential(
                several(3, 5, bias=False),
                *(pointwise(15, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), several(4, 2, 5, stride=2)),
                *(pointwise(8, 6), nn.ReLU(), several(6, 3, 1), pointwise(18, 1), several(1, 4), pointwise(4, 2)),
            ),
            last=several(2, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        return self.last(x).sum(1, keepdim=True) + x


class Norms(Parts):
    """Every kind of batch norm but one: where momentum is None, Python reads numbers, and Dynamo's graph breaks."""

    def __init__(self) -> None:
        kinds = [
            nn.BatchNorm2d(8, affine=False),
            nn.BatchNorm2d(8, track_running_stats=False),
            nn.BatchNorm2d(8, affine=False, track_running_stats=False),
            nn.BatchNorm2d(8, momentum=0.0, eps=0.1),
            nn.BatchNorm2d(8),
        ]
        kinds[-1].track_running_stats = False
        layers = [part for norm in kinds for part in (depthwise(8), pointwise(8, 8), norm)]
        super().__init__(layers=nn.Sequential(pointwise(3, 8), *layers))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class OneChannel(Parts):
    def __init__(self) -> None:
        super().__init__(a=nn.Conv2d(1, 1, 3, padding=1), b=pointwise(1, 1), c=pointwise(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x[:, :1])))


class NormKeptInEvaluation(Parts):
    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), kept=nn.BatchNorm2d(8), b=depthwise(8), norm=nn.BatchNorm2d(8))

    def train(self, mode: bool = True) -> "NormKeptInEvaluation":
        super().train(mode)
        self.kept.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.b(self.kept(self.a(x))))


class Frozen(Parts):
    def __init__(self) -> None:
        one, two = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        super().__init__(a=pointwise(3, 8), one=one, b=depthwise(8), c=pointwise(8, 8), two=two)
        for parameter in (*self.a.parameters(), one.weight, self.b.weight, two.bias):
            parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.c(self.b(self.one(self.a(x)))))


class Parametrized(Parts):
    def __init__(self) -> None:
        super().__init__(
            a=nn.utils.parametrizations.weight_norm(pointwise(3, 8)),
            b=nn.utils.parametrizations.spectral_norm(depthwise(8)),
            c=pointwise(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)))


class MoreArguments(Parts):
    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8))

    def forward(self, x: Tensor, mask: Tensor | None = None, features: bool = False, *, scale: float = 2.0) -> Any:
        x = self.b(self.a(x)) * scale
        if mask is not None:
            x = x * mask
        return (x, x) if features else x


class Written(Parts):
    """Code with loops, methods, helpers, lists and comprehensions, and straight all the same."""

    SLOPES = (0.5, 1.0)

    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8))
        self.layers = nn.ModuleList([depthwise(8), depthwise(8)])
        self.heads = nn.ModuleDict({"x": pointwise(8, 2), "y": pointwise(8, 3)})
        self.activation = F.relu
        self.offsets = [0, 1]

    def features(self, x: Tensor, times: int = 1) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = _shifted(self.activation(layer(x)), self.offsets[index] * times)
        return x

    @staticmethod
    def scaled(x: Tensor, slope: float) -> Tensor:
        """Return ``x``, scaled."""
        return x * slope

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.a(x), times=2)
        outputs = []
        for _, head in self.heads.items():
            outputs.append(head(x))
        outputs += [self.scaled(x, slope) for slope in self.SLOPES]
        images, channels = x.shape[:2]
        total: Tensor = torch.cat([*outputs, self.heads["x"](x)], 1) / channels
        return total.reshape(images, -1) if len(self.layers) > 1 else x


def _shifted(x: Tensor, offset: float) -> Tensor:
    return x + offset


class ByMode(Parts):
    """What it computes depends on the mode, and the two need not go together inside."""

    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.training:
            x = self.b(x)
        return x


class PublishedOrder(Parts):
    def __init__(self) -> None:
        super().__init__(
            layers=nn.Sequential(
                *(depthwise(3), pointwise(3, 8), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Dropout(0.0)),
                *(depthwise(8), pointwise(8, 16), nn.ReLU(inplace=True), nn.BatchNorm2d(16)),
                *(nn.AvgPool2d(2, ceil_mode=True), nn.Identity(), nn.Dropout(0.0, inplace=True), nn.Flatten(2)),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Deep(nn.Sequential):
    """A sequence of sequences, and one that is empty."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Sequential(depthwise(3), nn.Sequential(), pointwise(3, 4))), nn.ReLU())


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    network.__name__: network
    for network in (
        *(
            AddInPlace,
            ActivationsInPlace,
            Smooth,
            SharedNorm,
            SharedConvolutions,
            SharedWeights,
            SameUnderOtherNames,
            NormsInputUsedElsewhere,
        ),
        *(BothBranchesNormed, BothBranchesClipped, Broadcast, InputUsedOften, SeveralOutputs, BuffersAndParameters),
        *(Mobile, MobileReLU6, Viewed, Paddings, Folded, Multiplied, Norms, OneChannel, NormKeptInEvaluation, Frozen),
        *(Parametrized, MoreArguments, Written, ByMode, PublishedOrder, Deep),
    )
}
