"""``sepnet::pool`` against its reference in float64, and its dropout."""

import itertools

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from sepnet.backend.pool import Params
from sepnet.backend.stage import ACTIVATIONS, RELU, Inputs

from .support import RANDOM, TOLERANCE, Draw, error, needs_kernels, pool
from .support import pool_reference as reference


@RANDOM
@given(
    images=st.integers(1, 5),
    channels=st.sampled_from([1, 3, 15, 16, 17, 40]),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    average=st.booleans(),
    ceil=st.booleans(),
    activation=st.sampled_from(range(len(ACTIVATIONS))),
    dropout=st.sampled_from([0.0, 0.1, 0.7]),
    affine=st.booleans(),
    residual=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_output_and_gradients_are_those_of_the_reference(
    dtype: torch.dtype,
    images: int,
    channels: int,
    size: tuple[int, int],
    window: tuple[int, int],
    average: bool,
    ceil: bool,
    activation: int,
    dropout: float,
    affine: bool,
    residual: bool,
    seed: int,
) -> None:
    assume(all(s >= w for s, w in zip(size, window, strict=True)))
    draw, shape = Draw(seed % 2**31), (images, channels, *size)
    # Each ReLU is open or closed by at least 0.1, so that rounding turns none.
    parts = {"x": draw.signed(*shape, positive=0.7 if activation == RELU else 1).to(dtype)}
    if affine:
        parts["coefficients"] = torch.stack([draw.between(0.8, 1.2, channels), draw.between(-0.15, 0.15, channels)])
    if residual:
        parts["residual"] = draw.between(-0.15, 0.15, *shape).to(dtype)
    exact = {name: part.double().requires_grad_() for name, part in parts.items()}
    parts = {name: part.requires_grad_() for name, part in parts.items()}
    params = Params(window, average, ceil, activation, dropout)
    found, right = pool(Inputs(**parts), params, seed), reference(Inputs(**exact), params, seed)
    grad = draw.between(0.5, 1.5, *right.shape).to(dtype)
    by_kernel = torch.autograd.grad(found, [*parts.values()], grad)
    by_reference = torch.autograd.grad(right, [*exact.values()], grad.double())
    errors = {"y": error(found.detach(), right.detach())}
    errors |= {name: error(a, b) for name, a, b in zip(parts, by_kernel, by_reference, strict=True)}
    assert max(errors.values()) < TOLERANCE[dtype], errors


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("activation", range(len(ACTIVATIONS)))
@pytest.mark.parametrize("place", [*itertools.product(range(2), range(2))])
def test_what_is_not_a_number_stays_so(
    dtype: torch.dtype, average: bool, activation: int, place: tuple[int, int]
) -> None:
    x = torch.ones(2, 20, 4, 4, dtype=dtype)
    x[1, 17, place[0], place[1]] = torch.nan
    y = pool(Inputs(x), Params((2, 2), average, activation=activation))
    assert [*y.isnan().nonzero()[0]] == [1, 17, 0, 0]
    assert y.isnan().sum() == 1


def _kept(seed: int, shape: tuple[int, ...] = (16, 48, 24, 24), dropout: float = 0.3) -> Tensor:
    """Return where dropout keeps a value: 0 or 1."""
    return (pool(Inputs(torch.ones(shape)), Params(dropout=dropout), seed) > 0).double()


@needs_kernels
@pytest.mark.parametrize("dropout", [0.05, 0.3, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(dropout: float) -> None:
    kept = _kept(11, dropout=dropout)
    deviation = (dropout * (1 - dropout) / kept.numel()) ** 0.5
    assert abs(float(kept.mean()) - (1 - dropout)) < 5 * deviation
    y = pool(Inputs(torch.full((4, 48, 24, 24), 3.0)), Params(dropout=dropout), 11)
    torch.testing.assert_close(y.unique(), torch.tensor([0, 3 / (1 - dropout)]))


@needs_kernels
def test_dropout_of_nothing_and_of_all() -> None:
    x = torch.ones(2, 20, 3, 3)
    assert torch.equal(pool(Inputs(x), Params(), 1), x)
    assert not pool(Inputs(x), Params(dropout=1.0), 1).any()


@needs_kernels
def test_a_seed_gives_its_mask_each_time_and_another_seed_another() -> None:
    assert torch.equal(_kept(5), _kept(5))
    for other in (4, 6, 5 + 2**32, 5 + 2**62):
        agreement = float((_kept(5) == _kept(other)).double().mean())
        assert agreement == pytest.approx(0.7**2 + 0.3**2, abs=0.005)


def test_the_gradient_is_dropped_where_the_value_was(dtype: torch.dtype) -> None:
    x = torch.ones(4, 20, 6, 6, dtype=dtype, requires_grad=True)
    y = pool(Inputs(x), Params((2, 2), average=True, dropout=0.4), 8)
    (grad,) = torch.autograd.grad(y.sum(), [x])
    factor = y.detach().repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(grad, factor / 4)


@needs_kernels
def test_dropped_values_show_no_pattern() -> None:
    """Neighbours in any direction, and masks of consecutive seeds, are as unrelated as chance has it."""
    mask = _kept(2024) - 0.7
    pairs = {
        "channel": (mask[:, 1:], mask[:, :-1]),
        "16 channels": (mask[:, 16:], mask[:, :-16]),
        "row": (mask[:, :, 1:], mask[:, :, :-1]),
        "column": (mask[..., 1:], mask[..., :-1]),
        "image": (mask[1:], mask[:-1]),
        "seed": (mask, _kept(2025) - 0.7),
        "high half of the seed": (mask, _kept(2024 + 2**32) - 0.7),
    }
    for name, (first, second) in pairs.items():
        correlation = float((first * second).mean()) / 0.21
        assert abs(correlation) < 5 / first.numel() ** 0.5, name
    # How often each channel and each position is kept varies as a binomial count does.
    for axes in ((0, 2, 3), (0, 1)):
        counts = mask.sum(axes)
        spread = float(counts.var()) / (0.21 * mask.numel() / counts.numel())
        assert spread == pytest.approx(1, abs=5 * (2 / counts.numel()) ** 0.5)
