"""Files that are either whole or not there, and the one way in which files from outside are read."""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from sepnet.errors import SepnetError

_PARTIAL = re.compile(r"\..+-[0-9a-f]{16}\.partial")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


def open_regular(path: str | Path, *, follow_links: bool = True) -> BinaryIO:
    """Open a regular file for reading; anything else that bears its name is refused and never waited for.

    Args:
        path: the file.
        follow_links: whether the name may be a symbolic link; without it nothing is read that lies elsewhere.

    Raises:
        SepnetError: there is no such file, it is a folder, a pipe, a device …, or it cannot be read.

    """
    try:
        # Looked at first, as opening a device can do something; and again when open, as the name may change meanwhile.
        _require_regular(path, Path(path).stat(follow_symlinks=follow_links))
        flags = os.O_RDONLY | _flags("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")
        descriptor = os.open(path, flags if follow_links else flags | _flags("O_NOFOLLOW"))
        try:
            _require_regular(path, os.fstat(descriptor))
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    except FileNotFoundError:
        raise SepnetError(f"'{path}' does not exist") from None
    except (OSError, ValueError) as error:  # a ValueError, where the name holds a null byte
        raise SepnetError(f"'{path}' could not be read: {getattr(error, 'strerror', None) or error}") from error


def read_file(path: str | Path, *, follow_links: bool = True) -> bytes:
    """Return the content of a regular file.

    Raises:
        SepnetError: as for :func:`open_regular`, or the file does not fit into memory.

    """
    try:
        with open_regular(path, follow_links=follow_links) as file:
            return file.read()
    except MemoryError:
        raise SepnetError(f"'{path}' does not fit into memory") from None
    except OSError as error:
        raise SepnetError(f"'{path}' could not be read: {error.strerror or error}") from error


def read_text(path: str | Path, *, follow_links: bool = True) -> str:
    """Return the content of a regular file in UTF-8, without a byte-order mark.

    Raises:
        SepnetError: as for :func:`read_file`, or the content is not UTF-8.

    """
    try:
        return read_file(path, follow_links=follow_links).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SepnetError(f"'{path}' is not text in UTF-8 ({error.reason} at byte {error.start})") from error


def exists(path: Path) -> bool:
    """Whether anything bears this name: a file, a folder, a pipe, a link to nowhere."""
    return os.path.lexists(path)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, a crash or a full disk sees the old content or the new, never a part.

    The partial file lies in the same folder under a random name and is made by this call alone: nothing that is there
    already is written to, nor followed if it is a link.

    Raises:
        SepnetError: the system refused, for want of space or permission; the old content is still there.

    """
    partial = path.with_name(f".{path.name}-{secrets.token_hex(8)}.partial")
    data = content.encode() if isinstance(content, str) else content
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _flags("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")
    try:
        with os.fdopen(os.open(partial, flags, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise SepnetError(
            f"'{path}' could not be written: {error.strerror or error}; what was saved before is kept; "
            "make room or choose another folder, then repeat the command (a training goes on with --resume)"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusively(folder: Path, *, busy: str, timeout: float = 0.0) -> Iterator[None]:
    """Hold a folder against other processes, and remove what killed ones left half-written in it.

    Raises:
        SepnetError: another process holds it for longer than ``timeout`` seconds, as ``busy`` says, or it cannot be
            held.

    """
    lock = FileLock(folder / ".lock", timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        raise SepnetError(busy) from None
    except OSError as error:
        raise SepnetError(f"'{lock.lock_file}' could not be locked: {error.strerror}; remove it") from error
    try:
        remove_partial_files(folder)
        yield
    finally:
        lock.release()


def remove_file(path: Path) -> None:
    """Remove a file, if it is there, for good.

    Raises:
        SepnetError: the system refused.

    """
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise SepnetError(f"'{path}' could not be removed: {error.strerror or error}") from error


def remove_partial_files(folder: Path) -> None:
    """Remove what killed processes left of :func:`write_atomically`; nobody else may be writing there."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                with contextlib.suppress(OSError):  # a folder of that name is not ours
                    path.unlink()


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; where folders cannot be opened, as on Windows, do nothing."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse it; the file itself is safe
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_regular(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise SepnetError(f"'{path}' is {kind}: expected a regular file")


def _flags(*names: str) -> int:
    """Return the flags of ``os.open`` that this system has."""
    return sum(getattr(os, name, 0) for name in names)
