"""The measured runs under ``results/`` hold together, and their ledger quotes them."""

from dataclasses import replace
from pathlib import Path

import pytest

from sepnet.recipes.recipe import load_recipe
from sepnet.runs import Run
from sepnet.runs.history import best
from sepnet.training import trained_network

ROOT = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/config.toml"))
FINISHED = [path for path in RUNS if Run.open(path).finished]
BROKEN_OFF = [path for path in RUNS if path not in FINISHED]


def test_there_are_results() -> None:
    assert {run.name for run in FINISHED} >= {"base-cifar10", "champion-cifar10"}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_a_result_is_of_the_network_and_the_recipe_that_are_here(path: Path) -> None:
    run = Run.open(path)
    trained_network.rebuild(run)  # raises if the network has changed since
    recipe = run.config.recipe
    assert recipe == load_recipe(recipe.name, epochs=recipe.epochs)


@pytest.mark.parametrize("path", FINISHED, ids=lambda path: path.name)
def test_a_result_is_reused_on_every_processor(path: Path) -> None:
    config = Run.open(path).config
    elsewhere = replace(config, mean=(0.5,) * 3, std=(0.25,) * 3, precision="fp32", device="cuda")
    found = Run.find(path.parent, elsewhere, auto={"device", "precision"})
    assert found is not None
    assert found.path == path


@pytest.mark.parametrize("path", FINISHED, ids=lambda path: path.name)
def test_history_result_and_logits_agree(path: Path) -> None:
    run = Run.open(path)
    history = run.history
    assert [epoch.epoch for epoch in history] == list(range(1, run.config.recipe.epochs + 1))
    assert run.result["final_accuracy"] == history[-1].val_accuracy
    assert run.result["best_accuracy"] == best(history).val_accuracy == max(row.val_accuracy for row in history)
    assert run.correct().double().mean().item() == pytest.approx(history[-1].val_accuracy, abs=1e-9)
    log = (path / "log.txt").read_text().splitlines()
    assert log[-2] == history[-1].line()


@pytest.mark.parametrize("path", FINISHED, ids=lambda path: path.name)
def test_the_ledger_quotes_the_result(path: Path) -> None:
    run = Run.open(path)
    last, top = (f"{100 * run.result[key]:.2f}" for key in ("final_accuracy", "best_accuracy"))
    ledger = (ROOT / "results" / "README.md").read_text().splitlines()
    row = next(line for line in ledger if f"results/{path.name}]" in line)
    assert f" {last} " in row
    assert f" {top} (epoch {run.result['best_epoch']}) " in row
    assert f" {run.result['seconds']:,.0f} " in row


def test_the_ledger_says_how_far_a_broken_off_run_is() -> None:
    rows = (ROOT / "results" / "README.md").read_text().splitlines()
    for path in BROKEN_OFF:
        run = Run.open(path)
        assert run.read_checkpoint() is not None
        row = next(line for line in rows if f"results/{path.name}]" in line)
        assert f" {len(run.history)} of {run.config.recipe.epochs} " in row
    assert sum(" of " in row for row in rows if row.startswith("| [results/")) == len(BROKEN_OFF)
