"""The cache: one folder for each fetched dataset, whole and verified or not there at all."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from sepnet.errors import SepnetError
from sepnet.files import sync_folder
from sepnet.notices import notice


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


def folder(dataset: str) -> Path:
    """Return where a dataset's files are kept."""
    return root() / dataset


def exists(dataset: str) -> bool:
    """Whether there is a folder of the dataset, intact or not."""
    return folder(dataset).is_dir()


def read(dataset: str, checksums: Mapping[str, str]) -> dict[str, bytes]:
    """Return a dataset's files by name, each compared with its SHA-256.

    Args:
        dataset: its name.
        checksums: the SHA-256 of each file, by name.

    Raises:
        SepnetError: a file is missing, cannot be read or has changed.

    """
    return {name: _read_file(dataset, name, expected) for name, expected in checksums.items()}


def verify(dataset: str, checksums: Mapping[str, str]) -> list[FileCheck]:
    """Return one row for each of a dataset's files.

    Raises:
        SepnetError: there is no folder of the dataset.

    """
    if not exists(dataset):
        raise SepnetError(f"{dataset} is not in the cache '{folder(dataset)}': {_refetch(dataset)}")
    paths = {folder(dataset) / name: expected for name, expected in checksums.items()}
    return [FileCheck(file=path, expected=expected, found=_sha256_or_none(path)) for path, expected in paths.items()]


def intact(dataset: str, checksums: Mapping[str, str]) -> bool:
    """Whether all files of a dataset are there and have their checksums."""
    return exists(dataset) and all(row.ok for row in verify(dataset, checksums))


@contextmanager
def staging(dataset: str) -> Iterator[Path]:
    """Hold the lock of a dataset's folder and give an empty one to work in, on the same disk.

    What a killed process left there is removed on entry, and the folder itself on exit.

    Raises:
        SepnetError: the cache cannot be written.

    """
    place = root() / f"{dataset}.partial"
    try:
        root().mkdir(parents=True, exist_ok=True)
        with _lock(dataset):
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


def store(dataset: str, contents: Mapping[str, bytes], place: Path) -> None:
    """Put a dataset's files into the cache in one step, in place of whatever is there.

    Args:
        dataset: its name.
        contents: its files by name, already checked.
        place: the folder given by :func:`staging`.

    """
    fresh, stale = place / "fresh", place / "stale"
    fresh.mkdir()
    for name, content in contents.items():
        _write(fresh / name, content)
    sync_folder(fresh)
    if folder(dataset).exists():
        folder(dataset).rename(stale)
    fresh.rename(folder(dataset))
    sync_folder(root())


def _refetch(dataset: str) -> str:
    return f"run `sepnet data fetch {dataset}`"


def _read_file(dataset: str, name: str, expected: str) -> bytes:
    path = folder(dataset) / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SepnetError(f"'{path}' cannot be read ({error.strerror}): {_refetch(dataset)}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise SepnetError(
            f"'{path}' has changed: SHA-256 {found}, expected {expected}: {_refetch(dataset)} to replace it"
        )
    return content


def _sha256_or_none(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


@contextmanager
def _lock(dataset: str) -> Iterator[None]:
    lock = FileLock(root() / f"{dataset}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notice(f"another process is fetching {dataset}: waiting for it")
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
