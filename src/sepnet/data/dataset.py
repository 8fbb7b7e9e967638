"""The one in-memory dataset type."""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sepnet.data import splitting
from sepnet.data.pictures import Pictures
from sepnet.errors import SepnetError

HOLDOUT_SHARE = 0.1
"""Share of the training images that ``holdout`` keeps back: 5,000 of CIFAR-10's 50,000."""

HOLDOUT_SEED = 20_261_122
"""Fixed, so that every choice in this project is made on the same held-out images."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images ``(N, C, H, W)`` as uint8 and their labels ``(N,)`` as int64.

    ``groups`` ``(N,)``, int64, numbers the images that belong together, such as those of one person: they are held out
    together, or not at all.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("images", "labels"):
            if not isinstance(getattr(self, name), Tensor):
                kind = type(getattr(self, name)).__name__
                raise SepnetError(f"{name} have type {kind}: expected a tensor, as torch.from_numpy makes of an array")
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise SepnetError(
                f"images have type {self.images.dtype} and shape {tuple(self.images.shape)}: "
                "expected uint8 of shape (N, C, H, W)"
            )
        if self.labels.dtype != torch.int64 or tuple(self.labels.shape) != (len(self.images),):
            raise SepnetError(
                f"labels have type {self.labels.dtype} and shape {tuple(self.labels.shape)}: "
                f"expected int64 of shape ({len(self.images)},), one for each image"
            )

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: Tensor) -> "Split":
        """Return the images and labels at ``indices`` ``(K,)``."""
        groups = None if self.groups is None else self.groups[indices]
        return Split(images=self.images[indices], labels=self.labels[indices], groups=groups)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named dataset: class names, training images, and the images a network is scored on.

    ``test`` is the official test split, or, after :meth:`holdout`, images taken out of the training split.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    pictures: Pictures | None = None
    """Where it was read from, if it is of one's own pictures."""

    def __post_init__(self) -> None:
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise SepnetError(
                f"{self.name}: training images have shape {tuple(self.train.images.shape[1:])} and test images "
                f"{tuple(self.test.images.shape[1:])}: expected the same"
            )
        for split in (self.train, self.test):
            if not len(split):
                raise SepnetError(f"{self.name}: a split has no images: expected at least one")
            lowest, highest = int(split.labels.min()), int(split.labels.max())
            if lowest < 0 or highest >= len(self.classes):
                raise SepnetError(
                    f"{self.name}: labels run from {lowest} to {highest}: expected 0 to {len(self.classes) - 1}, "
                    "one number for each class name"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def fingerprint(self) -> str:
        """Return a SHA-256 of all images and labels, in their order."""
        digest = hashlib.sha256()
        for tensor in (self.train.images, self.train.labels, self.test.images, self.test.labels):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def holdout(self) -> "Dataset":
        """Return the dataset with a tenth of each training class held out, in place of the test split.

        The split is stratified and fixed, and keeps groups together. The returned dataset holds no test image, so
        whatever is chosen on it is not chosen on the test set.
        """
        held = splitting.choose(self.train.labels, HOLDOUT_SHARE, HOLDOUT_SEED, self.train.groups, least=0)
        if not held.any():
            raise SepnetError(
                f"{self.name} has {len(self.train)} training images, too few to hold a tenth of each class out: "
                "use validation 'test'"
            )
        return replace(
            self,
            train=self.train.select(torch.nonzero(~held).flatten()),
            test=self.train.select(torch.nonzero(held).flatten()),
        )
