"""Markdown tables, and figures in them."""

from collections.abc import Iterable, Mapping, Sequence

NOTHING = "–"


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Return a table whose first ``words`` columns are left-aligned, the others right-aligned."""
    alignment = ["---" if place < words else "--:" for place in range(len(headers))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (headers, alignment, *rows))


def figure(value: float | None) -> str:
    """Return a number with three digits or all before the point, a dash for None."""
    if value is None:
        return NOTHING
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{places}f}"


def median_and_range(values: Mapping[str, float] | None, unit: str = "") -> list[str]:
    """Return two cells: the median, and lowest to highest; dashes for None."""
    if values is None:
        return [NOTHING, NOTHING]
    return [figure(values["median"]) + unit, f"{figure(values['lowest'])} to {figure(values['highest'])}"]
