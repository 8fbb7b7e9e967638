import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sepnet.recipes.recipe import Recipe
from sepnet.training.schedule import image_size, learning_rate, sizes_begin


@given(st.integers(2, 500), st.floats(0, 1), st.floats(1e-4, 10))
def test_one_cycle_rises_to_the_peak_and_falls_towards_zero(steps: int, warmup: float, peak: float) -> None:
    recipe = Recipe(schedule="one_cycle", warmup=warmup, lr=peak)
    rates = [learning_rate(recipe, step, steps) for step in range(steps)]
    top = rates.index(max(rates))
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert -2 < top - warmup * steps < 1  # the step that reaches the peak, counted from 0


def test_one_cycle_spends_half_the_peak_on_average() -> None:
    recipe = Recipe(schedule="one_cycle", warmup=0.2, lr=0.4)
    mean = math.fsum(learning_rate(recipe, step, 10_000) for step in range(10_000)) / 10_000
    assert mean == pytest.approx(0.2, rel=1e-3)


def test_constant_is_constant() -> None:
    assert {learning_rate(Recipe(schedule="constant", lr=0.3), step, 9) for step in range(9)} == {0.3}


@pytest.mark.slow
@given(st.integers(1, 500), st.floats(0.125, 1), st.floats(0, 1))
@example(1, 1 - 1e-16, 1.0)
def test_images_grow_by_eighths_to_their_own_size(steps: int, first: float, grown: float) -> None:
    shares = [image_size(Recipe(first_size=first, grown=grown), step, steps) for step in range(steps)]
    assert shares == sorted(shares)
    assert all(share * 8 == int(share * 8) for share in shares)
    assert all(share == 1 for step, share in enumerate(shares) if step >= grown * steps)
    if grown * steps > 0:
        assert first - 0.125 < shares[0] <= first + 1e-9


def test_images_grow_evenly() -> None:
    shares = [image_size(Recipe(first_size=0.5, grown=0.5), step, 80) for step in range(80)]
    assert [shares.count(share) for share in (0.5, 0.625, 0.75, 0.875, 1.0)] == [10, 10, 10, 10, 40]


@given(st.integers(1, 500), st.floats(0.125, 1), st.floats(0, 1))
@example(80, 0.5, 1.0)  # which never reach their own size
def test_a_size_begins_where_the_one_before_ends(steps: int, first: float, grown: float) -> None:
    recipe = Recipe(first_size=first, grown=grown)
    shares = [image_size(recipe, step, steps) for step in range(steps)]
    assert sizes_begin(recipe, steps) == {share: shares.index(share) for share in shares}
