"""Evaluation: its figures against formulas written otherwise, and a run's own figures come out again."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import nn

import sepnet
from sepnet.cli.app import run as command
from sepnet.data import sample
from sepnet.errors import SepnetError
from sepnet.inference import classifier
from sepnet.inference.evaluation import Evaluation, evaluate_logits
from sepnet.networks import shipped
from sepnet.recipes.recipe import Recipe
from sepnet.runs import Run
from sepnet.training.trained_network import find_run
from tests.cli_support import train_small
from tests.data.picture_support import fill
from tests.training.support import CLASSES, patterns, tiny, unseal

pytestmark = pytest.mark.usefixtures("pytorch_alone")

RECIPE = Recipe(name="test", epochs=2, batch_size=50, lr=0.1)
CHAMPION = Path(__file__).parents[2] / "results" / "champion-cifar10"
Captured = pytest.CaptureFixture[str]


def _random(images: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    return 3 * torch.randn(images, classes, generator=generator), labels


def _names(classes: int) -> list[str]:
    return [f"class {place}" for place in range(classes)]


# The figures.


@pytest.mark.parametrize(("images", "classes"), [(1, 1), (7, 2), (1000, 10), (313, 100)])
def test_the_figures_are_those_of_formulas_written_otherwise(images: int, classes: int) -> None:
    logits, labels = _random(images, classes, seed=images)
    evaluation = evaluate_logits(logits, labels, _names(classes))
    scores, truth = logits.numpy().astype(np.float64), labels.numpy()
    answers = np.argmax(scores, axis=1)

    assert evaluation.images == images
    assert evaluation.accuracy == np.mean(answers == truth)
    assert evaluation.loss == pytest.approx(np.mean(logsumexp(scores, axis=1) - scores[np.arange(images), truth]))
    confusion = np.zeros((classes, classes), dtype=int)
    np.add.at(confusion, (truth, answers), 1)
    assert evaluation.confusion == tuple(map(tuple, confusion.tolist()))
    for place, score in enumerate(evaluation.per_class):
        members, named = truth == place, answers == place
        assert score.images == members.sum()
        assert score.recall == (np.mean(answers[members] == place) if members.any() else None)
        assert score.precision == (np.mean(truth[named] == place) if named.any() else None)


def test_the_calibration_error_is_that_of_guo_et_al() -> None:
    logits, labels = _random(2000, 4, seed=0)
    calibration = evaluate_logits(logits, labels, _names(4)).calibration
    scores = logits.numpy().astype(np.float64)
    confidence = np.exp(scores.max(axis=1) - logsumexp(scores, axis=1))
    right = scores.argmax(axis=1) == labels.numpy()
    error = 0.0
    assert len(calibration.bins) == 15
    for place, found in enumerate(calibration.bins):
        inside = (confidence > place / 15) & (confidence <= (place + 1) / 15)
        assert (found.low, found.high, found.images) == (place / 15, (place + 1) / 15, inside.sum())
        if not inside.any():
            assert found.confidence is None
            assert found.accuracy is None
            continue
        assert found.confidence == pytest.approx(confidence[inside].mean())
        assert found.accuracy == pytest.approx(right[inside].mean())
        error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration.error == pytest.approx(error)


def _with_confidence(shares: list[tuple[float, int, int]]) -> Evaluation:
    """Evaluate answers of two classes: (confidence, images, right ones) for each group."""
    logits = torch.tensor([[math.log(p / (1 - p)), 0.0] for p, count, _ in shares for _ in range(count)])
    labels = torch.tensor([int(place >= right) for _, count, right in shares for place in range(count)])
    return evaluate_logits(logits.double(), labels, ["yes", "no"])


def test_answers_as_often_right_as_they_are_confident_have_no_calibration_error() -> None:
    evaluation = _with_confidence([(0.55, 100, 55), (0.7, 10, 7), (0.9, 50, 45), (0.99, 100, 99)])
    assert evaluation.calibration.error == pytest.approx(0, abs=1e-7)
    assert _with_confidence([(0.9, 10, 6)]).calibration.error == pytest.approx(0.3)


def test_sure_and_always_wrong_is_the_worst_calibration() -> None:
    evaluation = evaluate_logits(torch.tensor([[1e4, 0.0]] * 3), torch.tensor([1, 1, 1]), ["yes", "no"])
    assert evaluation.calibration.error == 1.0
    assert evaluation.accuracy == 0.0


def test_a_confidence_on_the_edge_belongs_to_the_bin_below() -> None:
    bins = evaluate_logits(torch.zeros(6, 3), torch.tensor([0, 1, 2] * 2), _names(3)).calibration.bins
    assert [place for place, found in enumerate(bins) if found.images] == [4]  # 1/3 is 5/15: (4/15, 5/15]


def test_of_equal_logits_the_first_class_is_the_answer() -> None:
    evaluation = evaluate_logits(torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]]), torch.tensor([1, 1]), _names(3))
    assert evaluation.confusion == ((0, 0, 0), (1, 1, 0), (0, 0, 0))


def test_a_class_without_images_has_no_recall_and_one_never_named_no_precision() -> None:
    evaluation = evaluate_logits(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([2]), _names(3))
    assert [score.recall for score in evaluation.per_class] == [None, None, 0.0]
    assert [score.precision for score in evaluation.per_class] == [None, 0.0, None]
    assert json.loads(json.dumps(evaluation.to_dict()))["per_class"][0]["recall"] is None


@pytest.mark.parametrize(("right", "images"), [(8901, 10_000), (0, 5), (5, 5), (1, 3)])
def test_the_interval_is_wilsons(right: int, images: int) -> None:
    labels = (torch.arange(images) >= right).long()
    evaluation = evaluate_logits(torch.tensor([[1.0, 0.0]] * images), labels, ["yes", "no"])
    z, p = 1.959963984540054, right / images
    middle = (p + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * math.sqrt(p * (1 - p) / images + z**2 / (4 * images**2))
    assert evaluation.interval == pytest.approx((middle - half, middle + half))


@given(images=st.integers(1, 60), classes=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_the_figures_agree_among_themselves(images: int, classes: int, seed: int) -> None:
    logits, labels = _random(images, classes, seed)
    evaluation = evaluate_logits(logits, labels, _names(classes))
    confusion = np.array(evaluation.confusion)
    assert confusion.sum() == images
    assert confusion.sum(axis=1).tolist() == np.bincount(labels.numpy(), minlength=classes).tolist()
    assert evaluation.accuracy == np.trace(confusion) / images
    weighted = [score.recall * score.images for score in evaluation.per_class if score.recall is not None]
    assert sum(weighted) / images == pytest.approx(evaluation.accuracy)
    assert evaluation.loss >= 0
    calibration = evaluation.calibration
    assert 0 <= calibration.error <= 1
    assert sum(found.images for found in calibration.bins) == images
    low, high = evaluation.interval
    assert -1e-12 <= low <= evaluation.accuracy + 1e-12
    assert evaluation.accuracy - 1e-12 <= high <= 1 + 1e-12
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    assert evaluate_logits(logits[order], labels[order], _names(classes)).confusion == evaluation.confusion


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), r"shape \(0, 3\) for 0 labels"),
        (torch.zeros(2, 4), torch.zeros(2, dtype=torch.long), r"expected \(2, 3\)"),
        (torch.zeros(3, 3), torch.zeros(2, dtype=torch.long), r"expected \(2, 3\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "labels run from 0 to 3: expected 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), "labels run from -1 to 0"),
        (torch.tensor([[0.0, math.nan, 0.0]]), torch.tensor([0]), "not all finite"),
    ],
)
def test_what_does_not_fit_is_refused(logits: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(SepnetError, match=message):
        evaluate_logits(logits, labels, _names(3))


# The text.


def test_the_text_shows_every_figure_of_ten_classes_in_80_columns() -> None:
    recorded = Run.open(CHAMPION)
    logits, labels = recorded.logits()
    text = str(evaluate_logits(logits, labels, recorded.config.classes))
    assert max(map(len, text.splitlines())) <= 80
    assert f"{100 * recorded.result['final_accuracy']:.2f} % of 10,000 images" in text
    counts = torch.bincount(logits[labels == recorded.config.classes.index("cat")].argmax(1), minlength=10).tolist()
    assert ["cat", *map(str, counts)] in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("classes", [3, 10, 30, 200])
def test_the_text_fits_whatever_the_classes_are_called(classes: int) -> None:
    logits, labels = _random(5000, classes, seed=1)
    for name in ("{}", "class number {}", "{} of a very long name with many words in it"):
        names = [name.format(place) for place in range(classes)]
        text = str(evaluate_logits(logits, labels, names))
        assert max(map(len, text.splitlines())) <= 80
        assert ("most frequent confusions" in text) == (classes >= 30)


def test_columns_of_names_that_begin_alike_are_numbered() -> None:
    logits, labels = _random(100, 10, seed=1)
    lines = str(evaluate_logits(logits, labels, [f"category {place}" for place in range(10)])).splitlines()
    heading = lines.index("confusion matrix: true class (rows), predicted class (columns)") + 1
    assert lines[heading].split() == [str(place) for place in range(1, 11)]


# Trained runs.


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("validation", ["test", "holdout"])
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_run_evaluated_on_its_own_images_has_its_own_figures(
    tmp_path: Path, precision: str, validation: str, average: float, capsys: Captured
) -> None:
    run = sepnet.train(
        tiny,
        patterns(),
        replace(RECIPE, average=average),
        precision=precision,
        validation=validation,
        out=tmp_path,
        device="cpu",
    )
    capsys.readouterr()
    evaluation = sepnet.evaluate(run, patterns(), network=tiny())
    assert evaluation.accuracy == run.result["final_accuracy"]
    assert evaluation.loss == pytest.approx(run.history[-1].val_loss, rel=1e-6)
    assert evaluation.to_dict() | evaluate_logits(*run.logits(), CLASSES).to_dict() == evaluation.to_dict()
    assert (evaluation.validation, evaluation.data) == (validation, "patterns")
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_more_images_than_a_batch_are_all_evaluated(tmp_path: Path) -> None:
    data = patterns(test=1001)
    run = sepnet.train(tiny, data, RECIPE, precision="fp32", out=tmp_path, device="cpu")
    evaluation = sepnet.evaluate(run, data, network=tiny())
    assert evaluation.images == 1001
    assert evaluation.accuracy == run.result["final_accuracy"]


@pytest.mark.slow
def test_other_images_are_said_to_be_others(tmp_path: Path, capsys: Captured) -> None:
    run = sepnet.train(tiny, patterns(), RECIPE, precision="fp32", out=tmp_path, device="cpu")

    def said(data: sepnet.Dataset, **options: Any) -> str:
        capsys.readouterr()
        sepnet.evaluate(run, data, network=tiny(), **options)
        return capsys.readouterr().err

    assert "has changed since run" in said(patterns(seed=1))
    assert "trained on patterns and is evaluated on others" in said(replace(patterns(), name="others"))
    assert "trained with no images held out" in said(patterns(), validation="holdout")
    held_out = sepnet.train(tiny, patterns(), RECIPE, validation="holdout", out=tmp_path, device="cpu")
    capsys.readouterr()
    assert sepnet.evaluate(held_out, patterns(), network=tiny(), validation="test").images == 60
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: replace(data, classes=("light", "dark", "striped")), "light, dark, striped, those of run"),
        (lambda data: replace(data, train=_cropped(data.train), test=_cropped(data.test)), "3×8×7, run .* takes 3×8×8"),
    ],
)
def test_images_of_another_kind_are_refused(
    tmp_path: Path, change: Callable[[sepnet.Dataset], sepnet.Dataset], message: str
) -> None:
    run = sepnet.train(tiny, patterns(), RECIPE, out=tmp_path, device="cpu")
    with pytest.raises(SepnetError, match=message):
        sepnet.evaluate(run, change(patterns()), network=tiny())


def _cropped(split: sepnet.Split) -> sepnet.Split:
    return sepnet.Split(images=split.images[..., :-1], labels=split.labels)


@pytest.mark.slow
def test_a_dataset_that_has_no_name_has_to_be_given(tmp_path: Path) -> None:
    run = sepnet.train(tiny, patterns(), RECIPE, out=tmp_path, device="cpu")
    with pytest.raises(SepnetError, match="was scored on cannot be loaded: unknown dataset 'patterns'"):
        sepnet.evaluate(run, network=tiny())


@pytest.mark.slow
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    def other() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(192, len(CLASSES)))

    run, stranger = (sepnet.train(make, patterns(), RECIPE, out=tmp_path) for make in (tiny, other))
    unseal(run.path)
    shutil.copy(stranger.path / "weights.safetensors", run.path)
    with pytest.raises(SepnetError, match="it belongs to another network"):
        sepnet.evaluate(run, patterns(), network=tiny())


@pytest.mark.slow
def test_the_committed_champion_answers_on_the_sample_as_it_did_in_its_validation(capsys: Captured) -> None:
    run = Run.open(CHAMPION)
    indices = torch.tensor(sample.sheet("test").indices)  # of CIFAR-10's test images
    evaluation = sepnet.evaluate(CHAMPION, "sample")
    assert evaluation.images == len(indices)
    # Another processor may round otherwise; three of 500 images is more than that does.
    assert evaluation.accuracy == pytest.approx(run.correct()[indices].double().mean().item(), abs=0.006)
    assert "trained on cifar10 and is evaluated on sample" in capsys.readouterr().err


def test_mirrored_views_are_the_mean_of_both() -> None:
    seen = []

    class Halves:
        """Scores by how bright the left half is."""

        def logits(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            return images[..., :4].float().mean((1, 2, 3))[:, None] * torch.tensor([1.0, -1.0])

    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[0, ..., :4] = 200
    images[1, ..., 4:] = 100
    model: Any = Halves()
    torch.testing.assert_close(
        classifier.answers(model, images, mirrored=True), torch.tensor([[100.0, -100], [50, -50]])
    )
    assert len(seen) == 2
    torch.testing.assert_close(classifier.answers(model, images), torch.tensor([[200.0, -200], [0, 0]]))


# Shipped weights.


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in which no weights are shipped yet."""
    folder = tmp_path / "weights"
    monkeypatch.setattr(shipped, "WEIGHTS", folder)
    return folder


