"""The cache: one folder for each fetched dataset, whole and verified or not there at all."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from sepnet.data import cifar10
from sepnet.errors import SepnetError
from sepnet.files import sync_folder
from sepnet.notices import notice

REFETCH = f"run `sepnet data fetch {cifar10.NAME}`"


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """One file of a dataset beside its checksum; ``found`` is None when the file cannot be read."""

    file: Path
    expected: str
    found: str | None

    @property
    def ok(self) -> bool:
        """Whether the file is there and has the expected SHA-256."""
        return self.found == self.expected


def root() -> Path:
    """Return ``$SEPNET_CACHE``, else ``sepnet`` in the platform's user cache folder."""
    chosen = os.environ.get("SEPNET_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("sepnet", appauthor=False)


def folder() -> Path:
    """Return where the six ``.bin`` files are kept."""
    return root() / cifar10.NAME


def exists() -> bool:
    """Whether there is a cache folder, intact or not."""
    return folder().is_dir()


def read() -> dict[str, bytes]:
    """Return the six batches, each compared with its SHA-256.

    Raises:
        SepnetError: a file is missing, cannot be read or has changed.

    """
    return {name: _read_batch(name) for name in cifar10.BATCHES}


def verify() -> list[FileCheck]:
    """Return one row for each of the six files.

    Raises:
        SepnetError: there is no cache folder.

    """
    if not exists():
        raise SepnetError(f"{cifar10.NAME} is not in the cache '{folder()}': {REFETCH}")
    return [
        FileCheck(file=_path(name), expected=cifar10.SHA256[name], found=_sha256_or_none(_path(name)))
        for name in cifar10.BATCHES
    ]


def intact() -> bool:
    """Whether all six files are there and have their checksums."""
    return exists() and all(row.ok for row in verify())


@contextmanager
def staging() -> Iterator[Path]:
    """Hold the cache's lock and give an empty folder to work in, on the same disk as the cache.

    What a killed process left there is removed on entry, and the folder itself on exit.

    Raises:
        SepnetError: the cache cannot be written.

    """
    place = root() / f"{cifar10.NAME}.partial"
    try:
        root().mkdir(parents=True, exist_ok=True)
        with _lock():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            try:
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SepnetError(
            f"cannot write the cache '{root()}': {reason}: make room or name another folder in SEPNET_CACHE"
        ) from error


def store(records: Mapping[str, bytes], place: Path) -> None:
    """Put the six batches into the cache in one step, in place of whatever is there.

    Args:
        records: the batches in the official binary layout, already checked.
        place: the folder given by :func:`staging`.

    """
    fresh, stale = place / "fresh", place / "stale"
    fresh.mkdir()
    for name, record in records.items():
        _write(fresh / f"{name}.bin", record)
    sync_folder(fresh)
    if folder().exists():
        folder().rename(stale)
    fresh.rename(folder())
    sync_folder(root())


def _path(name: str) -> Path:
    return folder() / f"{name}.bin"


def _read_batch(name: str) -> bytes:
    path = _path(name)
    try:
        record = path.read_bytes()
    except OSError as error:
        raise SepnetError(f"'{path}' cannot be read ({error.strerror}): {REFETCH}") from error
    found = cifar10.sha256_of(record)
    if found != cifar10.SHA256[name]:
        raise SepnetError(
            f"'{path}' has changed: SHA-256 {found}, expected {cifar10.SHA256[name]}: {REFETCH} to replace it"
        )
    return record


def _sha256_or_none(path: Path) -> str | None:
    try:
        return cifar10.sha256_of(path.read_bytes())
    except OSError:
        return None


@contextmanager
def _lock() -> Iterator[None]:
    lock = FileLock(root() / f"{cifar10.NAME}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notice(f"another process is fetching {cifar10.NAME}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
