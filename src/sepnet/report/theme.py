"""The look of sepnet's pictures, light and dark, and how a picture becomes a file."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from cycler import cycler
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageStat

from sepnet.errors import SepnetError
from sepnet.files import write_atomically
from sepnet.settings import hint

WIDTH = 8.3
"""Of every picture, in inches; at :data:`DPI` twice the 830 pixels that a README shows, so an inch is 100 of these."""

DPI = 200

SMALLEST = 9
"""Font size in points of the smallest text, 12.5 pixels in a README."""


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The colours of one theme.

    ``text`` and ``muted`` are for text (WCAG contrast of at least 4.5 against background and surface), ``series``
    for the contestants' lines and their labels (at least 4.5), ``grid`` for what should hardly be seen.
    """

    background: str
    surface: str
    """The ground that an image or a matrix stands on."""
    text: str
    muted: str
    grid: str
    series: tuple[str, ...]
    sequence: tuple[str, float, float]
    """A perceptually uniform colour map, and the part of it that stands out from the background."""
    mistakes: tuple[str, ...]
    """From none to most: ever further from the background, in lightness above all."""


# Okabe and Ito's colours for the colour-blind (jfly.uni-koeln.de/color, 2008), darkened for the light background
# until text in them is legible, lightened for the dark one. Neighbours differ in lightness or along blue to yellow,
# which every common kind of colour blindness leaves.
PALETTES = {
    "light": Palette(
        background="#ffffff",
        surface="#eef1f4",
        text="#1f2328",
        muted="#59636e",
        grid="#dde2e7",
        series=("#0072b2", "#b34700", "#00734f", "#9c3d7c", "#6e5a00", "#3d4852"),
        sequence=("plasma", 0.0, 0.58),
        mistakes=("#ffffff", "#f7c9a8", "#d9682a", "#7a2a00"),
    ),
    "dark": Palette(
        background="#0d1117",
        surface="#1b222b",
        text="#f0f6fc",
        muted="#9fa7b0",
        grid="#2b323b",
        series=("#56b4e9", "#f08a3c", "#2fc79a", "#e59ac8", "#f0e442", "#b6c2cf"),
        sequence=("plasma", 0.45, 1.0),
        mistakes=("#0d1117", "#5a2c10", "#d0702a", "#ffe2c4"),
    ),
}
THEMES = tuple(PALETTES)

MARKERS = "os^DvP"
"""Of the contestants, beside their colours."""

_current: ContextVar[str] = ContextVar("theme", default="light")

# After DejaVu Sans, which Matplotlib brings along, for the scripts that it lacks; used where they are installed.
FALLBACK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Nirmala UI",
    "Arial Unicode MS",
)


def current() -> str:
    """Return the name of the theme in force; ``light`` outside of any."""
    return _current.get()


@contextmanager
def theme(name: str) -> Iterator[Palette]:
    """Draw under a theme: Matplotlib's defaults and the theme's settings; afterwards all is as it was.

    Raises:
        SepnetError: there is no such theme.

    """
    if name not in PALETTES:
        raise SepnetError(f"unknown theme '{name}': {hint(name, THEMES)}")
    palette = PALETTES[name]
    token = _current.set(name)
    try:
        with matplotlib.style.context(["default", _settings(palette)]):
            yield palette
    finally:
        _current.reset(token)


def _settings(palette: Palette) -> dict[str, Any]:
    return {
        "figure.dpi": DPI,
        "figure.facecolor": palette.background,
        "figure.titlesize": 13,
        "figure.titleweight": "bold",
        "figure.constrained_layout.w_pad": 0.1,
        "figure.constrained_layout.h_pad": 0.1,
        "font.family": fonts(),
        "font.size": 10,
        "text.color": palette.text,
        "text.parse_math": False,  # a $ in a class name is a $
        "axes.facecolor": palette.background,
        "axes.edgecolor": palette.muted,
        "axes.labelcolor": palette.text,
        "axes.labelsize": 10.5,
        "axes.titlesize": 11.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=palette.series),
        "grid.color": palette.grid,
        "grid.linewidth": 0.8,
        "xtick.color": palette.muted,
        "ytick.color": palette.muted,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "lines.linewidth": 2.2,
        "legend.frameon": True,
        "legend.framealpha": 0.85,
        "legend.facecolor": palette.background,
        "legend.edgecolor": "none",
        "legend.fontsize": 10,
    }


def fonts() -> list[str]:
    """Return the families that text is drawn in, each for what those before it lack."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def contrast(one: Any, other: Any) -> float:
    """Return the contrast of two colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    lights = sorted((_luminance(one), _luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(colour: Any) -> float:
    """Return a colour's relative luminance, 0 to 1 (WCAG 2.2)."""
    linear = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(colour))
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def settle(figure: Figure) -> Figure:
    """Lay a figure out for good, and return it.

    Ticks are made, and their settings read, when a figure is first laid out: that must be under its theme.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture as PNG, 1660 pixels wide. The same picture gives the same bytes.

    Raises:
        SepnetError: it cannot be written.

    """
    with matplotlib.style.context("default"):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    content = io.BytesIO()
    _with_few_colours(image).save(content, "PNG", dpi=(figure.dpi, figure.dpi))
    write_atomically(path, content.getvalue())


def _with_few_colours(image: Image.Image) -> Image.Image:
    """Return the image with 256 colours, which take a third of the bytes, unless that shows: in photographs."""
    few = image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    difference = ImageStat.Stat(ImageChops.difference(image, few.convert("RGB")))
    return few if max(difference.mean) < 0.6 else image
