"""The ``.keras`` file of a trained run: it scores the same to the image, and nothing of a user's is lost."""

from .support import Array, keras_output  # isort: skip  # sets the backend before Keras is imported

import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from torch import nn

import sepnet
from sepnet import data
from sepnet.cli.app import run as command
from sepnet.errors import SepnetError
from sepnet.networks.layers import GlobalAveragePool
from sepnet.recipes.recipe import Recipe
from sepnet.runs import Run
from tests.cli_support import Captured, prepare
from tests.training.support import CLASSES, patterns, tiny

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a residual network of a user's file, trained for one epoch on the sample."""
    folder = tmp_path_factory.mktemp("trained")
    prepare(folder)
    recipe = Recipe(epochs=1, batch_size=250, lr=0.05)
    network = f"{folder / 'net.py'}:Residual"
    return sepnet.train(network, "sample", recipe, precision="fp32", device="cpu", out=folder / "runs", name="one")


def pixels(split: data.Split) -> Array:
    """Return images as Keras's users have them: raw, channels last."""
    array: Array = split.images.permute(0, 2, 3, 1).numpy()
    return array


@pytest.mark.slow
def test_it_scores_the_same_to_the_image_on_the_samples_test_split(trained: Run) -> None:
    file = sepnet.export_run(trained)
    assert file == trained.path / "Residual.keras"
    model, split = keras.models.load_model(file), data.load("sample").test
    logits, labels = trained.logits()
    theirs = torch.from_numpy(model.predict(pixels(split), batch_size=500, verbose=0).copy())
    assert torch.equal(theirs.argmax(1), logits.argmax(1))
    assert torch.equal(labels, split.labels)
    torch.testing.assert_close(theirs, logits, atol=1e-4, rtol=1e-4)
    loss, accuracy = model.evaluate(pixels(split), split.labels.numpy(), verbose=0)
    assert accuracy == pytest.approx(trained.history[-1].val_accuracy, abs=1e-6)
    assert loss == pytest.approx(trained.history[-1].val_loss, rel=1e-4)


@pytest.mark.slow
def test_it_is_the_network_alone_behind_one_rescaling(trained: Run) -> None:
    model = keras.models.load_model(sepnet.export_run(trained))
    anatomy = sepnet.summary(trained.config.network)
    assert model.count_params() == anatomy.parameters
    assert isinstance(model.layers[1], keras.layers.Rescaling)
    dark = (np.array(trained.config.mean) * 255).reshape(1, 1, 1, 3).astype(np.float32)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model.layers[1](dark)), 0, atol=1e-6)


