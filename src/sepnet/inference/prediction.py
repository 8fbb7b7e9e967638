"""What a trained network takes images for: files in, the likeliest classes out."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.cells import cell_len
from torch import Tensor

from sepnet.data.pictures import quiet_pillow, read_content, read_picture, suffixes, walk
from sepnet.errors import SepnetError
from sepnet.inference.classifier import TakesImages
from sepnet.inference.evaluation import require_finite
from sepnet.notices import notice, printable
from sepnet.training.forward import BATCH

Source = str | Path | Image.Image | np.ndarray[Any, Any]
"""An image file, a folder of them, an image, or its pixels ``(H, W)`` or ``(H, W, C)``."""

EXPECTED = "expected a file, a folder, a PIL image, or an array of uint8 of shape (H, W), (H, W, 3) or (H, W, 4)"


@dataclass(frozen=True, kw_only=True)
class ClassProbability:
    """A class, and the probability that the network gives it."""

    name: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One image's likeliest classes, the likeliest first."""

    file: str
    """As it was given, or below the folder that was; empty for an image that is of no file."""
    guesses: tuple[ClassProbability, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain values."""
        guesses = [{"class": guess.name, "probability": guess.probability} for guess in self.guesses]
        return {"file": self.file, "predictions": guesses}


def predict(
    load: Callable[[], TakesImages],
    images: Source | Iterable[Source],
    top: int = 5,
    *,
    skip_broken: bool = False,
) -> list[Prediction]:
    """Return what a network takes each image for; it is loaded when they are found, and files are read batch by batch.

    Raises:
        SepnetError: as for :func:`sepnet.predict`.

    """
    if top < 1:
        raise SepnetError(f"top is {top}: expected at least 1")
    sources = [found for given in _listed(images) for found in _find(given)]
    classifier = load()
    shape = classifier.image_shape
    if shape[0] not in (1, 3):
        raise SepnetError(f"{classifier.label} takes images of {shape[0]} channels: expected 1 or 3")
    predictions: list[Prediction] = []
    resized = 0
    for start in range(0, len(sources), BATCH):
        batch, tensors, were_resized = _read_batch(sources[start : start + BATCH], shape, skip_broken=skip_broken)
        if not tensors:
            continue
        resized += sum(were_resized)
        guesses = _rank(classifier.logits(torch.stack(tensors)), classifier.classes, top)
        predictions += (Prediction(file=_name(source), guesses=g) for source, g in zip(batch, guesses, strict=True))
    if sources and not predictions:
        raise SepnetError(f"none of the {len(sources):,} images can be read")
    if resized:
        notice(
            f"{resized:,} of {len(predictions):,} images cropped about the centre and resized "
            f"to {shape[1]}×{shape[2]} pixels (Lanczos)"
        )
    return predictions


def _read_batch(
    sources: Sequence[Path | Image.Image], shape: Sequence[int], *, skip_broken: bool
) -> tuple[list[Path | Image.Image], list[Tensor], list[bool]]:
    """Return the sources that can be read, their images ``(C, H, W)``, and which of these were resized."""
    read = []
    for source in sources:
        try:
            read.append((source, *read_image(source, shape)))
        except SepnetError as error:
            if not skip_broken:
                raise
            notice(f"skipped: {error}")
    return [row[0] for row in read], [row[1] for row in read], [row[2] for row in read]


def _listed(images: Source | Iterable[Source]) -> list[Source]:
    if isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
        return [images]
    if isinstance(images, Iterable):
        return list(images)
    raise SepnetError(f"images have type {type(images).__name__}: {EXPECTED}")


def _find(source: Source) -> list[Path | Image.Image]:
    """Return the image itself, or the image files below a folder, sorted, hidden ones left out."""
    if isinstance(source, Image.Image):
        return [source]
    if isinstance(source, np.ndarray):
        return [_from_array(source)]
    if not isinstance(source, str | Path):
        raise SepnetError(f"an image has type {type(source).__name__}: {EXPECTED}")
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SepnetError(f"'{path}' is neither a file nor a folder: expected an image, or a folder of them")
    endings = suffixes()
    files = sorted(file for file in walk(path) if file.suffix.lower() in endings)
    if not files:
        raise SepnetError(f"folder '{path}' contains no images: expected files such as .png or .jpg in it or below")
    return list(files)


def _from_array(pixels: np.ndarray[Any, Any]) -> Image.Image:
    """Return an image of grey ``(H, W)`` or ``(H, W, 1)``, RGB ``(H, W, 3)`` or RGBA ``(H, W, 4)`` pixels, uint8."""
    plain = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    fits = plain.ndim == 2 or (plain.ndim == 3 and plain.shape[2] in (3, 4))
    if plain.dtype != np.uint8 or not fits or not plain.size:
        raise SepnetError(f"an array has type {pixels.dtype} and shape {pixels.shape}: {EXPECTED}")
    return Image.fromarray(plain)


def read_image(source: Path | Image.Image, shape: Sequence[int]) -> tuple[Tensor, bool]:
    """Return an image as ``(C, H, W)``, uint8, by the rule of :mod:`sepnet.data.pictures`, and whether it was resized.

    Raises:
        SepnetError: it is no image, damaged, or too large.

    """
    given = source if isinstance(source, Image.Image) else read_content(source)
    with quiet_pillow():
        pixels, resized = read_picture(given, shape, _name(source))
    return torch.from_numpy(pixels), resized


def _rank(logits: Tensor, classes: Sequence[str], top: int) -> list[tuple[ClassProbability, ...]]:
    """Return the likeliest classes for each row of logits ``(N, classes)``; of equals the first class is first."""
    require_finite(logits)
    probabilities, places = logits.double().softmax(1).sort(dim=1, descending=True, stable=True)
    return [
        tuple(ClassProbability(name=classes[place], probability=share) for share, place in zip(*row, strict=True))
        for row in zip(probabilities[:, :top].tolist(), places[:, :top].tolist(), strict=True)
    ]


def _name(source: Path | Image.Image) -> str:
    return str(getattr(source, "filename", "") if isinstance(source, Image.Image) else source)


def to_csv(predictions: Sequence[Prediction]) -> str:
    """Return one row a guess: the file, the rank from 1, the class and its probability."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "rank", "class", "probability"))
    for prediction in predictions:
        for rank, guess in enumerate(prediction.guesses, 1):
            writer.writerow((prediction.file, rank, guess.name, guess.probability))
    return text.getvalue()


def to_text(predictions: Sequence[Prediction], width: int | None = None) -> str:
    """Return one line an image, or, where the longest is wider than ``width``, one line a guess."""
    names = [printable(prediction.file) for prediction in predictions]
    longest = max(map(cell_len, names), default=0)
    label = max((cell_len(guess.name) for prediction in predictions for guess in prediction.guesses), default=0)
    guesses = [
        [f"{_fill(guess.name, label)} {100 * guess.probability:5.1f} %" for guess in prediction.guesses]
        for prediction in predictions
    ]
    lines = ["  ".join([_fill(name, longest), *row]) for name, row in zip(names, guesses, strict=True)]
    if width is not None and max(map(cell_len, lines), default=0) > width:
        lines = [line for name, row in zip(names, guesses, strict=True) for line in (name, *(f"  {g}" for g in row))]
    return "\n".join(lines)


def _fill(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
