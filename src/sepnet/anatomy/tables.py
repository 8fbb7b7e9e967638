"""An anatomy as text, Markdown or JSON."""

import json
from collections.abc import Callable, Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sepnet import html
from sepnet.anatomy.anatomy import Anatomy, Layer
from sepnet.anatomy.effective_field import SAMPLES, SHARE, EffectiveField
from sepnet.notices import wrapped

Column = tuple[str, Callable[[Layer], str]]


def to_json(anatomy: Anatomy) -> str:
    """Return the anatomy as JSON, one layer a line."""
    document = anatomy.to_dict()
    layers = ",\n    ".join(json.dumps(layer) for layer in document["layers"])
    return (
        f'{{\n  "network": {json.dumps(document["network"])},\n  "input": {json.dumps(document["input"])},\n'
        f'  "layers": [\n    {layers}\n  ],\n  "totals": {json.dumps(document["totals"])}\n}}'
    )


def to_markdown(anatomy: Anatomy) -> str:
    """Return the anatomy as a Markdown table, its heading and its totals."""
    columns = _columns(anatomy)
    totals = [f"- {_escape(line)}" for line in _totals(anatomy)]
    rows = [
        "| " + " | ".join(header for header, _ in columns) + " |",
        "| " + " | ".join("---" if place < 2 else "--:" for place in range(len(columns))) + " |",
        *("| " + " | ".join(_escape(cell(layer)) for _, cell in columns) + " |" for layer in anatomy.layers),
    ]
    return "\n".join([f"**{_escape(_heading(anatomy))}**", "", *rows, "", *totals])


def to_html(anatomy: Anatomy) -> str:
    """Return the anatomy as an HTML table, its totals below."""
    columns = _columns(anatomy)
    rows = [[cell(layer) for _, cell in columns] for layer in anatomy.layers]
    heads = [header for header, _ in columns]
    return html.table(heads, rows, caption=_heading(anatomy), words=2) + html.lines(_totals(anatomy))


def _escape(text: str) -> str:
    """Return a name, which may hold anything, as Markdown that stays in its cell."""
    return " ".join(text.splitlines()).replace("|", "\\|").replace("<", "&lt;")


def to_text(anatomy: Anatomy, width: int = 100) -> str:
    """Return the anatomy as a plain table at most ``width`` characters wide, without colour.

    Beside the receptive field stands the share of the image that it covers. Where the width does not hold all
    columns, the bytes kept for the backward pass go first, then the total stride, then the split of the parameters;
    then name and kind share a column; narrower still, each layer has lines of its own. No word is broken.
    """
    table = next((table for table in _tables(anatomy) if _width_of(table) <= width), None)
    layers = _stacked(anatomy) if table is None else _print(table, width).splitlines()
    head, totals = (wrapped("\n".join(lines), width) for lines in ([_heading(anatomy)], _totals(anatomy)))
    body = wrapped("\n".join(layers), width) if table is None else "\n".join(layers)
    return "\n".join(line.rstrip() for line in [head, "", *body.splitlines(), "", *totals.splitlines()])


def _stacked(anatomy: Anatomy) -> list[str]:
    """Return each layer in lines of its own, where no table is narrow enough."""
    lines = []
    for layer in anatomy.layers:
        output = _times(layer.output) if layer.output else "–"
        parameters = layer.trainable + layer.non_trainable
        lines += [
            f"{layer.name} {layer.kind}",
            f"  output {output}, receptive field {' '.join(_field(layer, anatomy).split())}",
            f"  parameters {parameters:,}, MACs {layer.macs:,}",
        ]
    return lines


def effective_to_text(network: str, found: Sequence[EffectiveField]) -> str:
    """Return the effective receptive fields as a plain table."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, header in enumerate(("layer", "receptive field", "effective field", "share of area")):
        table.add_column(header.replace(" ", "\n", 1), justify="right" if place else "left")
    for one in found:
        table.add_row(Text(one.layer), _times(one.receptive_field), _times(one.size), f"{one.share:.0%}")
    within = min((one.energy_within for one in found), default=1.0)
    notes = [
        f"effective field: the central window that holds {SHARE:.0%} of the gradient's energy; "
        f"{SAMPLES} random images, seed 0",
        f"energy within the theoretical field: at least {within:.2%}",
    ]
    lines = [f"{network}, untrained", "", *_print(table, 120).splitlines(), "", *notes]
    return "\n".join(line.rstrip() for line in lines)


def _columns(anatomy: Anatomy) -> list[Column]:
    return [
        ("layer", lambda layer: layer.name),
        ("kind", lambda layer: layer.kind),
        ("output", lambda layer: _times(layer.output) if layer.output else "–"),
        ("receptive field", lambda layer: _field(layer, anatomy)),
        ("total stride", lambda layer: _times(layer.jump)),
        ("trainable", lambda layer: f"{layer.trainable:,}"),
        ("non-trainable", lambda layer: f"{layer.non_trainable:,}"),
        ("MACs", lambda layer: f"{layer.macs:,}"),
        ("kept bytes", lambda layer: "–" if layer.kept_for_backward is None else f"{layer.kept_for_backward:,}"),
    ]


def _tables(anatomy: Anatomy) -> list[Table]:
    """Return the same table from the widest to the narrowest, whose first column folds."""
    name, kind, output, field, stride, trainable, non_trainable, macs, kept = _columns(anatomy)
    parameters: Column = ("parameters", lambda layer: f"{layer.trainable + layer.non_trainable:,}")
    both: Column = ("layer", lambda layer: f"{layer.name} {layer.kind}")
    choices = [
        [name, kind, output, field, stride, trainable, non_trainable, macs, kept],
        [name, kind, output, field, stride, trainable, non_trainable, macs],
        [name, kind, output, field, trainable, non_trainable, macs],
        [name, kind, output, field, parameters, macs],
        [both, output, field, parameters, macs],
    ]
    return [_table(columns, anatomy) for columns in choices]


def _table(columns: list[Column], anatomy: Anatomy) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for header, _ in columns:
        words = header in ("layer", "kind")
        table.add_column(
            header.replace(" ", "\n").replace("-", "-\n"),
            justify="left" if words else "right",
            overflow="fold" if words else "ellipsis",
            no_wrap=not words,
        )
    for layer in anatomy.layers:
        table.add_row(*(Text(cell(layer)) for _, cell in columns))
    return table


def _width_of(table: Table) -> int:
    console = _console(width=10_000)
    return console.measure(table).maximum


def _print(table: Table, width: int) -> str:
    console = _console(width)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def _console(width: int) -> Console:
    return Console(
        file=StringIO(), width=width, color_system=None, force_terminal=False, force_jupyter=False, highlight=False
    )


def _heading(anatomy: Anatomy) -> str:
    return f"{anatomy.network}, for an image {_times(anatomy.input)}"


def _totals(anatomy: Anatomy) -> list[str]:
    peak, kept = anatomy.peak_activation, anatomy.kept_for_backward
    return [
        f"parameters: {anatomy.parameters:,} "
        f"({anatomy.trainable:,} trainable, {anatomy.non_trainable:,} non-trainable)",
        f"MACs: {anatomy.macs:,} an image",
        f"peak activation: {peak.values:,} values, at layer {peak.layer}",
        *([] if kept is None else [f"kept for the backward pass: {kept:,} bytes an image"]),
    ]


def _field(layer: Layer, anatomy: Anatomy) -> str:
    if not layer.output:
        return "–"
    return f"{_times(layer.receptive_field)} {layer.share_of(anatomy.input):4.0%}"


def _times(sizes: tuple[int, ...]) -> str:
    return "×".join(map(str, sizes))
