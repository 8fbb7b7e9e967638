"""What the tests of the int8 formats share: a network of every operator, and plans on random pixels."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sepnet.export.int8.lowering import lower
from sepnet.export.int8.plan import Plan
from sepnet.export.int8.quantization import quantize
from sepnet.networks.layers import PadChannels, Residual, SeparableConv2d

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CLASSES = ("cat", "dög", 'a "quoted" one\\', "*/ ??/", "e")
SHAPE = (3, 11, 9)


class Everything(nn.Module):
    """Each operator that int8 knows, on odd sizes and with uneven padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=(2, 1))
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, (3, 2), padding="same", dilation=(1, 2), groups=2)
        self.pool = nn.MaxPool2d(3, 1, padding=1)
        self.between = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(16), SeparableConv2d(16, 16, 5, depth_multiplier=2))
        self.residual = Residual(nn.Sequential(SeparableConv2d(16, 16), nn.GELU(), SeparableConv2d(16, 16)))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), PadChannels(20))
        self.main = SeparableConv2d(16, 20, stride=2)
        self.padded = nn.AvgPool2d(3, 2, padding=1)
        self.dense = nn.Linear(120, 7)
        self.last = nn.Linear(7, len(CLASSES))
        self.offset = nn.Parameter(torch.rand(16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.norm(self.stem(functional.pad(x, (1, 1, 0, 1)))))
        x = torch.cat([self.pool(x), self.grouped(x)], 1)
        x = self.between(x) * 2 + self.offset
        x = x * torch.sigmoid(x)
        x = functional.hardswish(self.residual(x))
        x = functional.leaky_relu(self.main(x) + self.shortcut(x))
        x = self.padded(x).relu().flatten(1)
        return self.last(self.dense(x).tanh()).softmax(1)


def randomized(model: nn.Module) -> nn.Module:
    """Return the module in evaluation mode, with no bias, scale or statistic that is neutral."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point():
                spread = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim in (2, 4) else 0.3
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * spread)
    return model.eval()


def pixels(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Tensor:
    """Return random images ``(count, C, H, W)``, uint8, the extremes among them."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)
    images[0], images[-1] = 0, 255
    return images


@functools.cache
def everything() -> tuple[nn.Module, Plan]:
    """Return the network and its plan."""
    model = randomized(Everything())
    return model, plan_of(model, SHAPE)


def plan_of(model: nn.Module, shape: tuple[int, int, int], **changed: Any) -> Plan:
    """Return a network's plan, calibrated on random pixels."""
    settings = {"mean": MEAN, "std": STD, "classes": CLASSES, "name": "every thing", **changed}
    return quantize(lower(model, shape), pixels(12, shape), **settings)
