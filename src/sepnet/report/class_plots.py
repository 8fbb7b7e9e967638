"""The pictures of classes: how many images of each are told right, and what the others are taken for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sepnet.inference.evaluation import Evaluation
from sepnet.report.labels import class_names, contestant_names
from sepnet.report.theme import MARKERS, SMALLEST, WIDTH, contrast, current, settle, theme

MOST_CLASSES = 24
"""In a picture of all; of more, the :data:`EXTREMES` worst and best are drawn."""

EXTREMES = 10

ROOM_FOR_COUNTS = 5.4
"""Width in inches of a matrix with narrow class names."""

LONGEST_CLASS = 18
"""In characters."""


def per_class_accuracy(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Draw each class's accuracy (recall), the classes in the order of the last contestant's.

    Of more than 24 classes those without images are left out, and of what still are more the ten best and the ten
    worst are drawn.

    Args:
        evaluations: by the contestant's label, each of the same classes.

    """
    names = contestant_names(evaluations)
    last = [*evaluations.values()][-1]
    recalls = np.array(
        [
            [np.nan if score.recall is None else 100 * score.recall for score in evaluation.per_class]
            for evaluation in evaluations.values()
        ]
    )
    order = np.argsort(-np.nan_to_num(recalls[-1], nan=-1), kind="stable")
    if len(order) > MOST_CLASSES:
        order = order[: np.count_nonzero(~np.isnan(recalls[-1]))]
    places = np.arange(len(order), dtype=float)
    title = "Accuracy on each class, % of its images"
    if len(order) > MOST_CLASSES:
        title = (
            f"Accuracy on the {EXTREMES} best and {EXTREMES} worst of {len(last.classes)} classes, % of their images"
        )
        order = np.concatenate([order[:EXTREMES], order[-EXTREMES:]])
        places = np.concatenate([places[:EXTREMES], places[EXTREMES : 2 * EXTREMES] + 0.7])
    rows = class_names(last.classes, LONGEST_CLASS)
    with theme(current()) as palette:
        figure = Figure((WIDTH, 1.1 + 0.24 * len(names) + 0.31 * len(places)), layout="constrained")
        figure.suptitle(title, x=0.012, ha="left")
        axes = figure.subplots()
        shown = recalls[:, order]
        known = ~np.isnan(shown).all(0)
        low, high = np.nanmin(shown[:, known], 0), np.nanmax(shown[:, known], 0)
        axes.hlines(places[known], low, high, color=palette.grid, linewidth=4, zorder=1)
        for place, (name, evaluation, values) in enumerate(zip(names, evaluations.values(), shown, strict=True)):
            colour, marker = palette.series[place % len(palette.series)], MARKERS[place % len(MARKERS)]
            label = f"{name}, {100 * evaluation.accuracy:.2f} on all"
            dots: dict[str, Any] = {"linestyle": "", "marker": marker, "markersize": 8, "color": colour}
            axes.plot(values, places, label=label, zorder=3, clip_on=False, **dots)
            _write_values(axes, 1.07 + 0.085 * place, values, places, dots)
        axes.set_yticks(places, [rows[place] for place in order], color=palette.text)
        axes.set_ylim(places[-1] + 0.6, -0.6)
        axes.grid(visible=False, axis="y")
        axes.spines.left.set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, 0), min(high, 100))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), borderpad=0.2)
        return settle(figure)


def _write_values(axes: Axes, across: float, values: np.ndarray, places: np.ndarray, dots: dict[str, Any]) -> None:
    """Write a column of values to the right of the axes, under the contestant's marker."""
    transform = axes.get_yaxis_transform()
    axes.plot([across], [places[0] - 1], transform=transform, clip_on=False, **dots)
    for value, place in zip(values, places, strict=True):
        text = "–" if np.isnan(value) else f"{value:.1f}"
        axes.text(across, place, text, transform=transform, color=dots["color"], ha="center", va="center")


def confusion_matrix(label: str, evaluation: Evaluation) -> Figure:
    """Draw how many images of each class (rows) were given each name (columns).

    The colour of a mistake is its share of the row; right answers have none, as they would drown the mistakes.
    Numbers that would not fit into their cells are left out.
    """
    counts = np.array(evaluation.confusion)
    (name,) = contestant_names([label])
    mistakes = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(mistakes, np.nan)
    top = max(1.0, float(np.nan_to_num(mistakes).max()))
    with theme(current()) as palette:
        figure = Figure((WIDTH, min(7.2, 3.0 + 0.42 * len(counts))), layout="constrained")
        figure.suptitle(f"Answers of {name}, images", x=0.012, ha="left")
        axes = figure.subplots()
        colours = LinearSegmentedColormap.from_list("mistakes", palette.mistakes).with_extremes(bad=palette.surface)
        picture = axes.imshow(mistakes, cmap=colours, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
        bar = figure.colorbar(picture, ax=axes, aspect=30, pad=0.02)
        bar.set_label("Mistakes, % of the row")
        bar.outline.set_visible(False)
        size = 10 if len(counts) <= 12 else SMALLEST
        if len(counts) * (len(str(counts.max())) + 0.5) * size / 100 < ROOM_FOR_COUNTS:
            _write_counts(axes, counts, colours(mistakes / top), size)
        _name_classes(axes, class_names(evaluation.classes, LONGEST_CLASS))
        return settle(figure)


def _write_counts(axes: Axes, counts: np.ndarray, colours: np.ndarray, size: int) -> None:
    """Write each count that is not 0, in whichever of black and white stands out more from its cell."""
    for row, column in zip(*np.nonzero(counts), strict=True):
        cell = colours[row, column]
        colour = max(("black", "white"), key=lambda ink: contrast(ink, cell))
        right = row == column
        axes.text(
            column,
            row,
            str(counts[row, column]),
            color=colour,
            fontsize=size,
            fontweight="bold" if right else "normal",
            ha="center",
            va="center",
            in_layout=False,
        )


def _name_classes(axes: Axes, names: list[str]) -> None:
    """Name rows and columns, or, where there are too many, every second, third … of them."""
    step = -(-len(names) // 30)
    places = range(0, len(names), step)
    axes.set_yticks(places, [names[place] for place in places])
    axes.set_xticks(places, [names[place] for place in places], rotation=45, ha="left", rotation_mode="anchor")
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("Answer", labelpad=8)
    axes.set_ylabel("True class")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
