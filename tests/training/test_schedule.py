import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sepnet.training.recipe import Recipe
from sepnet.training.schedule import learning_rate


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
