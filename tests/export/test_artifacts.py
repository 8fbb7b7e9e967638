"""A trained run written for other runtimes and devices: its answers, its files, and nothing of a user's lost."""

import os
from pathlib import Path

import pytest

import sepnet
from sepnet.cli.app import run as command
from sepnet.errors import SepnetError
from sepnet.export.artifacts import SUFFIXES
from sepnet.export.html.programs import CHROMIUM, NODE, find
from sepnet.recipes.recipe import Recipe
from sepnet.runs import Run
from tests.cli_support import Captured, prepare

pytest.importorskip("onnxscript", reason="sepnet[onnx] is not installed")
pytest.importorskip("tflite", reason="sepnet[tflite] is not installed")
pytest.importorskip("ai_edge_litert", reason="sepnet[tflite] is not installed")
os.environ["KERAS_BACKEND"] = "torch"
pytest.importorskip("keras", reason="sepnet[keras] is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
FORMATS = ("keras", "onnx", "onnx-int8", "tflite", "c", *(["html"] if find(*CHROMIUM, *NODE) else []))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a residual network of a user's file, trained for one epoch on the sample."""
    folder = tmp_path_factory.mktemp("trained")
    prepare(folder)
    network = f"{folder / 'net.py'}:Residual"
    recipe = Recipe(epochs=1, batch_size=250, lr=0.05)
    return sepnet.train(network, "sample", recipe, precision="fp32", device="cpu", out=folder / "runs", name="one")


@pytest.mark.slow
def test_every_format_answers_as_the_run(trained: Run) -> None:
    scores = {one.format: one for one in sepnet.score_exports(trained, FORMATS)}
    assert list(scores) == ["torch", *FORMATS]
    for name in ("torch", "keras", "onnx"):
        assert scores[name].agreement == 1
        assert scores[name].accuracy == pytest.approx(trained.history[-1].val_accuracy)
        assert scores[name].arena_bytes is None
    assert all(score.seconds is not None and score.seconds > 0 for score in scores.values())
    assert Run.open(trained.path).scores == list(scores.values())
    for name in FORMATS[2:]:
        assert scores[name].agreement > 0.95
        assert scores[name].accuracy == pytest.approx(trained.history[-1].val_accuracy, abs=0.02)
    assert scores.get("html", scores["c"]).agreement == scores["c"].agreement
    assert scores["c"].arena_bytes == scores["onnx-int8"].arena_bytes
    assert scores["onnx-int8"].bytes < scores["onnx"].bytes


@pytest.mark.slow
def test_the_command_prints_the_file_and_its_scores(trained: Run, capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "mine.c"
    arguments = ["export", str(trained.path), "--format", "c", "--out", str(file), "--score", "--trust"]
    assert command(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == str(file)
    assert [line.split()[0] for line in printed.out.splitlines()[1:]] == ["format", "torch", "c"]
    assert '#include "mine.h"' in file.read_text()
    assert "mine_run" in file.with_suffix(".h").read_text()
    assert command([*arguments[:-2], "--trust"]) == 0
    assert f"replacing {file}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("pytorch_alone")
def test_arguments_of_a_network_are_not_in_the_name_of_its_file(tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=500)
    run = sepnet.train("champion(widths=[4, 4, 4], blocks=[1, 1, 1])", "sample", recipe, device="cpu", out=tmp_path)
    assert sepnet.export_run(run, "c") == run.path / "champion.c"


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_another_programs_file_is_kept(trained: Run, form: str, tmp_path: Path) -> None:
    file = tmp_path / f"mine{SUFFIXES[form]}"
    file.write_text("int main(void) { return 0; }")
    with pytest.raises(SepnetError, match=r"is not sepnet's: move it away"):
        sepnet.export_run(trained, form, file)
    assert file.read_text() == "int main(void) { return 0; }"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "name", "words"),
    [
        ("onnx", "mine.c", "does not end in .onnx"),
        ("tflite", "mine.lite", "does not end in .tflite"),
        ("c", "mine.onnx", "does not end in .c"),
        ("c", "my-net.c", "use letters, digits and _, as my_net.c"),
        ("c", "none/mine.c", "does not exist: make it"),
        ("tflight", "mine.c", "unknown format 'tflight': expected keras, onnx, onnx-int8, tflite, c"),
    ],
)
def test_a_mistake_is_one_line(trained: Run, form: str, name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SepnetError, match=words) as caught:
        sepnet.export_run(trained, form, tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
