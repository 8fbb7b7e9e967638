"""An anatomy as a file of a run, whole: what ``to_json`` leaves out for readers is kept."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from sepnet.anatomy.anatomy import Anatomy
from sepnet.errors import SepnetError
from sepnet.notices import printable
from sepnet.settings import parse_json, to_settings


def dump(anatomy: Anatomy) -> str:
    """Return the anatomy as JSON."""
    return json.dumps(asdict(anatomy), indent=1, ensure_ascii=False) + "\n"


def load(text: str, *, source: str) -> Anatomy:
    """Return the anatomy written by :func:`dump`.

    Raises:
        SepnetError: it is another file; ``source`` is named.

    """
    try:
        anatomy = to_settings(Anatomy, parse_json(text, f"'{source}'"), source=f"'{source}'")
        if any(printable(name) != name for name in _texts(asdict(anatomy))):
            raise SepnetError("a name holds a control character")
        return anatomy
    except SepnetError as error:
        raise SepnetError(
            f"'{source}' is not the anatomy of a run ({error}): delete it, and it is made anew from the network"
        ) from error


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in plain values, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
