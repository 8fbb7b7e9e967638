"""From a picture in a file to an image of a network: one rule, for training data and predictions alike.

A picture is turned upright by its EXIF orientation, laid on white where it is transparent, brought to 8 bits a channel
and to grey or RGB; the first frame of several counts. One of another size is cropped about the centre to the image's
aspect ratio and resized by Lanczos's filter, which Pillow widens when it shrinks, so that nothing aliases.
"""

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sepnet.errors import SepnetError, first_line
from sepnet.files import open_regular
from sepnet.notices import printable
from sepnet.settings import MOST_VALUES, shown

Rule = Literal["centre-crop-lanczos"]
RULE: Rule = "centre-crop-lanczos"
"""The name by which a run records the rule above; another rule will have another name."""

NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow recognizes but does not decode, or leaves to another program."""

TEST_SHARE = 0.2
LARGEST_FILE = 2**28
"""Bytes of a picture's file: sixteen times a 24-megapixel raw one."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where a dataset's pictures lie and how they become images: what a run records, to do the same again."""

    path: str
    """A folder or an ``.npz`` file."""
    image_size: tuple[int, ...] | None = None
    """Height and width; None where all pictures have one size, which is taken."""
    channels: int = 3
    """3 for RGB, 1 for grey."""
    resize: Rule = RULE
    group_by: str = ""
    """A regular expression on file names: pictures of one match (of its first group, if it has one) are not split."""
    test_share: float = TEST_SHARE
    """Of each class, the share of the pictures that become test images, where the folder is not split already."""
    split_seed: int = 0
    skip_broken: bool = False
    """Whether files that cannot be read are left out instead of stopping the command."""

    def __post_init__(self) -> None:
        if printable(self.path) != self.path:
            raise SepnetError(f"the path '{printable(self.path)}' holds a control character: rename it")
        size = self.image_size
        rules = {
            "image_size": (
                size is None or (len(size) == 2 and min(size) > 0 and self.channels * size[0] * size[1] <= MOST_VALUES),
                f"expected height and width in pixels, at most {MOST_VALUES:,} values an image",
            ),
            "channels": (self.channels in (1, 3), "expected 1 (grey) or 3 (RGB)"),
            "test_share": (0 < self.test_share < 1, "expected a number between 0 and 1"),
            "split_seed": (0 <= self.split_seed < 2**63, "expected a whole number from 0 to 2^63 - 1"),
        }
        for name, (kept, expected) in rules.items():
            if not kept:
                raise SepnetError(f"{name} is {shown(getattr(self, name))}: {expected}")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a picture's file says of itself; ``size`` is height and width when upright."""

    format: str
    mode: str
    size: tuple[int, int]


def formats() -> list[str]:
    """Return Pillow's names of the formats that are read."""
    Image.init()
    return [name for name in Image.OPEN if name not in NOT_READ]


def suffixes() -> set[str]:
    """Return the endings, as ``.png``, of files that are taken for pictures."""
    known = set(formats())
    return {suffix for suffix, name in Image.registered_extensions().items() if name in known}


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files in and below a folder, hidden ones left out, however deeply it is nested."""
    folders = [folder]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry))
                elif entry.is_file():
                    yield Path(entry)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Hide Pillow's warnings of oddities that it gets over, and of large images within its limit, in all threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_content(path: Path, *, follow_links: bool = True) -> bytes:
    """Return the content of a picture's file.

    Raises:
        SepnetError: it is no regular file, cannot be read, or is longer than any picture.

    """
    try:
        with open_regular(path, follow_links=follow_links) as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise SepnetError(f"'{path}' could not be read: {error.strerror or error}") from error
    if len(content) > LARGEST_FILE:
        raise SepnetError(f"'{path}' holds more than {LARGEST_FILE:,} bytes: make it smaller first")
    return content


def read_header(content: bytes, name: str) -> Header:
    """Return what a picture's file, of this content and name, says of itself; nothing is decoded.

    Raises:
        SepnetError: it is no picture, or too large.

    """
    with _one_line_errors(name), _opened(content) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        size = (width, height) if turned else (height, width)
        return Header(format=image.format or "", mode=image.mode, size=size)


def read_picture(source: bytes | Image.Image, shape: Sequence[int], name: str) -> tuple[np.ndarray[Any, Any], bool]:
    """Return a picture as ``(C, H, W)``, uint8, and whether it had to be brought to that size.

    Args:
        source: a file's content, or an image of Pillow's.
        shape: ``(C, H, W)``.
        name: what errors call it.

    Raises:
        SepnetError: it is no picture, damaged, or too large.

    """
    with _one_line_errors(name):
        if isinstance(source, Image.Image):
            return _to_pixels(source, shape)
        with _opened(source) as image:
            return _to_pixels(image, shape)


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=formats())


@contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (SepnetError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise SepnetError(f"'{name}' is not an image in a format that Pillow reads: leave it out") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise SepnetError(f"'{name}' has more than {limit:,} pixels: make it smaller first") from None
    except Exception as error:  # a damaged file can break its reader anywhere
        reason = getattr(error, "strerror", None) or first_line(error) or type(error).__name__
        raise SepnetError(f"image '{name}' cannot be read ({reason}): mend it or leave it out") from error


def _to_pixels(image: Image.Image, shape: Sequence[int]) -> tuple[np.ndarray[Any, Any], bool]:
    channels, height, width = shape
    picture = _flatten(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
    resized = picture.size != (width, height)
    if resized:
        picture = ImageOps.fit(picture, (width, height), method=Image.Resampling.LANCZOS)
    return np.array(picture).reshape(height, width, channels).transpose(2, 0, 1), resized


def _flatten(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel without transparency."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # Pillow would cut all values to 255
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of Pillow's mode {image.mode}, expected 8 or 16 bits a channel")
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
