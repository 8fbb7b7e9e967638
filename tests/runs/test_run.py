"""A run's folder: how it comes to be, what seals it, and what is refused of it."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from safetensors.torch import load_file, save_file

import sepnet
from sepnet import folders
from sepnet.errors import SepnetError
from sepnet.folders import create_folder
from sepnet.runs import Run
from sepnet.runs.config import RunConfig
from tests.report.support import CONFIG, finished_run
from tests.training.support import unseal

pytestmark = pytest.mark.usefixtures("pytorch_alone")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run."""
    return finished_run(tmp_path, "tiny", 5, history=[0.5])


# Making a folder.


def test_an_empty_folder_does_not_block_a_name(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert Run.create(tmp_path, "run", CONFIG).path == tmp_path / "run"
    assert Run.create(tmp_path, "run", CONFIG).path == tmp_path / "run-2"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert Run.create(tmp_path, "link", CONFIG).path == tmp_path / "link-2"


def test_what_was_not_made_whole_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / ".0123456789abcdef.partial"
    killed.mkdir()
    (killed / "config.toml").touch()
    theirs = tmp_path / ".theirs.partial"
    theirs.mkdir()
    (theirs / "notes").touch()
    create_folder(tmp_path, "first", {"config.toml": ""})
    assert killed.exists()  # another process may be filling it just now
    monkeypatch.setattr(folders, "ABANDONED_SECONDS", 0.0)
    create_folder(tmp_path, "second", {"config.toml": ""})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".theirs.partial", "first", "second"]


# The seal.


def test_a_finished_run_is_sealed(run: Run) -> None:
    assert json.loads((run.path / "manifest.json").read_text())["files"].keys() == {
        path.name for path in run.path.iterdir() if path.name not in ("manifest.json", ".lock")
    }
    assert Run.open(run.path).finished


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (
            "history.csv",
            lambda file: file.write_text(file.read_text().replace("0.5", "0.75")),
            "has changed since the run was finished",
        ),
        (
            "logits.safetensors",
            lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\x01"),
            "has changed since the run was finished",
        ),
        ("history.csv", Path.unlink, "is missing, which the finished run had"),
        ("checkpoint.safetensors", Path.touch, "was not there when the run was finished: remove it"),
        ("manifest.json", lambda file: file.write_text('{"files": {"../secret": "0"}}'), "expected 64 hexadecimal"),
        ("manifest.json", lambda file: file.write_text("[" * 10_000), "nested too deeply"),
    ],
)
def test_whatever_has_changed_is_named(run: Run, file: str, damage: Callable[[Path], Any], message: str) -> None:
    damage(run.path / file)
    with pytest.raises(SepnetError, match=rf"{file}.*{message}"):
        Run.open(run.path)


@pytest.mark.skipif(os.name == "nt", reason="pipes and links are POSIX's")
@pytest.mark.parametrize("file", ["config.toml", "manifest.json", "result.json", "weights.safetensors", ".lock"])
def test_pipes_and_links_are_neither_read_nor_written_through(run: Run, tmp_path: Path, file: str) -> None:
    path = run.path / file
    outside = tmp_path / "outside"
    outside.write_bytes(path.read_bytes() if path.exists() else b"")
    before = outside.read_bytes()
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    with pytest.raises(SepnetError, match="symbolic link"), Run.open(run.path).lock():
        pass
    assert outside.read_bytes() == before
    path.unlink()
    if file != ".lock":
        os.mkfifo(path)
        with pytest.raises(SepnetError, match="is a named pipe: expected a regular file"):
            Run.open(run.path)


def test_what_may_be_deleted_is_made_anew_and_sealed(run: Run) -> None:
    assert run.anatomy is not None
    anatomy, definition = run.anatomy, run.definition
    (run.path / "anatomy.json").unlink()
    opened = Run.open(run.path)
    assert opened.anatomy is None
    opened.write_network(anatomy, f"{definition}# another version's\n")
    assert Run.open(run.path).anatomy == anatomy


def test_a_run_without_its_seal_is_not_finished(run: Run) -> None:
    (run.path / "manifest.json").unlink()
    opened = Run.open(run.path)
    assert (opened.finished, opened.result) == (False, {})
    with pytest.raises(SepnetError, match=r"without manifest\.json, the last file .* 2 of 2 epochs are done"):
        opened.require_finished()


