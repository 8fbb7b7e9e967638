"""An anatomy as a file of a run, whole: what ``to_json`` leaves out for readers is kept."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from sepnet.anatomy.anatomy import Anatomy, Convolution, Layer, Peak
from sepnet.errors import SepnetError
from sepnet.notices import printable


def dump(anatomy: Anatomy) -> str:
    """Return the anatomy as JSON."""
    return json.dumps(asdict(anatomy), indent=1, ensure_ascii=False) + "\n"


def load(text: str, *, source: str) -> Anatomy:
    """Return the anatomy written by :func:`dump`.

    Raises:
        SepnetError: it is another file; ``source`` is named.

    """
    try:
        values: dict[str, Any] = json.loads(text)
        if any(printable(name) != name for name in _texts(values)):
            raise ValueError("a name holds a control character")
        return Anatomy(
            network=values["network"],
            input=tuple(values["input"]),
            layers=tuple(Layer(**_tuples(layer)) for layer in values["layers"]),
            convolutions=tuple(Convolution(**_tuples(convolution)) for convolution in values["convolutions"]),
            peak_activation=Peak(**values["peak_activation"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SepnetError(
            f"'{source}' is not the anatomy of a run ({error}): delete it, and it is made anew from the network"
        ) from error


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in values read from JSON, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
