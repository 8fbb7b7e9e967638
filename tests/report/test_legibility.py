"""Pictures can be read: by the colour-blind, in both themes, at a README's width; and their files are clean."""

import io
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from sepnet.errors import SepnetError
from sepnet.report import theme as look
from sepnet.report.plots import accuracy_curves, confusion_matrix
from sepnet.report.theme import PALETTES, THEMES, Palette, save, theme
from tests.report.drawing import BASE, PICTURES, draw, drawn_texts, evaluation, pixels, saved

pytestmark = pytest.mark.slow

themed = pytest.mark.parametrize("mode", THEMES)


IN_BOTH = ("curves", "fields", "classes", "confusion", "data", "cases", "mistakes")
IN_TURNS = [(name, THEMES[place % 2]) for place, name in enumerate(sorted(set(PICTURES) - set(IN_BOTH)))]


@pytest.fixture(
    scope="module",
    params=sorted([*IN_TURNS, *((name, mode) for name in IN_BOTH for mode in THEMES)]),
    ids=", ".join,
)
def picture(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Name and theme of a picture; what looks at one runs before the next is drawn."""
    name, mode = request.param
    return name, mode


def wcag_contrast(one: Any, other: Any) -> float:
    """The contrast ratio of WCAG 2.2, written out once more."""

    def luminance(colour: Any) -> float:
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = max(luminance(one), luminance(other)), min(luminance(one), luminance(other))
    return (high + 0.05) / (low + 0.05)


def ground(text: Text, palette: Palette) -> Any:
    """Return the colour behind a text: its cell's in a matrix, else the axes' or the figure's."""
    axes = text.axes
    if axes is None:
        return palette.background
    if axes.images and text.get_transform() == axes.transData and pixels(axes).ndim == 2:
        column, row = (int(value) for value in text.get_position())
        return axes.images[0].to_rgba(pixels(axes))[row, column]
    return axes.get_facecolor()


# Legibility -----------------------------------------------------------------------------------------------------------


def test_text_is_large_enough_stands_out_and_lies_inside(picture: tuple[str, str]) -> None:
    (figure, texts, _), palette = saved(*picture), PALETTES[picture[1]]
    bounds = figure.bbox
    for text in texts:
        pixels_in_readme = float(text.get_fontsize()) / 72 * 830 / figure.get_figwidth()
        assert pixels_in_readme >= 12, text
        assert wcag_contrast(text.get_color(), ground(text, palette)) >= 4.5, text
        box = Text.get_window_extent(text)
        assert bounds.x0 <= box.x0, text
        assert box.x1 <= bounds.x1, text
        assert bounds.y0 <= box.y0, text
        assert box.y1 <= bounds.y1, text


def test_no_text_covers_another(picture: tuple[str, str]) -> None:
    _, texts, _ = saved(*picture)
    level = [(text, Text.get_window_extent(text)) for text in texts if text.get_rotation() in (0, 90)]
    for (one, box), (other, box2) in combinations(level, 2):
        across = min(box.x1, box2.x1) - max(box.x0, box2.x0)
        up = min(box.y1, box2.y1) - max(box.y0, box2.y0)
        assert across < 2 or up < 2, (one, other)


def test_lines_and_frames_stand_out(picture: tuple[str, str]) -> None:
    (figure, _, _), palette = saved(*picture), PALETTES[picture[1]]
    for axes in figure.axes:
        for line in axes.lines:
            if line.get_linestyle() != "None":
                assert wcag_contrast(line.get_color(), palette.background) >= 3, line
        for frame in axes.patches:
            assert wcag_contrast(frame.get_edgecolor(), palette.background) >= 3, frame
            assert wcag_contrast(frame.get_edgecolor(), palette.surface) >= 3, frame


@themed
def test_contestants_differ_for_the_colour_blind_too(mode: str) -> None:
    colours, markers = PALETTES[mode].series, look.MARKERS
    assert len(set(colours)) == len(set(markers)) == len(colours)
    for matrix in SEEN_BY:
        base, challenger, third = (np.array(matrix) @ linear(colour) for colour in colours[:3])
        assert np.abs(base - challenger).max() > 0.1
        assert np.abs(challenger - third).max() > 0.05
        assert np.abs(base - third).max() > 0.05


# Machado, Oliveira and Fernandes 2009, table 1, severity 1: protanopia, deuteranopia, tritanopia.
SEEN_BY = (
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
)


def linear(colour: str) -> np.ndarray:
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


@themed
def test_mistakes_get_ever_further_from_the_background(mode: str) -> None:
    palette = PALETTES[mode]
    distances = [wcag_contrast(colour, palette.background) for colour in palette.mistakes]
    assert distances == sorted(distances)
    assert distances[0] == 1


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_file_is_of_readme_size_and_holds_nothing_but_the_picture(picture: tuple[str, str]) -> None:
    name, mode = picture
    _, _, content = saved(name, mode)
    with Image.open(io.BytesIO(content)) as image:
        assert image.size[0] == 1660
        corner = image.convert("RGB").getpixel((2, 2))
    assert corner == tuple(round(255 * value) for value in to_rgb(PALETTES[mode].background))
    assert chunks(content) <= {b"IHDR", b"PLTE", b"pHYs", b"IDAT", b"IEND"}
    if name != "mistakes, large":  # these images are noise, which no file makes small
        assert len(content) < (200_000 if "mistakes" in name else 250_000 if "data" in name else 150_000)


@pytest.mark.parametrize("name", ["curves", "fields", "classes", "confusion", "data", "cases", "mistakes"])
def test_the_same_picture_is_the_same_file(name: str, tmp_path: Path) -> None:
    save(draw(name, "dark"), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes() == saved(name, "dark")[2]


def chunks(content: bytes) -> set[bytes]:
    names, place = set(), 8
    while place < len(content):
        names.add(content[place + 4 : place + 8])
        place += 12 + int.from_bytes(content[place : place + 4], "big")
    return names


@pytest.mark.parametrize("name", ["curves", "fields", "mistakes"])
def test_few_colours_do_not_show(name: str) -> None:
    figure, _, content = saved(name, "light")
    exact = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)  # type: ignore[attr-defined]
    with Image.open(io.BytesIO(content)) as image:
        assert np.abs(np.asarray(image.convert("RGB")) - exact).mean() < 0.6


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SepnetError, match=r"missing/picture\.png"):
        save(draw("no mistakes", "light"), tmp_path / "missing" / "picture.png")


