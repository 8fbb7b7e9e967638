"""``sepnet runs``: the runs of a folder as text, JSON and CSV."""

import csv
import json
import shutil
from pathlib import Path

import pytest

import sepnet
from sepnet.cli.app import run
from sepnet.cli.completion import DATASETS, NETWORKS, complete_fields
from sepnet.data.catalog import DATASETS as ALL_DATASETS
from sepnet.errors import SepnetError
from sepnet.networks import NETWORKS as REGISTRY
from tests.cli_support import Captured, train_small

pytestmark = pytest.mark.usefixtures("pytorch_alone")


@pytest.mark.slow
def test_runs_in_every_form(tmp_path: Path, capsys: Captured) -> None:
    made = train_small(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.toml").write_text("nonsense")
    shutil.copytree(tmp_path / made, tmp_path / ".0123456789abcdef.partial")  # as a killed process leaves one
    rows = (tmp_path / made / "history.csv").read_text().splitlines()
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    capsys.readouterr()

    assert run(["runs", str(tmp_path), "--format", "json"]) == 0
    captured = capsys.readouterr()
    (listed,) = json.loads(captured.out)
    assert (listed["run"], listed["seed"], listed["epochs_done"], listed["epochs"]) == (str(made), 0, 1, 1)
    assert listed["final_accuracy"] == float(last["val_accuracy"])
    assert captured.err.startswith(f"skipping {tmp_path / 'broken'}: ")

    assert run(["runs", str(tmp_path), "--format", "csv"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert {key: str(value) for key, value in listed.items()} == row

    assert run(["runs", str(tmp_path)]) == 0
    heads, line = capsys.readouterr().out.splitlines()
    assert f"{100 * listed['final_accuracy']:.2f}" in line.split()
    assert heads.index("last %") < heads.index("best %")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SepnetError, match="is not a folder"):
        sepnet.list_runs(tmp_path / "nowhere")


def test_what_a_shell_completes_is_what_there_is() -> None:
    assert tuple(REGISTRY) == NETWORKS
    assert tuple(ALL_DATASETS) == DATASETS
    assert complete_fields("label") == ["label_smoothing="]
    assert complete_fields("flip=") == ["flip=none", "flip=random", "flip=alternating"]
