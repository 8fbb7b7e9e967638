"""The embedded sample: 2,500 real images of CIFAR-10 inside the package, for a machine with no network.

Each split is one lossless WebP sheet, its images tiled row by row; ``provenance.json`` gives every image's
label and index in the full set. `make_sample` wrote them.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cache as remember
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sepnet.data import cifar10
from sepnet.data.cache import FileCheck
from sepnet.data.dataset import Dataset, Split
from sepnet.errors import SepnetError

NAME = "sample"
PROVENANCE = "provenance.json"
SIDE = 32
DECODING_BYTES = 2**26
"""As much as decoding a sheet may take, Pillow's codec included."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One split of the sample: its file, the labels and indices of its images, and their checksum.

    ``columns`` is the number of images in a row of the sheet. ``indices`` count from 0 within the official
    split. ``sha256`` is that of the images in the official binary layout, labels included.
    """

    file: str
    columns: int
    indices: tuple[int, ...]
    labels: tuple[int, ...]
    sha256: str


def load() -> Dataset:
    """Return the sample: 200 training and 50 test images of each class.

    Raises:
        SepnetError: a file of the installed package is missing or has changed.

    """
    return Dataset(
        name=NAME,
        classes=cifar10.CLASSES,
        train=_load_split("train"),
        test=_load_split("test"),
    )


def verify() -> list[FileCheck]:
    """Return one row for each sheet; the checksums are of the decoded images with their labels."""
    return [_verify_sheet(sheet(split)) for split in ("train", "test")]


def folder() -> Path:
    """Return the folder of the sheets within the installed package."""
    return Path(str(files("sepnet.data").joinpath(NAME)))


@remember
def provenance() -> dict:
    """Return ``provenance.json``: the sample's source, how it was made, and both splits.

    Raises:
        SepnetError: the file is missing or no JSON.

    """
    try:
        return json.loads(_read(PROVENANCE))
    except ValueError as error:
        raise SepnetError(f"'{folder() / PROVENANCE}' is not JSON ({error}): install sepnet again") from error


def sheet(split: str) -> Sheet:
    """Return what ``provenance.json`` says of split ``train`` or ``test``."""
    entry = provenance()["splits"][split]
    return Sheet(
        file=entry["file"],
        columns=entry["columns"],
        indices=tuple(entry["indices"]),
        labels=tuple(entry["labels"]),
        sha256=entry["sha256"],
    )


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Lay images ``(N, 3, 32, 32)`` row by row on a sheet ``(32·N/columns, 32·columns, 3)``."""
    grid = images.reshape(-1, columns, 3, SIDE, SIDE)
    return grid.transpose(0, 3, 1, 4, 2).reshape(-1, columns * SIDE, 3)


def untile(pixels: np.ndarray, columns: int) -> np.ndarray:
    """Cut a sheet ``(H, W, 3)`` into images ``(N, 3, 32, 32)``; the inverse of :func:`tile`."""
    grid = pixels.reshape(-1, SIDE, columns, SIDE, 3)
    return grid.transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE)


def checksum(images: np.ndarray, labels: tuple[int, ...]) -> str:
    """Return the SHA-256 of images ``(N, 3, 32, 32)`` and labels in the official binary layout."""
    return hashlib.sha256(cifar10.pack(images.reshape(len(images), -1), labels)).hexdigest()


def _load_split(split: str) -> Split:
    described = sheet(split)
    images = _decode(described)
    found = checksum(images, described.labels)
    if found != described.sha256:
        raise SepnetError(
            f"'{folder() / described.file}' has changed: its images have SHA-256 {found}, "
            f"expected {described.sha256}: install sepnet again"
        )
    return Split(images=torch.from_numpy(images), labels=torch.tensor(described.labels, dtype=torch.int64))


def _verify_sheet(described: Sheet) -> FileCheck:
    try:
        found = checksum(_decode(described), described.labels)
    except SepnetError:
        found = None
    return FileCheck(file=folder() / described.file, expected=described.sha256, found=found)


def _decode(described: Sheet) -> np.ndarray:
    """Return the images of a sheet ``(N, 3, 32, 32)``."""
    content = _read(described.file)
    rows = len(described.indices) // described.columns
    try:
        with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
            if image.size != (described.columns * SIDE, rows * SIDE):
                raise ValueError(f"its size is {image.size[0]}×{image.size[1]}")
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        bytearray(DECODING_BYTES)  # a MemoryError, where Pillow fails for want of memory without saying so
        raise SepnetError(
            f"'{folder() / described.file}' is not the sample's sheet ({error}): install sepnet again"
        ) from error
    return np.ascontiguousarray(untile(pixels, described.columns))


def _read(name: str) -> bytes:
    try:
        return files("sepnet.data").joinpath(NAME, name).read_bytes()
    except OSError as error:
        raise SepnetError(f"'{folder() / name}' cannot be read ({error.strerror}): install sepnet again") from error
