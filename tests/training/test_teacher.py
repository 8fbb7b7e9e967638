"""Distillation: the loss against its definition, teachers that are refused, and resumption."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sepnet
from sepnet.cli.app import run as command
from sepnet.errors import SepnetError
from sepnet.inference.classifier import Classifier
from sepnet.recipes.recipe import Recipe
from sepnet.runs import Run
from sepnet.training import experiment
from sepnet.training.interrupts import Paused
from sepnet.training.teacher import Teacher, distillation_loss
from tests.cli_support import Captured, prepare
from tests.training.support import patterns

TINY = "champion(widths=[8, 8, 8], blocks=[1, 1, 1], stem_filters=2)"
RECIPE = Recipe(epochs=6, batch_size=25, lr=0.1, first_size=0.5, crop=1, flip="random", norm_momentum=0.5)
pytestmark = pytest.mark.usefixtures("pytorch_alone")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two trained runs of one network, the second on pixels that are normalized otherwise."""
    out = tmp_path_factory.mktemp("teachers")
    recipes = (RECIPE, replace(RECIPE, normalize="unit"))
    return [
        sepnet.train(TINY, patterns(), recipe, precision="fp32", device="cpu", seed=seed, out=out)
        for seed, recipe in enumerate(recipes)
    ]


def test_the_loss_is_the_divergence_times_the_square_of_the_temperature() -> None:
    logits, taught = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p, q = ((values / 3).softmax(1) for values in (taught, logits))
    expected = 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(logits, taught, 3), expected)
    assert distillation_loss(taught, taught, 3) == pytest.approx(0, abs=1e-12)


def test_a_teacher_answers_as_its_runs_do(teachers: list[Run]) -> None:
    dataset, student = patterns(), teachers[0].config
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (student.mean, student.std))
    found = Teacher(teachers, student)((dataset.test.images / 255 - mean) / std)
    expected = torch.stack([Classifier(run).logits(dataset.test.images) for run in teachers])
    torch.testing.assert_close(found, expected.mean(0), rtol=1e-3, atol=1e-4)
    assert not found.is_inference()


def test_a_student_of_the_teacher_alone_comes_near_to_it(teachers: list[Run], tmp_path: Path) -> None:
    wrong = replace(patterns(), train=replace(patterns().train, labels=(patterns().train.labels + 1) % 3))
    recipe = replace(RECIPE, distillation=1.0, first_size=1.0)
    run = sepnet.train(TINY, wrong, recipe, precision="fp32", device="cpu", teacher=teachers[0], out=tmp_path)
    assert run.result["final_accuracy"] > 0.9, "labels of the training images are wrong, the teacher is right"
    assert run.config.teachers == (str(teachers[0].path),)


def test_a_student_goes_on_with_its_teachers_to_the_same_weights(teachers: list[Run], tmp_path: Path) -> None:
    whole = sepnet.train(TINY, patterns(), RECIPE, precision="fp32", device="cpu", teacher=teachers, out=tmp_path)
    paths = [str(run.path) for run in teachers]
    job = experiment.prepare(TINY, patterns(), RECIPE, precision="fp32", device="cpu", teachers=paths)
    broken = Run.create(tmp_path, "broken", job.config)
    with pytest.raises(Paused):
        experiment.train_run(job, broken, pause=lambda epochs: epochs == 2)
    resumed = sepnet.train(TINY, patterns(), name="broken", out=tmp_path, resume=True)
    assert whole.config.teacher_weights
    assert all(torch.equal(a, resumed.weights()[name]) for name, a in whole.weights().items())
    with pytest.raises(SepnetError, match="it had other teachers"):
        sepnet.train(TINY, patterns(), name="broken", out=tmp_path, resume=True, teacher=teachers[1])


def test_a_teacher_that_has_seen_held_out_images_is_refused(teachers: list[Run], tmp_path: Path) -> None:
    with pytest.raises(SepnetError, match="may have been trained on images that are held out here"):
        sepnet.train(TINY, patterns(), RECIPE, validation="holdout", teacher=teachers[0], out=tmp_path)
    fitting = sepnet.train(TINY, patterns(), replace(RECIPE, epochs=1), validation="holdout", out=tmp_path)
    student = sepnet.train(
        TINY, patterns(), replace(RECIPE, epochs=1), validation="holdout", teacher=fitting, seed=1, out=tmp_path
    )
    assert student.finished


def test_a_teacher_of_other_classes_is_refused(teachers: list[Run], tmp_path: Path) -> None:
    other = replace(patterns(), classes=("a", "b", "c"))
    with pytest.raises(SepnetError, match=r"has classes \('dark', 'light', 'striped'\), expected \('a', 'b', 'c'\)"):
        sepnet.train(TINY, other, RECIPE, teacher=teachers[0], out=tmp_path)


def test_mistakes_of_the_command_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    assert command(["train", "net.py:small", "--recipe", "quick.toml", "--teacher", "nobody"]) == 2
    assert capsys.readouterr().err.startswith("sepnet: error: 'nobody' is neither a run's folder nor a network")
    assert not Path("runs").exists()
