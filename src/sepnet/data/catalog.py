"""Datasets by name: load, fetch, verify."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sepnet.data import cache, cifar10, cifar100, fashion_mnist, folder, sample
from sepnet.data.cache import FileCheck
from sepnet.data.dataset import Dataset
from sepnet.data.pictures import Pictures
from sepnet.data.sources import CIFAR10, Origin, download
from sepnet.errors import SepnetError
from sepnet.settings import hint


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """Where a dataset lies, and where it came from."""

    folder: Path
    source: str


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """One dataset of the catalogue; ``load`` and ``fetch`` take the path of a local copy, or None."""

    description: str
    load: Callable[[Path | None], Dataset]
    fetch: Callable[[Path | None], Fetched]
    verify: Callable[[], list[FileCheck]]


def load(name: str, *, source: Path | None = None) -> Dataset:
    """Return a dataset, fetching it first when the cache has none.

    Args:
        name: one of :data:`DATASETS`.
        source: a local copy to fill the cache from.

    Raises:
        SepnetError: no such dataset, a cached file has changed, or the dataset cannot be fetched.

    """
    return _entry(name).load(source)


def open_data(data: str | Path, **options: Any) -> Dataset:
    """Return a dataset by its name, or one of pictures by its path.

    ``options`` are of pictures alone: fields of :class:`sepnet.data.pictures.Pictures`, None where not given.

    Raises:
        SepnetError: as for :func:`load` and :func:`sepnet.data.folder.load`; or options were given with a name.

    """
    given = {name: value for name, value in options.items() if value is not None}
    if not is_path(data):
        entry = _entry(str(data))
        if given:
            flag = next(iter(given)).replace("_", "-")
            raise SepnetError(f"--{flag} is for pictures of your own, and '{data}' is sepnet's: leave it out")
        return entry.load(None)
    return folder.load(Pictures(path=os.path.normpath(data), **given))


def reload(name: str, pictures: Pictures | None) -> Dataset:
    """Return the dataset that a run records, by its name or by how its pictures were read."""
    return load(name) if pictures is None else folder.load(pictures)


def title(data: str | Path) -> str:
    """Return what a dataset given by name or path is called."""
    if not is_path(data):
        return str(data)
    return folder.title(data)


def is_path(data: str | Path) -> bool:
    """Whether data is given by a path: it is no name of a dataset, and something is there or the text looks like it."""
    if isinstance(data, str) and data in DATASETS:
        return False
    return isinstance(data, Path) or os.sep in data or data.endswith(".npz") or Path(data).exists()


def fetch(name: str, *, source: Path | None = None) -> Fetched:
    """Put a dataset into the cache unless an intact one is there, and say where it came from.

    A ``source`` is read and checked even when the cache is intact: a bad one is never passed over. A
    damaged cache is replaced.

    Raises:
        SepnetError: no such dataset, the source is not the dataset, nothing could be fetched, or the
            cache cannot be written.

    """
    return _entry(name).fetch(source)


def verify(name: str) -> list[FileCheck]:
    """Compare each file of a dataset with its checksum: one row a file.

    Raises:
        SepnetError: no such dataset, or it has not been fetched.

    """
    return _entry(name).verify()


def _entry(name: str) -> DatasetEntry:
    if name in DATASETS:
        return DATASETS[name]
    otherwise = f"expected one of {', '.join(DATASETS)}, or a folder of pictures or .npz file that is there"
    raise SepnetError(f"unknown dataset '{name}': {hint(name, DATASETS, otherwise=otherwise)}")


def cached(description: str, origin: Origin) -> DatasetEntry:
    """Return the entry of a dataset whose files are kept in the cache."""
    return DatasetEntry(
        description=description,
        load=partial(_load_cached, origin),
        fetch=partial(_fetch_cached, origin),
        verify=lambda: cache.verify(origin.name, origin.checksums()),
    )


def _load_cached(origin: Origin, source: Path | None) -> Dataset:
    if source is not None or not cache.exists(origin.name):
        _fetch_cached(origin, source)
    return origin.to_dataset(cache.read(origin.name, origin.checksums()))


def _fetch_cached(origin: Origin, source: Path | None) -> Fetched:
    copy = None if source is None else origin.read_copy(source)
    title = "the cache" if copy is None else f"'{source}'"
    if not cache.intact(origin.name, origin.checksums()):
        with cache.staging(origin.name) as place:
            # Another process may have filled the cache while this one waited for the lock.
            if not cache.intact(origin.name, origin.checksums()):
                if copy is None:
                    copy, title = download(origin, place)
                cache.store(origin.name, copy, place)
    return Fetched(folder=cache.folder(origin.name), source=title)


def _load_sample(source: Path | None) -> Dataset:
    _refuse_source(source)
    return sample.load()


def _fetch_sample(source: Path | None) -> Fetched:
    _load_sample(source)
    return Fetched(folder=sample.folder(), source="the sepnet package")


def _refuse_source(source: Path | None) -> None:
    if source is not None:
        raise SepnetError(f"'{source}' was given as source, but the sample comes with sepnet: leave --source out")


DATASETS = {
    cifar10.NAME: cached("60,000 images of 10 classes, 32×32, from a verified cache", CIFAR10),
    cifar100.NAME: cached("60,000 images of 100 classes, 32×32, from a verified cache", cifar100.ORIGIN),
    fashion_mnist.NAME: cached("70,000 grey images of 10 classes, 28×28, from a verified cache", fashion_mnist.ORIGIN),
    sample.NAME: DatasetEntry(
        description="2,500 images of CIFAR-10, embedded in sepnet",
        load=_load_sample,
        fetch=_fetch_sample,
        verify=sample.verify,
    ),
}
