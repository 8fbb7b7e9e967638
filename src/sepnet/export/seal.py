"""A file's SHA-256 inside the file, so that what has changed since is refused before a runtime reads it.

Runtimes trust their files: one damaged bit can be another answer, or the end of the process.
"""

import hashlib
import json

from sepnet.errors import SepnetError

MARK = b"sepnet-sha256:"
DIGITS = 64
PLACE = MARK.decode() + "0" * DIGITS
"""What a writer puts once into a file, for :func:`seal` to fill."""
NOTE = {"seal": json.dumps(PLACE)}
"""The place as a text of a file's metadata, by name."""


def seal(content: bytes) -> bytes:
    """Return a file with the SHA-256 that it has while zeros stand in the place of its digits."""
    start = content.rindex(PLACE.encode()) + len(MARK)
    return _with_digits(content, start, hashlib.sha256(content).hexdigest())


def require_sealed(content: bytes, name: str) -> None:
    """Raise unless a file, of this name, is as it was sealed.

    Raises:
        SepnetError: it has no seal, or has changed.

    """
    start = content.rfind(MARK) + len(MARK)
    if start < len(MARK):
        raise SepnetError(f"'{name}' is not a file that `sepnet export` wrote, or not all of it: export a run again")
    found = content[start : start + DIGITS].decode(errors="replace")
    if hashlib.sha256(_with_digits(content, start, "0" * DIGITS)).hexdigest() != found:
        raise SepnetError(f"'{name}' has changed since `sepnet export` wrote it: restore it, or export the run again")


def _with_digits(content: bytes, start: int, digits: str) -> bytes:
    return content[:start] + digits.encode() + content[start + DIGITS :]
