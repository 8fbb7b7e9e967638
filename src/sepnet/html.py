"""Tables and curves for notebooks, as HTML that takes its colours from the page: readable on light and on dark."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 420, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 96, 10, 22
"""Pixels of a curve, and of its margins: numbers on the left, names on the right, epochs below."""
DASHES = ("", "6 4", "2 3", "8 3 2 3")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", words: int = 1) -> str:
    """Return a table whose first ``words`` columns are left-aligned, the others right-aligned."""
    sides = ["left" if place < words else "right" for place in range(len(heads))]

    def row(cells: Sequence[str], tag: str) -> str:
        cells = [
            f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>' for cell, side in zip(cells, sides, strict=True)
        ]
        return f"<tr>{''.join(cells)}</tr>"

    title = f'<caption style="text-align:left"><b>{escape(caption)}</b></caption>' if caption else ""
    head = f"<thead>{row(heads, 'th')}</thead>" if any(heads) else ""
    return f"<table>{title}{head}<tbody>{''.join(row(cells, 'td') for cells in rows)}</tbody></table>"


def lines(texts: Iterable[str]) -> str:
    """Return each text as a line."""
    return "".join(f"<div>{escape(text)}</div>" for text in texts)


def curves(series: Mapping[str, Sequence[float]], *, title: str) -> str:
    """Return a picture of figures after each epoch, each with its name and last value at its end.

    Series differ by their dashes, and are drawn in the colour of the page's text. Those without a value are left out.
    """
    series = {name: values for name, values in series.items() if values}
    if not series:
        return ""
    low, high = min(map(min, series.values())), max(map(max, series.values()))
    last = max(map(len, series.values()))
    span = (high - low) or 1.0

    def place(epoch: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * ((epoch - 1) / (last - 1) if last > 1 else 1.0)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / span)

    ends = _spread([place(len(values), values[-1])[1] for values in series.values()])
    parts = [_axis(low, high, last)]
    for (name, values), end, dash in zip(series.items(), ends, DASHES * len(series), strict=False):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(epoch, value) for epoch, value in enumerate(values, 1)))
        x = place(len(values), values[-1])[0]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
            f'<text x="{x + 6:.1f}" y="{end + 4:.1f}">{escape(name)} {values[-1]:.2f}</text>'
        )
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="width:{WIDTH}px;max-width:100%;font:11px sans-serif;fill:currentColor">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _axis(low: float, high: float, last: int) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    return (
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="currentColor" opacity="0.5"/>'
        f'<text x="{LEFT - 5}" y="{TOP + 8}" text-anchor="end">{high:.2f}</text>'
        f'<text x="{LEFT - 5}" y="{bottom}" text-anchor="end">{low:.2f}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">epoch 1</text>'
        f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">{last}</text>'
    )


def _spread(heights: Sequence[float], apart: float = 12.0) -> list[float]:
    """Return the heights, moved down where two labels would overlap."""
    placed: dict[int, float] = {}
    lowest = -apart
    for place in sorted(range(len(heights)), key=lambda place: heights[place]):
        lowest = placed[place] = max(heights[place], lowest + apart)
    return [placed[place] for place in range(len(heights))]
