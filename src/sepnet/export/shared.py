"""What files of several formats share: the packages that write them, and what is written into them about pixels."""

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from sepnet.errors import SepnetError


def import_package(name: str, extra: str) -> Any:
    """Return a package, or a module of one, that an extra of sepnet's brings.

    Raises:
        SepnetError: it cannot be imported.

    """
    try:
        return import_module(name)
    except ImportError as error:
        raise SepnetError(f"{name} cannot be imported: install it with pip install 'sepnet[{extra}]'") from error


def metadata(classes: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> dict[str, str]:
    """Return the labels of a file's scores and the preprocessing that its graph applies, as JSON, by name."""
    preprocessing = {"applied_in_graph": True, "rule": "(pixel / 255 - mean) / std", "mean": [*mean], "std": [*std]}
    return {"labels": json.dumps([*classes]), "preprocessing": json.dumps(preprocessing)}
