"""Files that are either whole or not there."""

import contextlib
import os
from pathlib import Path

from sepnet.errors import SepnetError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, a crash or a full disk sees the old content or the new, never a part.

    Raises:
        SepnetError: the system refused, for want of space or permission; the old content is still there.

    """
    partial = path.with_name(f"{path.name}.partial")
    data = content.encode() if isinstance(content, str) else content
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise SepnetError(
            f"'{path}' could not be written: {error.strerror or error}; what was saved before is kept, "
            "make room or choose another folder, then resume"
        ) from error


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
