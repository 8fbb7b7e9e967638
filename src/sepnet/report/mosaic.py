"""Pictures of a dataset: images of each class beside their number, and the worst cases of what a check found."""

import math
from collections.abc import Sequence
from itertools import accumulate, takewhile

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.cells import cell_len
from torch import Tensor

from sepnet.data.dataset import Dataset
from sepnet.data.findings import Finding
from sepnet.report.images import to_pixels
from sepnet.report.labels import can_draw, class_names
from sepnet.report.theme import DPI, SMALLEST, WIDTH, current, settle, theme

MOST_CLASSES = 24
"""In a picture; of more, those of most and of fewest images are drawn."""
MOST_IMAGES = 50
"""Drawn of all classes: the file grows with them."""
MOST_CASES, MOST_BESIDE = 10, 4
ROW, GAP, MARGIN, TITLE = 0.56, 0.07, 0.13, 0.76
"""Height of a row of images, and the room between and around them, in inches."""
NAMES, COUNTS = 1.55, 3.3
"""Width of class names and of counts, in inches."""
LONGEST_CLASS, LONGEST_TITLE = 17, 74
"""In characters."""
CHARACTER = 0.082
"""Width of one in inches, in the smallest font."""


def dataset_mosaic(dataset: Dataset, *, scored_on: str = "test images") -> Figure:
    """Draw training images of each class, the first ones, and how many training and validation images it has."""
    counts = [part.labels.bincount(minlength=len(dataset.classes)) for part in (dataset.train, dataset.test)]
    shown = _chosen(counts[0])
    names, most = class_names(dataset.classes, LONGEST_CLASS), max(2, MOST_IMAGES // len(shown))
    step = ROW + GAP
    height = math.ceil((TITLE + MARGIN + step * len(shown) + 0.3) * DPI) / DPI
    with theme(current()) as palette:
        figure = Figure((WIDTH, height))
        title = f"{dataset.name if can_draw(dataset.name) else 'The data'}: images of each class"
        if len(shown) < len(dataset.classes):
            title += f", the {len(shown) // 2} largest and smallest of {len(dataset.classes)}"
        figure.text(MARGIN / WIDTH, 1 - MARGIN / height, title, fontsize=13, fontweight="bold", va="top")
        room = WIDTH - NAMES - COUNTS - MARGIN
        for row, label in enumerate(shown):
            bottom = height - TITLE - step * (row + 1)
            middle = (bottom + ROW / 2) / height
            figure.text(MARGIN / WIDTH, middle, names[label], va="center")
            members = torch.nonzero(dataset.train.labels == label).flatten()
            _draw_strip(figure, dataset.train.images[members[:most]], NAMES, bottom, room)
        axes = figure.add_axes(
            (
                (WIDTH - COUNTS + 0.15) / WIDTH,
                (MARGIN + 0.3 - GAP / 2) / height,
                (COUNTS - 0.95) / WIDTH,
                step * len(shown) / height,
            )
        )
        places = np.arange(len(shown))
        for side, (part, name) in enumerate(zip(counts, ("training images", scored_on), strict=True)):
            values = part[shown].numpy()
            colour = palette.series[side]
            axes.barh(places + 0.19 * (2 * side - 1), values, 0.34, color=colour, edgecolor=colour, label=name)
            for place, value in zip(places, values.tolist(), strict=True):
                axes.annotate(
                    f"{value:,}",
                    (value, place + 0.19 * (2 * side - 1)),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=SMALLEST,
                    color=colour,
                )
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_yticks([])
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.06, 1), fontsize=SMALLEST, borderpad=0.1)
        return settle(figure)


