"""What happens to networks and runs around a training: their weights, their identity, their mistakes."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sepnet
from sepnet.errors import SepnetError
from sepnet.networks import build, fingerprint
from sepnet.recipes.recipe import Recipe, load_recipe
from sepnet.runs import Run
from sepnet.training import experiment
from sepnet.training.initialization import pixel_statistics
from tests.training.support import CLASSES, patterns, tiny

pytestmark = pytest.mark.usefixtures("pytorch_alone")

RECIPE = Recipe(name="test", epochs=1, batch_size=50, lr=0.1)


def test_a_given_module_keeps_its_weights_whatever_the_initializer() -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    experiment.prepare(model, patterns(), "published")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_function_is_given_the_classes_and_the_image_shape() -> None:
    def flat(*, classes: int, image_shape: tuple[int, int, int], width: int = 4) -> nn.Module:
        pixels = image_shape[0] * image_shape[1] * image_shape[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.Linear(width, classes))

    job = experiment.prepare(partial(flat, width=7), patterns(), RECIPE)
    model = experiment.build_network(job.network, job.dataset, RECIPE, 0)
    assert model(torch.zeros(5, 3, 8, 8)).shape == (5, len(CLASSES))


ACTIVATED = """
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    {documentation}
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return F.{activation}(self.layer(x))  # {comment}
"""


def test_the_fingerprint_sees_what_a_forward_does_but_no_docstring(tmp_path: Path) -> None:
    def made(activation: str, documentation: str = "pass", comment: str = "") -> str:
        file = tmp_path / "net.py"
        code = ACTIVATED.format(activation=activation, documentation=documentation, comment=comment)
        file.write_text(code.replace("    pass\n", ""))
        return fingerprint(build(f"{file}:Net"))

    assert made("relu") == made("relu", documentation="'A network.'", comment="what it does")
    assert made("relu") != made("gelu")


def test_the_fingerprint_sees_inherited_code_and_neighbour_files(tmp_path: Path) -> None:
    def made(activation: str) -> str:
        (tmp_path / "parts.py").write_text(ACTIVATED.format(activation=activation, documentation="", comment=""))
        file = tmp_path / "net.py"
        file.write_text("import parts\nclass Net(parts.Net):\n    pass\n")
        return fingerprint(build(f"{file}:Net"))

    assert made("relu") == made("relu")
    assert made("relu") != made("gelu")


@pytest.mark.slow
def test_runs_of_other_images_weights_or_lengths_are_not_taken_up(tmp_path: Path) -> None:
    def found(network: experiment.Network, data: sepnet.Dataset, **options: Any) -> Run | None:
        return Run.find(tmp_path, experiment.prepare(network, data, RECIPE, precision="fp32", **options).config)

    sepnet.train(tiny, patterns(), RECIPE, out=tmp_path, precision="fp32", name="run")
    assert found(tiny, patterns()) is not None
    assert found(tiny, patterns(seed=1)) is None
    assert found(tiny(), patterns()) is None
    sepnet.train(tiny, patterns(), out=tmp_path, name="run", resume=True, epochs=2)
    assert found(tiny, patterns(), epochs=2) is None


@pytest.mark.slow
def test_what_the_machine_chose_does_not_tell_runs_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run made elsewhere: its pixels' mean differs in the last digits, and `auto` was another precision there."""
    mean, std = pixel_statistics(patterns().train.images, RECIPE)
    elsewhere = tuple(value * (1 + 1e-15) for value in mean)
    with monkeypatch.context() as patched:
        patched.setattr("sepnet.training.experiment.pixel_statistics", lambda *_: (elsewhere, std))
        run = sepnet.train(tiny, patterns(), RECIPE, out=tmp_path, precision="bf16", device="cpu")
    assert run.config.mean == elsewhere != tuple(mean)
    for asked, found in (("auto", True), ("bf16", True), ("fp32", False)):
        job = experiment.prepare(tiny, patterns(), RECIPE, precision=asked)
        job = replace(job, config=replace(job.config, precision="fp32" if asked == "auto" else asked))
        assert (Run.find(tmp_path, job.config, auto=job.auto) is not None) == found
    resumed = sepnet.train(tiny, patterns(), out=tmp_path, resume=True, epochs=2)
    assert (resumed.path, resumed.config.mean, resumed.config.precision) == (run.path, elsewhere, "bf16")
    with pytest.raises(SepnetError, match="it has precision 'bf16', this would have 'fp32'"):
        sepnet.train(tiny, patterns(), out=tmp_path, resume=True, precision="fp32")


