"""How good a trained network's answers are: accuracy by class, confusion and calibration."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sepnet.errors import SepnetError

WIDTH = 80
NAME_WIDTH = 20
"""Columns of a line, and of a class's name in it."""

COMMONEST = 10
"""Mistakes that are listed where a confusion matrix is too wide."""

BINS = 15
"""Of confidence, as Guo et al. (2017) have them."""

CONFIDENCE = 0.95
"""Of the interval around the accuracy."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: shares of 1, None where there is nothing to take a share of."""

    name: str
    images: int
    recall: float | None
    """Of the class's images, how many were given its name: the accuracy of this class. None without images."""
    precision: float | None
    """Of the images given its name, how many are of the class. None where no image was."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The answers whose confidence, the highest probability, lies in ``(low, high]``; means, None without images."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far confidence and accuracy are apart, over 15 bins of equal width (Guo et al. 2017, section 2)."""

    error: float
    """Expected calibration error: the mean over the images of |accuracy − confidence| of their bins."""
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """A network's answers to labelled images, judged."""

    classes: tuple[str, ...]
    images: int
    accuracy: float
    """Share of 1."""
    loss: float
    """Mean cross-entropy in nats, without label smoothing."""
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Images by true class (rows) and predicted class (columns)."""
    calibration: Calibration

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy, were the images drawn at random (Wilson 1927)."""
        correct = sum(row[place] for place, row in enumerate(self.confusion))
        from scipy import stats  # half a second, which no other command should wait for

        interval = stats.binomtest(correct, self.images).proportion_ci(CONFIDENCE, method="wilson")
        return float(interval.low), float(interval.high)

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain values."""
        return {**asdict(self), "interval": self.interval}

    def __repr__(self) -> str:
        return to_text(self)


def evaluate_logits(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Evaluation:
    """Judge logits ``(N, K)`` by the images' labels ``(N,)``; of equal logits the first is the answer.

    Raises:
        SepnetError: shapes or labels do not fit the classes, there is no image, or a logit is not finite.

    """
    _require_fit(logits, labels, classes)
    logits, labels = logits.detach().cpu().double(), labels.cpu()
    count, answers = len(labels), logits.argmax(1)
    pairs = torch.bincount(labels * len(classes) + answers, minlength=len(classes) ** 2)
    confusion = pairs.view(len(classes), len(classes))
    confidences = logits.softmax(1).amax(1)
    return Evaluation(
        classes=tuple(classes),
        images=count,
        accuracy=int(confusion.trace()) / count,
        loss=float(functional.cross_entropy(logits, labels)),
        per_class=_class_scores(confusion, classes),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        calibration=_calibrate(confidences, answers == labels),
    )


def _require_fit(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    if not len(labels) or logits.shape != (len(labels), len(classes)):
        raise SepnetError(
            f"logits have shape {tuple(logits.shape)} for {len(labels)} labels: "
            f"expected ({max(1, len(labels))}, {len(classes)}), one number for each image and class"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= len(classes):
        raise SepnetError(f"labels run from {lowest} to {highest}: expected 0 to {len(classes) - 1}")
    require_finite(logits)


def require_finite(logits: Tensor) -> None:
    """Raise unless all logits are finite."""
    if not bool(logits.isfinite().all()):
        raise SepnetError("the network's logits are not all finite: train it again with a lower --lr")


def _class_scores(confusion: Tensor, classes: Sequence[str]) -> tuple[ClassScore, ...]:
    right, images, answers = confusion.diag().tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist()
    return tuple(
        ClassScore(
            name=name,
            images=images[place],
            recall=right[place] / images[place] if images[place] else None,
            precision=right[place] / answers[place] if answers[place] else None,
        )
        for place, name in enumerate(classes)
    )


def _calibrate(confidences: Tensor, right: Tensor) -> Calibration:
    """Compare confidences ``(N,)`` in 0 … 1 with right answers ``(N,)``; bin m is (m / 15, (m + 1) / 15]."""
    places = (confidences * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
    images = torch.bincount(places, minlength=BINS)
    confident = torch.bincount(places, weights=confidences, minlength=BINS)
    correct = torch.bincount(places, weights=right.double(), minlength=BINS)
    error = float((correct - confident).abs().sum()) / len(right)
    means = [(correct / images).tolist(), (confident / images).tolist()]
    bins = tuple(
        Bin(
            low=place / BINS,
            high=(place + 1) / BINS,
            images=count,
            confidence=means[1][place] if count else None,
            accuracy=means[0][place] if count else None,
        )
        for place, count in enumerate(images.tolist())
    )
    return Calibration(error=error, bins=bins)


def to_text(evaluation: Evaluation) -> str:
    """Return the evaluation for a person, in 80 columns."""
    low, high = evaluation.interval
    lines = [
        f"accuracy           {_percent(evaluation.accuracy)} % of {evaluation.images:,} images, "
        f"95 % interval {_percent(low)} to {_percent(high)}",
        f"loss               {evaluation.loss:.4f} nats (mean cross-entropy)",
        f"calibration error  {_percent(evaluation.calibration.error)} points (expected, {BINS} bins)",
        "",
        *_class_table(evaluation),
        "",
        *_confusion_table(evaluation),
    ]
    return "\n".join(lines)


def _class_table(evaluation: Evaluation) -> list[str]:
    names = _row_names(evaluation)
    lines = [f"{'class':<{len(names[0])}}  {'images':>7}  {'accuracy %':>10}  {'precision %':>11}"]
    for name, score in zip(names, evaluation.per_class, strict=True):
        lines.append(f"{name}  {score.images:>7,}  {_percent(score.recall):>10}  {_percent(score.precision):>11}")
    return lines


def _confusion_table(evaluation: Evaluation) -> list[str]:
    """Return the confusion matrix, or the commonest confusions where it is wider than the lines may be."""
    names = _row_names(evaluation)
    needed = max(len(str(count)) for count in (len(names), *(count for row in evaluation.confusion for count in row)))
    width = (WIDTH - len(names[0])) // len(names) - 1
    if width < needed:
        return _commonest_confusions(evaluation)
    width = min(width, max(needed, *map(len, evaluation.classes)))
    heads = [name[:width] for name in evaluation.classes]
    if len(set(heads)) < len(heads):
        heads = [str(place) for place in range(1, len(names) + 1)]  # names alike in their first letters
    rows = [heads, *([str(count) for count in row] for row in evaluation.confusion)]
    lines = [" ".join(f"{cell:>{width}}" for cell in row) for row in rows]
    labels = [" " * len(names[0]), *names]
    table = [f"{label} {line}" for label, line in zip(labels, lines, strict=True)]
    return ["confusion matrix: true class (rows), predicted class (columns)", *table]


def _commonest_confusions(evaluation: Evaluation) -> list[str]:
    names = _row_names(evaluation)
    pairs = [
        (count, true, answer)
        for true, row in enumerate(evaluation.confusion)
        for answer, count in enumerate(row)
        if count and true != answer
    ]
    pairs.sort(key=lambda pair: -pair[0])
    lines = [f"{names[true]}  {names[answer]}  {count:>7,}" for count, true, answer in pairs[:COMMONEST]]
    return ["most frequent confusions: true class, prediction, images (all: --format json)", *lines]


def _row_names(evaluation: Evaluation) -> list[str]:
    """Return the classes' names, cut and filled to one length."""
    width = min(NAME_WIDTH, max(5, *map(len, evaluation.classes)))
    return [f"{name if len(name) <= width else name[: width - 1] + '…':<{width}}" for name in evaluation.classes]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"
