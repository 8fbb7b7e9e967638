"""An anatomy as text, Markdown or JSON."""

import json
from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sepnet import html
from sepnet.anatomy.anatomy import Anatomy, Layer
from sepnet.anatomy.effective_field import SAMPLES, SHARE, EffectiveField
from sepnet.notices import wrapped

COLUMNS: dict[str, Callable[[Layer, Anatomy], str]] = {
    "layer": lambda layer, _: layer.name,
    "kind": lambda layer, _: layer.kind,
    "output": lambda layer, _: _times(layer.output) if layer.output else "–",
    "receptive field": lambda layer, anatomy: _field(layer, anatomy),
    "total stride": lambda layer, _: _times(layer.jump),
    "trainable": lambda layer, _: f"{layer.trainable:,}",
    "non-trainable": lambda layer, _: f"{layer.non_trainable:,}",
    "MACs": lambda layer, _: f"{layer.macs:,}",
    "kept bytes": lambda layer, _: "–" if layer.kept_for_backward is None else f"{layer.kept_for_backward:,}",
    "parameters": lambda layer, _: f"{layer.trainable + layer.non_trainable:,}",
    "layer and kind": lambda layer, _: f"{layer.name} {layer.kind}",
}
WIDEST = tuple(COLUMNS)[:-2]
CHOICES = (
    WIDEST,
    WIDEST[:-1],
    (*WIDEST[:4], *WIDEST[5:-1]),
    (*WIDEST[:4], "parameters", "MACs"),
    ("layer and kind", *WIDEST[2:4], "parameters", "MACs"),
)
"""The columns of a plain table from the widest to the narrowest, whose first column folds."""


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
    rows = [WIDEST, ["---", "---", *["--:"] * (len(WIDEST) - 2)]]
    rows += [[_escape(cell) for cell in row] for row in _rows(anatomy)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    totals = [f"- {_escape(line)}" for line in _totals(anatomy)]
    return "\n".join([f"**{_escape(_heading(anatomy))}**", "", *lines, "", *totals])


def to_html(anatomy: Anatomy) -> str:
    """Return the anatomy as an HTML table, its totals below."""
    return html.table(WIDEST, _rows(anatomy), caption=_heading(anatomy), words=2) + html.lines(_totals(anatomy))


def _escape(text: str) -> str:
    """Return a name, which may hold anything, as Markdown that stays in its cell."""
    return " ".join(text.splitlines()).replace("|", "\\|").replace("<", "&lt;")


def to_text(anatomy: Anatomy, width: int = 100) -> str:
    """Return the anatomy as a plain table at most ``width`` characters wide, without colour.

    Beside the receptive field stands the share of the image that it covers. Where the width does not hold all
    columns, the bytes kept for the backward pass go first, then the total stride, then the split of the parameters;
    then name and kind share a column; narrower still, each layer has lines of its own. No word is broken.
    """
    tables = (_table(headers, _rows(anatomy, headers)) for headers in CHOICES)
    table = next((table for table in tables if _console(10_000).measure(table).maximum <= width), None)
    layers = _stacked(anatomy) if table is None else _print(table, width).splitlines()
    head, totals = (wrapped("\n".join(lines), width) for lines in ([_heading(anatomy)], _totals(anatomy)))
    body = wrapped("\n".join(layers), width) if table is None else "\n".join(layers)
    return "\n".join(line.rstrip() for line in [head, "", *body.splitlines(), "", *totals.splitlines()])


def _stacked(anatomy: Anatomy) -> list[str]:
    """Return each layer in lines of its own, where no table is narrow enough."""
    lines = []
    for name, output, field, parameters, macs in _rows(anatomy, CHOICES[-1]):
        lines += [name, f"  output {output}, receptive field {' '.join(field.split())}"]
        lines += [f"  parameters {parameters}, MACs {macs}"]
    return lines


def effective_to_text(network: str, found: Sequence[EffectiveField]) -> str:
    """Return the effective receptive fields as a plain table."""
    rows = [[one.layer, _times(one.receptive_field), _times(one.size), f"{one.share:.0%}"] for one in found]
    table = _table(("layer", "receptive field", "effective field", "share of area"), rows)
    within = min((one.energy_within for one in found), default=1.0)
    notes = [
        f"effective field: the central window that holds {SHARE:.0%} of the gradient's energy; "
        f"{SAMPLES} random images, seed 0",
        f"energy within the theoretical field: at least {within:.2%}",
    ]
    lines = [f"{network}, untrained", "", *_print(table, 120).splitlines(), "", *notes]
    return "\n".join(line.rstrip() for line in lines)


def _rows(anatomy: Anatomy, headers: Sequence[str] = WIDEST) -> list[list[str]]:
    return [[COLUMNS[header](layer, anatomy) for header in headers] for layer in anatomy.layers]


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for header in headers:
        words = header in ("layer", "kind", "layer and kind")
        table.add_column(
            header.removesuffix(" and kind").replace(" ", "\n", 1).replace("-", "-\n"),
            justify="left" if words else "right",
            overflow="fold" if words else "ellipsis",
            no_wrap=not words,
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _print(table: Table, width: int) -> str:
    console = _console(width)
    with console.capture() as printed:
        console.print(table)
    return printed.get()


def _console(width: int) -> Console:
    return Console(width=width, color_system=None, force_terminal=False, force_jupyter=False, highlight=False)


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
