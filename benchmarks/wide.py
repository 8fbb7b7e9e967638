"""Residual separable networks of one shape and several widths, to see how the cost of training grows with it."""

from functools import partial

from torch import nn

from sepnet.networks.layers import GlobalAveragePool, PadChannels, Residual, SeparableConv2d


def wide(width: int, *, classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32)) -> nn.Module:
    """Return a stem and eight residual pairs of 3×3 separable convolutions, of one, two and three widths' channels."""

    def separable(in_channels: int, filters: int, stride: int = 1) -> list[nn.Module]:
        return [SeparableConv2d(in_channels, filters, stride=stride), nn.BatchNorm2d(filters)]

    def block(in_channels: int, filters: int, stride: int = 1) -> list[nn.Module]:
        main = nn.Sequential(*separable(in_channels, filters, stride), nn.ReLU(), *separable(filters, filters))
        shortcut = None if stride == 1 else nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), PadChannels(filters))
        return [Residual(main, shortcut), nn.ReLU()]

    return nn.Sequential(
        *separable(image_shape[0], width),
        nn.ReLU(),
        *block(width, width),
        *block(width, width),
        *block(width, 2 * width, stride=2),
        *block(2 * width, 2 * width),
        *block(2 * width, 2 * width),
        *block(2 * width, 3 * width, stride=2),
        *block(3 * width, 3 * width),
        *block(3 * width, 3 * width),
        GlobalAveragePool(),
        nn.Linear(3 * width, classes),
    )


width_8 = partial(wide, 8)
width_16 = partial(wide, 16)
width_32 = partial(wide, 32)
width_64 = partial(wide, 64)
width_128 = partial(wide, 128)
