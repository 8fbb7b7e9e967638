"""The one exception a user is meant to see."""


class SepnetError(Exception):
    """A mistake the user can mend.

    The message is one line: the value or file, what was expected, what to do next. The command line prints
    it as ``sepnet: error: …`` and exits with code 2, a notebook without a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


def first_line(error: BaseException | str) -> str:
    """Return the first line of an error's message, which may be empty."""
    return (str(error).strip().splitlines() or [""])[0]
