"""An anatomy as a file of a run, whole: what ``to_json`` leaves out for readers is kept."""

import json
from dataclasses import asdict

from torch.utils import _pytree as pytree

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
        if any(isinstance(leaf, str) and printable(leaf) != leaf for leaf in pytree.tree_leaves(asdict(anatomy))):
            raise SepnetError("a name holds a control character")
        return anatomy
    except SepnetError as error:
        raise SepnetError(
            f"'{source}' is not the anatomy of a run ({error}): delete it, and it is made anew from the network"
        ) from error
