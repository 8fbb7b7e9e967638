"""The measured runs under ``results/`` hold together, and their ledger quotes them."""

from dataclasses import replace
from pathlib import Path

import pytest

import sepnet
from sepnet.networks import build, fingerprint
from sepnet.recipes.recipe import load_recipe
from sepnet.rules import Rules, load_rules
from sepnet.runs import Run
from sepnet.runs.history import best
from sepnet.sweep.sweep import Sweep
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


# The sweeps by which networks and recipes were chosen, and those that prove what was chosen.

SWEEPS = [
    file.relative_to(ROOT)
    for file in sorted((ROOT / "results").glob("*/*.toml"))
    if "title = " in file.read_text(encoding="utf-8")
]
OF_ROWS = [file for file in SWEEPS if "[[row]]" in (ROOT / file).read_text(encoding="utf-8")]
PROOFS = {"proof"}
"""Folders of sweeps by which nothing is chosen."""


@pytest.fixture
def sweep(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.chdir(ROOT)  # from which the pages' commands are seen
    return Sweep.open(request.param)


def _of(files: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("sweep", files, ids=lambda file: f"{file.parent.name}-{file.stem}", indirect=True)


def test_all_sweeps_are_found() -> None:
    found = {(file.parent.name, file.stem) for file in SWEEPS}
    assert found >= {("ablation", "sweep"), ("champion", "sweep"), ("lighter", "10k"), ("search", "tpe-0")}


def test_the_champion_and_its_recipes_are_those_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    rows = {trial.row: trial for trial in Sweep.open("results/ablation/sweep.toml").plan.trials()}
    assert fingerprint(build("champion")) == fingerprint(build(rows["wide_shallow"].network))
    for preset, row, epochs in (("champion", "long_cutout_8", 50), ("short", "short_3_wide_grown_0.8", 3)):
        assert load_recipe(preset) == replace(rows[row].resolve_recipe(), name=preset, epochs=epochs)


@_of(SWEEPS)
def test_what_is_chosen_is_chosen_by_held_out_images(sweep: Sweep) -> None:
    images = "test" if sweep.file.parent.name in PROOFS else "holdout"
    assert sweep.plan.validation == images
    for outcome in sweep.ledger().values():
        assert f"--validation {images}" in outcome.command


@_of(OF_ROWS)
def test_a_ledger_is_of_its_rows(sweep: Sweep) -> None:
    trials = {(trial.row, trial.seed): trial for trial in sweep.plan.trials()}
    for key, outcome in sweep.ledger().items():
        recipe = trials[key].resolve_recipe()
        assert [outcome.loss, outcome.accuracy] == outcome.history[-1]
        assert outcome.epochs == len(outcome.history)
        assert recipe.epochs == (outcome.planned or outcome.epochs)
        assert all(f"--set {name}=" in outcome.command for name in trials[key].settings)


@pytest.mark.slow
@_of([file for file in OF_ROWS if file.parent.name not in PROOFS])
def test_networks_have_their_sizes_and_keep_the_strict_rules(sweep: Sweep) -> None:
    rules = Rules(strict=True, batch_norm=True, parameters_below=100_000)
    own = load_rules(sweep.plan.rules) if sweep.plan.rules else rules
    ledger = sweep.ledger()
    for network in {trial.network for trial in sweep.plan.trials()}:
        anatomy = sepnet.summary(network)
        assert sepnet.check(anatomy, rules).kept, network
        assert sepnet.check(anatomy, own).kept, network
        for trial in sweep.plan.trials():
            outcome = ledger.get((trial.row, trial.seed))
            if trial.network == network and outcome is not None:
                assert (outcome.parameters, outcome.macs) == (anatomy.parameters, anatomy.macs)


@_of([file for file in OF_ROWS if file.parent.name != "search"])
def test_a_page_is_what_its_sweep_s_table_prints(sweep: Sweep) -> None:
    page = sweep.file.with_name("README.md" if sweep.file.stem == "sweep" else f"{sweep.file.stem}.md")
    assert page.read_text() == sweep.to_markdown(sweep.ledger()) + "\n", f"./run sweep {sweep.file} --table > {page}"
