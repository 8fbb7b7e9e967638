"""Rows trained: by the workers of this test alone, and by processes that are killed and interrupted."""

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy import stats

from sepnet import environment
from sepnet.cli.app import run
from sepnet.errors import SepnetError
from sepnet.runs import Run
from sepnet.sweep import shares, worker
from sepnet.sweep.ledger import FILE, Outcome, write_ledger
from sepnet.sweep.sweep import Sweep
from sepnet.sweep.tables import COSTS, entries, front
from tests.cli_support import Captured
from tests.sweep.support import HEAD, ROWS, Inline, epochs, prepare, undisturbed, weights

pytestmark = pytest.mark.usefixtures("pytorch_alone")


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> Inline:
    workers = Inline()
    monkeypatch.setattr(shares, "Processes", lambda *_: workers)
    return workers


@pytest.fixture(scope="module")
def trained(pytorch_alone: None, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Train the rows undisturbed."""
    sweep = Sweep.open(prepare(tmp_path_factory.mktemp("trained")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shares, "Processes", Inline)
        sweep.run()
    return sweep


def test_each_trial_is_the_run_that_its_command_makes(trained: Sweep, tmp_path: Path) -> None:
    assert sorted(weights(trained)) == ["first-seed0", "first-seed1", "wide-seed0"]
    outcome = trained.ledger()["wide", 0]
    program, *arguments = shlex.split(outcome.command)
    assert program == "sepnet"
    assert run([*arguments, "--out", str(tmp_path), "--name", "alone"]) == 0
    alone = Run.open(tmp_path / "alone")
    assert (alone.path / "weights.safetensors").read_bytes() == weights(trained)["wide-seed0"]
    assert outcome.accuracy == alone.result["final_accuracy"]
    assert alone.config.validation == "holdout"


def test_the_ledger_comes_from_the_folders_and_keeps_what_they_lack(trained: Sweep, tmp_path: Path) -> None:
    written = (trained.out / FILE).read_text()
    ledger = trained.ledger()
    (trained.out / FILE).unlink()
    assert trained.ledger() == ledger
    gone = replace(ledger["first", 1], row="gone")
    write_ledger(trained.out, [gone, *ledger.values()])
    assert trained.ledger() == {("gone", 1): gone, **ledger}
    write_ledger(trained.out, ledger.values())
    assert sorted((trained.out / FILE).read_text().splitlines()) == sorted(written.splitlines())
    outcome = ledger["first", 0]
    run = Run.open(trained.out / "first-seed0")
    assert run.anatomy is not None
    assert (outcome.parameters, outcome.macs) == (run.anatomy.parameters, run.anatomy.macs)
    assert outcome.history == [[epoch.val_loss, epoch.val_accuracy] for epoch in run.history]
    assert outcome.machine.startswith(run.sessions[-1]["processor"])


def test_called_again_it_trains_what_is_missing(
    trained: Sweep, tmp_path: Path, inline: Inline, capsys: Captured
) -> None:
    shutil.copytree(trained.out, tmp_path / "copy")
    copy = replace(trained, out=tmp_path / "copy")
    copy.run()
    assert inline.orders == []
    assert "3 of 3 trials" in capsys.readouterr().err
    row = replace(copy.plan.row[0], seeds=(0, 1, 2))
    replace(copy, plan=replace(copy.plan, row=(row, *copy.plan.row[1:]))).run()
    assert [order.trial.name for order in inline.orders] == ["first-seed2"]


def test_a_row_that_was_changed_is_refused(trained: Sweep) -> None:
    plan = replace(trained.plan, settings={"lr": 0.2})
    with pytest.raises(SepnetError, match="give the row another name, or remove the run"):
        replace(trained, plan=plan).run()


@pytest.mark.parametrize("travels", [False, True], ids=["shared storage", "without"])
def test_a_trial_that_is_broken_off_ends_with_the_same_weights(
    travels: bool, trained: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slices(Inline):
        def submit(self, function: Any, order: Any) -> "Future[Any]":
            return super().submit(function, replace(order, session=str(tmp_path / "none"), sources=sources))

    sources = {name: (trained.file.parent / name).read_text() for name in ("net.py", "quick.toml")}
    workers = Slices() if travels else Inline()
    workers.travels = travels
    monkeypatch.setattr(shares, "Processes", lambda *_: workers)
    sweep = Sweep.open(prepare(tmp_path / "again", HEAD + ROWS.replace("seeds = [0, 1]", "")))
    monkeypatch.chdir(sweep.file.parent)
    sweep = replace(Sweep.open(Path("sweep.toml")), out=sweep.out)
    if travels:  # pictures are at the same absolute place for all
        sweep = replace(sweep, plan=replace(sweep.plan, data=str(Path("patterns.npz").resolve())))
    stops = iter([False, True, False, False, False, True])
    monkeypatch.setattr(worker, "_until", lambda order, *, shared: lambda _: next(stops, False))
    sweep.run()
    assert weights(sweep) == {name: weights(trained)[name] for name in ("first-seed0", "wide-seed0")}
    assert len(workers.orders) == 4
    assert len(sweep.ledger()) == 2
    sessions = Run.open(sweep.out / "first-seed0").sessions
    assert [(session["from_epoch"], session["from_step"]) for session in sessions[1:]] == [(0, 0), (0, 1), (1, 1)]


def test_a_trial_that_diverges_is_counted_and_not_tried_again(tmp_path: Path, inline: Inline, capsys: Captured) -> None:
    file = prepare(
        tmp_path, HEAD + '[[row]]\nname = "wild"\nsettings = { lr = 1e9, weight_decay = 1e9 }\n[[row]]\nname = "tame"\n'
    )
    sweep = Sweep.open(file)
    sweep.run()
    assert "wild-seed0 failed: " in capsys.readouterr().err
    assert set(sweep.ledger()) == {("tame", 0)}
    assert "| wild | | | missing |" in sweep.to_markdown(sweep.ledger())
    sweep.run()
    assert len(inline.orders) == 2
    assert "1 failed" in capsys.readouterr().err


def test_a_design_that_breaks_the_rules_is_not_trained(tmp_path: Path, inline: Inline, capsys: Captured) -> None:
    file = prepare(tmp_path, 'rules = "small.toml"\n' + HEAD + ROWS)
    (tmp_path / "small.toml").write_text("parameters_below = 400\n")
    Sweep.open(file).run()
    assert {order.trial.row for order in inline.orders} == {"first"}
    assert "wide-seed0 is not trained: " in capsys.readouterr().err


def test_workers_that_die_are_replaced_and_at_last_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Sweep
) -> None:
    class Dying(Inline):
        deaths = 4

        def submit(self, function: Any, order: Any) -> "Future[Any]":
            if self.deaths:
                self.deaths -= 1
                function = _die
            return super().submit(function, order)

    workers = Dying()
    monkeypatch.setattr(shares, "Processes", lambda *_: workers)
    sweep = Sweep.open(prepare(tmp_path))
    sweep.run()
    assert weights(sweep) == weights(trained)
    workers.deaths = 100
    with pytest.raises(SepnetError, match="trial 'first-seed0' lost its worker 6 times in a row"):
        replace(sweep, out=tmp_path / "other").run()


def _die(order: Any) -> None:
    raise BrokenExecutor


def test_a_worker_of_another_version_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Older(Inline):
        def submit(self, function: Any, order: Any) -> "Future[Any]":
            return super().submit(function, replace(order, version="0.0.1"))

    monkeypatch.setattr(shares, "Processes", lambda *_: Older())
    with pytest.raises(SepnetError, match=r"worker .+ has sepnet .+, this sweep 0\.0\.1: install the same version"):
        Sweep.open(prepare(tmp_path)).run()


def test_auto_takes_what_was_measured_fastest_and_says_so(
    trained: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    rates = {1: 100.0, 2: 150.0, 4: 130.0, 6: 90.0}
    monkeypatch.setattr(shares, "_rate", lambda trial, count, *_: rates[count])
    monkeypatch.setattr(environment, "cores", lambda: 6)
    monkeypatch.setattr(shares, "Processes", lambda count, out: SimpleNamespace(count=count))
    trial = trained.plan.trials()[0]

    def count(workers: str | None, at_once: int = 6) -> int:
        given = shares.worker_count(workers)
        return shares.processes(given, trial, at_once, trained.out, lambda: ((3, 32, 32), 10, 100)).count

    assert count("auto") == 2
    assert "taking 2" in capsys.readouterr().err
    assert count("auto", at_once=1) == 1
    assert count(None) == 6
    assert count("3") == 3


# Tables.


def _outcomes(row: str, accuracies: list[float], **values: Any) -> list[Outcome]:
    return [
        Outcome(
            row=row,
            seed=seed,
            command="",
            parameters=values.get("parameters", 1000),
            macs=2_000_000,
            epochs=1,
            accuracy=accuracy,
            loss=1.0,
            train_accuracy=0.9,
            seconds=values.get("seconds", 1.0),
            commit="",
            machine="",
            history=[],
        )
        for seed, accuracy in enumerate(accuracies)
    ]


def test_means_standard_errors_and_welchs_interval(tmp_path: Path) -> None:
    rows = "".join(f'[[row]]\nname = "{name}"\nseeds = [0, 1, 2]\n' for name in ("a", "b", "c"))
    sweep = Sweep.open(prepare(tmp_path, HEAD + rows))
    sweep.out.mkdir()
    first, second = [0.8, 0.82, 0.81], [0.85, 0.84, 0.88]
    write_ledger(sweep.out, [*_outcomes("a", first), *_outcomes("b", second), *_outcomes("c", [0.7])])
    lines = sweep.to_markdown(sweep.ledger()).splitlines()
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:]] for line in lines if "|" in line
    }
    assert cells["a"][:6] == ["1,000", "2.00", "81.00 ± 0.58", "1.0000 ± 0.0000", "90.00 ± 0.00", "3"]
    welch = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    assert cells["b"][6] == f"+4.67 ({100 * welch.low:+.2f} to {100 * welch.high:+.2f})"
    assert cells["c"][5:7] == ["1 of 3", "-11.00"]


def test_the_front_is_what_no_other_row_beats(tmp_path: Path) -> None:
    figures = {"a": (1, 0.5), "b": (2, 0.4), "c": (3, 0.7), "d": (3, 0.6), "e": (4, 0.7), "f": (9, 0.9)}
    sweep = Sweep.open(prepare(tmp_path, HEAD + "".join(f'[[row]]\nname = "{name}"\n' for name in figures)))
    sweep.out.mkdir()
    for name, (parameters, accuracy) in figures.items():
        write_ledger(
            sweep.out, [*sweep.ledger().values(), *_outcomes(name, [accuracy], parameters=parameters, seconds=1.0)]
        )
    rows = entries(sweep.plan, sweep.ledger())
    for cost in COSTS:
        beaten = {
            one.row.name
            for one in rows
            for other in rows
            if (other.cost(cost) <= one.cost(cost) and other.accuracy > one.accuracy)
            or (other.cost(cost) < one.cost(cost) and other.accuracy >= one.accuracy)
        }
        assert {entry.row.name for entry in front(rows, cost)} == set(figures) - beaten
    text = sweep.best_to_text(sweep.ledger())
    assert [line.split()[0] for line in text.splitlines()[1:-2]] == ["f", "c", "a"]
    assert sweep.draw(sweep.ledger()).read_bytes().startswith(b"\x89PNG")


def test_exports_are_tables_of_all_runs(trained: Sweep, capsys: Captured) -> None:
    assert run(["sweep", str(trained.file), "--export", "csv"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("row,seed,command,parameters,macs,epochs,accuracy")
    assert len(rows) == len(trained.ledger())
    assert run(["sweep", str(trained.file), "--export", "jsonl"]) == 0
    for line in capsys.readouterr().out.splitlines():
        assert math.isfinite(json.loads(line)["accuracy"])
    assert run(["sweep", str(trained.file), "--best"]) == 0
    assert "on the front against" in capsys.readouterr().out


# Processes.


@pytest.mark.slow
def test_interrupted_and_killed_processes_leave_all_that_was_done(tmp_path: Path, trained: Sweep) -> None:
    long = HEAD.replace("quick.toml", "long.toml")
    rows = '[[row]]\nname = "a"\n[[row]]\nname = "b"\nparameters = { width = 8 }\n'
    file = prepare(tmp_path, long + rows)
    (tmp_path / "long.toml").write_text("epochs = 60\nbatch_size = 20\nlr = 0.05\n")
    command = [sys.executable, "-m", "sepnet", "sweep", str(file), "--workers", str(environment.cores())]
    whole = undisturbed(file, tmp_path / "undisturbed")
    env = {**os.environ, "SEPNET_KERNELS": "none"}

    def start(out: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*command, "--out", str(tmp_path / out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=True,
        )

    def wait_for_epochs(out: str) -> None:
        while not all((tmp_path / out / f"{name}-seed0" / "history.csv").exists() for name in "ab"):
            time.sleep(0.02)

    process = start("disturbed")
    wait_for_epochs("disturbed")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C
    output, errors = process.communicate()
    assert (process.returncode, output) == (130, "")
    assert "call the same `sepnet sweep` again" in errors
    disturbed = Sweep.open(file, tmp_path / "disturbed")
    done = {name: epochs(disturbed, f"{name}-seed0") for name in "ab"}
    assert all(0 < count < 60 for count in done.values())

    process = start("disturbed")
    log = (tmp_path / "disturbed" / "workers.log").read_text().count("Epoch")
    while (tmp_path / "disturbed" / "workers.log").read_text().count("Epoch") < log + 4:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = [
        int(child) for parent in children.read_text().split() for child in _children(int(parent)) or [int(parent)]
    ]
    os.kill(workers[-1], signal.SIGKILL)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "on the front against" in output
    assert weights(disturbed) == weights(whole)
    assert set(disturbed.ledger()) == {("a", 0), ("b", 0)}


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
