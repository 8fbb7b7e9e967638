"""``sepnet bench``: what it tells, that its figures fit each other, and that it leaves everything as it was."""

import copy
import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sepnet
from sepnet.cli.app import run
from sepnet.errors import SepnetError
from sepnet.recipes.recipe import Recipe
from sepnet.speed.synthetic_data import batches, random_dataset, training_step
from sepnet.speed.throughput import Speed, Timing
from tests.cli_support import Captured, prepare, run_json

BENCH = "bench net.py:small --images 300 --device cpu --seconds 0.02"
PAUSE = 0.02


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder with a user's networks in ``net.py``."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    return tmp_path


class Slow(nn.Module):
    """A network whose every forward pass takes at least :data:`PAUSE` seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.isfinite().all()):  # a question that no tracing can answer beforehand
            time.sleep(PAUSE)
        logits: Tensor = self.dense(x.mean((2, 3)))
        return logits


def _measured() -> Speed:
    return sepnet.bench(Slow(), training_images=300, validation_images=40, seconds=0.1, device="cpu", precision="fp32")


@pytest.mark.slow
def test_json_has_every_figure_and_they_fit_each_other(capsys: Captured) -> None:
    options = "--epochs 3 --batch-size 50 --validation-images 700 --precision fp32"
    speed = run_json(f"{BENCH} {options}", capsys)
    assert (speed["network"], speed["image_shape"]) == ("net.py:small", [3, 32, 32])
    assert (speed["recipe"], speed["epochs"], speed["batch_size"]) == ("champion", 3, 50)
    assert (speed["training_images"], speed["validation_images"], speed["validation_batch"]) == (300, 700, 500)
    assert (speed["device"], speed["precision"], speed["gpu"]) == ("cpu", "fp32", None)
    assert speed["threads"] == torch.get_num_threads()
    assert speed["processor"]
    assert speed["computed_by"]
    assert speed["images_per_second"] == pytest.approx(50 / speed["step_seconds"]["median"])
    assert speed["validation_images_per_second"] == pytest.approx(500 / speed["validation_batch_seconds"]["median"])
    assert speed["loading_share"] == pytest.approx(speed["loading_seconds"]["median"] / speed["step_seconds"]["median"])
    seconds = 300 / speed["images_per_second"] + 700 / speed["validation_images_per_second"]
    assert speed["epoch_training_seconds"] + speed["epoch_validation_seconds"] == pytest.approx(seconds)
    assert speed["recipe_seconds"] == pytest.approx(3 * seconds)
    for name in ("step_seconds", "loading_seconds", "validation_batch_seconds"):
        timing = speed[name]
        assert 0 < timing["lower"] <= timing["median"] <= timing["upper"]
        assert timing["count"] >= 3


def test_text_is_narrow_and_the_notice_stays_off_it(capsys: Captured) -> None:
    assert run([*BENCH.split(), "--recipe", "published"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "net.py:small, random images 3×32×32, batch 128"
    assert max(map(len, lines)) <= 80
    assert "50 epochs by recipe published" in captured.out
    assert captured.err == "training net.py:small on random images for about 0.02 s\n"


@pytest.mark.slow
def test_long_names_keep_the_text_narrow() -> None:
    speed = replace(_measured(), processor="a long name " * 20, recipe="of my own " * 20, training_images=10**12)
    assert max(map(len, str(speed).splitlines())) <= 80


class Watched(Slow):
    """A network that notes the sides of the images it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: set[int] = set()
        self.turns = 0
        """How often the sides were others than the time before."""
        self.last = 0

    def __deepcopy__(self, memo: object) -> "Watched":
        return self  # so that the test sees what the copy that is trained has seen

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.turns += x.shape[-1] != self.last
            self.last = x.shape[-1]
            self.sides.add(self.last)
        return super().forward(x)


