"""Standard streams that are full, closed, or in an encoding that lacks our characters.

Standard output carries the result: what cannot be written to it is an :class:`OutputError`. Standard error carries
notices: one that cannot be written is dropped, since it must not end a training. On both, a character that the encoding
lacks is written in plain ASCII.
"""

import codecs
import io
import os
import sys
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


class _Output(io.FileIO):
    """Standard output's descriptor; a write that fails is an OutputError, unless the reader has gone."""

    def write(self, data, /):  # type: ignore[no-untyped-def]
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(error.strerror or str(error)) from error


class _Notices(io.FileIO):
    """Standard error's descriptor; a write that fails is dropped, unless the reader has gone."""

    def write(self, data, /):  # type: ignore[no-untyped-def]
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError:
            return len(data)


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
    sys.stdout = _guarded(sys.stdout, _Output(1, "wb", closefd=False))
    sys.stderr = _guarded(sys.stderr, _Notices(2, "wb", closefd=False))
    if closed:
        raise OutputError("it is closed; send it to a file, or to /dev/null")


def _guarded(stream: TextIO | None, raw: io.FileIO) -> TextIO:
    if os.name == "nt" and isinstance(stream, io.TextIOWrapper):  # a console there is no file
        stream.reconfigure(errors=ERRORS)
        return stream
    encoding = stream.encoding if stream else "utf-8"
    by_line = raw.fileno() == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, ERRORS, line_buffering=by_line)


def discard_rest() -> None:
    """Send what is still to be written nowhere, also when Python closes the streams at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
