"""The champion: strict depthwise separable, residual, under 100,000 parameters and 20 million MACs."""

from torch import nn

from sepnet.networks.layers import GlobalAveragePool, PadChannels, Residual, SeparableConv2d

DROPOUT = 0.05


def champion(*, classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32)) -> nn.Module:
    """Return the champion for images ``(N, C, H, W)``.

    A stem to 32 channels, then residual pairs of 3×3 separable convolutions: 2 of 32 channels, 3 of 64, 3 of 96,
    halving the image before the second and the third stage. A shortcut that changes shape is an average pool
    and zero channels, because a 1×1 convolution alone would not be depthwise separable.
    """

    def separable(in_channels: int, filters: int, stride: int = 1) -> list[nn.Module]:
        return [SeparableConv2d(in_channels, filters, stride=stride), nn.BatchNorm2d(filters)]

    def block(in_channels: int, filters: int, stride: int = 1) -> list[nn.Module]:
        main = nn.Sequential(
            *separable(in_channels, filters, stride),
            nn.ReLU(),
            *separable(filters, filters),
        )
        shortcut = None if stride == 1 else nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), PadChannels(filters))
        return [Residual(main, shortcut), nn.ReLU()]

    return nn.Sequential(
        *separable(image_shape[0], 32),
        nn.ReLU(),
        *block(32, 32),
        *block(32, 32),
        *block(32, 64, stride=2),
        *block(64, 64),
        *block(64, 64),
        *block(64, 96, stride=2),
        *block(96, 96),
        *block(96, 96),
        GlobalAveragePool(),
        nn.Dropout(DROPOUT),
        nn.Linear(96, classes),
    )
