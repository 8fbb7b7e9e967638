"""Make the embedded sample from the full CIFAR-10: ``python -m sepnet.data.make_sample``.

Kept beside its outcome as provenance. Run again it chooses the same images; the WebP files may differ in
bytes with another version of the encoder, never in pixels.
"""

import json
import random
from pathlib import Path

import torch
from PIL import Image

from sepnet.data import catalog, cifar10, sample
from sepnet.data.dataset import Split
from sepnet.notices import notice

SEED = 10
PER_CLASS = {"train": 200, "test": 50}
COLUMNS = {"train": 50, "test": 25}


def main() -> None:
    """Write the two sheets and their provenance into the package's own folder."""
    full = catalog.load(cifar10.NAME)
    target = sample.folder()
    target.mkdir(exist_ok=True)
    splits = {name: write_split(name, getattr(full, name), target) for name in PER_CLASS}
    about = {
        "source": "CIFAR-10: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; "
        "collected by A. Krizhevsky, V. Nair and G. Hinton",
        "how": "python -m sepnet.data.make_sample: of each class and split, indices drawn with Python's "
        "random.Random(seed).sample, sorted, and their unaltered images tiled row by row as lossless WebP",
        "index": "from 0: training image i is record i % 10000 of data_batch_(1 + i // 10000), "
        "test image i record i of test_batch",
        "sha256": "of the images in the layout of CIFAR-10's binary version, labels included",
        "seed": SEED,
        "classes": cifar10.CLASSES,
        "splits": splits,
    }
    (target / sample.PROVENANCE).write_text(json.dumps(about, indent=None, separators=(",", ":")) + "\n")


def write_split(name: str, split: Split, target: Path) -> dict:
    """Write one sheet to folder ``target`` and return its entry of ``provenance.json``."""
    indices = choose(split.labels.tolist(), PER_CLASS[name])
    chosen = split.select(torch.tensor(indices))
    file = target / f"{name}.webp"
    images, labels = chosen.images.numpy(), tuple(chosen.labels.tolist())
    Image.fromarray(sample.tile(images, COLUMNS[name])).save(file, lossless=True, quality=100, method=6)
    notice(f"{file}: {len(labels)} images, {file.stat().st_size:,} bytes")
    return {
        "file": file.name,
        "columns": COLUMNS[name],
        "sha256": sample.checksum(images, labels),
        "indices": indices,
        "labels": labels,
    }


def choose(labels: list[int], per_class: int) -> list[int]:
    """Return the sorted indices of ``per_class`` images of each class."""
    generator = random.Random(SEED)
    chosen: list[int] = []
    for label in range(len(cifar10.CLASSES)):
        members = [index for index, other in enumerate(labels) if other == label]
        chosen += generator.sample(members, per_class)
    return sorted(chosen)


if __name__ == "__main__":
    main()
