"""The layer vocabulary: what a network file is written in, beside ``torch.nn``."""

from collections import OrderedDict

from torch import Tensor, nn


class SeparableConv2d(nn.Sequential):
    """A depthwise convolution followed at once by a pointwise one, as Keras's ``SeparableConv2D``.

    Takes ``(N, in_channels, H, W)``; gives ``(N, out_channels, H, W)`` with stride 1 and an odd kernel, which is
    padded by half its extent on each side. The stride, the dilation and ``depth_multiplier``, the number of filters
    for each input channel, belong to the depthwise half; the bias, if any, to the pointwise half. (Chollet 2017,
    Xception, section 2.)
    """

    depthwise: nn.Conv2d
    pointwise: nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        depth_multiplier: int = 1,
        bias: bool = False,
    ) -> None:
        filters = in_channels * depth_multiplier
        depthwise = nn.Conv2d(
            in_channels,
            filters,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size - 1) // 2,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        )
        pointwise = nn.Conv2d(filters, out_channels, 1, bias=bias)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))


class Residual(nn.Module):
    """``main(x) + shortcut(x)``: the two branches must give the same shape. (He et al. 2015, section 3.)"""

    def __init__(self, main: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.main = main
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both branches."""
        return self.main(x) + self.shortcut(x)


class PadChannels(nn.Module):
    """Append zero channels: ``(N, C, H, W)`` to ``(N, channels, H, W)``; a shortcut that costs no parameter.

    (He et al. 2015, section 4.2, option A.)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with zeros after its channels."""
        return nn.functional.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))


class GlobalAveragePool(nn.Module):
    """The mean over height and width: ``(N, C, H, W)`` to ``(N, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over the last two axes."""
        return x.mean(dim=(2, 3))


def keras_batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with Keras's defaults: eps 1e-3, and momentum 0.99, which PyTorch writes as 0.01."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
