"""What the tests of the kernels share."""

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from sepnet.kernels.native import native

NO_KERNELS = "no kernels were compiled that this processor runs"
needs_kernels = pytest.mark.skipif(native() is None, reason=NO_KERNELS)

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Of the largest value, against float64."""


RANDOM = settings(
    max_examples=200,
    deadline=None,
    # The same ones each time: three roundings to bf16 of up to 2⁻⁸ may meet in a tensor of one value.
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def error(found: Tensor, expected: Tensor, largest: float | None = None) -> float:
    """Return the largest difference, as a share of the largest value expected, or of the one given."""
    assert found.shape == expected.shape
    if largest is None:
        largest = float(expected.abs().max()) if expected.numel() else 0.0
    difference = float((found.double() - expected.double()).abs().max()) if expected.numel() else 0.0
    return difference / largest if largest > 0 else difference


class Draw:
    """Random numbers."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def between(self, low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=self.generator)

    def signed(self, *size: int, positive: float = 0.7) -> Tensor:
        """Return values 0.5 … 1.5 away from 0, so large a share of them positive."""
        return torch.where(self.between(0, 1, *size) < positive, 1, -1) * self.between(0.5, 1.5, *size)


class Counting(nn.Module):
    """No modules inside: called whole each time, and free to do as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls
