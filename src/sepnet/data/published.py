"""Datasets that are kept as the files their authors publish, found by name and compared with their checksums."""

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from sepnet.data.containers import folders_of
from sepnet.data.dataset import Dataset
from sepnet.data.sources import Origin, RemoteFile, download_files
from sepnet.errors import SepnetError
from sepnet.files import open_regular

FRESH = "get a fresh copy"


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file as it is kept: its size in bytes, its SHA-256, and the published file that it is or is unpacked from.

    A published file of another name than ``name`` is ``name`` compressed by gzip. Only what it unpacks to is compared,
    so that a copy that was compressed again, as Debian does, is as good.
    """

    name: str
    size: int
    sha256: str
    remote: RemoteFile


def origin(
    name: str,
    *,
    title: str,
    address: str,
    files: Sequence[PublishedFile],
    to_dataset: Callable[[Mapping[str, bytes]], Dataset],
) -> Origin:
    """Return the origin of a dataset.

    Args:
        name: as it is given to ``--data``.
        title: its authors' name for it.
        address: where they publish it, as it is shown.
        files: what is kept of it.
        to_dataset: makes tensors of the files, which it is given by name.

    """

    def fetch(place: Path) -> Path:
        download_files(name, [file.remote for file in files], place)
        return place

    return Origin(
        name=name,
        checksums=lambda: {file.name: file.sha256 for file in files},
        read_copy=partial(_read_copy, title, files),
        downloads=lambda: [(address, fetch)],
        to_dataset=to_dataset,
    )


def _read_copy(title: str, files: Sequence[PublishedFile], path: Path) -> dict[str, bytes]:
    """Read a folder that holds the files or, where there is but one, the file itself."""
    names = ", ".join(f"'{file.remote.name}'" for file in files)
    expected = f"expected a folder with {title}'s {names}" + (", or that file" if len(files) == 1 else "")
    try:
        if not path.exists():
            raise SepnetError(f"'{path}' does not exist: {expected}")
        if path.is_dir():
            folders = list(folders_of(path))
            return {file.name: _read_first(title, file, folders, expected) for file in files}
        if len(files) > 1:
            raise SepnetError(f"'{path}' is not a folder: {expected}")
        return {file.name: _read(title, file, path) for file in files}
    except OSError as error:
        raise SepnetError(f"'{error.filename or path}' cannot be read: {error.strerror or error}") from error


def _read_first(title: str, file: PublishedFile, folders: Sequence[Path], expected: str) -> bytes:
    """Return the first file of the name that is the published one: MNIST's have the same names as Fashion-MNIST's."""
    refusal = None
    for path in (folder / name for folder in folders for name in {file.name: None, file.remote.name: None}):
        if path.is_file():
            try:
                return _read(title, file, path)
            except SepnetError as error:
                refusal = refusal or error
    raise refusal or SepnetError(f"'{folders[0]}' holds no '{file.remote.name}': {expected}")


def _read(title: str, file: PublishedFile, path: Path) -> bytes:
    packed = path.suffix == ".gz" and file.remote.name != file.name
    try:
        with open_regular(path) as stream:
            # One byte more than there should be, however much a file unpacks to.
            content = (gzip.GzipFile(fileobj=stream) if packed else stream).read(file.size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SepnetError(f"'{path}' is not a complete gzip file ({error}); nothing was kept, {FRESH}") from error
    if len(content) != file.size:
        held = f"more than {file.size:,}" if len(content) > file.size else f"{len(content):,}"
        raise SepnetError(f"'{path}' holds {held} bytes: expected {title}'s {file.size:,}; nothing was kept, {FRESH}")
    found = sha256(content).hexdigest()
    if found != file.sha256:
        raise SepnetError(
            f"'{path}' holds '{file.name}' with SHA-256 {found}: expected {title}'s, {file.sha256}; "
            f"nothing was kept, {FRESH}"
        )
    return content
