"""Fashion-MNIST as its authors publish it: four files in the IDX format, each compressed by gzip.

Han Xiao, Kashif Rasul, Roland Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms*, 2017, https://github.com/zalandoresearch/fashion-mnist. The MD5s are those of that page, of the compressed
files; the SHA-256s are of what these unpack to.
"""

from collections.abc import Mapping

import numpy as np
import torch

from sepnet.data.dataset import Dataset, Split
from sepnet.data.published import PublishedFile, origin
from sepnet.data.sources import RemoteFile

NAME = "fashion-mnist"

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"


def _file(name: str, *, size: int, sha256: str, packed_size: int, packed_md5: str) -> PublishedFile:
    remote = RemoteFile(url=f"{ADDRESS}{name}.gz", size=packed_size, md5=packed_md5)
    return PublishedFile(name=name, size=size, sha256=sha256, remote=remote)


FILES = (
    _file(
        "train-images-idx3-ubyte",
        size=47_040_016,
        sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        packed_size=26_421_880,
        packed_md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ),
    _file(
        "train-labels-idx1-ubyte",
        size=60_008,
        sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        packed_size=29_515,
        packed_md5="25c81989df183df01b3e8a0aad5dffbe",
    ),
    _file(
        "t10k-images-idx3-ubyte",
        size=7_840_016,
        sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        packed_size=4_422_102,
        packed_md5="bef4ecab320f06d8554ea6380940ec79",
    ),
    _file(
        "t10k-labels-idx1-ubyte",
        size=10_008,
        sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        packed_size=5_148,
        packed_md5="bb300cfdad3c16e7a12a480ee83cd310",
    ),
)


def to_dataset(files: Mapping[str, bytes]) -> Dataset:
    """Return the four files, already checked, as tensors; images are ``(N, 1, 28, 28)``."""
    return Dataset(name=NAME, classes=CLASSES, train=_to_split(files, "train"), test=_to_split(files, "t10k"))


def _to_split(files: Mapping[str, bytes], prefix: str) -> Split:
    images, labels = (_idx(files[f"{prefix}-{kind}-ubyte"]) for kind in ("images-idx3", "labels-idx1"))
    return Split(
        images=torch.from_numpy(images.copy()).unsqueeze(1),
        labels=torch.from_numpy(labels.astype(np.int64)),
    )


def _idx(content: bytes) -> np.ndarray:
    """Return the array of an IDX file of bytes: the fourth byte is the number of dimensions, then come their sizes."""
    dimensions = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=dimensions, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


ORIGIN = origin(NAME, title="Fashion-MNIST", address=ADDRESS, files=FILES, to_dataset=to_dataset)