def worst_cases(finding: Finding, images: Tensor) -> Figure:
    """Draw the first cases of a finding: their images of all images ``(N, C, H, W)``, files and details."""
    tall = 0.8
    cases = [case for case in finding.cases if case.images][:MOST_CASES]
    step = tall + GAP
    height = math.ceil((TITLE + MARGIN + step * len(cases)) * DPI) / DPI
    wide = _shown_size(images, tall, 3.6)[1] / DPI
    beside = min(MOST_BESIDE, int(3.6 / (wide + GAP)) or 1, max(len(case.images) for case in cases))
    left = MARGIN + beside * (wide + GAP) + 0.1
    longest = int((WIDTH - left - MARGIN) / CHARACTER)
    with theme(current()) as palette:
        figure = Figure((WIDTH, height))
        title = _cut(finding.summary.partition(": ")[0], LONGEST_TITLE)  # the rest says what to do
        figure.text(MARGIN / WIDTH, 1 - MARGIN / height, title, fontsize=11, fontweight="bold", va="top")
        for row, case in enumerate(cases):
            bottom = height - TITLE - step * (row + 1)
            _draw_strip(figure, images[list(case.images[:beside])], MARGIN, bottom, 3.6, tall)
            lines = [_cut(file, longest, tail=True) for file in case.files[:3]]
            lines += [f"and {len(case.files) - 3} more"] if len(case.files) > 3 else []
            for place, line in enumerate([*lines, _cut(case.detail, longest)]):
                figure.text(
                    left / WIDTH,
                    (bottom + tall - 0.16 * place) / height,
                    line,
                    fontsize=SMALLEST,
                    va="top",
                    color=palette.text if place < len(lines) else palette.muted,
                )
        return settle(figure)


def _chosen(counts: Tensor) -> list[int]:
    """Return the classes that are drawn, in their order."""
    if len(counts) <= MOST_CLASSES:
        return list(range(len(counts)))
    order = counts.argsort(descending=True, stable=True).tolist()
    return sorted([*order[: MOST_CLASSES // 2], *order[-MOST_CLASSES // 2 :]])


def _draw_strip(figure: Figure, images: Tensor, left: float, bottom: float, room: float, tall: float = ROW) -> None:
    """Draw as many images ``(N, C, H, W)`` beside each other as fit into ``room`` inches, each on whole pixels."""
    high, wide = _shown_size(images, tall, room)
    width, height = figure.get_size_inches() * DPI
    x, y = round(left * DPI), round(bottom * DPI) + (round(tall * DPI) - high) // 2
    for image in images[: max(1, int((room + GAP) * DPI / (wide + GAP * DPI)))]:
        axes = figure.add_axes((x / width, y / height, wide / width, high / height))
        axes.imshow(_at_most(to_pixels(image), high, wide), aspect="auto", interpolation="nearest")
        axes.set_axis_off()
        x += wide + round(GAP * DPI)


def _shown_size(images: Tensor, tall: float, room: float) -> tuple[int, int]:
    """Return height and width of a drawn image in pixels: a multiple of its own, so that each pixel is a square."""
    height, width = images.shape[2:]
    scale = min(tall * DPI / height, room * DPI / width)
    scale = int(scale) if scale >= 1 else scale
    return max(1, int(scale * height)), max(1, int(scale * width))


def _at_most(pixels: np.ndarray, high: int, wide: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    return np.asarray(image if high > image.height else image.resize((wide, high), Image.Resampling.LANCZOS))


def _cut(text: str, longest: int, *, tail: bool = False) -> str:
    """Return the beginning or the end of a text, in at most so many columns, as characters the fonts have."""
    text = text if can_draw(text) else ascii(text)[1:-1]
    if cell_len(text) <= longest:
        return text
    # A case of thousands of images has a text of as many names: only what is kept of it is measured.
    columns = accumulate(cell_len(character) for character in (reversed(text) if tail else text))
    kept = sum(1 for _ in takewhile(lambda column: column < longest, columns))
    return f"…{text[len(text) - kept :]}" if tail else f"{text[:kept]}…"


def pictures_of(findings: Sequence[Finding]) -> dict[str, Finding]:
    """Return the findings that have images to show, by the names of their pictures."""
    return {finding.kind: finding for finding in findings if any(case.images for case in finding.cases)}
