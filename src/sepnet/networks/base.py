"""The assignment's base network: plain convolutions, 1,172,410 parameters."""

from torch import nn


def base(*, classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32)) -> nn.Module:
    """Return the base network for images ``(N, C, H, W)``: three stages of two convolutions, three dense layers.

    Source: the assignment's notebook. Biases everywhere, no batch norm.
    """
    channels, height, width = image_shape

    def stage(in_channels: int, filters: int) -> list[nn.Module]:
        return [
            nn.Conv2d(in_channels, filters, 3, padding="same"),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
        ]

    def after_stages(size: int) -> int:
        for _ in range(3):
            size = (size - 2) // 2
        return size

    return nn.Sequential(
        *stage(channels, 48),
        *stage(48, 96),
        *stage(96, 192),
        nn.Flatten(),
        nn.Linear(192 * after_stages(height) * after_stages(width), 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, classes),
    )
