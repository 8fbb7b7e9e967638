"""Standard streams that are full, closed, or in an encoding that lacks our characters.

Standard output carries the result: what cannot be written to it is an :class:`OutputError`. Standard error carries
notices: one that cannot be written is dropped, since it must not end a training. On both, a character that the encoding
lacks is written in plain ASCII.
"""

import codecs
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

PLAIN = {
    "×": "x",
    "±": "+/-",
    "−": "-",
    "–": "-",
    "—": "-",
    "─": "-",
    "━": "-",
    "│": "|",
    "…": "...",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "‖": "||",
    "•": "*",
}
"""What is written for a character of ours that the encoding lacks; of others, Python's escape."""

ERRORS = "sepnet.plain"
"""The name of this error handler, for :func:`codecs.lookup_error`."""


class OutputError(Exception):
    """Standard output could not be written; the message is the system's reason."""


def _to_plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    refused = error.object[error.start : error.end]
    return "".join(PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in refused), error.end


codecs.register_error(ERRORS, _to_plain)


class _Guarded(io.TextIOWrapper):
    """A standard stream; a write that fails goes to :meth:`failed`, unless the reader has gone."""

    def write(self, text: str, /) -> int:
        self._try(lambda: super(_Guarded, self).write(text))
        return len(text)

    def flush(self) -> None:
        self._try(super().flush)

    def failed(self, error: OSError) -> None:
        """Drop a notice."""

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BrokenPipeError:
            raise
        except OSError as error:
            self.failed(error)


class _Output(_Guarded):
    def failed(self, error: OSError) -> None:
        raise OutputError(error.strerror or str(error)) from error


def guard() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr`` by streams that behave as this module says.

    A closed descriptor is opened on the null device first, so that no other file takes its number.

    Raises:
        OutputError: standard output is closed: nothing should be begun whose result is lost.

    """
    closed = sys.stdout is None
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = _guarded(sys.stdout, 1, _Output)
    sys.stderr = _guarded(sys.stderr, 2, _Guarded)
    if closed:
        raise OutputError("it is closed; send it to a file, or to /dev/null")


def _guarded(stream: TextIO | None, descriptor: int, kind: type[_Guarded]) -> TextIO:
    if os.name == "nt" and isinstance(stream, io.TextIOWrapper):  # a console there is not a file
        stream.reconfigure(errors=ERRORS)
        return stream
    # Bytes go out in C: in Python, an interruption after a write could write the same again.
    buffer = io.BufferedWriter(io.FileIO(descriptor, "wb", closefd=False))
    by_line = descriptor == 2 or buffer.isatty()
    return kind(buffer, stream.encoding if stream else "utf-8", ERRORS, line_buffering=by_line)


def discard_rest() -> None:
    """Send what is still to be written nowhere, also when Python closes the streams at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
