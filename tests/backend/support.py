"""What the tests of the kernels share."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import torch._dynamo
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from sepnet.backend import backend, executor
from sepnet.backend import pool as pool_module
from sepnet.backend import stage as stage_module
from sepnet.backend.library import OPERATORS
from sepnet.backend.native import native
from sepnet.backend.pool import Params as PoolParams
from sepnet.backend.stage import Inputs
from sepnet.backend.stage import Params as StageParams


def accelerate(model: nn.Module) -> Any:
    """Return the model as ``torch.compile(model, backend="sepnet")`` does, with nothing compiled before."""
    torch._dynamo.reset()
    return torch.compile(model, backend=backend)


@contextlib.contextmanager
def operators() -> Iterator[list[str]]:
    """Yield a list, to which the names of sepnet's operators in graphs that are compiled meanwhile are added."""
    found: list[str] = []
    original = executor.Executor.__init__

    def noted(self: Any, module: Any, inputs: Any) -> None:
        found.extend(OPERATORS[node.target].name for node in module.graph.nodes if node.target in OPERATORS)
        original(self, module, inputs)

    with mock.patch.object(executor.Executor, "__init__", noted):
        yield found


def stage(
    inputs: Inputs, params: StageParams, *, with_sums: bool = False, with_given: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a stage's output, sums and input."""
    flat = (*inputs, *params, with_sums, with_given, torch.is_grad_enabled())
    y, sums, _, given = torch.ops.sepnet.stage(*flat)
    return y, sums, given


def stage_reference(inputs: Inputs, params: StageParams) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same in plain PyTorch."""
    y, sums, _, given = stage_module.reference(*inputs, *params, True, True, False)
    return y, sums, given


def pool(inputs: Inputs, params: PoolParams, seed: int = 0) -> Tensor:
    """Return a pool's output."""
    y: Tensor = torch.ops.sepnet.pool(*inputs[:3], torch.tensor(seed), *params)
    return y


def pool_reference(inputs: Inputs, params: PoolParams, seed: int = 0) -> Tensor:
    """Return the same in plain PyTorch."""
    return pool_module.reference(*inputs[:3], torch.tensor(seed), *params)


NO_KERNELS = "no kernels were compiled that this processor runs"
needs_kernels = pytest.mark.skipif(native() is None, reason=NO_KERNELS)

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Of the largest value, against float64."""


RANDOM = settings(
    max_examples=60,
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