def test_a_name_means_the_shipped_weights(weights: Path) -> None:
    shutil.copytree(CHAMPION, weights / "champion")
    loaded, recorded = sepnet.load("champion"), Run.open(CHAMPION).weights()
    assert all(torch.equal(tensor, recorded[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in shipped.WEIGHTS.glob("*/")))
def test_what_is_shipped_is_a_finished_run_of_that_network(name: str) -> None:
    run = find_run(name)
    assert run.config.network == name
    assert run.result["final_accuracy"] == run.history[-1].val_accuracy
    network, recorded = sepnet.load(name), run.weights()
    assert all(torch.equal(tensor, recorded[key]) for key, tensor in network.state_dict().items())
    # 500 images: four standard errors at 90 %.
    assert sepnet.evaluate(name, "sample").accuracy == pytest.approx(run.result["final_accuracy"], abs=0.06)


def test_without_shipped_weights_a_name_is_no_run(weights: Path) -> None:
    for use in (sepnet.load, sepnet.evaluate):
        with pytest.raises(SepnetError, match="sepnet has no trained weights for 'champion': give a run's folder"):
            use("champion")


# The command line.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the sample, of a network in a file."""
    return train_small(tmp_path_factory.mktemp("trained"))


@pytest.mark.slow
def test_evaluate_as_json(trained: Path, capsys: Captured) -> None:
    assert command(["evaluate", "--trust", str(trained), "--format", "json"]) == 0
    captured = capsys.readouterr()
    shown = json.loads(captured.out)
    assert captured.err == ""
    keys = [
        "network",
        "run",
        "data",
        "validation",
        "mirrored",
        "classes",
        "images",
        "accuracy",
        "loss",
        "per_class",
        "confusion",
    ]
    assert list(shown) == [*keys, "calibration", "interval"]
    assert shown["accuracy"] == json.loads((trained / "result.json").read_text())["final_accuracy"]
    assert (shown["images"], shown["run"], shown["data"]) == (500, str(trained), "sample")


def test_evaluate_for_reading(trained: Path, capsys: Captured) -> None:
    assert command(["evaluate", "--trust", str(trained)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].endswith(", on the test images of sample")
    assert max(map(len, captured.out.splitlines()[1:])) <= 80
    assert captured.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("champion", "sepnet has no trained weights for 'champion'"),
        ("champoin", "'champoin' is neither a run's folder nor a network: did you mean 'champion'?"),
        ("runs/absent", "expected a folder that `sepnet train` made, or a network with trained weights"),
        ("empty", "'empty' is not a run"),
        ("file", "'file' is not a run"),
        ("RUN --data cifar11", "unknown dataset 'cifar11': did you mean 'cifar10'"),
        ("RUN --validation train", "validation is 'train'"),
        ("RUN --device abacus", "device is 'abacus'"),
        ("RUN --precision fp8", "precision is 'fp8'"),
        ("", "RUN|NETWORK"),
        ("broken", "'broken/weights.safetensors' has changed since"),
        ("unfinished", "is not finished"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: str,
    message: str,
    trained: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    shutil.copytree(trained, tmp_path / "broken")
    (tmp_path / "broken" / "weights.safetensors").write_bytes(b"broken")
    shutil.copytree(trained, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "manifest.json").unlink()
    assert command(["evaluate", "--trust", *arguments.replace("RUN", str(trained)).split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sepnet: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_broken_pictures_of_another_folder_are_skipped_if_asked(tmp_path: Path) -> None:
    run = sepnet.train(tiny(), patterns(), RECIPE, out=tmp_path / "runs", device="cpu")
    folder = fill(tmp_path / "pictures", dict.fromkeys(CLASSES, 5), size=(8, 8))
    (folder / CLASSES[0] / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SepnetError, match=r"1 of 16 pictures .* cannot be read"):
        sepnet.evaluate(run, folder, network=tiny())
    assert sepnet.evaluate(run, folder, network=tiny(), skip_broken=True).images == 3
