"""A Keras definition as Python source, in the style of the assignment's listing."""

import textwrap
from collections import Counter
from typing import Any

from sepnet.export.keras.builder import KerasLayer
from sepnet.export.keras.plan import KerasPlan

COLUMNS = 150
TEMPORARIES = ("x", "y", "z", *(f"t{number}" for number in range(1, 100)))

UNNAMED = {"Activation": "activation", "Dense": "units"}
UNNAMED |= dict.fromkeys(("Dropout", "SpatialDropout2D", "AlphaDropout"), "rate")
"""Settings that are written first, without their name."""


def to_source(plan: KerasPlan) -> str:
    """Return a Python file that builds and compiles the network as ``model``; nothing but Keras 3 is needed."""
    size = "x".join(map(str, plan.image))
    lines = [
        f"# {plan.network}, for images {size} (height x width x channels): "
        f"{plan.parameters:,} parameters, {plan.trainable:,} of them trainable."
    ]
    if plan.left_out:
        lines.append(
            f"# Left out: {plan.left_out:,} parameters of the PyTorch network on which its output does not depend."
        )
    body = _sequential(plan) if plan.sequential else _functional(plan)
    loss, note = "SparseCategoricalCrossentropy()", "The model gives probabilities"
    if not plan.gives_probabilities:
        loss = "SparseCategoricalCrossentropy(from_logits=True)"
        note = "The model gives logits, of which the loss takes the softmax"
    note = f"# {note}; labels are the classes' numbers."
    compiled = f"model.compile(optimizer='adam', loss={loss}, metrics=['accuracy'])"
    return "\n".join([*lines, "", *_imports(plan), "", *body, "", note, compiled]) + "\n"


def _imports(plan: KerasPlan) -> list[str]:
    top = "Input, Sequential" if plan.sequential else "Input, Model"
    top += ", ops" if any(layer.kind.startswith("ops.") for layer in plan.layers) else ""
    layers = ", ".join(sorted({layer.kind for layer in plan.layers if layer.is_layer}))
    line = f"from keras.layers import {layers}"
    lines = [line] if layers else []
    if len(line) > 120:
        inner = textwrap.wrap(f"{layers},", 116, initial_indent="    ", subsequent_indent="    ")
        lines = ["from keras.layers import (", *inner, ")"]
    return [f"from keras import {top}", *lines, "from keras.losses import SparseCategoricalCrossentropy"]


def _sequential(plan: KerasPlan) -> list[str]:
    lines = ["model = Sequential()", f"model.add(Input(shape={plan.image}))"]
    for layer in plan.layers:
        lines += _commented(f"model.add({_call(layer)})", layer)
    return lines


def _functional(plan: KerasPlan) -> list[str]:
    """Name the running value ``x``, and ``skip1`` … what is used more than once."""
    lines = [f"image = Input(shape={plan.image})"]
    calls = Counter(layer.identity for layer in plan.layers)
    uses = Counter([plan.output, *(source for layer in plan.layers for source in set(layer.inputs))])
    names, shared, skips = {0: "image"}, dict[int, str](), 0
    for layer in plan.layers:
        call = _call(layer) if layer.is_layer else ""
        if calls[layer.identity] > 1:
            if layer.identity not in shared:
                shared[layer.identity] = f"shared{len(shared) + 1}"
                lines.append(f"{shared[layer.identity]} = {call}")
            call = shared[layer.identity]
        inputs = [names[source] for source in layer.inputs]
        uses.subtract(set(layer.inputs))
        names = {number: name for number, name in names.items() if uses[number]}
        skips += uses[layer.output] > 1
        free = next(name for name in TEMPORARIES if name not in names.values())
        names[layer.output] = f"skip{skips}" if uses[layer.output] > 1 else free
        lines += _commented(f"{names[layer.output]} = {_applied(layer, call, inputs)}", layer)
    return [*lines, f"model = Model(image, {names[plan.output]})"]


def _applied(layer: KerasLayer, call: str, inputs: list[str]) -> str:
    if layer.kind == "slice":
        return f"{inputs[0]}[{', '.join([':', *map(_range, layer.settings['ranges'])])}]"
    if layer.is_layer:
        return f"{call}({inputs[0] if len(inputs) == 1 else '[' + ', '.join(inputs) + ']'})"
    return f"{layer.kind}({', '.join([*inputs, *_settings(layer)])})"


def _call(layer: KerasLayer) -> str:
    return f"{layer.kind}({', '.join(_settings(layer))})"


def _settings(layer: KerasLayer) -> list[str]:
    settings = {name: _literal(value) for name, value in layer.settings.items()}
    first = [settings.pop(UNNAMED[layer.kind])] if layer.kind in UNNAMED else []
    return [*first, *(f"{name}={value}" for name, value in settings.items())]


def _literal(value: Any) -> str:
    return f"float('{value}')" if value in (float("inf"), float("-inf")) else repr(value)


def _range(one: slice) -> str:
    start, stop = ("" if end is None else str(end) for end in (one.start, one.stop))
    return f"{start}:{stop}" + ("" if one.step is None else f":{one.step}")


def _commented(code: str, layer: KerasLayer) -> list[str]:
    """Return the line with what its layer sees and gives, in two where one is too long."""
    field, size = ("x".join(map(str, sizes)) for sizes in (layer.field, layer.shape))
    comment = f"# Receptive field {field}, output size {size}"
    if len(code) + len(comment) + 2 <= COLUMNS:
        return [f"{code}  {comment}"]
    return [comment, *textwrap.wrap(code, 120, subsequent_indent="    ", break_long_words=False)]
