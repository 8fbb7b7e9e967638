"""The networks of the rows: residual chains of separable convolutions, all under 100,000 parameters."""

from collections.abc import Callable
from functools import partial

from torch import nn

from sepnet.networks.layers import GlobalAveragePool, PadChannels, Residual, SeparableConv2d


def chain(
    *,
    classes: int = 10,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    widths: tuple[int, ...] = (32, 64, 96),
    blocks: tuple[int, ...] = (2, 3, 3),
    kernels: tuple[tuple[int, ...], ...] = ((3,), (3,), (3,)),
    stem_filters: int = 1,
    per_block: int = 2,
    activation: Callable[[], nn.Module] = nn.ReLU,
    dropout: float = 0.05,
) -> nn.Module:
    """Return a network for images ``(N, C, H, W)``: a stem, then stages of residual blocks, then a dense layer.

    Args:
        classes: how many classes it tells apart.
        image_shape: channels, height and width.
        widths: channels of each stage; every stage but the first begins with stride 2.
        blocks: residual blocks of each stage.
        kernels: sides of each stage's depthwise kernels, taken in turn.
        stem_filters: the first depthwise convolution's, for each channel of the image.
        per_block: convolutions of a residual block.
        activation: what makes an activation layer.
        dropout: before the dense layer.

    """

    def separable(channels: int, filters: int, kernel: int, stride: int = 1, times: int = 1) -> list[nn.Module]:
        convolution = SeparableConv2d(channels, filters, kernel, stride=stride, depth_multiplier=times)
        return [convolution, nn.BatchNorm2d(filters)]

    layers = [*separable(image_shape[0], widths[0], 3, times=stem_filters), activation()]
    channels = widths[0]
    for stage, (width, count, sizes) in enumerate(zip(widths, blocks, kernels, strict=True)):
        number = 0
        for block in range(count):
            stride = 2 if stage and not block else 1
            main: list[nn.Module] = []
            shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), PadChannels(width)) if stride == 2 else None
            for index in range(per_block):
                main += [] if index == 0 else [activation()]
                main += separable(channels, width, sizes[number % len(sizes)], stride if index == 0 else 1)
                channels, number = width, number + 1
            layers += [Residual(nn.Sequential(*main), shortcut), activation()]
    layers += [GlobalAveragePool(), nn.Dropout(dropout), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


start = chain

# The first depthwise convolution has one filter for each colour, so that 32 channels are mixtures of three planes.
stem_8_filters = partial(chain, stem_filters=8)

# Activations.
silu = partial(chain, activation=nn.SiLU)
hardswish = partial(chain, activation=nn.Hardswish)

# Upon the wider stem.
wider_single = partial(chain, stem_filters=8, blocks=(4, 6, 6), per_block=1)
wider_k555 = partial(chain, stem_filters=8, widths=(32, 64, 84), kernels=((5,), (5,), (5,)))
wider_deep_middle = partial(chain, stem_filters=8, widths=(32, 64, 80), blocks=(2, 5, 3))
wider_hardswish = partial(chain, stem_filters=8, activation=nn.Hardswish)

# Shapes upon all three.
wide_shallow = partial(chain, stem_filters=8, activation=nn.Hardswish, widths=(48, 96, 112), blocks=(1, 2, 2))
wide_end = partial(chain, stem_filters=8, activation=nn.Hardswish, widths=(32, 64, 128), blocks=(2, 3, 2))

# A longer stage at full resolution, with as many parameters.
full_resolution_3_2_1 = partial(wide_shallow, widths=(64, 96, 96), blocks=(3, 2, 1))
full_resolution_2_2_2 = partial(wide_shallow, widths=(64, 88, 88), blocks=(2, 2, 2))

# Dropout.
wide_shallow_dropout_0_15 = partial(wide_shallow, dropout=0.15)
wide_shallow_no_dropout = partial(wide_shallow, dropout=0.0)
