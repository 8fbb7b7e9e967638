"""The champion: strict depthwise separable, residual, under 100,000 parameters and 20 million MACs."""

from torch import nn

from sepnet.networks.layers import GlobalAveragePool, PadChannels, Residual, SeparableConv2d

STEM_FILTERS = 8
"""Depthwise filters for each colour of the image."""
DROPOUT = 0.05


def champion(*, classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32)) -> nn.Module:
    """Return the champion for images ``(N, C, H, W)``.

    A stem to 48 channels, then residual pairs of 3×3 separable convolutions: 1 of 48 channels, 2 of 96, 2 of 112,
    halving the image before the second and the third stage. A shortcut that changes shape is an average pool
    and zero channels, because a 1×1 convolution alone would not be depthwise separable. How its parts were found is
    in ``results/ablation``.
    """

    def separable(in_channels: int, filters: int, stride: int = 1, times: int = 1) -> list[nn.Module]:
        convolution = SeparableConv2d(in_channels, filters, stride=stride, depth_multiplier=times)
        return [convolution, nn.BatchNorm2d(filters)]

    def block(in_channels: int, filters: int, stride: int = 1) -> list[nn.Module]:
        main = nn.Sequential(
            *separable(in_channels, filters, stride),
            nn.Hardswish(),
            *separable(filters, filters),
        )
        shortcut = None if stride == 1 else nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), PadChannels(filters))
        return [Residual(main, shortcut), nn.Hardswish()]

    return nn.Sequential(
        *separable(image_shape[0], 48, times=STEM_FILTERS),
        nn.Hardswish(),
        *block(48, 48),
        *block(48, 96, stride=2),
        *block(96, 96),
        *block(96, 112, stride=2),
        *block(112, 112),
        GlobalAveragePool(),
        nn.Dropout(DROPOUT),
        nn.Linear(112, classes),
    )
