"""Mistakes with what goes in and out, pictures and exported files: one line that says what to do, and exit code 2.

``python -m tests.test_door_mistakes`` prints them as a table.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sepnet.cli.app import run
from tests.cli_support import Captured, prepare, train_small

pytest.importorskip("tflite", reason="sepnet[tflite] is not installed")
pytest.importorskip("ai_edge_litert", reason="sepnet[tflite] is not installed")
pytest.importorskip("onnxruntime", reason="sepnet[onnx] is not installed")

MISTAKES = [
    # export
    ("export", "Missing argument 'RUN|NETWORK'"),
    ("export nosuch", "'nosuch' is neither a run's folder nor a network"),
    ("export champoin", "did you mean 'champion'?"),
    ("export published", "sepnet has no trained weights for 'published': give a run's folder"),
    ("export small.tflite", "'small.tflite' is not a run: expected a folder"),
    ("export run --format tflight", "unknown format 'tflight': expected keras, onnx"),
    ("export run --format c,", "unknown format '': expected keras, onnx"),
    ("export run --format c,onnx --out x.c", "--format c,onnx makes 2: give one format"),
    ("export run --format c --out x.txt", "'x.txt' does not end in .c"),
    ("export run --format c --out my-net.c", "use letters, digits and _, as my_net.c"),
    ("export run --format tflite --out none/x.tflite", "folder 'none' does not exist: make it"),
    ("export run --format tflite --out theirs.tflite", "'theirs.tflite' exists and is not sepnet's: move it away"),
    ("export run --format c --out theirs.c", "'theirs.c' exists and is not sepnet's: move it away"),
    ("export run --format c", "give --trust"),
    ("export unfinished --format c", "is not finished"),
    ("export changed --format c", "'changed/weights.safetensors' has changed since the run was finished"),
    ("export run --scores", "No such option: --scores"),
    # evaluate
    ("evaluate", "Missing argument 'RUN|NETWORK|FILE'"),
    ("evaluate small.tflite", "does not say what it was trained on: name a dataset or a folder by --data"),
    ("evaluate none.onnx --data sample", "'none.onnx' does not exist"),
    ("evaluate small.tflite --data cifar11", "unknown dataset 'cifar11': did you mean 'cifar10'"),
    ("evaluate small.tflite --data sample", "images of sample are 3×32×32, 'small.tflite' takes 3×12×10"),
    ("evaluate small.tflite --data pictures", "classes of pictures are left, right, those of 'small.tflite' cat"),
    ("evaluate small.tflite --data nowhere/", "nowhere"),
    ("evaluate small.tflite --data pictures --validation train", "validation is 'train'"),
    ("evaluate small.tflite --data pictures --device cpu", "device is given, and 'small.tflite' computes as its"),
    ("evaluate small.tflite --data pictures --precision bf16", "precision is given, and 'small.tflite' computes"),
    ("evaluate cut.tflite --data pictures", "'cut.tflite' is not a file that `sepnet export` wrote, or not all of it"),
    ("evaluate flipped.tflite --data pictures", "'flipped.tflite' has changed since `sepnet export` wrote it"),
    ("evaluate flipped-int8.onnx --data pictures", "'flipped-int8.onnx' has changed since"),
    ("evaluate empty.onnx --data pictures", "'empty.onnx' is not a file that `sepnet export` wrote"),
    ("evaluate theirs.tflite --data pictures", "'theirs.tflite' is not a file that `sepnet export` wrote"),
    ("evaluate wrong.onnx --data pictures", "'wrong.onnx' is no .onnx file that works here"),
    ("evaluate wrong.keras --data pictures", "'wrong.keras' is no .keras file that works here"),
    (
        "evaluate small.c --data pictures",
        "'small.c' is run by a device, not here: give a .keras, .onnx",
    ),
    ("evaluate page.html --data pictures", "'page.html' is run by a browser, not here"),
    ("evaluate photo.png --data pictures", "'photo.png' is not a run's folder, nor a .keras, .onnx or .tflite file"),
    ("evaluate pipe.onnx --data pictures", "'pipe.onnx' is a named pipe: expected a regular file"),
    ("evaluate pictures --data pictures", "'pictures' is not a run: expected a folder with a config.toml"),
    # predict
    ("predict", "Missing argument 'RUN|NETWORK|FILE'"),
    ("predict small.tflite", "Missing argument 'IMAGE|FOLDER'"),
    ("predict small.tflite none.png", "'none.png' is neither a file nor a folder"),
    ("predict small.tflite empty", "folder 'empty' contains no images"),
    ("predict small.tflite words.png", "'words.png' is not an image in a format that Pillow reads"),
    ("predict small.tflite short.png", "image 'short.png' cannot be read"),
    ("predict small.tflite photo.png --top 0", "top is 0: expected at least 1"),
    ("predict small.tflite photo.png --top two", "Invalid value for '--top': expected a whole number"),
    ("predict small.tflite photo.png --device cuda", "device is given, and 'small.tflite' computes as its runtime"),
    ("predict photo.png small.tflite", "'photo.png' is not a run's folder, nor a .keras, .onnx or .tflite file"),
    ("predict flipped.tflite photo.png", "'flipped.tflite' has changed since"),
    ("predict small.h photo.png", "'small.h' is run by a device"),
    # data check, and --data
    ("data check", "Missing argument 'NAME|FOLDER'"),
    ("data check nowhere/", "nowhere"),
    ("data check sampel", "did you mean 'sample'"),
    ("data check empty", "empty"),
    ("data check pictures --image-size 0", "image size '0' is not understood"),
    ("data check pictures --channels 2", "channels is 2: expected 1 (grey) or 3 (RGB)"),
    ("data check pictures --test-share 1.5", "test_share is 1.5: expected a number between 0 and 1"),
    ("data check pictures --group-by (", "is not a regular expression"),
    ("data check pictures --split-seed -1", "split_seed is -1"),
    ("data check pictures --by nosuch", "'nosuch' is neither a run's folder nor a network"),
    ("data check pictures --by run --image-size 12", "give --trust"),
    ("data check pictures --out photo.png", "photo.png"),
    ("data check pictures.txt", "pictures.txt"),
    ("train net.py:small --data nowhere/", "nowhere"),
    ("train net.py:small --data empty", "empty"),
    ("train net.py:small --data mixed", "--image-size"),
    ("train net.py:small --data lacking --image-size 8", "right"),
    ("train net.py:small --data spoilt --image-size 8", "--skip-broken"),
    ("train net.py:small --data photo.png", "photo.png"),
    ("train net.py:small --data broken.npz", "broken.npz"),
]


def build(folder: Path) -> None:
    """Fill a folder with runs, exported files and pictures, whole and broken, for the commands to be run in."""
    from tests.export.exported_support import write_files

    (folder / "trained").mkdir()
    trained = train_small(folder / "trained")
    for name in ("run", "unfinished", "changed"):
        shutil.copytree(trained, folder / name)
    (folder / "unfinished/manifest.json").unlink()
    (folder / "changed/weights.safetensors").write_bytes(b"changed")
    prepare(folder)
    files = write_files(folder, ("onnx-int8", "tflite", "c"))
    for name in ("onnx-int8", "tflite"):
        content = bytearray(files[name].read_bytes())
        content[len(content) // 2] ^= 1
        files[name].with_name(files[name].name.replace("small", "flipped")).write_bytes(content)
    whole = files["tflite"].read_bytes()
    (folder / "cut.tflite").write_bytes(whole[:100])
    for suffix in (".onnx", ".keras"):
        (folder / f"wrong{suffix}").write_bytes(whole)
    for name in ("empty.onnx", "page.html"):
        (folder / name).touch()
    for name in ("theirs.tflite", "theirs.c", "words.png", "pictures.txt", "broken.npz"):
        (folder / name).write_text("int main(void) { return 0; }\n")
    os.mkfifo(folder / "pipe.onnx")
    (folder / "empty").mkdir()
    _picture(0).save(folder / "photo.png")
    (folder / "short.png").write_bytes((folder / "photo.png").read_bytes()[:80])
    _pictures(folder)


def _pictures(folder: Path) -> None:
    """Make folders of pictures: a whole one, one of two sizes, one whose test split lacks a class, a spoilt one."""
    for name in ("pictures", "mixed", "lacking", "spoilt"):
        for number, place in enumerate(("train/left", "train/right", "test/left", "test/right")):
            (folder / name / place).mkdir(parents=True)
            for more in range(2):
                _picture(number + 4 * more, 12 + (name == "mixed") * more).save(folder / name / place / f"{more}.png")
    shutil.rmtree(folder / "lacking/test/right")
    shutil.copy(folder / "short.png", folder / "spoilt/train/left/2.png")


def _picture(seed: int, height: int = 12) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, 10, 3), np.uint8))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, pytorch_alone: None) -> Iterator[Path]:
    """Work in a folder of all that the commands name."""
    folder = tmp_path_factory.mktemp("scene")
    build(folder)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEPNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


@pytest.mark.skipif(os.name == "nt", reason="a named pipe is POSIX's")
@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_2(scene: Path, arguments: str, message: str, capsys: Captured) -> None:
    before = sorted(scene.rglob("*"))
    assert run(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert captured.err.count("sepnet: error: ") == 1
    assert last.startswith("sepnet: error: ")
    assert message in last
    assert sorted(scene.rglob("*")) == before


def main() -> None:
    """Print each command with its line and its exit code."""
    print("| command | exit | standard error |\n| --- | --: | --- |")
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        with contextlib.redirect_stderr(io.StringIO()):
            build(Path(name))
        os.environ["SEPNET_CACHE"] = str(Path(name) / "cache")
        for arguments, _ in MISTAKES:
            with contextlib.redirect_stderr(io.StringIO()) as errors:
                code = run(arguments.split())
            said = " ".join(errors.getvalue().split()).replace("|", "\\|").replace(name, "FOLDER")
            print(f"| `sepnet {arguments.replace('|', chr(92) + '|')}` | {code} | {said} |")


if __name__ == "__main__":
    main()
