"""A dataset of one's own pictures: a folder, or arrays in an ``.npz`` file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sepnet.data import arrays, splitting
from sepnet.data.dataset import Dataset, Split
from sepnet.data.decoding import Inspected, decode, inspect
from sepnet.data.layout import Layout, find_layout, require_classes
from sepnet.data.pictures import Pictures
from sepnet.errors import SepnetError
from sepnet.notices import notice

LISTED = 5
"""Broken files in one line."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """A folder read: what its files are, in the order of its layout, and their images where they have one."""

    layout: Layout
    found: tuple[Inspected, ...]
    """With the errors of decoding, too."""
    images: Tensor
    """Of the files without error, ``(N, C, H, W)``, uint8."""


def title(path: str | Path) -> str:
    """Return what a dataset of this path is called."""
    resolved = Path(path).resolve()
    return resolved.stem if resolved.suffix.lower() == ".npz" else resolved.name or "pictures"


def load(pictures: Pictures) -> Dataset:
    """Return the dataset in a folder or ``.npz`` file, split if it is not.

    The dataset's own ``pictures`` say which image size was found.

    Raises:
        SepnetError: nothing is there, a file cannot be read, sizes differ and none is given, or a class is missing.

    """
    path = Path(pictures.path)
    try:
        if path.suffix.lower() == ".npz" and not path.is_dir():
            classes, images, labels, held = arrays.load(pictures)
            return _to_dataset(pictures, classes, images, labels, held, None)
        return _split(read(pictures), pictures)
    except OSError as error:
        raise SepnetError(f"'{error.filename or path}' cannot be read: {error.strerror or error}") from error


def read(pictures: Pictures, *, otherwise: tuple[int, int] | None = None) -> Read:
    """Return a folder's pictures, broken ones among them; ``otherwise`` is the size where several are found."""
    layout = find_layout(Path(pictures.path))
    found = inspect([file.path for file in layout.files])
    shape = (pictures.channels, *_image_size(pictures, found, otherwise))
    decoded = decode([one for one in found if not one.error], shape)
    found = [replace(one, error=decoded.broken.get(one.sha256, one.error)) for one in found]
    places = [decoded.place[one.sha256] for one in found if not one.error]
    images = torch.empty((len(places), *shape), dtype=torch.uint8)
    for row, place in enumerate(places):
        images.numpy()[row] = decoded.images[place]
    return Read(layout=layout, found=tuple(found), images=images)


def _image_size(pictures: Pictures, found: Sequence[Inspected], otherwise: tuple[int, int] | None) -> tuple[int, int]:
    if pictures.image_size is not None:
        height, width = pictures.image_size
        return height, width
    sizes = Counter(one.header.size for one in found if one.header is not None)
    if not sizes:
        raise SepnetError(f"'{pictures.path}' holds no picture that can be read{_named(found)}")
    if len(sizes) > 1 and otherwise is not None:
        return otherwise
    if len(sizes) > 1:
        smallest, largest = (f"{height}×{width}" for height, width in (min(sizes), max(sizes)))
        raise SepnetError(
            f"the pictures of '{pictures.path}' have {len(sizes):,} sizes, as {smallest} and {largest} (height × "
            "width): choose the size that a network sees with --image-size, as --image-size 64"
        )
    return next(iter(sizes))


def _split(found: Read, pictures: Pictures) -> Dataset:
    layout = found.layout
    _refuse_broken(found, pictures)
    if layout.outside:
        notice(f"left out, as they are of no class: '{layout.outside[0]}'{_more(len(layout.outside))}")
    labels, held, groups = assign(found, pictures)
    return _to_dataset(pictures, layout.classes, found.images, labels, held, groups)


def assign(found: Read, pictures: Pictures) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the label of each image ``(N,)``, whether it is a test image ``(N,)``, and its group ``(N,)``."""
    layout = found.layout
    files = [file for file, one in zip(layout.files, found.found, strict=True) if not one.error]
    numbers = {name: number for number, name in enumerate(layout.classes)}
    labels = torch.tensor([numbers[file.label] for file in files], dtype=torch.int64)
    groups = splitting.find_groups([file.name for file in files], pictures.group_by) if pictures.group_by else None
    if layout.is_split:
        held = torch.tensor([file.split == "test" for file in files])
        if groups is not None:
            _require_apart(groups, held, [file.name for file in files])
    else:
        held = splitting.choose(labels, pictures.test_share, pictures.split_seed, groups)
    return labels, held, groups


def _to_dataset(
    pictures: Pictures,
    classes: tuple[str, ...],
    images: Tensor,
    labels: Tensor,
    held: Tensor,
    groups: Tensor | None,
) -> Dataset:
    """Return images ``(N, C, H, W)`` and labels ``(N,)`` as a dataset; ``held`` ``(N,)`` are its test images."""
    splits = {"training": torch.nonzero(~held).flatten(), "test": torch.nonzero(held).flatten()}
    require_classes(
        pictures.path,
        classes,
        {split: [classes[label] for label in labels[indices].tolist()] for split, indices in splits.items()},
        "add some, or remove the class everywhere"
        if groups is None
        else "its pictures may be of one group: add others",
    )
    train, test = (
        Split(images=images[indices], labels=labels[indices], groups=None if groups is None else groups[indices])
        for indices in splits.values()
    )
    size = (int(images.shape[2]), int(images.shape[3]))
    return Dataset(
        name=title(pictures.path), classes=classes, train=train, test=test, pictures=replace(pictures, image_size=size)
    )


def _refuse_broken(found: Read, pictures: Pictures) -> None:
    broken = [one for one in found.found if one.error]
    if not broken:
        return
    if not pictures.skip_broken:
        raise SepnetError(
            f"{len(broken):,} of {len(found.found):,} pictures of '{pictures.path}' cannot be read{_named(broken)}; "
            "mend or remove them, or give --skip-broken; `sepnet data check` lists all"
        )
    for one in broken:
        notice(f"skipped: {one.error}")


def _named(broken: Sequence[Inspected]) -> str:
    if not broken:
        return ""
    return ": " + "; ".join(one.error for one in broken[:LISTED]) + _more(len(broken), LISTED)


def _more(count: int, shown: int = 1) -> str:
    return f" (and {count - shown:,} more)" if count > shown else ""


def _require_apart(groups: Tensor, held: Tensor, names: Sequence[str]) -> None:
    """Raise where a folder that is split already has one group on both sides."""
    both = set(groups[held].tolist()) & set(groups[~held].tolist())
    if both:
        train, test = (names[int(torch.nonzero((groups == min(both)) & side)[0])] for side in (~held, held))
        raise SepnetError(
            f"--group-by: '{train}' is a training image and '{test}', of the same group, a test image"
            f"{_more(len(both))}: put each group on one side"
        )
