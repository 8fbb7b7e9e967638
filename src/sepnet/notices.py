"""Notices to the person at the terminal: always standard error, so that standard output stays the result."""

import builtins
import functools
import shutil
import sys
import textwrap
import unicodedata
from typing import TextIO


def printable(text: str) -> str:
    """Return a text with control characters, and bytes that are no UTF-8, escaped: a terminal shows and obeys none.

    For names and paths that others chose, wherever they are printed.
    """
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in ("Cc", "Cs") else character
        for character in text
    )


def notice(text: str) -> None:
    """Print a line, or several, to standard error at once; to a notebook's output, where that is a red box."""
    stream = _stream()
    print(fitted("\n".join(map(printable, text.split("\n"))), stream), file=stream, flush=True)


def fitted(text: str, stream: TextIO) -> str:
    """Return a text whose lines, on a terminal, end between words where they would not fit; elsewhere the text."""
    return wrapped(text, shutil.get_terminal_size().columns) if stream.isatty() else text


def wrapped(text: str, width: int) -> str:
    """Return a text with longer lines than ``width`` broken between words, never in one, and indented."""
    return "\n".join(
        part
        for line in text.split("\n")
        for part in textwrap.wrap(
            line,
            max(width, 20),
            subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2),
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        or [""]
    )


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    return "ipykernel.zmqshell" in sys.modules and hasattr(builtins, "get_ipython")


def _stream() -> TextIO:
    return sys.stdout if in_notebook() else sys.stderr


@functools.cache
def notice_once(text: str) -> None:
    """Print one line to standard error, the first time in this process."""
    notice(text)