def test_an_unreadable_neighbour_stops_nobody(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("folder", "pipe", "text"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder/config.toml").mkdir()
    (tmp_path / "text/config.toml").write_text("[" * 10_000)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe/config.toml")
    found = Run.find(tmp_path, run.config)
    assert found is not None
    assert found.path == run.path
    assert capsys.readouterr().err.count("skipping") == len(list(tmp_path.glob("*/config.toml"))) - 1


def test_a_damaged_run_is_not_trained_again_unasked(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    (run.path / "log.txt").write_text("")
    found = Run.find(tmp_path, run.config)
    assert found is not None
    assert found.path == copy
    shutil.rmtree(copy)
    with pytest.raises(SepnetError, match=r"log\.txt' has changed since the run"):
        Run.find(tmp_path, run.config)


# Runs of versions that made no manifests.


def test_an_old_run_is_opened_with_a_notice_and_can_be_sealed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    unseal(run.path)
    for _ in range(2):
        assert Run.open(run.path).finished
    assert capsys.readouterr().err.count("has no manifest.json, as it was made by an older version") == 1
    Run.open(run.path).seal()
    (run.path / "log.txt").unlink()
    with pytest.raises(SepnetError, match=r"log\.txt' is missing"):
        Run.open(run.path)


def _tensors(path: Path, **changes: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(path)
    save_file({name: changes.get(name, torch.Tensor.clone)(tensor) for name, tensor in tensors.items()}, path)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("logits.safetensors", lambda file: _tensors(file, logits=lambda t: t * torch.nan), "not finite"),
        (
            "logits.safetensors",
            lambda file: _tensors(file, logits=lambda t: -t),
            "accuracy of .* the history's last is",
        ),
        ("logits.safetensors", lambda file: _tensors(file, logits=lambda t: 2 * t), "loss of .* the history's last is"),
        ("logits.safetensors", lambda file: _tensors(file, logits=torch.Tensor.half), "expected float32 logits"),
        (
            "logits.safetensors",
            lambda file: _tensors(file, labels=lambda t: t + 9),
            "labels beyond the run's 3 classes",
        ),
        ("logits.safetensors", lambda file: _tensors(file, logits=lambda t: t[:, :2].clone()), r"expected \(N, 3\)"),
        (
            "result.json",
            lambda file: file.write_text(file.read_text().replace("0.625", "0.75")),
            "by the run's history",
        ),
        ("log.txt", lambda file: file.write_text(file.read_text().replace("0.62", "0.72")), "is not the log of"),
        ("history.csv", Path.unlink, "is missing"),
        ("history.csv", lambda file: file.write_text(""), "is not the history of a run"),
        (
            "history.csv",
            lambda file: file.write_text(file.read_text().replace("\n2,", "\n3,")),
            "has epoch 3 in place 2",
        ),
        ("history.csv", lambda file: file.write_text(file.read_text().replace("\n1,3", "\n1,0")), "steps is 0"),
        ("history.csv", lambda file: file.write_text("\n".join(file.read_text().split("\n")[:2])), "has 1 epochs, the"),
    ],
)
def test_the_figures_of_an_old_run_have_to_agree(
    run: Run, file: str, damage: Callable[[Path], Any], message: str
) -> None:
    unseal(run.path)
    damage(run.path / file)
    with pytest.raises(SepnetError, match=rf"{file}.*{message}"):
        Run.open(run.path)


# The configuration.

NASTY = [
    "''",
    "-1",
    "10e400",
    "nan",
    "[]",
    "[[]]",
    "{}",
    "true",
    f"0x{'f' * 5000}",
    "9" * 5000,
    "[" * 2000,
    "'\\u001b'",
]


@pytest.mark.parametrize("value", NASTY, ids=range(len(NASTY)))
def test_a_field_of_the_configuration_is_taken_or_named(value: str) -> None:
    config = CONFIG.to_dict()
    fields = [(config, name) for name in config] + [(config["recipe"], name) for name in config["recipe"]]
    for table, name in fields:
        before, table[name] = table[name], "PLACE"
        refused = _refusal(tomli_w.dumps(config).replace('"PLACE"', value))
        table[name] = before
        assert not refused or refused.startswith("'run/config.toml'")
        assert len(refused) < 500
        assert "\n" not in refused


def _refusal(text: str) -> str:
    try:
        RunConfig.from_toml(text, source="run/config.toml")
    except SepnetError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": (0.0, 1.0, 1.0)}, "std is .* expected 3 numbers, one for each channel, from 1e-08 to 1"),
        ({"std": (1.0, 1.0)}, "std is .* expected 3 numbers"),
        ({"mean": (1e-320, 0.0, float("nan"))}, "mean is .*: expected a list of numbers"),
        ({"image_shape": (3, 8)}, "image_shape is .* expected 3 whole numbers"),
        ({"image_shape": (3, 8, 10**9)}, "image_shape is .* at most"),
        ({"seed": 10**30}, "seed is .* at most 63 bits"),
        ({"seed": "a"}, "seed is 'a': expected a whole number"),
        ({"extended_from": (3,)}, "extended_from is .* grow and stay below 2"),
        ({"classes": ("a", "a", "b")}, "classes is .* each once"),
    ],
)
def test_a_configuration_that_no_run_has_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SepnetError, match=message):
        replace(CONFIG, **changes)


def test_a_wrong_seed_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SepnetError, match="seed is"):
        sepnet.train("resnet8", "sample", epochs=1, seed=10**30, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
