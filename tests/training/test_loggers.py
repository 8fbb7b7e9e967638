"""TensorBoard and MLflow get the figures of ``history.csv``, also of a run that goes on."""

import csv
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import sepnet
from sepnet.runs.history import Epoch
from sepnet.training import loggers
from tests.cli_support import USERS_FILE, train_small

pytestmark = pytest.mark.usefixtures("pytorch_alone")

TRAIN = """
import sepnet
from net import small
options = {"settings": {"batch_size": 500}, "precision": "fp32", "device": "cpu", "mlflow": True}
sepnet.train(small, epochs=1, **options)
sepnet.train(small, epochs=2, resume=True, **options)
"""
Figures = dict[tuple[str, int], float]


def written(run: Path) -> Figures:
    """Return what the run's own history has, by column and epoch."""
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(name, int(row["epoch"])): float(row[name]) for row in rows for name in row if name != "epoch"}


def in_tensorboard(folder: Path) -> Figures:
    events = EventAccumulator(str(folder)).Reload()
    return {
        (name, event.step): float(make_ndarray(event.tensor_proto))
        for name in events.Tags()["tensors"]
        for event in events.Tensors(name)
    }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return train_small(Path())


@pytest.mark.slow
def test_tensorboard_has_the_history_of_a_run_that_went_on(run: Path) -> None:
    options: dict[str, Any] = {"precision": "fp32", "device": "cpu", "out": ".", "tensorboard": True}
    sepnet.train("net.py:small", "sample", "quick.toml", reuse=True, **options)
    assert in_tensorboard(run / "tensorboard") == written(run)
    sepnet.train("net.py:small", "sample", "quick.toml", resume=True, epochs=2, **options)
    assert in_tensorboard(run / "tensorboard") == written(run)
    assert len(written(run)) == 2 * 8
    sepnet.Run.open(run)  # sealed as ever


@pytest.mark.slow
def test_mlflow_has_the_history_of_a_run_that_went_on(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(USERS_FILE)
    database = tmp_path / "figures.db"
    settings = {"MLFLOW_TRACKING_URI": f"sqlite:///{database}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", TRAIN], cwd=tmp_path, env={**os.environ, **settings}, check=True)
    with sqlite3.connect(database) as connection:
        figures = connection.execute("select key, step, value from metrics").fetchall()
        runs = connection.execute("select name, status from runs").fetchall()
        parameters = dict(connection.execute("select key, value from params").fetchall())
    connection.close()
    assert {(name, step): value for name, step, value in figures} == written(tmp_path / "runs/small-sample")
    assert len(figures) == 2 * 8
    assert runs == [("small-sample", "FINISHED")]
    assert parameters["network"] == "small"
    assert parameters["batch_size"] == "500"


@pytest.mark.slow
def test_a_missing_package_is_said_before_anything_is_made(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(sepnet.SepnetError, match=r"--mlflow needs the package mlflow: pip install 'sepnet\[mlflow\]'"):
        sepnet.train("net.py:small", out="other", mlflow=True)
    assert not Path("other").exists()


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_said_before_anything_is_made(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(sepnet.SepnetError, match=r"--mlflow could not be opened: .*; correct it, or train without it"):
        sepnet.train("net.py:small", out="other", mlflow=True)
    assert not Path("other").exists()


@pytest.mark.slow
def test_a_logger_that_fails_while_training_is_left_out(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def write(self: Any, epoch: Epoch) -> None:
        asked.append(epoch.epoch)
        if epoch.epoch > 1:
            raise OSError("the disk is full")

    monkeypatch.setattr(loggers.TensorBoard, "write", write)
    options: dict[str, Any] = {"precision": "fp32", "device": "cpu", "out": ".", "tensorboard": True}
    sepnet.train("net.py:small", "sample", "quick.toml", resume=True, epochs=3, **options)
    assert asked == [1, 2]
    assert len(sepnet.Run.open(run).history) == 3
    assert "tensorboard is not written to any more: the disk is full" in capsys.readouterr().err
