"""Many pictures decoded in parallel, once: afterwards they come from a cache that is keyed by their content."""

import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL

from sepnet.data import cache
from sepnet.data.pictures import RULE, Header, quiet_pillow, read_content, read_header, read_picture
from sepnet.environment import available_memory
from sepnet.errors import SepnetError
from sepnet.files import read_text, write_atomically
from sepnet.notices import notice
from sepnet.settings import parse_json

IMAGES = "images.npy"
ENTRY = "entry.json"
LARGE = 16_000_000
"""Pixels of a picture beyond which only one is decoded at a time: each takes several bytes a pixel."""
NOTICE_SECONDS = 10.0

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """A picture's file as it was found; what cannot be read has an ``error`` and no header."""

    path: Path
    bytes: int = 0
    sha256: str = ""
    header: Header | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Images ``(N, C, H, W)``, uint8, the number of each by its picture's SHA-256, and why others have none."""

    images: np.ndarray[Any, Any]
    place: Mapping[str, int]
    broken: Mapping[str, str]


def inspect(paths: Sequence[Path]) -> list[Inspected]:
    """Return each file's SHA-256 and what it says of itself."""
    with quiet_pillow():
        return list(_in_threads(_inspect, paths, "reading"))


def _inspect(path: Path) -> Inspected:
    try:
        content = read_content(path, follow_links=False)
    except SepnetError as error:
        return Inspected(path=path, error=str(error))
    found = {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    try:
        return Inspected(**found, header=read_header(content, str(path)))  # type: ignore[arg-type]
    except SepnetError as error:
        return Inspected(**found, error=str(error))  # type: ignore[arg-type]


def decode(pictures: Sequence[Inspected], shape: tuple[int, int, int]) -> Decoded:
    """Return pictures that have a header as images of a shape ``(C, H, W)``, each content once.

    Raises:
        SepnetError: the images do not fit into memory, or a file changed meanwhile.

    """
    unique = {picture.sha256: picture for picture in pictures}
    digests = sorted(unique)
    require_memory(len(digests), shape)
    key = [RULE, shape, PIL.__version__, digests]
    entry = cache.root() / "pictures" / hashlib.sha256(json.dumps(key).encode()).hexdigest()
    cached = _read_entry(entry, shape)
    if cached is None:
        images, broken = _decode_all([unique[digest] for digest in digests], shape)
        _write_entry(entry, images, broken)
    else:
        images, broken = cached
    good = [digest for digest in digests if digest not in broken]
    return Decoded(images=images, place={digest: place for place, digest in enumerate(good)}, broken=broken)


def require_memory(count: int, shape: tuple[int, int, int]) -> None:
    """Raise unless so many images ``(C, H, W)`` fit into memory twice: as a dataset, and as training lays them out."""
    needed, free = 2 * count * int(np.prod(shape)), available_memory()
    if free is not None and needed > free:
        size = "×".join(map(str, shape))
        raise SepnetError(
            f"{count:,} images of {size} need {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are "
            "available: choose a smaller --image-size"
        )


def _decode_all(
    pictures: Sequence[Inspected], shape: tuple[int, int, int]
) -> tuple[np.ndarray[Any, Any], dict[str, str]]:
    one_by_one = threading.Lock()

    def read(picture: Inspected) -> np.ndarray[Any, Any] | str:
        assert picture.header is not None
        height, width = picture.header.size
        try:
            with one_by_one if height * width > LARGE else nullcontext():
                content = read_content(picture.path, follow_links=False)
                if hashlib.sha256(content).hexdigest() != picture.sha256:
                    raise _Changed(f"'{picture.path}' has changed while it was read: try again")
                return read_picture(content, shape, str(picture.path))[0]
        except _Changed:
            raise
        except SepnetError as error:
            return str(error)

    count, images = 0, np.empty((len(pictures), *shape), dtype=np.uint8)
    broken: dict[str, str] = {}
    with quiet_pillow():
        for picture, found in zip(pictures, _in_threads(read, pictures, "decoding"), strict=True):
            if isinstance(found, str):
                broken[picture.sha256] = found
            else:
                images[count] = found
                count += 1
    return images[:count], broken


def _read_entry(entry: Path, shape: tuple[int, int, int]) -> tuple[np.ndarray[Any, Any], dict[str, str]] | None:
    """Return an entry's images and broken pictures; None, and the entry removed, unless it is what was written."""
    if not entry.is_dir():
        return None
    try:
        described = parse_json(read_text(entry / ENTRY), f"'{entry / ENTRY}'")
        images = np.load(entry / IMAGES, mmap_mode="r", allow_pickle=False)
        broken = described["broken"]
        if images.dtype == np.uint8 and images.shape[1:] == shape and described["sha256"] == _sha256(images):
            return images, dict(broken)
    except (SepnetError, OSError, ValueError, KeyError, TypeError):
        pass
    notice(f"'{entry}' is damaged: the pictures are decoded again")
    shutil.rmtree(entry, ignore_errors=True)
    return None


def _write_entry(entry: Path, images: np.ndarray[Any, Any], broken: Mapping[str, str]) -> None:
    """Put images into the cache in one step; where that cannot be written, say so and go on without."""
    partial = entry.with_name(f".{entry.name}-{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        np.save(partial / IMAGES, images, allow_pickle=False)
        write_atomically(partial / ENTRY, json.dumps({"sha256": _sha256(images), "broken": broken}))
        partial.rename(entry)
    except (OSError, SepnetError) as error:
        if not entry.is_dir():  # which another process may have written meanwhile
            reason = getattr(error, "strerror", None) or error
            notice(f"the decoded pictures are not kept in the cache '{cache.root()}': {reason}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sha256(images: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()


class _Changed(SepnetError):
    """A file that is not what it was a moment before."""


def _in_threads(do: Callable[[Item], Result], items: Sequence[Item], verb: str) -> Iterator[Result]:
    """Yield the results in order; a few are ahead of the reader, so that memory does not fill with them."""
    last = time.monotonic()
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        chunk = 64 * workers
        for start in range(0, len(items), chunk):
            yield from pool.map(do, items[start : start + chunk])
            if time.monotonic() - last > NOTICE_SECONDS:
                last = time.monotonic()
                notice(f"{verb} pictures: {min(start + chunk, len(items)):,} of {len(items):,}")
