"""CIFAR-100 as its authors publish it: an archive that is kept whole, since that is what they give a checksum of.

Alex Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
In the binary version a record has 3,074 bytes: the label among 20 superclasses, the label among the 100 classes, then
the red, the green and the blue plane of a 32×32 image. The classes' names are in the archive.
"""

import io
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np
import torch

from sepnet.data.cifar10 import IMAGE_SHAPE, PIXELS
from sepnet.data.dataset import Dataset, Split
from sepnet.data.published import PublishedFile, origin
from sepnet.data.sources import RemoteFile

NAME = "cifar100"

RECORD_BYTES = 2 + 3 * PIXELS

ARCHIVE = RemoteFile(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    size=168_513_733,
    md5="03b5dce01913d631647c71ecec9e9cb8",
)

FILE = PublishedFile(
    name=ARCHIVE.name,
    size=ARCHIVE.size,
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    remote=ARCHIVE,
)


def to_dataset(files: Mapping[str, bytes]) -> Dataset:
    """Return the archive, already checked, as tensors; labels are of the 100 classes."""
    members = {}
    with tarfile.open(fileobj=io.BytesIO(files[FILE.name]), mode="r:gz") as archive:
        for member in archive:
            content = archive.extractfile(member)  # None for a folder
            if content is not None:
                members[PurePosixPath(member.name).name] = content.read()
    return Dataset(
        name=NAME,
        classes=tuple(members["fine_label_names.txt"].decode().split()),
        train=_to_split(members["train.bin"]),
        test=_to_split(members["test.bin"]),
    )


def _to_split(content: bytes) -> Split:
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD_BYTES)
    return Split(
        images=torch.from_numpy(records[:, 2:].reshape(-1, *IMAGE_SHAPE).copy()),
        labels=torch.from_numpy(records[:, 1].astype(np.int64)),
    )


ORIGIN = origin(NAME, title="CIFAR-100", address=ARCHIVE.url, files=[FILE], to_dataset=to_dataset)
