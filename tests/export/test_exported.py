"""Exported files at work: they answer as the network that was written, by labels of their own, or are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sepnet
from sepnet.cli.app import run as command
from sepnet.errors import SepnetError
from sepnet.export.exported import open_file
from sepnet.export.seal import require_sealed
from tests.cli_support import Captured, run_json

pytest.importorskip("onnxscript", reason="sepnet[onnx] is not installed")
pytest.importorskip("tflite", reason="sepnet[tflite] is not installed")
pytest.importorskip("ai_edge_litert", reason="sepnet[tflite] is not installed")
support = pytest.importorskip("tests.export.exported_support")
pytest.importorskip("keras", reason="sepnet[keras] is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
PYTHONS = ("keras", "onnx", "onnx-int8", "tflite")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a small network's file by format."""
    found: dict[str, Path] = support.write_files(tmp_path_factory.mktemp("files"))
    return found


def dataset() -> sepnet.Dataset:
    images = support.pixels(30, support.SHAPE, seed=4)
    split = sepnet.Split(images=images, labels=torch.arange(30) % 3)
    return sepnet.Dataset(name="noise", classes=support.CLASSES, train=split, test=split)


@pytest.mark.parametrize("form", PYTHONS)
def test_a_file_answers_as_its_network_by_its_own_labels(files: dict[str, Path], form: str) -> None:
    file = open_file(files[form])
    assert (file.classes, file.image_shape) == (support.CLASSES, support.SHAPE)
    split, exporter = dataset().test, support.exporter()
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (support.MEAN, support.STD))
    with torch.no_grad():
        expected = exporter.model((split.images / 255 - mean) / std)
    found = file.logits(split.images)
    near = 1e-4 if form in ("keras", "onnx") else 8 * exporter.plan.scales[exporter.plan.output].scale
    torch.testing.assert_close(found, expected, atol=near, rtol=1e-4)
    evaluation = sepnet.evaluate(files[form], dataset())
    assert evaluation.accuracy == float((found.argmax(1) == split.labels).double().mean())
    [prediction] = sepnet.predict(files[form], split.images[3].permute(1, 2, 0).numpy(), top=1)
    assert prediction.guesses[0].name == support.CLASSES[int(found[3].argmax())]
    assert prediction.guesses[0].probability == pytest.approx(float(found[3].softmax(0).max()), abs=1e-5)


@pytest.mark.slow
def test_the_commands_take_a_file_as_a_run(files: dict[str, Path], tmp_path: Path, capsys: Captured) -> None:
    images, labels = dataset().test.images.permute(0, 2, 3, 1).numpy(), dataset().test.labels.numpy()
    folder = tmp_path / "noise"
    for split in ("train", "test"):
        for place, name in enumerate(support.CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in np.flatnonzero(labels == place):
                Image.fromarray(images[number]).save(folder / split / name / f"{number}.png")
    evaluation = run_json(f"evaluate {files['tflite']} --data {folder}", capsys)
    assert evaluation["file"] == str(files["tflite"])
    assert evaluation["accuracy"] == sepnet.evaluate(files["tflite"], dataset()).accuracy
    assert command(["evaluate", str(files["tflite"]), "--data", str(folder)]) == 0
    assert f"{files['tflite']}, on the test images of" in capsys.readouterr().out
    (folder / "test/cat/broken.png").write_bytes(b"no picture")
    assert command(["evaluate", str(files["tflite"]), "--data", str(folder)]) == 2
    assert "broken.png" in capsys.readouterr().err
    again = run_json(f"evaluate {files['tflite']} --data {folder} --skip-broken", capsys)
    assert again["accuracy"] == evaluation["accuracy"]
    [answer] = run_json(f"predict {files['onnx-int8']} {folder / 'test/cat/0.png'} --top 3", capsys)
    assert {guess["class"] for guess in answer["predictions"]} == set(support.CLASSES)


def test_every_file_is_sealed_and_holds_no_path(files: dict[str, Path]) -> None:
    for form in PYTHONS:
        content = files[form].read_bytes()
        require_sealed(content, form)
        assert str(Path(__file__).parent).encode() not in content


@pytest.mark.parametrize("form", PYTHONS)
def test_a_file_under_the_ending_of_another_format_is_refused(
    files: dict[str, Path], form: str, tmp_path: Path
) -> None:
    for suffix in {".keras", ".onnx", ".tflite"} - {files[form].suffix}:
        shutil.copy(files[form], tmp_path / f"x{suffix}")
        with pytest.raises(SepnetError, match=rf"x\{suffix}' is no \{suffix} file that works here") as caught:
            open_file(tmp_path / f"x{suffix}")
        assert "\n" not in str(caught.value)


def test_what_a_run_takes_and_a_file_does_not_is_said(files: dict[str, Path]) -> None:
    with pytest.raises(SepnetError, match=r"network is given, and '.*small\.onnx' computes as its runtime does"):
        sepnet.evaluate(files["onnx"], dataset(), network=torch.nn.Flatten())
    with pytest.raises(SepnetError, match="does not say what it was trained on: name a dataset"):
        sepnet.evaluate(files["onnx"])
