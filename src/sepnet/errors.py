"""The one exception a user is meant to see."""

import sysconfig
import traceback
from pathlib import Path


class SepnetError(Exception):
    """A mistake the user can mend.

    The message is one line: the value or file, what was expected, what to do next. The command line prints
    it as ``sepnet: error: …`` and exits with code 2, a notebook without a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


def where(error: BaseException) -> str:
    """Return ``FILE:LINE: `` of the user's own code in which an error came up; empty if it was not there."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}: "
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    return f"{_short(own[-1].filename)}:{own[-1].lineno}: " if own else ""


def _is_installed(file: str) -> bool:
    folders = (str(Path(__file__).parent), *sysconfig.get_paths().values())
    return file.startswith(("<", *folders)) or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _short(file: str) -> str:
    path = Path(file).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def first_line(error: BaseException | str) -> str:
    """Return the first line of an error's message, which may be empty."""
    return (str(error).strip().splitlines() or [""])[0]
