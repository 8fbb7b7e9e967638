"""Folders that are either there whole or not there: under a name that is free, or in place of what sepnet wrote."""

import contextlib
import errno
import itertools
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from sepnet.errors import SepnetError
from sepnet.files import exists, remove_partial_files, write_atomically

ABANDONED_SECONDS = 60.0
"""After which an unnamed folder is one of a killed process: filling it takes milliseconds."""


def create_folder(out: Path, name: str, files: Mapping[str, str]) -> Path:
    """Make the folder ``out/name``, or ``out/name-2`` and so on where that is taken, with these files; return it.

    It bears another name until it has them, so that a killed process leaves no name taken; an empty folder of the name
    is replaced.

    Raises:
        SepnetError: the name is none, or the folder could not be made.

    """
    if Path(name).name != name or name in ("", "..") or not name.isprintable():
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise SepnetError(f"run name '{shown}' is not a folder name: expected printable characters without '/'")
    made = out / f".{secrets.token_hex(8)}.partial"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in out.glob(".*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    _remove(path, files)
        made.mkdir()
        for file, content in files.items():
            write_atomically(made / file, content)
        return _rename_to_free(made, out / name)
    except (OSError, ValueError) as error:  # a ValueError, where the name holds a null byte
        reason = getattr(error, "strerror", None) or error
        raise SepnetError(f"run folder '{out / name}' could not be made: {reason}; choose another --out") from error
    finally:
        _remove(made, files)


def _rename_to_free(made: Path, wanted: Path) -> Path:
    """Rename a folder to ``wanted``, or the same with a number where that is taken; two processes get two names."""
    for path in numbered(wanted):
        if exists(path) and (path.is_symlink() or not path.is_dir()):
            continue
        try:
            return made.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EACCES) or not exists(path):
                raise
    raise AssertionError("there is no last number")


def _remove(made: Path, files: Mapping[str, str]) -> None:
    """Remove a folder that was not renamed, which holds these files at most; any other one stays."""
    with contextlib.suppress(OSError):
        remove_partial_files(made)
        for file in files:
            (made / file).unlink(missing_ok=True)
        made.rmdir()


def numbered(path: Path) -> Iterator[Path]:
    """Yield ``path``, then the same with ``-2``, ``-3`` and so on."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}-{number}")


def require_replaceable(folder: Path, *, holds: re.Pattern[str], written_by_sepnet: bool, what: str) -> None:
    """Raise where a folder is not free to be replaced by what :func:`replacing` will write.

    Args:
        folder: may be missing.
        holds: the names of the files that may be in it.
        written_by_sepnet: whether a file in it says so; else it has to be empty.
        what: what it is about to be, for the message.

    Raises:
        SepnetError: it is a file, where the user works, or holds anything else.

    """
    if folder.exists() and not folder.is_dir():
        raise SepnetError(f"'{folder}' is a file: expected the folder of {what}, choose another --out")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise SepnetError(f"'{folder}' is the current folder, and would be replaced: choose a folder in it as --out")
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not written_by_sepnet or entry.is_dir() or not holds.fullmatch(entry.name):
            raise SepnetError(
                f"'{folder}' holds '{entry.name}', which is not part of {what} of sepnet's: choose another --out"
            )


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a folder beside ``folder`` that takes its place at the end, and vanishes if that is not reached.

    Raises:
        SepnetError: it could not be written.

    """
    place = folder.with_name(f".{folder.name}.sepnet-{os.getpid()}")
    old = place.with_name(f"{place.name}-old")
    _remove_leftovers(folder)
    try:
        place.mkdir(parents=True)
        yield place
        if folder.exists():
            folder.rename(old)
        place.rename(folder)
    except OSError as error:
        raise SepnetError(f"'{folder}' could not be written: {error.strerror}; choose another --out") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if old.exists():
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(folder)


def _is_another_alive(process: int) -> bool:
    """Whether another process of this number runs; where nothing tells, as on Windows, yes."""
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left beside a folder; one that was half replaced comes back."""
    name = re.compile(re.escape(f".{folder.name}.sepnet-") + r"(\d+)(-old)?")
    for path in folder.parent.iterdir() if folder.parent.is_dir() else ():
        match = name.fullmatch(path.name)
        if match is None or _is_another_alive(int(match[1])):
            continue
        if match[2] and not folder.exists():
            path.rename(folder)
        else:
            shutil.rmtree(path, ignore_errors=True)
