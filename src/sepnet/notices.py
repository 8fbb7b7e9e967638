"""Notices to the person at the terminal: always standard error, so that standard output stays the result."""

import functools
import sys


def notice(text: str) -> None:
    """Print one line to standard error at once."""
    print(text, file=sys.stderr, flush=True)


@functools.cache
def notice_once(text: str) -> None:
    """Print one line to standard error, the first time in this process."""
    notice(text)
