"""MLPerf Tiny's image-classification reference, ResNet-8: 78,666 parameters."""

from torch import Tensor, nn

from sepnet.networks.layers import GlobalAveragePool, Residual, keras_batch_norm


class SamePad(nn.Module):
    """Pad ``(N, C, H, W)`` with zeros as Keras's ``padding='same'`` does before an unpadded convolution.

    The convolution then gives ``ceil(size / stride)`` positions; an odd zero comes after the last. PyTorch's own
    padding is the same on both sides, which at stride 2 differs for even sizes.
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with zeros around each image."""
        top, bottom = self._zeros(x.shape[2])
        left, right = self._zeros(x.shape[3])
        return nn.functional.pad(x, (left, right, top, bottom))

    def _zeros(self, size: int) -> tuple[int, int]:
        total = max((-(-size // self.stride) - 1) * self.stride + self.kernel_size - size, 0)
        return total // 2, total - total // 2


def resnet8(*, classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32)) -> nn.Module:
    """Return ResNet-8 for images ``(N, C, H, W)``: a stem and three residual blocks of 16, 32 and 64 filters.

    Source: mlcommons/tiny, ``resnet_v1_eembc``. Convolutions carry biases, and pad as Keras's do: with the same
    weights the outputs are the reference's.
    """

    def block(in_channels: int, filters: int, stride: int) -> list[nn.Module]:
        first: nn.Module = nn.Conv2d(in_channels, filters, 3, padding=1)
        if stride > 1:
            first = nn.Sequential(SamePad(3, stride), nn.Conv2d(in_channels, filters, 3, stride=stride))
        main = nn.Sequential(
            first,
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
