"""Verdicts: the assignment's rule on made-up histories, the statistics against other routes to them."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from sepnet.comparison.significance import McNemar, Welch, by_assignment, judge, mcnemar, welch
from sepnet.errors import SepnetError
from sepnet.recipes.recipe import Recipe
from sepnet.runs import Run, RunConfig
from sepnet.runs.history import Epoch


def _history(accuracies: Sequence[float]) -> list[Epoch]:
    figures = {"steps": 1, "seconds": 1.0, "images_per_second": 1.0, "lr": 0.1}
    losses = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0}
    return [
        Epoch(epoch=number, val_accuracy=accuracy, **figures, **losses)  # type: ignore[arg-type]
        for number, accuracy in enumerate(accuracies, start=1)
    ]


# By the assignment.


def test_the_published_runs_by_the_assignment() -> None:
    # The assignment's own figures: 82.78 last and 82.82 best at epoch 43, against 82.85 at epoch 28.
    base = [0.7] * 42 + [0.8282] + [0.8] * 6 + [0.8278]
    challenger = [0.6] * 27 + [0.8285] + [0.81] * 21 + [0.8189]
    judged = by_assignment(_history(base), _history(challenger))
    assert (judged.base_final, judged.base_best, judged.base_best_epoch) == (0.8278, 0.8282, 43)
    assert (judged.challenger_best, judged.challenger_best_epoch, judged.passed_epoch) == (0.8285, 28, 28)
    assert judged.beats_final
    assert judged.beats_best


@pytest.mark.parametrize(
    ("base", "challenger", "beats_final", "beats_best", "passed"),
    [
        pytest.param([0.5, 0.8, 0.7], [0.6, 0.8, 0.1], True, False, None, id="a tie with the best is no win"),
        pytest.param([0.5, 0.8], [0.8, 0.8], False, False, None, id="a tie with last and best is no win"),
        pytest.param([0.5, 0.8, 0.7], [0.75, 0.2, 0.2], True, False, None, id="only the last is beaten"),
        pytest.param([0.5, 0.8, 0.7], [0.9, 0.2, 0.2], True, True, 1, id="passed at the first epoch"),
        pytest.param([0.5, 0.8], [0.7, 0.8, 0.81, 0.79, 0.9], True, True, 3, id="passed again later"),
        pytest.param([0.5], [0.4], False, False, None, id="one epoch, lost"),
    ],
)
def test_by_assignment(
    base: list[float], challenger: list[float], beats_final: bool, beats_best: bool, passed: int | None
) -> None:
    judged = by_assignment(_history(base), _history(challenger))
    assert (judged.beats_final, judged.beats_best, judged.passed_epoch) == (beats_final, beats_best, passed)


def test_the_best_epoch_is_the_first_of_equals() -> None:
    judged = by_assignment(_history([0.3, 0.6, 0.6]), _history([0.7, 0.5, 0.7]))
    assert judged.base_best_epoch == 2
    assert judged.challenger_best_epoch == 1


accuracies = st.lists(st.integers(0, 20).map(lambda right: right / 20), min_size=1, max_size=8)


@given(accuracies, accuracies)
def test_who_beats_the_best_beats_the_last_too(base: list[float], challenger: list[float]) -> None:
    judged = by_assignment(_history(base), _history(challenger))
    reverse = by_assignment(_history(challenger), _history(base))
    assert judged.beats_final or not judged.beats_best
    assert not (judged.beats_best and reverse.beats_best)
    assert judged.beats_best == (judged.passed_epoch is not None)
    if judged.passed_epoch is not None:
        assert judged.passed_epoch <= judged.challenger_best_epoch


# McNemar's exact test.


def _answers(both: int, only_base: int, only_challenger: int, neither: int = 0) -> tuple[Tensor, Tensor]:
    """Return two models' right answers with these numbers of images of each sort."""
    base = [True] * both + [True] * only_base + [False] * only_challenger + [False] * neither
    challenger = [True] * both + [False] * only_base + [True] * only_challenger + [False] * neither
    return torch.tensor(base), torch.tensor(challenger)


def _exact_p(only_base: int, only_challenger: int) -> float:
    """The share of all 2^n ways to split n disagreements that are no likelier than the one observed."""
    n = only_base + only_challenger
    ways = [math.comb(n, k) for k in range(n + 1)]
    return float(Fraction(sum(way for way in ways if way <= ways[only_base]), 2**n))


