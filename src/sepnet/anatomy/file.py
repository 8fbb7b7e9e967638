"""An anatomy as a file of a run, whole: what ``to_json`` leaves out for readers is kept."""

import json
from dataclasses import asdict
from typing import Any

from sepnet.anatomy.anatomy import Anatomy, Convolution, Layer, Peak
from sepnet.errors import SepnetError


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


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