@pytest.mark.slow
def test_sequential_networks_given_as_modules(tmp_path: Path) -> None:
    model = tiny()
    run = sepnet.train(model, patterns(), Recipe(epochs=1, batch_size=50), precision="fp32", out=tmp_path, name="tiny")
    file = sepnet.export_run(run.path, out=tmp_path / "mine.keras", network=tiny())
    loaded = keras.models.load_model(file)
    theirs = loaded.predict(pixels(patterns().test), verbose=0)
    np.testing.assert_allclose(theirs, run.logits()[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("forward", ["mean", "pad", "slice", "take"])
def test_operations_that_are_no_layers_survive_the_file(forward: str, tmp_path: Path) -> None:
    class Operations(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
            self.pool = nn.MaxPool2d(3, 2, 1)
            self.last = nn.Sequential(GlobalAveragePool(), nn.LazyLinear(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            if forward == "mean":
                x = x * x.mean(1, keepdim=True)
            elif forward == "pad":
                x = nn.functional.pad(self.pool(x), (0, 0, 0, 0, 1, 2))
            elif forward == "slice":
                x = x[:, 1:4, ::2]
            else:
                x = nn.functional.gelu(nn.functional.channel_shuffle(x, 3), approximate="tanh")
            return self.last(x)

    model = Operations()
    model(torch.zeros(1, 3, 8, 8))
    dataset = patterns()
    run = sepnet.train(model, dataset, Recipe(epochs=1, batch_size=50), precision="fp32", out=tmp_path, name="run")
    loaded = keras.models.load_model(sepnet.export_run(run, network=model))
    np.testing.assert_allclose(keras_output(loaded, dataset.test.images.float()), run.logits()[0].numpy(), atol=1e-4)
    assert loaded.output_shape == (None, len(CLASSES))


# Files.


def test_an_earlier_export_is_replaced_and_anothers_file_is_not(trained: Run, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "model.keras"
    sepnet.export_run(trained, out=file)
    assert "replacing" not in capsys.readouterr().err
    sepnet.export_run(trained, out=file)
    assert f"replacing {file}" in capsys.readouterr().err
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(file)
    before = file.read_bytes()
    with pytest.raises(SepnetError, match="exists and is not sepnet's"):
        sepnet.export_run(trained, out=file)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("model.h5", "does not end in .keras"), ("nowhere/model.keras", "folder '.*nowhere' does not exist")],
)
def test_a_name_that_cannot_be_is_refused(trained: Run, tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(SepnetError, match=reason):
        sepnet.export_run(trained, out=tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_is_not_replaced_nor_waited_for(trained: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.keras")
    with pytest.raises(SepnetError, match="exists and is not sepnet's"):
        sepnet.export_run(trained, out=tmp_path / "model.keras")


def test_a_clock_before_the_first_date_of_a_zip_archive(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = time.gmtime(86_400)
    monkeypatch.setattr(time, "localtime", lambda *_: early)
    with pytest.raises(SepnetError, match=r"clock says 1970.*set the clock"):
        sepnet.export_run(trained, out=tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


def test_a_system_that_refuses_leaves_nothing_behind(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(SepnetError, match="could not be written: No space left on device"):
        sepnet.export_run(trained, out=tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


def test_without_keras_the_listing_is_there_and_the_file_is_not(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    assert "SeparableConv2D" in sepnet.keras_definition("champion")
    with pytest.raises(SepnetError, match=r"install it with `\S+ -m pip install keras`"):
        sepnet.export_run(trained, out=tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


def test_an_unfinished_run_is_refused(trained: Run, tmp_path: Path) -> None:
    run = Run.create(tmp_path, "unfinished", trained.config)
    with pytest.raises(SepnetError, match="unfinished"):
        sepnet.export_run(run)
    assert [path.name for path in run.path.iterdir()] == ["config.toml"]


def test_an_unknown_format_is_refused(trained: Run) -> None:
    with pytest.raises(SepnetError, match="unknown format 'tflight': expected keras, onnx"):
        sepnet.export_run(trained, "tflight")


# The command line.


def test_the_command_prints_the_path_alone(trained: Run, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "model.keras"
    assert command(["export", "--trust", str(trained.path), "--format", "keras", "--out", str(file)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{file}\n"
    assert "pixels 0 to 255" in printed.err
    assert keras.models.load_model(file).output_shape == (None, 10)


@pytest.mark.slow
def test_the_backend_is_pytorch_unless_chosen(trained: Run, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    arguments = ["export", "--trust", str(trained.path), "--out", str(tmp_path / "model.keras")]
    done = subprocess.run(
        [sys.executable, "-m", "sepnet", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'model.keras'}\n")
    assert "Traceback" not in done.stderr


def test_no_such_run_is_a_mistake(capsys: Captured) -> None:
    assert command(["export", "nosuch"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "'nosuch'" in printed.err


def test_summary_as_keras_prints_the_definition(capsys: Captured) -> None:
    assert command(["summary", "base", "--format", "keras", "--image-size", "48x40", "--classes", "3"]) == 0
    assert capsys.readouterr().out == sepnet.keras_definition("base", image_shape=(3, 48, 40), classes=3)
