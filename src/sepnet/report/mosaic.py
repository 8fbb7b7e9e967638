"""Pictures of a dataset: images of each class beside their number, and the worst cases of what a check found."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from sepnet.data.dataset import Dataset
from sepnet.data.findings import Finding
from sepnet.report.images import to_pixels
from sepnet.report.lettering import can_draw, class_names
from sepnet.report.theme import DPI, SMALLEST, WIDTH, current, settle, theme

MOST_CLASSES = 24
"""In a picture; of more, those of most and of fewest images are drawn."""
MOST_CASES, MOST_BESIDE = 10, 4
ROW, GAP, MARGIN, TITLE = 0.56, 0.07, 0.13, 0.62
"""Height of a row of images, and the room between and around them, in inches."""
NAMES, COUNTS = 1.55, 2.2
"""Width of class names and of counts, in inches."""
LONGEST_CLASS, LONGEST_LINE = 17, 62
"""In characters."""


def dataset_mosaic(dataset: Dataset, *, scored_on: str = "test images") -> Figure:
    """Draw training images of each class, the first ones, and how many training and validation images it has."""
    counts = [part.labels.bincount(minlength=len(dataset.classes)) for part in (dataset.train, dataset.test)]
    shown = _chosen(counts[0])
    names = class_names(dataset.classes, LONGEST_CLASS)
    step = ROW + GAP
    height = TITLE + MARGIN + step * len(shown) + 0.3
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
            _draw_strip(figure, dataset.train.images[members[:40]], NAMES, bottom, room)
        axes = figure.add_axes(
            ((WIDTH - COUNTS + 0.15) / WIDTH, 0.3 / height, (COUNTS - 0.95) / WIDTH, step * len(shown) / height)
        )
        places = np.arange(len(shown))
        for side, (part, name) in enumerate(zip(counts, ("training images", scored_on), strict=True)):
            values = part[shown].numpy()
            axes.barh(places + 0.19 * (2 * side - 1), values, 0.34, color=palette.series[side], label=name)
            for place, value in zip(places, values.tolist(), strict=True):
                axes.annotate(
                    f"{value:,}",
                    (value, place + 0.19 * (2 * side - 1)),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=SMALLEST,
                    color=palette.series[side],
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
    height = TITLE + MARGIN + step * len(cases)
    wide = tall * images.shape[3] / images.shape[2]
    beside = min(MOST_BESIDE, int(3.6 / (wide + GAP)) or 1, max(len(case.images) for case in cases))
    left = MARGIN + beside * (wide + GAP) + 0.1
    with theme(current()) as palette:
        figure = Figure((WIDTH, height))
        title = _cut(finding.summary, 95)
        figure.text(MARGIN / WIDTH, 1 - MARGIN / height, title, fontsize=11, fontweight="bold", va="top")
        for row, case in enumerate(cases):
            bottom = height - TITLE - step * (row + 1)
            _draw_strip(figure, images[list(case.images[:beside])], MARGIN, bottom, 3.6, tall)
            lines = [_cut(file, LONGEST_LINE, tail=True) for file in case.files[:4]]
            lines += [f"and {len(case.files) - 4} more"] if len(case.files) > 4 else []
            for place, line in enumerate([*lines[:5], _cut(case.detail, LONGEST_LINE)][:6]):
                figure.text(
                    left / WIDTH,
                    (bottom + tall - 0.145 * place) / height,
                    line if can_draw(line) else ascii(line),
                    fontsize=SMALLEST - 1,
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
    """Draw as many images ``(N, C, H, W)`` beside each other as fit into ``room`` inches."""
    wide = min(room, tall * images.shape[3] / images.shape[2])
    width, height = figure.get_size_inches()
    for place, image in enumerate(images[: max(1, int((room + GAP) / (wide + GAP)))]):
        box = ((left + place * (wide + GAP)) / width, bottom / height, wide / width, tall / height)
        axes = figure.add_axes(box)
        axes.imshow(_at_most(to_pixels(image), round(tall * DPI)), interpolation="nearest")
        axes.set_axis_off()


def _at_most(pixels: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return np.asarray(image)


def _cut(text: str, longest: int, *, tail: bool = False) -> str:
    if len(text) <= longest:
        return text
    return f"…{text[1 - longest :]}" if tail else f"{text[: longest - 1]}…"


def pictures_of(findings: Sequence[Finding]) -> dict[str, Finding]:
    """Return the findings that have images to show, by the names of their pictures."""
    return {finding.kind: finding for finding in findings if any(case.images for case in finding.cases)}
