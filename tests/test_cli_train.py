"""``sepnet train`` on the command line."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from sepnet import api
from sepnet.cli.app import run
from tests.cli_support import RECIPE, TRAIN, Captured, prepare, run_json

pytestmark = pytest.mark.usefixtures("pytorch_alone")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a user's networks."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_train_then_resume_with_more_epochs(folder: Path, capsys: Captured) -> None:
    first = run_json(TRAIN, capsys)
    assert (first["epochs"], first["validation"]) == (1, "test")
    assert Path(first["run"]) == Path("runs/small-sample")
    assert len((folder / "runs/small-sample/history.csv").read_text().splitlines()) == 2

    second = run_json("train net.py:small --resume --epochs 2", capsys)
    assert second["run"] == first["run"]
    assert second["epochs"] == 2
    assert len((folder / "runs/small-sample/history.csv").read_text().splitlines()) == 3

    assert run(["train", "net.py:small", "--resume"]) == 0
    captured = capsys.readouterr()
    assert "is finished" in captured.err
    assert captured.out.startswith("runs/small-sample: ")
    assert run(["train", "net.py:small", "--resume", "--epochs", "1"]) == 2
    assert "has 2 epochs, --epochs is 1" in capsys.readouterr().err


@pytest.mark.slow
def test_any_field_of_the_recipe_can_be_set(capsys: Captured) -> None:
    made = run_json(f"{TRAIN} --set label_smoothing=0.2 --set flip=random", capsys)
    recipe = tomllib.loads((Path(made["run"]) / "config.toml").read_text())["recipe"]
    assert (recipe["label_smoothing"], recipe["flip"], recipe["epochs"]) == (0.2, "random", 1)


@pytest.mark.slow
def test_train_says_its_progress_on_standard_error(capsys: Captured) -> None:
    assert run(TRAIN.split()) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert captured.out.startswith("runs/small-sample: ")
    lines = captured.err.splitlines()
    assert "Epoch 1/1" in lines
    assert any(line.startswith("4/4 - ") and " - val_accuracy: " in line for line in lines)


@pytest.mark.slow
def test_a_taken_name_gets_a_number(capsys: Captured) -> None:
    names = [run_json(f"{TRAIN} --name mine --out kept", capsys)["run"] for _ in range(2)]
    assert [Path(name).as_posix() for name in names] == ["kept/mine", "kept/mine-2"]


@pytest.mark.slow
def test_a_held_out_score_is_called_that(capsys: Captured) -> None:
    assert run([*TRAIN.split(), "--validation", "holdout"]) == 0
    assert "held-out accuracy " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--seed 3", "is not a run"),
        ("--lr 0.5", "lr"),
        ("--precision bf16", "precision"),
        ("--recipe norm.toml", "norm"),
    ],
)
def test_resuming_something_else_is_a_mistake(folder: Path, change: str, message: str, capsys: Captured) -> None:
    (folder / "norm.toml").write_text(f"{RECIPE}norm_eps = 0.01\n")
    assert run(TRAIN.split()) == 0
    capsys.readouterr()
    assert run(["train", "net.py:small", "--resume", "--epochs", "2", *change.split()]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_leaves_quietly(folder: Path, signum: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "sepnet", *TRAIN.split(), "--epochs", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Epoch 2/"):
                break
        process.send_signal(signum)
        out, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in err
    assert (folder / "runs/small-sample/checkpoint.safetensors").is_file()


def test_too_little_memory_is_one_line(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object, **__: object) -> None:
        torch.empty(2**60)  # an exbibyte and more

    monkeypatch.setattr(api, "train", train)
    assert run(TRAIN.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sepnet: error: there is not enough memory")
    assert captured.err.count("\n") == 1