@pytest.mark.parametrize(
    ("only_base", "only_challenger"), [(0, 1), (1, 1), (0, 5), (0, 6), (3, 9), (10, 25), (60, 60), (400, 470)]
)
def test_mcnemar_against_exact_arithmetic(only_base: int, only_challenger: int) -> None:
    judged = mcnemar(*_answers(30, only_base, only_challenger, 10))
    assert judged.p_value == pytest.approx(_exact_p(only_base, only_challenger), rel=1e-9)
    assert (judged.only_base_right, judged.only_challenger_right) == (only_base, only_challenger)
    assert judged.images == 40 + only_base + only_challenger


@pytest.mark.parametrize(
    ("only_base", "only_challenger", "winner"),
    # 5 to 0 has p = 2 / 32 = 0.0625, and 6 to 0 has p = 2 / 64 = 0.03125.
    [(0, 5, "neither"), (0, 6, "challenger"), (6, 0, "base"), (0, 0, "neither"), (50, 50, "neither")],
)
def test_mcnemar_names_a_winner_at_the_five_percent_level(only_base: int, only_challenger: int, winner: str) -> None:
    assert mcnemar(*_answers(10, only_base, only_challenger)).winner == winner


def test_three_images_in_ten_thousand_show_nothing() -> None:
    judged = mcnemar(*_answers(7_785, 497, 500, 1_218))
    assert judged.difference == pytest.approx(0.0003)
    assert judged.winner == "neither"
    assert judged.p_value > 0.9


counts = st.integers(0, 40)


@given(counts, counts, counts, counts)
def test_swapping_the_models_swaps_the_answer(both: int, only_base: int, only_challenger: int, neither: int) -> None:
    assume(both + only_base + only_challenger + neither > 0)
    base, challenger = _answers(both, only_base, only_challenger, neither)
    there, back = mcnemar(base, challenger), mcnemar(challenger, base)
    assert there.p_value == pytest.approx(back.p_value, rel=1e-12)
    assert there.difference == -back.difference
    assert {there.winner, back.winner} in ({"neither"}, {"base", "challenger"})
    assert 0 < there.p_value <= 1


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_models_that_agree_do_not_differ(right: list[bool]) -> None:
    judged = mcnemar(torch.tensor(right), torch.tensor(right))
    assert judged.p_value == 1
    assert judged.difference == 0
    assert judged.winner == "neither"


@given(counts, counts, st.integers(1, 40))
def test_images_on_which_both_agree_do_not_count(only_base: int, only_challenger: int, more: int) -> None:
    few = mcnemar(*_answers(1, only_base, only_challenger))
    many = mcnemar(*_answers(1 + more, only_base, only_challenger, more))
    assert few.p_value == many.p_value
    assert few.winner == many.winner


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_difference_is_that_of_the_accuracies(answers: list[tuple[bool, bool]]) -> None:
    base, challenger = (torch.tensor(list(column)) for column in zip(*answers, strict=True))
    difference = float(challenger.double().mean() - base.double().mean())
    assert mcnemar(base, challenger).difference == pytest.approx(difference, abs=1e-12)


# Welch's interval.