@pytest.mark.slow
def test_growing_images_count_by_their_steps() -> None:
    recipe = Recipe(epochs=4, batch_size=10, first_size=0.5, grown=0.5)
    network = Watched()
    speed = sepnet.bench(
        network, recipe, training_images=200, validation_images=40, seconds=0.5, device="cpu", precision="fp32"
    )
    shares = {steps.size: steps.share for steps in speed.steps}
    assert shares == {0.5: 0.125, 0.625: 0.125, 0.75: 0.125, 0.875: 0.125, 1.0: 0.5}
    assert network.sides == {16, 20, 24, 28, 32}
    assert all(steps.seconds.median >= PAUSE for steps in speed.steps)
    assert network.turns <= 2 * len(network.sides), "a size after the other, so that its steps are repeated ones"
    mean = sum(steps.share * steps.seconds.median for steps in speed.steps)
    assert speed.mean_step_seconds == pytest.approx(mean)
    assert speed.recipe_seconds == pytest.approx(4 * (20 * mean + speed.epoch_validation_seconds))
    assert "ms at 0.5 of the images' height and width" in " ".join(str(speed).split())


@pytest.mark.slow
def test_a_network_is_no_faster_than_it_can_be() -> None:
    speed = _measured()
    assert speed.images_per_second <= 128 / PAUSE
    assert speed.validation_images_per_second <= 40 / PAUSE


@pytest.mark.slow
def test_other_images_and_classes(capsys: Captured) -> None:
    images = "--image-size 8x12 --channels 1 --classes 4 --images 16 --validation-images 16"
    speed = run_json(f"bench resnet8 {images} --seconds 0.01", capsys)
    assert speed["image_shape"] == [1, 8, 12]
    assert speed["recipe"] == "published"
    assert speed["batch_size"] == 16, "a batch has no more images than there are"


@pytest.mark.slow
def test_the_module_and_the_random_numbers_stay_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(10))
    model(torch.zeros(2, 3, 32, 32))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    sepnet.bench(model, training_images=64, validation_images=8, seconds=0.01, device="cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_timing_is_median_and_quartiles() -> None:
    assert Timing.of([5, 1, 4, 2, 3]) == Timing(median=3, lower=2, upper=4, count=5)


def test_batches_are_full_and_begin_again_after_the_last_epoch() -> None:
    dataset = random_dataset((3, 8, 8), 5, 10, 4)
    recipe = Recipe(batch_size=4, epochs=2)
    step = training_step(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), dataset, recipe, device="cpu", precision="fp32"
    )
    taken = list(itertools.islice(batches(step), 6))
    assert [(epoch, number) for _, epoch, number in taken] == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1)]
    assert len({*taken[0][0].tolist(), *taken[1][0].tolist()}) == 8
    assert not torch.equal(taken[0][0], taken[2][0])
    assert torch.equal(taken[0][0], taken[4][0])


def test_random_images_use_the_whole_range_and_a_bounded_memory() -> None:
    dataset = random_dataset((3, 128, 128), 7, 50_000, 10)
    assert dataset.train.images.nbytes <= 2**28
    assert len(dataset.test) == 10
    assert dataset.test.images.unique().tolist() == list(range(256))
    assert dataset.train.labels.unique().tolist() == list(range(7))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bench champoin", "did you mean 'champion'"),
        ("bench net.py:misfit", "does not take the images of random, 3×32×32"),
        ("bench net.py:small --seconds 0", "seconds is 0.0"),
        ("bench net.py:small --seconds nan", "seconds is nan"),
        ("bench net.py:small --seconds long", "--seconds"),
        ("bench net.py:small --images 0", "images"),
        ("bench net.py:small --batch-size 0", "batch_size is 0"),
        ("bench net.py:small --epochs -1", "epochs is -1"),
        ("bench net.py:small --image-size 3x", "image size '3x'"),
        ("bench net.py:small --recipe chmpion", "unknown recipe 'chmpion'"),
        ("bench net.py:small --precision fp8", "precision is 'fp8'"),
        ("bench net.py:small --device abacus", "device is 'abacus'"),
        ("bench net.py:small extra", "extra"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments: str, message: str, capsys: Captured) -> None:
    assert run(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sepnet: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_a_number_below_1_is_named_from_python_too() -> None:
    with pytest.raises(SepnetError, match="classes is 0"):
        sepnet.bench("base", classes=0)
    with pytest.raises(SepnetError, match="validation images: -1"):
        sepnet.bench("base", validation_images=-1)
    with pytest.raises(SepnetError, match=r"image_shape is \(3, 8, 0\)"):
        sepnet.bench("base", image_shape=(3, 8, 0))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_an_interruption_leaves_quietly() -> None:
    command = [sys.executable, "-m", "sepnet", *BENCH.split(), "--seconds", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("training net.py:small")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "sepnet: interrupted\n")
