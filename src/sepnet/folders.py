"""Folders that are either there with their first files or not there, under a name that is free."""

import contextlib
import errno
import itertools
import secrets
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
