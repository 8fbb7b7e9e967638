"""What a unit really sees: the pixels at which its gradient is not zero."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Interval = tuple[int, int]
MAX_POOL: Any = F.max_pool2d


def make_positive(model: nn.Module) -> nn.Module:
    """Give the model positive float64 weights, small enough to keep clear of saturation, and no dropout."""
    model.double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
            values = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.5
            parameter.copy_(values / fan_in)
    return model


def gradient_support(outputs: Tensor, image: Tensor) -> tuple[Interval, Interval]:
    """Return the first and last row, and the first and last column, that a sum of units depends on."""
    (gradient,) = torch.autograd.grad(outputs.sum(), image, retain_graph=True)
    seen = gradient.abs().sum(dim=(0, 1)) > 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


def unit(tensor: Tensor, row: int, column: int, *, channels_last: bool = False) -> Tensor:
    """Return one position of a tensor, each channel weighted differently so that none cancel."""
    place = tensor if tensor.ndim < 4 else tensor[:, row, column] if channels_last else tensor[:, :, row, column]
    return place * torch.linspace(0.7, 1.3, place.shape[1], dtype=place.dtype) ** 2


@contextmanager
def summing_max_pools() -> Iterator[None]:
    """Let max pooling add up its window, so that the gradient reaches all of it."""
    F.max_pool2d = _sum_pool2d  # type: ignore[assignment]
    try:
        yield
    finally:
        F.max_pool2d = MAX_POOL


def _sum_pool2d(
    x: Tensor,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    window = torch.ones(x.shape[1], 1, height, width, dtype=x.dtype)
    size = MAX_POOL(x, kernel_size, stride, padding, dilation, ceil_mode).shape
    padded = F.pad(x, (0, width, 0, height)) if ceil_mode else x
    step = kernel_size if stride is None else stride
    summed = F.conv2d(padded, window, None, step, padding, dilation, x.shape[1])
    return summed[:, :, : size[2], : size[3]]
