"""The picture of training: accuracy and loss after each epoch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

from sepnet.errors import SepnetError
from sepnet.report.labels import contestant_names, spread
from sepnet.report.theme import MARKERS, WIDTH, Palette, current, settle, theme
from sepnet.runs.history import Epoch

TRAINING: dict[str, Any] = {"linewidth": 1.2, "linestyle": (0, (4, 2))}

GLYPHS = dict(zip(MARKERS, "●■▲◆▼✚", strict=True))
"""Markers as characters."""


class Curve(NamedTuple):
    """One figure over the epochs ``(E,)``: its mean over the seeds, and the lowest and highest seed."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def accuracy_curves(histories: Mapping[str, Sequence[Sequence[Epoch]]], *, images: str = "test images") -> Figure:
    """Draw accuracy and loss after each epoch.

    The first contestant is the base: its best accuracy is a line, and of every other one the first epoch above it
    is marked. Several seeds are drawn as their mean, in a band from the lowest to the highest, over the epochs that
    all of them have.

    Args:
        histories: by the contestant's label, one history for each seed.
        images: what the validation figures were measured on.

    Raises:
        SepnetError: a history has no epoch.

    """
    for label, seeds in histories.items():
        if not seeds or not all(seeds):
            raise SepnetError(f"'{label}' has a run without an epoch: expected at least one, train it first")
    names = contestant_names(histories)
    with theme(current()) as palette:
        figure = Figure((WIDTH, 5.4), layout="constrained")
        accuracy, loss = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        curves = [_over(seeds, lambda epoch: 100 * epoch.val_accuracy) for seeds in histories.values()]
        _frame(accuracy, loss, curves, images)
        labels: list[Annotation] = []
        crowded = len(curves) > 2
        best = curves[0].mean.max()
        for place, (name, curve, seeds) in enumerate(zip(names, curves, histories.values(), strict=True)):
            colour, marker = palette.series[place % len(palette.series)], MARKERS[place % len(MARKERS)]
            _draw(accuracy, curve, name, colour, marker)
            _draw_training(accuracy, _over(seeds, lambda epoch: 100 * epoch.accuracy), name, colour)
            _draw(loss, _over(seeds, lambda epoch: epoch.val_loss), name, colour, marker)
            _draw_training(loss, _over(seeds, lambda epoch: epoch.loss), name, colour)
            text = f"{GLYPHS[marker]} {name}" if crowded else name
            labels.append(_label_end(accuracy, curve, text, colour, palette, crowded=crowded))
            if place > 0 and (curve.mean > best).any():
                labels.append(_mark_first_above(accuracy, curve, best, palette))
        if len(curves) > 1:
            labels.append(_draw_best(accuracy, best, names[0], palette))
        _explain(accuracy, palette, images, names[0], histories, marked=len(labels) > len(curves) + 1)
        spread(figure, labels)
        return settle(figure)


def _frame(accuracy: Axes, loss: Axes, curves: Sequence[Curve], images: str) -> None:
    """Give both panels titles and limits; the training accuracy of the first epochs may lie below."""
    accuracy.set_title(f"Accuracy on the {images} after each epoch, %")
    loss.set_title("Loss after each epoch, as each recipe defines it")
    loss.set_xlabel("Epoch")
    loss.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    last = max(curve.epochs[-1] for curve in curves)
    loss.set_xlim(1 - min(0.7, 0.02 * last), last if last > 1 else 1.5)
    accuracy.margins(y=0.12)
    for axes in (accuracy, loss):
        axes.grid(visible=False, axis="x")


def _over(seeds: Sequence[Sequence[Epoch]], value: Callable[[Epoch], float]) -> Curve:
    count = min(map(len, seeds))
    values = np.array([[value(epoch) for epoch in history[:count]] for history in seeds])
    epochs = np.array([epoch.epoch for epoch in seeds[0][:count]])
    return Curve(epochs, values.mean(0), values.min(0), values.max(0))


def _draw(axes: Axes, curve: Curve, name: str, colour: str, marker: str) -> None:
    every = max(1, round(len(curve.epochs) / 8))
    first = (len(curve.epochs) - 1) % every  # so that the last epoch has a marker
    style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5.5, "markevery": (first, every)}
    axes.plot(curve.epochs, curve.mean, label=name, zorder=3, clip_on=False, **style)
    if (curve.low < curve.high).any():
        axes.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.25, linewidth=0, label=name)


def _draw_training(axes: Axes, curve: Curve, name: str, colour: str) -> None:
    marker = "." if len(curve.epochs) == 1 else ""  # one point is no line
    axes.plot(curve.epochs, curve.mean, color=colour, marker=marker, label=f"{name}, training", **TRAINING)


def _label_end(axes: Axes, curve: Curve, text: str, colour: str, palette: Palette, *, crowded: bool) -> Annotation:
    """Write at the end of a curve; where there are many, beside the axes, as it would cover the others."""
    x, y = curve.epochs[-1], curve.mean[-1]
    return axes.annotate(
        f"{text} {y:.2f}",
        (1, y) if crowded else (x, y),
        (9, 0),
        xycoords=("axes fraction", "data") if crowded else "data",
        textcoords="offset points",
        color=colour,
        fontweight="bold",
        va="center_baseline",
        annotation_clip=False,
        path_effects=[withStroke(linewidth=3, foreground=palette.background)],
        zorder=6,
    )


def _mark_first_above(axes: Axes, curve: Curve, best: float, palette: Palette) -> Annotation:
    first = int(np.argmax(curve.mean > best))
    epoch, value = curve.epochs[first], curve.mean[first]
    axes.plot([epoch], [value], zorder=5, clip_on=False, label="first above", **_ring(palette))
    low, high = axes.get_xlim()
    room = (epoch - low) / (high - low) > 0.12  # to the left, above a rising curve
    return axes.annotate(
        f"epoch {epoch}",
        (epoch, value),
        (-10, 12) if room else (10, -16),
        textcoords="offset points",
        ha="right" if room else "left",
        arrowprops={"arrowstyle": "-", "color": palette.text, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 6},
        path_effects=[withStroke(linewidth=3, foreground=palette.background)],
        zorder=6,
    )


def _draw_best(axes: Axes, best: float, name: str, palette: Palette) -> Annotation:
    axes.axhline(best, color=palette.muted, linewidth=1.2, linestyle=":", label="best of the base")
    return axes.annotate(
        f"best of {name} {best:.2f}",
        (1, best),
        (9, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color=palette.muted,
        va="center_baseline",
        annotation_clip=False,
    )


def _explain(
    axes: Axes,
    palette: Palette,
    images: str,
    base: str,
    histories: Mapping[str, Sequence[Sequence[Epoch]]],
    *,
    marked: bool,
) -> None:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=palette.muted, label=images),
        Line2D([], [], color=palette.muted, label="training images, while training", **TRAINING),
    ]
    if any(len(seeds) > 1 for seeds in histories.values()):
        handles.append(Patch(color=palette.muted, alpha=0.3, linewidth=0, label="lowest to highest seed; line: mean"))
    if marked:
        handles.append(Line2D([], [], label=f"first epoch above the best of {base}", **_ring(palette)))
    axes.legend(handles=handles, loc="best")


def _ring(palette: Palette) -> dict[str, Any]:
    return {
        "linestyle": "",
        "marker": "o",
        "markersize": 12,
        "markerfacecolor": "none",
        "markeredgecolor": palette.text,
        "markeredgewidth": 1.5,
    }