def _assert_like_scipy(base: list[float], challenger: list[float]) -> None:
    judged = welch(base, challenger)
    test = stats.ttest_ind(challenger, base, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert judged.low == pytest.approx(interval.low, rel=1e-6, abs=1e-9)
    assert judged.high == pytest.approx(interval.high, rel=1e-6, abs=1e-9)
    assert (judged.winner == "neither") == (test.pvalue >= 0.05)


@pytest.mark.parametrize(
    ("base", "challenger"),
    [
        pytest.param([0.82, 0.83], [0.84, 0.85], id="two seeds"),
        pytest.param([0.8271, 0.8304, 0.8288], [0.8901, 0.8897, 0.8922], id="three seeds, far apart"),
        pytest.param([0.80, 0.81, 0.82, 0.83], [0.815, 0.816], id="unequal numbers"),
        pytest.param([0.7, 0.9, 0.8], [0.81, 0.811, 0.809], id="unequal spreads"),
        pytest.param([0.5, 0.5, 0.5], [0.6, 0.61, 0.62], id="one without spread"),
    ],
)
@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")
def test_welch_against_scipy(base: list[float], challenger: list[float]) -> None:
    _assert_like_scipy(base, challenger)
    _assert_like_scipy(challenger, base)


seed_accuracies = st.lists(st.integers(0, 500).map(lambda right: right / 500), min_size=2, max_size=6)


@settings(deadline=None)
@given(seed_accuracies, seed_accuracies)
def test_welch_against_scipy_on_any_accuracies(base: list[float], challenger: list[float]) -> None:
    assume(max(base) - min(base) >= 0.002)
    assume(max(challenger) - min(challenger) >= 0.002)
    judged = welch(base, challenger)
    interval = stats.ttest_ind(challenger, base, equal_var=False).confidence_interval(0.95)
    assert judged.low == pytest.approx(interval.low, rel=1e-6, abs=1e-9)
    assert judged.high == pytest.approx(interval.high, rel=1e-6, abs=1e-9)


@pytest.mark.slow
@given(seed_accuracies, seed_accuracies)
def test_welch_is_antisymmetric(base: list[float], challenger: list[float]) -> None:
    there, back = welch(base, challenger), welch(challenger, base)
    assert there.low == pytest.approx(-back.high, abs=1e-9)
    assert there.difference == pytest.approx(-back.difference, abs=1e-9)
    assert there.low <= there.difference <= there.high


def test_means_and_standard_errors_by_hand() -> None:
    judged = welch([0.1, 0.2, 0.3], [0.5, 0.7])
    assert judged.base_mean == pytest.approx(0.2)
    assert judged.challenger_mean == pytest.approx(0.6)
    assert judged.difference == pytest.approx(0.4)
    # Standard deviations 0.1 and 0.1 · √2, over the square roots of 3 and 2.
    assert judged.base_standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert judged.challenger_standard_error == pytest.approx(0.1)


@pytest.mark.slow
def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    generator = np.random.default_rng(20_261_122)
    true, draws = 0.01, 500
    covered = 0
    for _ in range(draws):
        base = generator.normal(0.82, 0.004, 4)
        challenger = generator.normal(0.82 + true, 0.009, 6)
        judged = welch(base.tolist(), challenger.tolist())
        covered += judged.low <= true <= judged.high
    # Three standard deviations of 500 draws at 0.95 are 0.029.
    assert 0.92 < covered / draws < 0.98


def test_seeds_without_any_spread() -> None:
    judged = welch([0.5, 0.5], [0.75, 0.75])
    assert (judged.low, judged.high, judged.winner) == (0.25, 0.25, "neither")
    assert welch([0.5, 0.5], [0.5, 0.5]).winner == "neither"


@pytest.mark.parametrize(("base", "challenger"), [(1, 2), (2, 1), (1, 1), (3, 0)])
def test_welch_needs_two_seeds_each(base: int, challenger: int) -> None:
    with pytest.raises(SepnetError, match=f"{base} runs against {challenger}"):
        welch([0.5] * base, [0.6] * challenger)


# Runs.

LABELS = [0, 1, 2, 0, 1, 2, 0, 1]
CONFIG = RunConfig(
    network="net",
    fingerprint="0",
    data_sha256="0" * 64,
    data="shapes",
    validation="test",
    classes=("a", "b", "c"),
    image_shape=(3, 8, 8),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    seed=0,
    device="cpu",
    precision="fp32",
    recipe=Recipe(epochs=2),
)


def _run(
    folder: Path,
    name: str,
    right: int,
    *,
    config: RunConfig = CONFIG,
    labels: list[int] = LABELS,
    finished: bool = True,
    history: Sequence[float] = (),
) -> Run:
    """Write a run whose final network has the first ``right`` answers right and all others wrong."""
    answers = torch.tensor([label if place < right else (label + 1) % 3 for place, label in enumerate(labels)])
    run = Run.create(folder, name, config)
    logits = torch.nn.functional.one_hot(answers, 3).float() * 4 - 2
    *epochs, last = _history(history or [0.0, right / len(labels)])
    loss = float(torch.nn.functional.cross_entropy(logits, torch.tensor(labels)))
    run.write_history([*epochs, replace(last, val_loss=loss)])
    if finished:
        run.write_outcome({"weight": torch.zeros(1)}, logits, torch.tensor(labels))
    return run


def test_two_runs_are_judged_image_by_image(tmp_path: Path) -> None:
    base, challenger = _run(tmp_path, "base", 1), _run(tmp_path, "challenger", 8, history=[0.9, 1.0])
    verdict = judge([base], [challenger])
    assert isinstance(verdict.by_statistics, McNemar)
    assert (verdict.by_statistics.only_base_right, verdict.by_statistics.only_challenger_right) == (0, 7)
    assert verdict.by_statistics.p_value == pytest.approx(2 / 2**7)
    assert verdict.by_statistics.winner == "challenger"
    assert verdict.by_assignment.passed_epoch == 1
    values = json.loads(json.dumps(verdict.to_dict()))
    assert values["by_statistics"]["test"] == "mcnemar_exact"
    assert values["validation"] == "test"


def test_the_statistics_see_last_epochs_only(tmp_path: Path) -> None:
    base = _run(tmp_path, "base", 4, history=[0.1, 0.5])
    challenger = _run(tmp_path, "challenger", 4, history=[1.0, 0.5])
    verdict = judge([base], [challenger])
    assert verdict.by_assignment.beats_best
    assert verdict.by_statistics.difference == 0
    several = judge([base, base], [challenger, challenger])
    assert several.by_statistics.difference == 0


def test_several_seeds_are_judged_by_their_means(tmp_path: Path) -> None:
    bases = [_run(tmp_path, "base", right, config=replace(CONFIG, seed=seed)) for seed, right in enumerate([2, 3, 2])]
    others = [_run(tmp_path, "other", right, config=replace(CONFIG, seed=seed)) for seed, right in enumerate([7, 8, 7])]
    verdict = judge(bases, others)
    assert isinstance(verdict.by_statistics, Welch)
    assert (verdict.by_statistics.base_runs, verdict.by_statistics.challenger_runs) == (3, 3)
    assert verdict.by_statistics.difference == pytest.approx(5 / 8)
    assert verdict.by_statistics.winner == "challenger"
    assert verdict.by_assignment.base_final == 2 / 8
    assert verdict.to_dict()["by_statistics"]["test"] == "welch"


def test_one_run_against_several_cannot_be_judged(tmp_path: Path) -> None:
    run = _run(tmp_path, "run", 4)
    with pytest.raises(SepnetError, match="1 runs against 2"):
        judge([run], [run, run])


@pytest.mark.parametrize("side", [0, 1])
def test_an_unfinished_run_is_not_judged(tmp_path: Path, side: int) -> None:
    runs = [_run(tmp_path, "run", 4, finished=place != side) for place in (0, 1)]
    with pytest.raises(SepnetError, match="is not finished") as caught:
        judge(runs[:1], runs[1:])
    assert str(runs[side].path) in str(caught.value)


def test_a_run_that_was_given_more_epochs_is_not_judged(tmp_path: Path) -> None:
    done, extended = _run(tmp_path, "done", 4), _run(tmp_path, "extended", 4)
    (extended.path / "manifest.json").unlink()
    recipe = replace(extended.config.recipe, epochs=3)
    extended.write_config(replace(extended.config, recipe=recipe, extended_from=(2,)))
    with pytest.raises(SepnetError, match="extended' is not finished"):
        judge([done], [extended])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(CONFIG, data="others"), "data 'shapes' .* 'others': expected the same"),
        (replace(CONFIG, validation="holdout"), "validation 'test' .* 'holdout': expected the same"),
    ],
    ids=["data", "validation"],
)
def test_runs_on_different_data_are_not_judged(tmp_path: Path, config: RunConfig, message: str) -> None:
    first, other = _run(tmp_path, "first", 4), _run(tmp_path, "other", 4, config=config)
    with pytest.raises(SepnetError, match=message):
        judge([first], [other])


@pytest.mark.parametrize("labels", [LABELS[::-1], LABELS[:-1]], ids=["another order", "fewer images"])
def test_answers_to_different_images_are_not_paired(tmp_path: Path, labels: list[int]) -> None:
    first, other = _run(tmp_path, "first", 4), _run(tmp_path, "other", 4, labels=labels)
    with pytest.raises(SepnetError, match="not validated on the same images"):
        judge([first], [other])
