"""The picture of the images that a network was most sure, and wrong, about."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from sepnet.errors import SepnetError
from sepnet.report.images import to_pixels
from sepnet.report.labels import class_names, contestant_names, percent
from sepnet.report.theme import DPI, WIDTH, current, settle, theme

COLUMNS = 5

# In pixels of the saved picture, so that every pixel of an image becomes a square of whole pixels.
MARGIN, SUBTITLE, TITLE, LARGEST, CAPTION = 26, 50, 136, 288, 100

FINEST = LARGEST // 2
"""Larger images are shrunk to this many pixels a side, those of a README; the file would be four times as large."""

LONGEST_CLASS = 12
"""In characters, beside the confidence."""


def worst_mistakes(
    images: Tensor, labels: Tensor, logits: Tensor, classes: Sequence[str], label: str = "", count: int = 20
) -> Figure:
    """Draw the wrong answers of highest confidence, each with its true class, the answer and its probability.

    Args:
        images: uint8 ``(N, C, H, W)``.
        labels: ``(N,)``.
        logits: ``(N, K)``, in the order of the images.
        classes: ``K`` names.
        label: of the network.
        count: how many to draw at most.

    Raises:
        SepnetError: there are not as many images as labels and logits, or ``count`` is below 1.

    """
    if not len(images) == len(labels) == len(logits):
        raise SepnetError(
            f"{len(images)} images, {len(labels)} labels and {len(logits)} logits: expected one of each for every image"
        )
    if count < 1:
        raise SepnetError(f"count is {count}: expected at least 1")
    worst = most_confident_mistakes(labels, logits)[:count]
    names, of = class_names(classes, LONGEST_CLASS), f" of {contestant_names([label])[0]}" if label else ""
    width = round(WIDTH * DPI)
    with theme(current()) as palette:
        if not worst:
            figure = Figure((WIDTH, 1.2))
            words = f"No mistakes{of} on {len(images):,} images"
            figure.text(MARGIN / width, 0.5, words, fontsize=13, fontweight="bold", va="center")
            return settle(figure)
        shown = [_shrink(to_pixels(images[index])) for index, _, _ in worst]
        scale = LARGEST // max(shown[0].shape)
        high, wide = scale * shown[0].shape[0], scale * shown[0].shape[1]
        row_height = high + CAPTION
        height = TITLE + row_height * -(-len(worst) // COLUMNS) + MARGIN // 2
        figure = Figure((WIDTH, height / DPI))
        top = 1 - MARGIN / height
        title = f"The {len(worst)} most confident mistakes{of}" if len(worst) > 1 else f"The only mistake{of}"
        figure.text(MARGIN / width, top, title, fontsize=13, fontweight="bold", va="top")
        legend = "true class → answer, its probability"
        figure.text(MARGIN / width, top - SUBTITLE / height, legend, color=palette.muted, va="top")
        for place, (index, answer, confidence) in enumerate(worst):
            row, column = divmod(place, COLUMNS)
            left = MARGIN + column * (width - MARGIN) // COLUMNS
            bottom = height - TITLE - row * row_height - high
            axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
            axes.imshow(shown[place], aspect="auto", interpolation="nearest")
            axes.set_axis_off()
            caption = f"{names[int(labels[index])]} →\n{names[answer]} {percent(confidence)}"
            axes.text(0, -8 / high, caption, transform=axes.transAxes, va="top", color=palette.text, fontsize=9.5)
        return settle(figure)


def most_confident_mistakes(labels: Tensor, logits: Tensor) -> list[tuple[int, int, float]]:
    """Return index, answer and confidence of every wrong answer, the most confident first.

    Confidence is the answer's probability, 0 to 1; of equals the earlier image comes first.
    """
    probabilities = logits.detach().cpu().double().softmax(1)
    answers = logits.cpu().argmax(1)
    confidences = probabilities.gather(1, answers[:, None])[:, 0]
    wrong = torch.nonzero(answers != labels.cpu())[:, 0]
    order = wrong[confidences[wrong].argsort(descending=True, stable=True)].tolist()
    return [(index, int(answers[index]), float(confidences[index])) for index in order]


def _shrink(pixels: np.ndarray) -> np.ndarray:
    """Return an image ``(H, W, 3)`` with at most :data:`FINEST` pixels a side."""
    image = Image.fromarray(pixels)
    image.thumbnail((FINEST, FINEST))
    return np.asarray(image)
