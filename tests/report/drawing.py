"""What the tests of pictures share: data, the pictures drawn from it, and what is in a picture."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from torch import Tensor, nn

import sepnet
from sepnet import data
from sepnet.anatomy import Anatomy
from sepnet.data.findings import Case, Finding
from sepnet.inference.evaluation import Evaluation, evaluate_logits
from sepnet.report.mosaic import worst_cases
from sepnet.report.plots import (
    accuracy_curves,
    confusion_matrix,
    dataset_mosaic,
    per_class_accuracy,
    receptive_field_growth,
    worst_mistakes,
)
from sepnet.report.theme import save, theme
from sepnet.runs.history import Epoch

LONG = "path/to/my_networks.py:my_wide_network_of_a_great_length"
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def history(accuracies: list[float]) -> list[Epoch]:
    return [
        Epoch(
            epoch=number,
            steps=10,
            seconds=1.0,
            images_per_second=100.0,
            lr=0.1,
            loss=2 - accuracy,
            accuracy=0.9 * accuracy,
            val_loss=1.9 - accuracy,
            val_accuracy=accuracy,
        )
        for number, accuracy in enumerate(accuracies, 1)
    ]


BASE = history([0.4316, 0.5713, 0.6531, 0.7012, 0.6987])
CHAMPION = history([0.6386, 0.6987, 0.7012, 0.7263, 0.7558, 0.7818, 0.8085])


def answers(classes: int, count: int = 400, strength: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), labels] += strength
    return logits, labels


def evaluation(classes: int | tuple[str, ...], **options: Any) -> Evaluation:
    names = tuple(f"class number {place}" for place in range(classes)) if isinstance(classes, int) else classes
    return evaluate_logits(*answers(len(names), **options), names)


@cache
def photographs(count: int, shape: tuple[int, int, int] = (3, 32, 32)) -> Tensor:
    if shape == (3, 32, 32):
        return data.load("sample").test.images[:count]
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def mistakes(classes: tuple[str, ...], shape: tuple[int, int, int] = (3, 32, 32), label: str = "champion") -> Figure:
    logits, labels = answers(len(classes), count=200)
    return worst_mistakes(photographs(200, shape), labels, logits, classes, label)


def far_seeing(image_shape: tuple[int, int, int]) -> Anatomy:
    layers = [nn.Conv2d(1, 1, 7, padding=9, dilation=3) for _ in range(30)]
    return sepnet.summary(nn.Sequential(*layers, nn.Flatten()), image_shape=image_shape)


def uneven(image_shape: tuple[int, int, int]) -> Anatomy:
    layers = [nn.Conv2d(1, 1, (1, 7), padding=(0, 3)), nn.Conv2d(1, 1, (5, 1), padding=(2, 0)), nn.AdaptiveAvgPool2d(1)]
    return sepnet.summary(nn.Sequential(*layers), image_shape=image_shape)


def mosaic(classes: tuple[str, ...], shape: tuple[int, int, int] = (3, 32, 32)) -> Figure:
    images = photographs(12 * len(classes), shape)
    images = images.repeat(-(-12 * len(classes) // len(images)), 1, 1, 1)[: 12 * len(classes)]
    labels = torch.arange(len(images)) % len(classes)
    split = data.Split(images=images, labels=labels)
    one = data.Split(images=images[: len(classes)], labels=torch.arange(len(classes)))
    return dataset_mosaic(data.Dataset(name="наши", classes=classes, train=split, test=one))


def cases() -> Figure:
    groups = [(0, 1), (2, 3, 4, 5, 6), (7,)]
    made = [
        Case(files=tuple(f"{LONG}/train/猫/{i:04}.jpg" for i in group), detail="train cat; test dog", images=group)
        for group in groups
    ]
    finding = Finding(kind="x", problem=True, summary="17 test images look the same " * 5, cases=tuple(made))
    return worst_cases(finding, photographs(8))


GREY = photographs(1, (1, 28, 48))[0]
FOREIGN = ("猫", "Größe", "собака", "$\\nosuch$", "a\nb", "_under", "a class whose name is very long indeed")
PICTURES: dict[str, Callable[[], Figure]] = {
    "curves": lambda: accuracy_curves({"base": [BASE], "champion": [CHAMPION]}),
    "curves of one": lambda: accuracy_curves({LONG: [CHAMPION]}, images="held-out images"),
    "curves of one epoch": lambda: accuracy_curves({"base": [BASE[:1]], "champion": [CHAMPION[:1]]}),
    "curves of four": lambda: accuracy_curves(
        {"base": [BASE, CHAMPION], "网络": [CHAMPION, BASE], LONG: [CHAMPION], "_net": [CHAMPION[:3]]}
    ),
    "curves of equals": lambda: accuracy_curves({"base": [history([0.1] * 60)], "same": [history([0.1] * 60)]}),
    "fields": lambda: receptive_field_growth(
        photographs(1)[0], {"base": sepnet.summary("base"), "champion": sepnet.summary("champion")}
    ),
    "fields of four": lambda: receptive_field_growth(
        photographs(1)[0], {name: sepnet.summary("resnet8") for name in ("base", "网络", LONG, "_net")}
    ),
    "fields, odd": lambda: receptive_field_growth(
        GREY, {"far": far_seeing((1, 28, 48)), LONG: uneven((1, 28, 48)), "c": far_seeing((1, 28, 48))}
    ),
    "fields of one layer": lambda: receptive_field_growth(
        GREY, {"one": sepnet.summary(nn.Conv2d(1, 1, 3), image_shape=(1, 28, 48))}
    ),
    "classes": lambda: per_class_accuracy({"base": evaluation(NAMES), "champion": evaluation(NAMES, strength=4)}),
    "two classes": lambda: per_class_accuracy({LONG: evaluation(2)}),
    "100 classes": lambda: per_class_accuracy({"base": evaluation(100), "_net": evaluation(100, seed=1)}),
    "foreign classes": lambda: per_class_accuracy(
        {"a": evaluation(FOREIGN), "b": evaluation(FOREIGN), LONG: evaluation(FOREIGN)}
    ),
    "classes without images": lambda: per_class_accuracy({"a": evaluation(20, count=8)}),
    "confusion": lambda: confusion_matrix("champion", evaluation(NAMES, count=10_000)),
    "confusion of two": lambda: confusion_matrix(LONG, evaluation(2)),
    "confusion of 20": lambda: confusion_matrix("b", evaluation(20)),
    "confusion of 20, large counts": lambda: confusion_matrix("b", evaluation(20, count=500_000)),
    "confusion of 100": lambda: confusion_matrix("b", evaluation(100)),
    "confusion, foreign": lambda: confusion_matrix("网络", evaluation(FOREIGN)),
    "no confusion": lambda: confusion_matrix("b", evaluation(5, strength=100)),
    "data": lambda: mosaic(NAMES),
    "data, foreign": lambda: mosaic(FOREIGN, (1, 40, 20)),
    "data of 100 classes": lambda: mosaic(tuple(f"class number {place}" for place in range(100))),
    "cases": cases,
    "mistakes": lambda: mistakes(NAMES),
    "mistakes, foreign": lambda: mistakes(FOREIGN, (1, 40, 20), LONG),
    "mistakes, large": lambda: mistakes(NAMES, (3, 300, 400), ""),
    "no mistakes": lambda: worst_mistakes(photographs(2), torch.tensor([0, 1]), torch.eye(2), ("a", "b"), LONG),
}


def draw(name: str, mode: str) -> Figure:
    with theme(mode):
        return PICTURES[name]()


@contextmanager
def recording() -> Iterator[list[Text]]:
    """Collect the texts that are really drawn, ticks and all."""
    drawn: list[Text] = []
    original = Text.draw

    def record(self: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            drawn.append(self)
        original(self, renderer, *args, **kwargs)

    Text.draw = record  # type: ignore[assignment, method-assign]
    try:
        yield drawn
    finally:
        Text.draw = original  # type: ignore[method-assign]


def drawn_texts(figure: Figure, file: Path) -> list[Text]:
    """Save a figure, and return the texts in it."""
    with recording() as drawn:
        save(figure, file)
    assert drawn
    return drawn


@cache
def saved(name: str, mode: str) -> tuple[Figure, list[Text], bytes]:
    """Draw and save a picture once for all tests that only look at it."""
    figure = draw(name, mode)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.png"
        texts = drawn_texts(figure, file)
        return figure, texts, file.read_bytes()


def lines(axes: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in axes.lines}


def pixels(axes: Any) -> Any:
    """Return the array of the only image in the axes."""
    (image,) = axes.images
    return image.get_array()
