"""The one exception a user is meant to see."""


class SepnetError(Exception):
    """A mistake the user can mend.

    The message is one line: the value or file, what was expected, what to do next. The command line prints
    it as ``sepnet: error: …`` and exits with code 2.
    """


def first_line(error: BaseException | str) -> str:
    """Return the first line of an error's message, which may be empty."""
    return (str(error).strip().splitlines() or [""])[0]
