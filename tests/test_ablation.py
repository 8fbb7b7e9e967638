"""The search for the champion: every row keeps the rules, and the ledger is of the rows that are there."""

from dataclasses import replace
from pathlib import Path

import pytest

import sepnet
from ablation import race, rows, table
from ablation.rows import Outcome, Row, read_ledger, read_rows
from sepnet.errors import SepnetError
from sepnet.networks import build, fingerprint
from sepnet.recipes.recipe import load_recipe
from sepnet.rules import Rules

ROOT = Path(__file__).parents[1]
ROWS = read_rows()
NETWORKS = sorted({row.network for row in ROWS})


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_keeps_the_rules_of_the_strict_reading(name: str) -> None:
    model = build(f"{ROOT / 'ablation/networks.py'}:{name}")
    dropout = not name.endswith("no_dropout")  # which is there to tell what dropout costs
    report = sepnet.check(model, Rules(strict=True, batch_norm=True, dropout=dropout, parameters_below=100_000))
    assert report.kept, report


def test_every_row_has_a_name_of_its_own_and_a_recipe_that_there_is() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    for row in ROWS:
        recipe = load_recipe(str(ROOT / "ablation/start.toml"), **row.settings)
        assert all(getattr(recipe, key) == value for key, value in row.settings.items())


def test_the_champion_and_its_recipes_are_those_of_the_rows() -> None:
    found = {row.name: row for row in ROWS}
    assert fingerprint(build("champion")) == fingerprint(build(f"{ROOT / 'ablation/networks.py'}:wide_shallow"))
    for preset, row, epochs in (("champion", "long_cutout_8", 50), ("short", "short_3_wide_grown_0.8", 3)):
        recipe = load_recipe(str(ROOT / "ablation/start.toml"), **found[row].settings)
        assert load_recipe(preset) == replace(recipe, name=preset, epochs=epochs)


def test_rows_never_see_the_test_images() -> None:
    for row in ROWS:
        arguments = row.arguments(seed=0)
        assert arguments[arguments.index("--validation") + 1] == "holdout"


def test_the_ledger_is_of_the_rows() -> None:
    by_name = {row.name: row for row in ROWS}
    for (name, seed), outcome in read_ledger().items():
        row = by_name[name]
        assert seed in row.seeds
        assert outcome.command == row.command(seed)
        assert outcome.accuracy == outcome.history[-1][1]
        assert outcome.loss == outcome.history[-1][0]
        recipe = load_recipe(str(ROOT / "ablation/start.toml"), **row.settings)
        assert outcome.epochs == len(outcome.history) == recipe.epochs


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({row.network for row in ROWS if (row.name, row.seeds[0]) in read_ledger()}))
def test_the_ledgers_sizes_are_those_of_the_networks(name: str) -> None:
    anatomy = sepnet.summary(build(f"{ROOT / 'ablation/networks.py'}:{name}"))
    for row in ROWS:
        outcome = read_ledger().get((row.name, row.seeds[0]))
        if row.network == name and outcome is not None:
            assert (outcome.parameters, outcome.macs) == (anatomy.parameters, anatomy.macs)


def test_the_table_under_results_is_of_the_ledger() -> None:
    assert (ROOT / "results/ablation/README.md").read_text() == table.as_markdown(ROWS) + "\n"


def _line(row: Row) -> str:
    return next(line for line in table.as_markdown([row]).splitlines() if line.startswith(f"| {row.name} "))


@pytest.mark.slow
def test_missing_rows_are_trained_and_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rows, "LEDGER", tmp_path / "ledger.jsonl")
    monkeypatch.setattr(race, "RUNS", tmp_path / "runs")
    quick = {"epochs": 1, "batch_size": 500}
    row = Row(name="quick", group="test", network="stem_8_filters", settings=quick, seeds=(0, 1), data="sample")
    assert "| missing |" in table.as_markdown([row])
    race.train_missing([row], jobs=2)
    ledger = read_ledger()
    assert set(ledger) == {("quick", 0), ("quick", 1)}
    assert {outcome.command for outcome in ledger.values()} == {row.command(seed) for seed in (0, 1)}
    assert "quick seed 1: " in capsys.readouterr().out
    race.train_missing([row], jobs=2)  # nothing is missing
    assert capsys.readouterr().out == ""
    line = _line(row)
    mean = 100 * (ledger["quick", 0].accuracy + ledger["quick", 1].accuracy) / 2
    assert f" {mean:.2f} ± " in line


@pytest.mark.slow
def test_a_row_that_fails_names_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LEDGER", tmp_path / "ledger.jsonl")
    monkeypatch.setattr(race, "RUNS", tmp_path / "runs")
    row = Row(name="quick", group="test", network="nothing_of_this_name", data="sample")
    with pytest.raises(SepnetError, match=r"row 'quick' failed: see '.*quick-seed0\.log'"):
        race.train_missing([row], jobs=1)
    assert "nothing_of_this_name" in (tmp_path / "runs/quick-seed0.log").read_text()


def test_mean_and_standard_error_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LEDGER", tmp_path / "ledger.jsonl")
    row = Row(name="a", group="g", seeds=(0, 1, 2))
    outcome = Outcome(
        row="a",
        seed=0,
        command="",
        parameters=1000,
        macs=2_000_000,
        epochs=1,
        accuracy=0.8,
        loss=1.0,
        train_accuracy=0.9,
        seconds=1.0,
        commit="",
        machine="",
        history=[(1.0, 0.8)],
    )
    rows.add_to_ledger(outcome)
    rows.add_to_ledger(replace(outcome, seed=1, accuracy=0.82))
    cells = [cell.strip() for cell in _line(row).split("|")]
    assert cells[1:8] == ["a", "1,000", "2.00", "81.00 ± 1.00", "1.0000 ± 0.0000", "90.00 ± 0.00", "2 of 3"]


def test_rows_are_chosen_by_name_or_group() -> None:
    some = [Row(name="a", group="g"), Row(name="b", group="h")]
    assert rows.choose(some, []) == some
    assert rows.choose(some, ["h"]) == some[1:]
    assert rows.choose(some, ["a", "h"]) == some
    with pytest.raises(SepnetError, match="no row 'c'"):
        rows.choose(some, ["c"])
