"""An int8 plan as one HTML page: its network in JavaScript, pictures in, its layers' receptive fields over them."""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sepnet.anatomy.anatomy import Anatomy, Layer
from sepnet.errors import SepnetError
from sepnet.export.c.source import MARK
from sepnet.export.int8.plan import Array, Average, Convolve, Normalize, Operator, Plan, Table
from sepnet.export.int8.schedule import Buffer, place

HERE = Path(__file__).parent
SCRIPTS = ("network", "resize", "page")
"""The page's scripts, in the order in which they run; the first alone computes the scores."""
ALIGNMENT = 4
SIDE_BY_SIDE = 4
"""Filters of a convolution of one group whose weights alternate, as ``dense`` of network.js reads them."""


@dataclass(frozen=True, eq=False)
class Page:
    """A page's text as UTF-8, and the bytes of the arena in which its network's values lie."""

    content: bytes
    arena_bytes: int


def write_page(plan: Plan, anatomy: Anatomy) -> Page:
    """Return the page of a plan and of the anatomy of its network.

    Raises:
        SepnetError: its images are neither grey nor RGB.

    """
    if plan.image[2] not in (1, 3):
        raise SepnetError(
            f"network '{plan.network}' takes images of {plan.image[2]} channels: a page shows pictures of 1 or 3"
        )
    environment = Environment(
        loader=PackageLoader("sepnet.export.html", ""),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    scripts = {name: _text(f"{name}.js") for name in SCRIPTS}
    style = _text("style.css")
    network = _Network(plan)
    text = environment.get_template("page.html").render(
        mark=MARK,
        plan=plan,
        anatomy=anatomy,
        fields=[_field(layer) for layer in anatomy.layers],
        scripts=scripts,
        style=style,
        sources={"script": _hashes(scripts.values()), "style": _hashes([style])},
        network=network.description(),
    )
    return Page(text.encode(), network.arena_bytes)


def _text(name: str) -> Markup:
    """Return a file of this folder as the page holds it, which escapes nothing in scripts and styles."""
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _hashes(texts: Iterable[str]) -> Markup:
    """Return the sources of a Content-Security-Policy that allow these texts and no other."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return Markup(" ".join(f"'sha256-{digest}'" for digest in digests))


def _field(layer: Layer) -> dict[str, Any]:
    """Return what the page's script needs of a layer, each pair for height and width: units, field, jump, start."""
    units = layer.output[1:] if len(layer.output) == 3 else (1, 1)
    return {"units": units, "size": layer.receptive_field, "jump": layer.jump, "start": layer.start}


class _Network:
    """The plan as plain data: its values, its operators in order, and all constants as bytes one after the other."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._constants = bytearray()
        last = {value: at for at, operator in enumerate(plan.operators) for value in operator.inputs}
        last[plan.output] = len(plan.operators)
        self._buffers = [Buffer(prod(shape), max(0, value - 1), last[value]) for value, shape in plan.shapes.items()]
        self.arena_bytes = max(buffer.offset + buffer.size for buffer in place(self._buffers))

    def description(self) -> dict[str, Any]:
        """Return what ``openNetwork`` of network.js takes, and how its scores are to be read."""
        plan = self._plan
        values = [
            {
                "start": buffer.offset,
                "size": buffer.size,
                "shape": shape,
                "zero": plan.scales[value].zero_point if value else 0,
            }
            for buffer, (value, shape) in zip(self._buffers, plan.shapes.items(), strict=True)
        ]
        steps = [self._step(operator) for operator in plan.operators]
        scale = plan.scales[plan.output]
        return {
            "classes": plan.classes,
            "scale": scale.scale,
            "zero": scale.zero_point,
            "values": values,
            "steps": steps,
            "constants": base64.b64encode(self._constants).decode(),
        }

    def _step(self, operator: Operator) -> dict[str, Any]:
        """Return an operator's settings, its constants by where they lie: offset and length."""
        left_out = {"path", "shape", "name", "weight_scale", "factors" if isinstance(operator, Convolve) else "factor"}
        step = {one.name: getattr(operator, one.name) for one in fields(operator) if one.name not in left_out}
        if isinstance(operator, Convolve):
            weight, bias = _side_by_side(operator) if operator.groups == 1 else (operator.weight, operator.bias)
            step["kernel"] = operator.weight.shape[1:3]
            step["weight"] = self._constant(weight, "<i1")
            step["bias"] = self._constant(bias, "<i4")
        if isinstance(operator, Table):
            step["table"] = self._constant(operator.table, "<i1")
        if isinstance(operator, Normalize):
            step["factor"] = self._constant(operator.factor, "<i4")
            step["offset"] = self._constant(operator.offset, "<i4")
        if isinstance(operator, Convolve | Average):
            factors = operator.factors if isinstance(operator, Convolve) else (operator.factor,)
            step["mantissa"] = self._constant([one.mantissa for one in factors], "<i4")
            step["shifts"] = self._constant([one.shift for one in factors], "<i1")
        return {"kind": type(operator).__name__, **step}

    def _constant(self, values: Any, kind: str) -> tuple[int, int]:
        array = np.ascontiguousarray(values, kind)
        self._constants += bytes(-len(self._constants) % ALIGNMENT)
        start = len(self._constants)
        self._constants += array.tobytes()
        return start, array.size


def _side_by_side(operator: Convolve) -> tuple[Array, Array]:
    """Return a convolution's weights and biases with four filters side by side, empty ones after the last."""
    spare = -len(operator.bias) % SIDE_BY_SIDE
    weight = np.pad(operator.weight.reshape(len(operator.bias), -1), ((0, spare), (0, 0)))
    return weight.reshape(-1, SIDE_BY_SIDE, weight.shape[1]).swapaxes(1, 2), np.pad(operator.bias, (0, spare))