def test_a_network_that_fails_only_in_training_is_refused(tmp_path: Path) -> None:
    def normed() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.BatchNorm1d(3))

    with pytest.raises(SepnetError, match="in training, with a last batch of 1: Expected more than 1 value"):
        sepnet.train(normed, patterns(), RECIPE, batch_size=149, out=tmp_path)


def test_a_network_that_does_not_take_the_first_smaller_images_is_refused(tmp_path: Path) -> None:
    def flat() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, len(CLASSES)))

    with pytest.raises(SepnetError, match=r"does not take the images of patterns, 3×4×4, in training"):
        sepnet.train(flat, patterns(), replace(RECIPE, first_size=0.5), out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_images_keep_their_size_for_a_network_that_takes_no_smaller_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def flat() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, len(CLASSES)))

    with pytest.raises(SepnetError, match="3×4×4, in training"):
        sepnet.train(flat, patterns(), settings={"first_size": 0.5}, epochs=1, out=tmp_path)
    run = sepnet.train(flat, patterns(), epochs=1, out=tmp_path)
    assert run.config.recipe.first_size == 1
    assert "flat does not accept smaller inputs; progressive resizing is off" in capsys.readouterr().err
    run = sepnet.train(lambda: nn.Sequential(nn.AdaptiveAvgPool2d(8), flat()), patterns(), epochs=1, out=tmp_path)
    assert run.config.recipe.first_size == load_recipe("champion").first_size


@pytest.mark.slow
def test_another_comparison_does_not_replace_a_verdict(tmp_path: Path) -> None:
    def other() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, len(CLASSES)))

    first, second, again = (sepnet.compare(other, tiny, patterns(), epochs=n, out=tmp_path) for n in (1, 2, 1))
    assert first.path != second.path
    assert first.path == again.path


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), r"gives \(2, 5\) .*expected \(2, 3\)"),
        (lambda: nn.Linear(9, 3), "does not take the images of patterns, 3×8×8"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_a_folder_is_made(
    tmp_path: Path, network: experiment.Network, message: str
) -> None:
    with pytest.raises(SepnetError, match=message):
        sepnet.train(network, patterns(), RECIPE, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/", ""])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    config = experiment.prepare(tiny, patterns(), RECIPE).config
    with pytest.raises(SepnetError, match="is not a folder name"):
        Run.create(tmp_path, name, config)
    assert not list(tmp_path.iterdir())


def test_a_link_to_nowhere_is_no_place_for_runs(tmp_path: Path) -> None:
    link = tmp_path / "runs"
    link.symlink_to(tmp_path / "absent")
    with pytest.raises(SepnetError, match="could not be made"):
        sepnet.train(tiny, patterns(), RECIPE, out=link)


@pytest.mark.slow
def test_a_comparison_takes_up_its_runs_and_passes_over_broken_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def other() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, len(CLASSES)))

    first = sepnet.compare(other, tiny, patterns(), epochs=1, out=tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.toml").write_bytes(b"\xff\xfe")
    capsys.readouterr()
    again = sepnet.compare(other, tiny, patterns(), epochs=1, out=tmp_path)
    notices = capsys.readouterr().err
    assert notices.count("reusing the finished run") == 2
    assert f"skipping {broken}" in notices
    assert again.to_dict() == first.to_dict()
    assert "by the assignment: tiny" in str(again)


@pytest.mark.slow
def test_several_seeds_are_trained_and_judged_by_welch(tmp_path: Path) -> None:
    def other() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, len(CLASSES)))

    comparison = sepnet.compare(other, tiny, patterns(), epochs=1, seeds=2, out=tmp_path)
    assert comparison.to_dict()["verdict"]["by_statistics"]["test"] == "welch"
    assert [run.config.seed for run in comparison.base.runs] == [0, 1]
    assert len({run.weights()["1.weight"].sum().item() for run in comparison.base.runs}) == 2


@pytest.mark.slow
def test_load_refuses_what_is_not_finished_or_has_changed(tmp_path: Path) -> None:
    run = sepnet.train(tiny, patterns(), RECIPE, out=tmp_path)
    with pytest.raises(SepnetError, match="'tiny', was created in a Python session: pass it as network=…"):
        sepnet.load(run.path)
    with pytest.raises(SepnetError, match="has changed since"):
        sepnet.load(run, nn.Linear(2, 2))
    (run.path / "manifest.json").unlink()
    with pytest.raises(SepnetError, match=r"is not finished, without manifest\.json, .* 1 of 1 epochs are done"):
        sepnet.load(run, tiny())
