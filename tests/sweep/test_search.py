"""Searches: what is proposed, rejected, pruned and promoted, and that the study goes on where it stopped."""

import shlex
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from sepnet.cli.app import run
from sepnet.errors import SepnetError
from sepnet.sweep import shares
from sepnet.sweep.search import JOURNAL, STUDY
from sepnet.sweep.sweep import Sweep
from sepnet.sweep.tables import entries, front
from tests.cli_support import Captured
from tests.sweep.support import HEAD, Inline, prepare

pytestmark = pytest.mark.usefixtures("pytorch_alone")
SEARCH = """
rules = "small.toml"
[search]
trials = 5
rungs = [1]
keep = 0.5
[search.parameters]
width = { low = 2, high = 16 }
[search.settings]
lr = { low = 0.01, high = 0.5, log = true }
momentum = [0.0, 0.9]
"""
LIMIT = 600


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> Inline:
    workers = Inline()
    monkeypatch.setattr(shares, "Processes", lambda *_: workers)
    return workers


def _sweep(folder: Path, search: str = SEARCH, limit: int = LIMIT) -> Sweep:
    file = prepare(folder, HEAD + search)
    (folder / "small.toml").write_text(f"parameters_below = {limit}\n")
    return Sweep.open(file)


def _study(sweep: Sweep) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(sweep.out / JOURNAL)))
    return optuna.load_study(study_name=STUDY, storage=storage)


@pytest.mark.slow
def test_designs_over_the_budget_are_not_trained_and_the_best_go_on(tmp_path: Path, inline: Inline) -> None:
    sweep = _sweep(tmp_path)
    sweep.run()
    study, ledger = _study(sweep), sweep.ledger()
    assert len(ledger) == 5
    assert all(outcome.parameters is not None and outcome.parameters < LIMIT for outcome in ledger.values())
    rejected = [trial for trial in study.trials if trial.constraints]
    assert all(65 * trial.params["width"] + 3 >= LIMIT for trial in rejected)
    assert len(study.trials) == 5 + len(rejected)
    for trial in study.trials:
        outcome = ledger.get((f"design-{trial.number}", 0))
        if trial.state is TrialState.COMPLETE:
            assert outcome is not None
            assert (outcome.epochs, trial.value) == (3, outcome.accuracy)
        elif not trial.constraints:
            assert outcome is not None
            assert trial.state is TrialState.PRUNED
            assert (outcome.epochs, outcome.planned) == (1, 3)
            assert trial.intermediate_values == {1: outcome.accuracy}
    first = [outcome.history[0][1] for outcome in ledger.values()]
    assert ledger[min(ledger)].finished  # with nobody to compare with
    best = max(ledger.values(), key=lambda outcome: outcome.history[0][1])
    assert best.finished
    assert max(first) == best.history[0][1]

    # A promoted trial is the run that its command makes without a pause.
    _, *arguments = shlex.split(best.command)
    assert run([*arguments, "--out", str(tmp_path), "--name", "alone"]) == 0
    there = sweep.out / f"{best.row}-seed0"
    assert (there / "weights.safetensors").read_bytes() == (tmp_path / "alone/weights.safetensors").read_bytes()
    assert best.command in sweep.to_markdown(ledger)

    # Called again it is over; with more to do it goes on, and proposes nothing twice.
    before = len(inline.orders)
    sweep.run()
    assert len(inline.orders) == before
    assert sweep.plan.search is not None
    more = replace(sweep, plan=replace(sweep.plan, search=replace(sweep.plan.search, trials=7)))
    more.run()
    assert len(more.ledger()) == 7
    assert len({(outcome.command) for outcome in more.ledger().values()}) == 7
    other = replace(sweep.plan.search, parameters={"width": [3, 4]})
    with pytest.raises(SepnetError, match="has another space or other objectives"):
        replace(sweep, plan=replace(sweep.plan, search=other)).run()


@pytest.mark.slow
def test_several_objectives_make_a_front_within_a_budget_of_epochs(tmp_path: Path) -> None:
    text = SEARCH.replace("trials = 5\nrungs = [1]", 'epochs = 10\nobjectives = ["accuracy", "parameters"]')
    sweep = _sweep(tmp_path, text)
    sweep.run()
    ledger = sweep.ledger()
    assert 10 <= sum(outcome.epochs for outcome in ledger.values()) < 10 + 3
    expected = {entry.row.name for entry in front(entries(sweep.plan, ledger), "parameters")}
    found = {f"design-{trial.number}" for trial in _study(sweep).best_trials}
    assert expected <= found  # of equals Optuna keeps all


def test_a_budget_that_no_design_meets_is_said_at_once(tmp_path: Path, inline: Inline, capsys: Captured) -> None:
    sweep = _sweep(tmp_path, limit=100)
    begun = time.monotonic()
    assert run(["sweep", str(sweep.file)]) == 2
    assert time.monotonic() - begun < 60  # of a busy machine
    error = capsys.readouterr().err
    assert "keeps the rules: the smallest is " in error
    assert "net.py:small(width=2), with 133 parameters (parameters)" in error
    assert inline.orders == []


def test_a_space_whose_low_end_alone_fits_is_searched_there(tmp_path: Path, inline: Inline) -> None:
    text = SEARCH.replace("high = 16", "high = 4000").replace("trials = 5", "trials = 1")
    sweep = _sweep(tmp_path, text, limit=134)
    sweep.run()
    assert {order.trial.network for order in inline.orders} == {f"{tmp_path / 'net.py'}:small(width=2)"}


MISTAKES = {
    "unknown key": ("[search]\ntrails = 3", "unknown key 'trails': did you mean 'trials'?"),
    "no end": ("[search.settings]\nlr = [0.1]", "expected trials, epochs or both"),
    "an empty space": ("[search]\ntrials = 3", "the space is empty"),
    "an empty list": ("[search]\ntrials = 3\nsettings.lr = []", "lr is []: expected a list of values"),
    "no list": ("[search]\ntrials = 3\nsettings.lr = 1", "lr is 1: expected a list of values"),
    "an empty range": ("[search]\ntrials = 3\nsettings.lr = { low = 2, high = 1 }", "low is 2 and high 1"),
    "a key of a range": ("[search]\ntrials = 3\nsettings.lr = { low = 1, hihg = 2 }", "unknown key 'hihg'"),
    "logarithms": (
        "[search]\ntrials = 3\nsettings.lr = { low = 0, high = 1, log = true }",
        "log is for numbers above 0",
    ),
    "a field": ("[search]\ntrials = 3\nsettings.lrr = [1]", "unknown key 'lrr': did you mean 'lr'?"),
    "an argument": ("[search]\ntrials = 3\nparameters.widht = [1]", "unknown argument 'widht': did you mean 'width'?"),
    "an objective": ('[search]\ntrials = 3\nsettings.lr = [1]\nobjectives = ["speed"]', "objectives have 'speed'"),
    "rungs": ("[search]\ntrials = 3\nsettings.lr = [1]\nrungs = [3, 1]", "rungs are [3, 1]"),
    "rows": ('[[row]]\nname = "a"\n[search]\ntrials = 3\nsettings.lr = [1]', "no [[row]] and no [grid]"),
    "the test images": (
        'validation = "test"\n[search]\ntrials = 3\nsettings.lr = [1]',
        "must be of held-out training images",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, tmp_path: Path, inline: Inline, capsys: Captured) -> None:
    text, message = MISTAKES[mistake]
    file = prepare(tmp_path, HEAD + text)
    assert run(["sweep", str(file)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert inline.orders == []
