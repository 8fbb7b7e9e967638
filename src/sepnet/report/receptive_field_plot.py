"""The picture of receptive fields growing from layer to layer."""

from collections.abc import Mapping
from typing import NamedTuple

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from sepnet.anatomy import Anatomy
from sepnet.report.images import to_pixels
from sepnet.report.labels import contestant_names
from sepnet.report.theme import DPI, SMALLEST, WIDTH, Palette, current, settle, theme

COLUMNS = 3
"""Networks side by side; more go below."""

VIEW = 4
"""How many times the image's longer side is shown at most, so that the image stays to be seen."""

CLOSEST = 0.012
"""What two frames must differ by to be told apart, as a share of the view."""

LABEL = 0.34
"""Twice the height in inches that the size of a frame needs."""


class Growth(NamedTuple):
    """A layer whose receptive field is larger, along an axis, than all before it.

    ``place`` counts the layers from 1; ``depth`` is 0 for the first layer and 1 for the last.
    """

    place: int
    depth: float
    height: int
    width: int

    @property
    def square(self) -> bool:
        """Whether height and width are the same."""
        return self.height == self.width

    @property
    def longer(self) -> int:
        """The longer side, in pixels."""
        return max(self.height, self.width)

    def __str__(self) -> str:
        return f"{self.height}" if self.square else f"{self.height}×{self.width}"


def growth(anatomy: Anatomy) -> list[Growth]:
    """Return the layers at which the receptive field grows, the first layer included."""
    found: list[Growth] = []
    highest = widest = 0
    last = max(1, len(anatomy.layers) - 1)
    for index, layer in enumerate(anatomy.layers):
        height, width = layer.receptive_field
        if height > highest or width > widest:
            found.append(Growth(index + 1, index / last, height, width))
        highest, widest = max(height, highest), max(width, widest)
    return found


def receptive_field_growth(image: Tensor, anatomies: Mapping[str, Anatomy]) -> Figure:
    """Draw each network's receptive fields over an image, and their size against the layer.

    The frames are unclipped, and all around the image's middle, though a layer's units see frames a few pixels off
    it. Only layers at which the field grows are drawn, as a shortcut's smaller field is no growth.

    Args:
        image: uint8 ``(C, H, W)``.
        anatomies: by the network's label, each of images of this size.

    """
    names = contestant_names(anatomies)
    growths = [growth(anatomy) for anatomy in anatomies.values()]
    largest = max(*image.shape[-2:], *(one.longer for steps in growths for one in steps))
    side = min(VIEW * max(image.shape[-2:]), 1.05 * largest)
    square = image.shape[-2] == image.shape[-1] and all(one.square for steps in growths for one in steps)
    with theme(current()) as palette:
        figure, panels = _panels(len(names))
        figure.suptitle("Receptive field of each layer, around the middle of an image", x=0.012, ha="left")
        for place, (name, steps, anatomy) in enumerate(zip(names, growths, anatomies.values(), strict=True)):
            frames, curve = panels[place]
            frames.set_title(name)
            frames.set_xlabel(_sizes(steps, side), loc="left")
            _draw_frames(frames, image, steps, side, palette)
            _draw_steps(curve, image, steps, len(anatomy.layers), largest, palette)
            if place % COLUMNS == 0:
                curve.set_ylabel("Pixels" if square else "Pixels, longer side")
        return settle(figure)


def _panels(networks: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Return a figure with two panels for each network: side by side for one, else one above the other."""
    if networks == 1:
        figure = Figure((WIDTH, WIDTH / 2 + 0.7), layout="constrained")
        frames, curve = figure.subplots(1, 2)
        return figure, [(frames, curve)]
    columns = min(COLUMNS, networks)
    rows = -(-networks // columns)
    figure = Figure((WIDTH, 0.6 + rows * (WIDTH / columns + 2.1)), layout="constrained")
    grid = figure.subplots(2 * rows, columns, sharey="row", squeeze=False, height_ratios=(WIDTH / columns, 1.6) * rows)
    panels = [(grid[2 * row][column], grid[2 * row + 1][column]) for row in range(rows) for column in range(columns)]
    for unused in panels[networks:]:
        for axes in unused:
            axes.set_visible(False)
    return figure, panels


def _sizes(steps: list[Growth], side: float) -> str:
    hidden = [one for one in steps if one.longer > side]
    words = f"{_range(steps)} pixels"
    return f"{words}\nnot shown: {_range(hidden)}" if hidden else words


def _range(steps: list[Growth]) -> str:
    return f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else f"{steps[0]}"


def _colours(steps: list[Growth], palette: Palette) -> list[tuple[float, ...]]:
    name, low, high = palette.sequence
    return [colormaps[name](low + (high - low) * one.depth) for one in steps]


def _draw_frames(axes: Axes, image: Tensor, steps: list[Growth], side: float, palette: Palette) -> None:
    height, width = image.shape[-2:]
    axes.imshow(to_pixels(image), extent=(-width / 2, width / 2, height / 2, -height / 2))
    axes.set_xlim(-side / 2, side / 2)
    axes.set_ylim(side / 2, -side / 2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(palette.surface)
    axes.spines[:].set_visible(False)
    halo = [withStroke(linewidth=2.6, foreground=palette.background, alpha=0.5)]
    drawn, labelled = (2 * side, 2 * side), 2 * side
    room = LABEL * side / (axes.bbox.width / DPI)
    for one, colour in zip(reversed(steps), reversed(_colours(steps, palette)), strict=True):
        apart = max(drawn[0] - one.height, drawn[1] - one.width)
        if one.longer > side or apart < CLOSEST * side:
            continue
        drawn = one.height, one.width
        corner = (-one.width / 2, -one.height / 2)
        axes.add_patch(
            Rectangle(corner, one.width, one.height, fill=False, edgecolor=colour, linewidth=1.4, path_effects=halo)
        )
        if labelled - one.height >= room and one.height > height + 0.02 * side:
            labelled = one.height
            axes.text(
                0,
                corner[1],
                str(one),
                fontsize=SMALLEST,
                ha="center",
                va="center",
                path_effects=[withStroke(linewidth=5, foreground=palette.surface)],
            )


def _draw_steps(axes: Axes, image: Tensor, steps: list[Growth], layers: int, largest: int, palette: Palette) -> None:
    places, sizes = [one.place for one in steps], [one.longer for one in steps]
    axes.plot([*places, layers], [*sizes, sizes[-1]], drawstyle="steps-post", color=palette.muted, linewidth=1.4)
    axes.scatter(places, sizes, c=_colours(steps, palette), s=24, zorder=3, clip_on=False)
    seen = max(image.shape[-2:])
    axes.axhline(seen, color=palette.text, linewidth=1.2, linestyle=":")
    beyond, room_below = sizes[-1] > seen, seen > 0.2 * largest
    axes.annotate(
        f"image {seen}",
        (1 if beyond else 0, seen),
        (-2 if beyond else 3, -3 if beyond and room_below else 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right" if beyond else "left",
        va="top" if beyond and room_below else "bottom",
    )
    axes.set_ylim(0, 1.08 * largest)
    axes.set_xlim(1 - min(0.9, 0.04 * layers), layers if layers > 1 else 1.5)
    axes.set_xlabel("Layer")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(visible=False, axis="x")
