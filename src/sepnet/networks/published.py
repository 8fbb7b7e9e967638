"""The assignment's published answer: depthwise separable convolutions only, 96,009 parameters."""

from torch import nn

from sepnet.networks.layers import GlobalAveragePool, SeparableConv2d, keras_batch_norm


def published(*, classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32)) -> nn.Module:
    """Return the published network for images ``(N, C, H, W)``, layer for layer.

    Source: the assignment's README. 93,865 trainable parameters and 2,144 moving statistics.
    """

    def separable(in_channels: int, filters: int, kernel_size: int = 3) -> list[nn.Module]:
        return [SeparableConv2d(in_channels, filters, kernel_size), nn.ReLU(), keras_batch_norm(filters)]

    def stage(in_channels: int) -> list[nn.Module]:
        return [*separable(in_channels, 48), *separable(48, 96), *separable(96, 192)]

    def pool() -> list[nn.Module]:
        return [nn.MaxPool2d(2), nn.Dropout(0.1)]

    return nn.Sequential(
        *stage(image_shape[0]),
        *separable(192, 32, 1),
        *pool(),
        *stage(32),
        *separable(192, 32, 1),
        *pool(),
        *stage(32),
        *pool(),
        SeparableConv2d(192, 10, 1),
        GlobalAveragePool(),
        nn.Linear(10, classes),
    )