# Themes ---------------------------------------------------------------------------------------------------------------


def test_settings_are_afterwards_as_they_were() -> None:
    before = dict(mpl.rcParams)
    with theme("dark"):
        assert look.current() == "dark"
        with theme("light"):
            assert look.current() == "light"
        assert mpl.rcParams["figure.facecolor"] == PALETTES["dark"].background
        accuracy_curves({"base": [BASE]})
        assert look.current() == "dark"
    assert dict(mpl.rcParams) == before
    with pytest.raises(RuntimeError), theme("dark"):
        raise RuntimeError
    assert dict(mpl.rcParams) == before
    accuracy_curves({"base": [BASE]})
    assert dict(mpl.rcParams) == before
    assert look.current() == "light"


@pytest.mark.parametrize("name", ["curves", "fields", "classes", "confusion", "mistakes"])
def test_a_users_own_settings_change_nothing(name: str, tmp_path: Path) -> None:
    own: dict[Any, Any] = {
        "font.size": 30,
        "figure.facecolor": "pink",
        "axes.grid": False,
        "savefig.bbox": "tight",
        "figure.dpi": 50,
    }
    own |= {"font.family": "cursive", "lines.linewidth": 9, "text.antialiased": False}
    with mpl.rc_context(own):
        save(PICTURES[name](), tmp_path / "own.png")
    assert (tmp_path / "own.png").read_bytes() == saved(name, "light")[2]


def test_an_unknown_theme_is_named() -> None:
    with pytest.raises(SepnetError, match=r"unknown theme 'darc': did you mean 'dark'\?"), theme("darc"):
        pass


def test_pictures_need_no_pyplot_and_are_silent(tmp_path: Path) -> None:
    program = """
import sys, torch
from pathlib import Path
from sepnet.report.plots import worst_mistakes
from sepnet.report.theme import save
images, labels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([1, 0])
save(worst_mistakes(images, labels, torch.eye(2), ("猫", "🐕"), "网络"), Path(sys.argv[1]))
assert "matplotlib.pyplot" not in sys.modules
"""
    command = [sys.executable, "-c", program, str(tmp_path / "picture.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "MPLBACKEND": ""})
    assert done.stdout == done.stderr == ""


def test_names_the_fonts_lack_become_numbers_unless_another_font_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lacking = "\U0001d4d0"  # a script capital
    shown = {
        text.get_text() for text in drawn_texts(confusion_matrix("a", evaluation(("x", lacking))), tmp_path / "a.png")
    }
    assert "class 1" in shown
    assert lacking not in shown
    assert "STIXGeneral" in {font.name for font in font_manager.fontManager.ttflist}
    monkeypatch.setattr(look, "FALLBACK_FONTS", ("No Such Font", "STIXGeneral"))
    shown = {
        text.get_text() for text in drawn_texts(confusion_matrix("a", evaluation(("x", lacking))), tmp_path / "a.png")
    }
    assert lacking in shown
