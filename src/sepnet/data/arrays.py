"""Images and labels in an ``.npz`` file, as Keras and MedMNIST name the arrays. Nothing pickled in it is opened."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sepnet.data import splitting
from sepnet.data.decoding import require_memory
from sepnet.data.layout import in_order
from sepnet.data.pictures import Pictures, read_picture
from sepnet.errors import SepnetError, first_line
from sepnet.files import open_regular
from sepnet.notices import printable
from sepnet.settings import shown

NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("train_images", "train_labels", "val_images", "val_labels"),
    ("x", "y"),
    ("images", "labels"),
)
"""Of images and labels of the training and the test split, or of all; the first of these that are there."""
CLASSES = ("classes", "class_names")
EXPECTED = (
    "expected arrays x_train, y_train, x_test and y_test, or train_images, train_labels, test_images and test_labels, "
    "or x and y, or images and labels"
)

Array = np.ndarray[Any, Any]


def load(pictures: Pictures) -> tuple[tuple[str, ...], Tensor, Tensor, Tensor]:
    """Return the classes, images ``(N, C, H, W)``, labels ``(N,)``, and which images are of the test split ``(N,)``.

    Stored images are uint8 ``(N, H, W)``, ``(N, H, W, 1)`` or ``(N, H, W, 3)``; labels are whole numbers or texts
    ``(N,)`` or ``(N, 1)``. An array ``classes`` of texts names the numbers from 0.

    Raises:
        SepnetError: it is no such file, or an array is missing or another.

    """
    path = Path(pictures.path)
    if pictures.group_by:
        raise SepnetError(f"--group-by is for files, and '{path}' has arrays: leave it out")
    stored = _read(path)
    names = next((names for names in NAMES if all(name in stored for name in names)), None)
    if names is None:
        raise SepnetError(f"'{path}' has the arrays {', '.join(map(printable, stored)) or 'none'}: {EXPECTED}")
    pairs = list(zip(names[::2], names[1::2], strict=True))
    for first, second in pairs:
        _require_fit(first, stored[first], second, stored[second], path)
    images = torch.cat([_to_images(stored[name], pictures, f"{path}: {name}") for name, _ in pairs])
    values = [value for _, name in pairs for value in stored[name].reshape(-1).tolist()]
    given = next((stored[name].reshape(-1).tolist() for name in CLASSES if name in stored), None)
    classes, labels = _to_classes(values, given, path)
    if len(pairs) == 2:
        return classes, images, labels, torch.arange(len(images)) >= len(stored[names[0]])
    return classes, images, labels, splitting.choose(labels, pictures.test_share, pictures.split_seed)


def _read(path: Path) -> dict[str, Array]:
    """Return the arrays that have a known name."""
    known = {name for names in NAMES for name in names} | set(CLASSES)
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = {Path(name).stem: name for name in archive.namelist() if name.endswith(".npy")}
            return {name: _read_array(archive, members[name], path) for name in sorted(known & members.keys())} or {
                name: np.empty(0) for name in sorted(members)
            }
    except (SepnetError, MemoryError):
        raise
    except Exception as error:  # a damaged archive can break its reader anywhere
        reason = first_line(error) or type(error).__name__
        raise SepnetError(f"'{path}' cannot be read as .npz ({reason}): {EXPECTED}") from error


def _read_array(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    """Return an array, after its header has been compared with the bytes that follow: it may promise any size."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
    if dtype.hasobject:
        raise SepnetError(f"'{path}': '{name}' holds pickled objects, which are not opened: save numbers or texts")
    size = archive.getinfo(name).file_size
    if math.prod(shape) * dtype.itemsize > size:
        raise SepnetError(f"'{path}': '{name}' promises more than the {size:,} bytes that it has: get a fresh copy")
    require_memory(size, (1, 1, 1))
    with archive.open(name) as member:
        array: Array = np.lib.format.read_array(member, allow_pickle=False)
        return array


def _require_fit(images_name: str, images: Array, labels_name: str, labels: Array, path: Path) -> None:
    fits = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if images.dtype != np.uint8 or not fits or not images.size:
        raise SepnetError(
            f"'{path}': {images_name} has type {images.dtype} and shape {images.shape}: expected uint8 of shape "
            "(N, H, W), (N, H, W, 1) or (N, H, W, 3)"
        )
    if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "iuU":
        raise SepnetError(
            f"'{path}': {labels_name} has type {labels.dtype} and shape {labels.shape}: expected whole numbers or "
            f"texts of shape ({len(images)},), one for each image"
        )


def _to_images(stored: Array, pictures: Pictures, name: str) -> Tensor:
    """Return stored images as ``(N, C, H, W)``, resized one by one where another size or grey is wanted."""
    stored = stored[..., 0] if stored.ndim == 4 and stored.shape[3] == 1 else stored
    height, width = pictures.image_size or stored.shape[1:3]
    channels = pictures.channels
    require_memory(len(stored), (channels, height, width))
    if stored.shape[1:3] == (height, width) and (stored.ndim, channels) in ((3, 1), (4, 3)):
        return torch.from_numpy(np.ascontiguousarray(stored.reshape(*stored.shape[:3], -1).transpose(0, 3, 1, 2)))
    images = torch.empty((len(stored), channels, height, width), dtype=torch.uint8)
    for row, pixels in enumerate(stored):
        images.numpy()[row] = read_picture(Image.fromarray(pixels), (channels, height, width), name)[0]
    return images


def _to_classes(values: list[Any], given: list[Any] | None, path: Path) -> tuple[tuple[str, ...], Tensor]:
    """Return the class names and each label's number; ``given`` names the numbers from 0."""
    if given is not None and all(isinstance(value, int) for value in values):
        names = [str(name).strip() for name in given]
        wrong = [value for value in values if not 0 <= value < len(names)]
        if wrong:
            raise SepnetError(
                f"'{path}': a label is {shown(wrong[0])}: expected 0 to {len(names) - 1}, as of its classes"
            )
        values = [names[value] for value in values]
        classes = tuple(names)
    else:
        values = [str(value).strip() for value in values]
        classes = in_order(set(values))
    if len(set(classes)) < max(2, len(classes)) or not all(name and printable(name) == name for name in classes):
        raise SepnetError(f"'{path}' has the classes {shown(list(classes))}: expected two or more different names")
    numbers = {name: number for number, name in enumerate(classes)}
    return classes, torch.tensor([numbers[value] for value in values], dtype=torch.int64)
