"""``sepnet::norm`` against PyTorch's batch norm in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import sepnet.backend.norm  # noqa: F401 (registers the operator)

from .support import RANDOM, TOLERANCE, Draw, error, needs_kernels


def _sums(x: Tensor) -> Tensor:
    return torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])


@needs_kernels
@RANDOM
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 9), st.integers(2, 9)),
    affine=st.booleans(),
    momentum=st.sampled_from([0.1, 0.01, 1.0, 0.0]),
    eps=st.sampled_from([1e-5, 1e-3]),
    mean=st.sampled_from([0.0, 1.0, -30.0]),
    seed=st.integers(0, 2**31),
)
def test_it_is_pytorchs_batch_norm(
    shape: tuple[int, int, int, int], affine: bool, momentum: float, eps: float, mean: float, seed: int
) -> None:
    draw, channels = Draw(seed), shape[1]
    x = (mean + draw.signed(*shape)).double().requires_grad_()
    weights = [draw.between(0.5, 1.5, channels) for _ in range(2)] if affine else []
    own, theirs = ([w.clone().to(kind).requires_grad_() for w in weights] for kind in (torch.float32, torch.float64))
    running_mean, running_var = draw.between(-1, 1, channels), draw.between(0.5, 1.5, channels)
    module = nn.BatchNorm2d(channels, eps=eps, momentum=momentum, affine=False).double()
    assert module.running_mean is not None
    assert module.running_var is not None
    module.running_mean.copy_(running_mean)
    module.running_var.copy_(running_var)

    count = x.numel() // channels
    weight, bias = own or (None, None)
    numbers = (_sums(x), weight, bias, running_mean, running_var, count, eps, momentum)
    (scale, shift), _, new_mean, new_var = torch.ops.sepnet.norm(*numbers)
    found = x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    right = module(x)
    if theirs:
        right = right * theirs[0].view(1, -1, 1, 1) + theirs[1].view(1, -1, 1, 1)
    grad = draw.signed(*shape).double()
    by_norm = torch.autograd.grad(found, [x, *own], grad)
    by_module = torch.autograd.grad(right, [x, *theirs], grad)
    # A scale and a shift in float32 carry the mean's size into the result, as PyTorch's own in float32 do.
    allowed = TOLERANCE[torch.float32] * max(1, abs(mean))
    assert error(found.detach(), right.detach()) < allowed
    assert error(new_mean, module.running_mean) < TOLERANCE[torch.float32]
    assert error(new_var, module.running_var) < TOLERANCE[torch.float32]
    # The gradients are differences of sums: relative to what is summed.
    assert error(by_norm[0], by_module[0], float(grad.abs().max() * scale.detach().abs().max())) < allowed
    for a, b in zip(by_norm[1:], by_module[1:], strict=True):
        assert error(a, b, float(grad.abs().sum((0, 2, 3)).max())) < allowed


@needs_kernels
def test_a_constant_channel_has_variance_nought() -> None:
    x = torch.full((4, 3, 5, 5), 0.1, dtype=torch.float64)
    scale, shift = torch.ops.sepnet.norm(_sums(x), None, None, None, None, 100, 1e-5, 0.1)[0]
    torch.testing.assert_close(scale, torch.full((3,), 1e-5**-0.5))
    torch.testing.assert_close(0.1 * scale + shift, torch.zeros(3), atol=1e-4, rtol=0)


@needs_kernels
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_a_number_stays_so(bad: float) -> None:
    sums = torch.tensor([[1.0, bad], [2.0, bad]], dtype=torch.float64)
    scale, shift = torch.ops.sepnet.norm(sums, None, None, None, None, 10, 1e-5, 0.1)[0]
    assert torch.equal(scale.isnan() | shift.isnan(), torch.tensor([False, True]))
