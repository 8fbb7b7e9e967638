"""Small folders of pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 8


def picture(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Return an RGB picture of random pixels; ``size`` is height and width."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(pixels)


def fill(root: Path, counts: Mapping[str, int], size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """Write so many PNG files into each folder below ``root``, numbered through from 0; return ``root``."""
    number = 0
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            picture(number, size).save(root / folder / f"{number:03}.png")
            number += 1
    return root


def split_folder(root: Path) -> Path:
    """Write two classes, 4 training and 2 test pictures each."""
    return fill(root, {"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2})
