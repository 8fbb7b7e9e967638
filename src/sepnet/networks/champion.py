"""The champion: strict depthwise separable, residual, under 100,000 parameters and 20 million MACs."""

from collections.abc import Sequence

from torch import nn

from sepnet.errors import SepnetError
from sepnet.networks.layers import GlobalAveragePool, PadChannels, Residual, SeparableConv2d
from sepnet.settings import hint

STEM_FILTERS = 8
ACTIVATIONS = {"hardswish": nn.Hardswish, "relu": nn.ReLU, "silu": nn.SiLU}


def champion(
    *,
    classes: int = 10,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    widths: Sequence[int] = (48, 96, 112),
    blocks: Sequence[int] = (1, 2, 2),
    kernels: Sequence[int] = (3, 3, 3),
    convolutions: int = 2,
    stem_filters: int = STEM_FILTERS,
    activation: str = "hardswish",
    dropout: float = 0.05,
) -> nn.Module:
    """Return the champion for images ``(N, C, H, W)``, or another network of its family.

    A stem to 48 channels, then residual pairs of 3×3 separable convolutions: 1 of 48 channels, 2 of 96, 2 of 112,
    halving the image before the second and the third stage. A shortcut that changes shape is an average pool
    and zero channels, because a 1×1 convolution alone would not be depthwise separable. How its parts were found is
    in ``results/ablation``.

    Args:
        classes: how many classes it tells apart.
        image_shape: ``(C, H, W)`` of one image.
        widths: channels of each stage; every stage but the first begins with stride 2. They may not shrink.
        blocks: residual blocks of each stage.
        kernels: side of each stage's depthwise kernels.
        convolutions: separable ones in a block.
        stem_filters: depthwise filters for each colour of the image.
        activation: ``hardswish``, ``relu`` or ``silu``.
        dropout: before the dense layer.

    """
    if activation not in ACTIVATIONS:
        raise SepnetError(f"activation is '{activation}': {hint(activation, ACTIVATIONS)}")
    if not len(widths) == len(blocks) == len(kernels) or sorted(widths) != list(widths):
        raise SepnetError(
            f"widths are {list(widths)}, blocks {list(blocks)}, kernels {list(kernels)}: expected one of each a stage, "
            "and widths that do not shrink"
        )
    activate = ACTIVATIONS[activation]

    def separable(in_channels: int, filters: int, kernel: int = 3, stride: int = 1, times: int = 1) -> list[nn.Module]:
        convolution = SeparableConv2d(in_channels, filters, kernel, stride=stride, depth_multiplier=times)
        return [convolution, nn.BatchNorm2d(filters)]

    def block(in_channels: int, filters: int, kernel: int, stride: int) -> list[nn.Module]:
        main = separable(in_channels, filters, kernel, stride)
        for _ in range(convolutions - 1):
            main += [activate(), *separable(filters, filters, kernel)]
        shortcut = None
        if stride > 1 or in_channels != filters:
            pool = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
            shortcut = nn.Sequential(*pool, PadChannels(filters))
        return [Residual(nn.Sequential(*main), shortcut), activate()]

    layers = [*separable(image_shape[0], widths[0], times=stem_filters), activate()]
    channels = widths[0]
    for stage, (width, count, kernel) in enumerate(zip(widths, blocks, kernels, strict=True)):
        for number in range(count):
            layers += block(channels, width, kernel, 2 if stage and not number else 1)
            channels = width
    return nn.Sequential(*layers, GlobalAveragePool(), nn.Dropout(dropout), nn.Linear(channels, classes))
