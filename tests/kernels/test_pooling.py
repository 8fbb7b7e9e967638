"""``sepnet::pool`` against its meaning in float64, and its dropout."""

import itertools

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from sepnet.kernels.pooling import PoolForm, meaning, pool
from sepnet.kernels.stage import ACTIVATIONS, RELU, Given

from .support import RANDOM, TOLERANCE, Draw, error, needs_kernels


@RANDOM
@given(
    images=st.integers(1, 5),
    channels=st.sampled_from([1, 3, 15, 16, 17, 40]),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    average=st.booleans(),
    activation=st.sampled_from(range(len(ACTIVATIONS))),
    dropout=st.sampled_from([0.0, 0.1, 0.7]),
    affine=st.booleans(),
    residual=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_output_and_gradients_are_those_of_the_meaning(
    dtype: torch.dtype,
    images: int,
    channels: int,
    size: tuple[int, int],
    window: tuple[int, int],
    average: bool,
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
    form = PoolForm(window, average, activation, dropout, seed)
    found, right = pool(Given(**parts), form), meaning(Given(**exact), form)
    slope = draw.between(0.5, 1.5, *right.shape).to(dtype)
    by_kernel = torch.autograd.grad(found, [*parts.values()], slope)
    by_meaning = torch.autograd.grad(right, [*exact.values()], slope.double())
    errors = {"y": error(found.detach(), right.detach())}
    errors |= {name: error(a, b) for name, a, b in zip(parts, by_kernel, by_meaning, strict=True)}
    assert max(errors.values()) < TOLERANCE[dtype], errors


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("activation", range(len(ACTIVATIONS)))
@pytest.mark.parametrize("place", [*itertools.product(range(2), range(2))])
def test_what_is_not_a_number_stays_so(
    dtype: torch.dtype, average: bool, activation: int, place: tuple[int, int]
) -> None:
    x = torch.ones(2, 20, 4, 4, dtype=dtype)
    x[1, 17, place[0], place[1]] = torch.nan
    y = pool(Given(x), PoolForm((2, 2), average, activation))
    assert [*y.isnan().nonzero()[0]] == [1, 17, 0, 0]
    assert y.isnan().sum() == 1


def _kept(seed: int, shape: tuple[int, ...] = (16, 48, 24, 24), dropout: float = 0.3) -> Tensor:
    """Return where dropout keeps a value: 0 or 1."""
    return (pool(Given(torch.ones(shape)), PoolForm(dropout=dropout, seed=seed)) > 0).double()


@needs_kernels
@pytest.mark.parametrize("dropout", [0.05, 0.3, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(dropout: float) -> None:
    kept = _kept(11, dropout=dropout)
    deviation = (dropout * (1 - dropout) / kept.numel()) ** 0.5
    assert abs(float(kept.mean()) - (1 - dropout)) < 5 * deviation
    y = pool(Given(torch.full((4, 48, 24, 24), 3.0)), PoolForm(dropout=dropout, seed=11))
    torch.testing.assert_close(y.unique(), torch.tensor([0, 3 / (1 - dropout)]))


@needs_kernels
def test_dropout_of_nothing_and_of_all() -> None:
    x = torch.ones(2, 20, 3, 3)
    assert torch.equal(pool(Given(x), PoolForm(dropout=0.0, seed=1)), x)
    assert not pool(Given(x), PoolForm(dropout=1.0, seed=1)).any()


@needs_kernels
def test_a_seed_gives_its_mask_each_time_and_another_seed_another() -> None:
    assert torch.equal(_kept(5), _kept(5))
    for other in (4, 6, 5 + 2**32, 5 + 2**62):
        agreement = float((_kept(5) == _kept(other)).double().mean())
        assert agreement == pytest.approx(0.7**2 + 0.3**2, abs=0.005)


def test_the_gradient_is_dropped_where_the_value_was(dtype: torch.dtype) -> None:
    x = torch.ones(4, 20, 6, 6, dtype=dtype, requires_grad=True)
    y = pool(Given(x), PoolForm((2, 2), average=True, dropout=0.4, seed=8))
    (slope,) = torch.autograd.grad(y.sum(), [x])
    factor = y.detach().repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(slope, factor / 4)


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
