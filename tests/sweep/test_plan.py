"""A sweep's file: the trials that it makes, and the mistakes that can be in it."""

from pathlib import Path

import pytest

from sepnet.cli.app import run
from sepnet.errors import SepnetError
from sepnet.sweep.plan import read_plan
from tests.cli_support import Captured
from tests.sweep.support import HEAD, ROWS, prepare

GRID = """
seeds = [3]
parameters = { activation = "relu" }
settings = { epochs = 2 }
[grid]
network = ["champion", "net.py:small"]
settings.lr = [0.1, 0.2]
parameters.widths = [[8, 8, 8], [8, 16, 16]]
"""


def test_rows_change_what_the_sweep_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    trials = read_plan(Path("in/sweep.toml")).trials()
    assert [trial.name for trial in trials] == ["first-seed0", "wide-seed0", "first-seed1"]
    assert trials[1].command == (
        "sepnet train 'in/net.py:small(width=8)' --data in/patterns.npz --validation holdout --recipe in/quick.toml "
        "--set lr=0.1 --device cpu --precision fp32 --seed 0"
    )
    assert trials[1].resolve_recipe().lr == 0.1
    assert trials[1].resolve_recipe().batch_size == 50


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(GRID)
    trials = read_plan(file).trials()
    assert len(trials) == 8
    assert trials[0].name == "network=champion,lr=0.1,widths=8-8-8-seed3"
    assert trials[0].network == "champion(widths=[8, 8, 8])"  # a network of its own has the grid's arguments alone
    assert trials[-1].network == f"{tmp_path / 'net.py'}:small(widths=[8, 16, 16])"
    assert all(trial.settings["epochs"] == 2 for trial in trials)


MISTAKES = {
    "unknown key": ("sedes = [1]", "unknown key 'sedes': did you mean 'seeds'?"),
    "unknown key of a row": ('[[row]]\nname = "a"\nsed = 1', "unknown key 'sed'"),
    "unknown field": ('[[row]]\nname = "a"\nsettings = { lrr = 1 }', "unknown key 'lrr': did you mean 'lr'?"),
    "nothing": ("seeds = [1]", "there is nothing to train"),
    "two rows": ('[[row]]\nname = "a"\n[[row]]\nname = "a"', "there are 2 rows 'a'"),
    "a bad name": ('[[row]]\nname = "a/b"', "expected that of a folder"),
    "an empty list": ("[grid]\nsettings.lr = []", "lr is []: expected a list of values"),
    "no list": ("[grid]\nsettings.lr = 0.1", "lr is 0.1: expected a list of values"),
    "unknown axis": ("[grid]\nlr = [1]", "grid: unknown key 'lr'"),
    "seeds": ('seeds = []\n[[row]]\nname = "a"', "seeds are []: expected at least one"),
    "a seed": ('seeds = [-1]\n[[row]]\nname = "a"', "seed is -1"),
    "the test images of a grid": (
        'validation = "test"\n[grid]\nsettings.lr = [1]',
        "choose by their scores, which must be of held-out training images",
    ),
    "the test images of a row": ('[[row]]\nname = "a"\nvalidation = "test"', "unknown key 'validation'"),
    "no such teacher": ('teachers = ["nobody"]\n[[row]]\nname = "a"', "nobody' is neither a run's folder nor"),
    "no such network": ('network = "champoin"\n[[row]]\nname = "a"', "row 'a': unknown network 'champoin'"),
    "no such argument": ('[[row]]\nname = "a"\nparameters = { width = 1 }', "unknown argument 'width'"),
    "no such data": ('data = "smaple"\n[[row]]\nname = "a"', "row 'a': unknown dataset 'smaple'"),
    "out of range": ('[[row]]\nname = "a"\nsettings = { lr = -1 }', "row 'a': recipe: lr is -1"),
    "no such rules": ('rules = "strickt"\n[[row]]\nname = "a"', "unknown rules 'strickt'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, tmp_path: Path, capsys: Captured) -> None:
    text, message = MISTAKES[mistake]
    (tmp_path / "sweep.toml").write_text(text)
    assert run(["sweep", str(tmp_path / "sweep.toml")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_mistakes_of_the_command(tmp_path: Path, capsys: Captured) -> None:
    file = str(prepare(tmp_path))
    for arguments, message in (
        (["missing.toml"], "'missing.toml' does not exist"),
        (["sweep.txt"], "expected a .toml file"),
        ([file, "--workers", "0"], "workers is '0': expected a whole number of at least 1, or auto"),
        ([file, "--workers", "many"], "workers is 'many'"),
        ([file, "--table", "--best"], "expected one of them"),
        ([file, "--plot"], "no trial of"),
    ):
        assert run(["sweep", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_grid_and_rows_may_not_share_a_name(tmp_path: Path) -> None:
    file = prepare(tmp_path, HEAD + ROWS + '[[row]]\nname = "lr=0.1"\n[grid]\nsettings.lr = [0.1]\n')
    with pytest.raises(SepnetError, match=r"there are 2 rows 'lr=0.1'"):
        read_plan(file)
