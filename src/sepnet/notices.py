"""Notices to the person at the terminal: always standard error, so that standard output stays the result."""

import builtins
import functools
import sys
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
    print("\n".join(map(printable, text.split("\n"))), file=_stream(), flush=True)


def _stream() -> TextIO:
    notebook = "ipykernel.zmqshell" in sys.modules and hasattr(builtins, "get_ipython")
    return sys.stdout if notebook else sys.stderr


@functools.cache
def notice_once(text: str) -> None:
    """Print one line to standard error, the first time in this process."""
    notice(text)
