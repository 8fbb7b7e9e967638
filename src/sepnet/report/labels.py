"""Text in pictures: names that fit and that the fonts can draw, and labels that keep clear of each other."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Annotation, Text

from sepnet.report.theme import fonts

LONGEST_NAME = 22
"""Of a contestant, in characters."""


def contestant_names(labels: Iterable[str], longest: int = LONGEST_NAME) -> list[str]:
    """Return short and different names: of ``file.py:name`` the name, of long ones both ends."""
    labels = list(labels)
    names = [label.rpartition(":")[2] for label in labels]
    if len(set(names)) < len(names):
        names = labels
    return _different([_fit(name, longest, f"network {place}") for place, name in enumerate(names, 1)])


def class_names(classes: Sequence[str], longest: int) -> list[str]:
    """Return names of classes in at most ``longest`` characters; one that no font can draw is ``class 3``."""
    return [_fit(name, longest, f"class {place}") for place, name in enumerate(classes)]


def _fit(name: str, longest: int, otherwise: str) -> str:
    """Return the name in at most ``longest`` characters, the middle left out."""
    if not name.strip() or not can_draw(name):
        return otherwise
    if len(name) <= longest:
        return name
    end = (longest - 1) // 2
    return f"{name[: longest - 1 - end]}…{name[-end:]}"


def _different(names: list[str]) -> list[str]:
    return [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1)]


def can_draw(text: str) -> bool:
    """Return whether the fonts have all characters of a text."""
    characters = {ord(character) for character in text}
    for family in fonts():
        characters -= get_font(Path(findfont(FontProperties(family=[family])))).get_charmap().keys()
    return not characters


def spread(figure: Figure, labels: Sequence[Annotation], gap: float = 2.0) -> None:
    """Move labels up and down, as little as need be, until none overlaps another; ``gap`` is in points.

    The labels are offset from their points by ``textcoords="offset points"``.
    """
    figure.draw_without_rendering()
    points = figure.dpi / 72
    boxes = [Text.get_window_extent(label) for label in labels]  # without the line to the point
    shifts = [0.0] * len(labels)
    downwards = sorted(range(len(labels)), key=lambda place: -boxes[place].y0)
    pairs = [
        (upper, lower)
        for upper, lower in combinations(downwards, 2)
        if boxes[upper].x0 < boxes[lower].x1 and boxes[lower].x0 < boxes[upper].x1
    ]
    for _ in range(200):  # a push may cause the next; a handful of rounds is usual
        moved = False
        for upper, lower in pairs:
            overlap = boxes[lower].y1 + shifts[lower] + gap * points - boxes[upper].y0 - shifts[upper]
            if overlap > 0.01:
                shifts[upper] += overlap / 2
                shifts[lower] -= overlap / 2
                moved = True
        if not moved:
            break
    for label, shift in zip(labels, shifts, strict=True):
        across, up = label.xyann
        label.xyann = (across, up + shift / points)


def percent(share: float) -> str:
    """Return a share in per cent, one decimal, never rounded up to all or down to nothing."""
    if 0.9995 <= share < 1:
        return ">99.9 %"
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.1f} %"
