"""Griffe, which reads docstrings for the reference: Sphinx's roles as plain code."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|data|mod|attr):`~?([^`]+)`")


class Roles(griffe.Extension):
    """Turns ``:func:`sepnet.train``` into ```sepnet.train```."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change an object's docstring."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)
