"""MLPerf Tiny's image-classification reference, ResNet-8: 78,666 parameters."""

from torch import nn

from sepnet.networks.layers import GlobalAveragePool, Residual, keras_batch_norm


def resnet8(*, classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32)) -> nn.Module:
    """Return ResNet-8 for images ``(N, C, H, W)``: a stem and three residual blocks of 16, 32 and 64 filters.

    Source: mlcommons/tiny, ``resnet_v1_eembc``. Convolutions carry biases. Keras pads stride 2 on the right
    and the bottom only (0 and 1 for an even image), PyTorch on both sides; sizes and counts are the same.
    """

    def block(in_channels: int, filters: int, stride: int) -> list[nn.Module]:
        main = nn.Sequential(
            nn.Conv2d(in_channels, filters, 3, stride=stride, padding=1),
            keras_batch_norm(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, padding=1),
            keras_batch_norm(filters),
        )
        shortcut = None if stride == 1 else nn.Conv2d(in_channels, filters, 1, stride=stride)
        return [Residual(main, shortcut), nn.ReLU()]

    return nn.Sequential(
        nn.Conv2d(image_shape[0], 16, 3, padding=1),
        keras_batch_norm(16),
        nn.ReLU(),
        *block(16, 16, 1),
        *block(16, 32, 2),
        *block(32, 64, 2),
        GlobalAveragePool(),
        nn.Linear(64, classes),
    )
