"""``sepnet compare`` on the command line."""

import json
import tomllib
from pathlib import Path

import pytest
from torch import nn

from sepnet import api
from sepnet.cli.app import run
from sepnet.errors import SepnetError
from tests.cli_support import TRAIN, Captured, prepare, run_json

pytestmark = pytest.mark.usefixtures("pytorch_alone")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a user's networks."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    return tmp_path


OPTIONS = "--epochs 1 --base-recipe quick.toml --recipe quick.toml --precision fp32"
COMPARE = f"compare net.py:small net.py:larger {OPTIONS} --no-report"


@pytest.mark.slow
def test_compare_then_take_up_the_runs(folder: Path, capsys: Captured) -> None:
    assert run([*COMPARE.split(), "--format", "json"]) == 0
    captured = capsys.readouterr()
    first = json.loads(captured.out)
    assert captured.err.count("training net.py:") == 2
    assert set(first) == {"base", "challenger", "rules", "verdict", "path"}
    assert first["base"]["parameters"] == 48 * 10 + 10
    assert first["challenger"]["macs"] == 1920
    assert first["rules"]["kept"] is False
    assert "breaks the rules (separable only, batch norm, dropout)" in captured.err
    assert first["verdict"]["by_statistics"]["test"] == "mcnemar_exact"
    assert first["verdict"]["by_statistics"]["images"] == 500
    assert json.loads((folder / first["path"] / "verdict.json").read_text()) == first

    assert run([*COMPARE.split(), "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == first
    assert captured.err.count("reusing the finished run") == 2
    assert "Epoch" not in captured.err

    folders = [first[side]["runs"][0] for side in ("base", "challenger")]
    again = run_json(f"compare {' '.join(folders)} --no-report", capsys)
    assert again["verdict"] == first["verdict"]

    assert run(["compare", *folders, "--no-report"]) == 0
    text = capsys.readouterr().out
    assert "by the assignment: net.py:larger " in text
    assert "by the statistics: " in text
    assert "rules (assignment): net.py:larger breaks them" in text


@pytest.mark.slow
def test_compare_over_seeds(capsys: Captured) -> None:
    compared = run_json(f"{COMPARE} --seeds 2 --workers 1", capsys)
    assert compared["base"]["seeds"] == compared["challenger"]["seeds"] == [0, 1]
    statistics = compared["verdict"]["by_statistics"]
    assert (statistics["test"], statistics["base_runs"], statistics["challenger_runs"]) == ("welch", 2, 2)
    assert statistics["low"] <= statistics["difference"] <= statistics["high"]


@pytest.mark.slow
def test_compare_trains_seeds_side_by_side_and_takes_up_what_is_there(folder: Path, capsys: Captured) -> None:
    assert run([*COMPARE.split(), "--seeds", "2", "--workers", "2", "--format", "json"]) == 0
    captured = capsys.readouterr()
    side_by_side = json.loads(captured.out)
    assert "(4 of 4 trials" in captured.err
    assert captured.err.count("reusing the finished run") == 4
    (folder / "runs/larger-sample-seed1/manifest.json").unlink()
    in_turn = run_json(f"{COMPARE} --seeds 2 --workers 1 --out in-turn", capsys)
    for side in ("base", "challenger"):
        assert in_turn[side]["final_accuracy"] == side_by_side[side]["final_accuracy"]
    again = run_json(f"{COMPARE} --seeds 2", capsys)
    assert again["verdict"] == side_by_side["verdict"]


@pytest.mark.slow
def test_a_network_against_itself_is_trained_once_a_seed(folder: Path, capsys: Captured) -> None:
    compared = run_json(f"compare net.py:small net.py:small {OPTIONS} --no-report --seeds 2", capsys)
    assert compared["base"]["runs"] == compared["challenger"]["runs"]
    assert len(compared["base"]["runs"]) == 2


def test_compare_refuses_workers_that_cannot_build_what_is_in_memory() -> None:
    with pytest.raises(SepnetError, match="workers is 2: other processes need networks and data by name"):
        api.compare(lambda **_: nn.Flatten(), "champion", workers=2)
    with pytest.raises(SepnetError, match="workers is 'many': expected a whole number"):
        api.compare(workers="many")


@pytest.mark.slow
def test_compare_takes_up_a_run_that_train_made(capsys: Captured) -> None:
    assert run(TRAIN.split()) == 0
    capsys.readouterr()
    assert run([*COMPARE.split(), "--format", "json"]) == 0
    assert "reusing the finished run" in capsys.readouterr().err


@pytest.mark.slow
def test_compare_refuses_an_unfinished_run_before_it_trains(folder: Path, capsys: Captured) -> None:
    assert run(TRAIN.split()) == 0
    (folder / "runs/small-sample/manifest.json").unlink()
    capsys.readouterr()
    assert run(f"compare runs/small-sample net.py:larger {OPTIONS} --out other".split()) == 2
    assert "is not finished" in capsys.readouterr().err
    assert not (folder / "other").exists()


@pytest.mark.slow
def test_compare_refuses_a_run_for_several_seeds_before_it_trains(folder: Path, capsys: Captured) -> None:
    assert run(TRAIN.split()) == 0
    capsys.readouterr()
    assert run(f"compare runs/small-sample net.py:larger {OPTIONS} --out other --seeds 2".split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (folder / "other").exists()


@pytest.mark.slow
def test_a_report_that_fails_takes_no_verdict_with_it(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise SepnetError("the notebook could not be run")

    monkeypatch.setattr(api, "write_report", fail)
    with_report = COMPARE.removesuffix(" --no-report")
    assert run([*with_report.split(), "--format", "json"]) == 2
    captured = capsys.readouterr()
    compared = json.loads(captured.out)
    assert compared["report"] is None
    assert compared["verdict"]["by_statistics"]["images"] == 500
    error = {"error": "the notebook could not be run", "exit_code": 2}
    assert json.loads(captured.err.splitlines()[-1]) == error


@pytest.mark.slow
def test_fail_unless_better_is_by_the_statistics(capsys: Captured) -> None:
    assert run([*TRAIN.split(), "--name", "good"]) == 0
    assert run([*TRAIN.split(), "--name", "bad", "--lr", "1e-9"]) == 0
    compare = ["compare", "--trust", "--no-report", "--fail-unless-better"]
    assert run([*compare, "runs/bad", "runs/good"]) == 0
    assert run([*compare, "runs/good", "runs/bad"]) == 1
    assert run([*compare, "runs/good", "runs/good"]) == 1


@pytest.mark.slow
def test_compare_sets_fields_of_both_recipes(folder: Path, capsys: Captured) -> None:
    fields = "--set epochs=1 --set label_smoothing=0.1 --lr 0.01 --batch-size 250"
    compared = run_json(f"compare net.py:small net.py:larger --precision fp32 --no-report {fields}", capsys)
    for side in ("base", "challenger"):
        recipe = tomllib.loads((folder / compared[side]["runs"][0] / "config.toml").read_text())["recipe"]
        assert [recipe[key] for key in ("epochs", "label_smoothing", "lr", "batch_size")] == [1, 0.1, 0.01, 250]
