"""Options that several subcommands take, and how a result is printed."""

import contextlib
import gc
import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from sepnet.cli.completion import NETWORKS, complete_networks
from sepnet.errors import SepnetError
from sepnet.notices import fitted

NETWORK_HELP = f"{', '.join(NETWORKS)}, or your own as path/to/file.py:name; with arguments: champion(dropout=0.1)."

NetworkArgument = Annotated[str, typer.Argument(metavar="NETWORK", help=NETWORK_HELP, autocompletion=complete_networks)]
ImageSizeOption = Annotated[
    str, typer.Option("--image-size", metavar="H[xW]", help="Height and width of an image in pixels.")
]
ChannelsOption = Annotated[int, typer.Option("--channels", min=1, help="Channels of an image.")]
ClassesOption = Annotated[int, typer.Option("--classes", min=1, help="Classes to tell apart.")]


RulesOption = Annotated[
    str, typer.Option(metavar="assignment|FILE.toml", help="The rules to keep: a preset, or a TOML file.")
]


TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run the Python file that a run names as its network's. Without it only sepnet's own networks are built, "
        "since a run from elsewhere may name any code.",
    ),
]


PictureSizeOption = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="H[xW]",
        help="Of your own pictures, the height and width that the network sees; theirs unless given, if all have one.",
    ),
]
PictureChannelsOption = Annotated[
    int | None, typer.Option("--channels", help="Of your own pictures: 3 for RGB, 1 for grey [default: 3].")
]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="REGEX",
        help="Pictures whose file names have the same match (of its first group, if any) stay in one split.",
    ),
]
TestShareOption = Annotated[
    float | None,
    typer.Option(
        "--test-share", help="Of each class, the share that becomes test images of a folder not split [default: 0.2]."
    ),
]
SplitSeedOption = Annotated[int | None, typer.Option("--split-seed", help="By which such a folder is split.")]
SkipBrokenOption = Annotated[
    bool, typer.Option("--skip-broken", help="Skip files that cannot be read, with a notice for each.")
]


def picture_options(size: str | None, **options: Any) -> dict[str, Any]:
    """Return the options of pictures that are given."""
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    return given if size is None else {**given, "image_size": image_shape(size, 1)[1:]}


def opened(data: str | None, size: str | None, **options: Any) -> Any:
    """Return a dataset of pictures where options of it, or its path, are given; else ``data`` as it is."""
    from sepnet import data as datasets

    given = picture_options(size, **options)
    if data is None and given:
        flag = next(iter(given)).replace("_", "-")
        raise SepnetError(f"--{flag} is for pictures of your own: name their folder with --data")
    return data if data is None or not (given or datasets.is_path(data)) else datasets.open_data(data, **given)


class TextOrJson(StrEnum):
    """How a result is written."""

    text = "text"
    json = "json"


class TableFormat(StrEnum):
    """How a result of rows is written."""

    text = "text"
    json = "json"
    csv = "csv"


TableFormatOption = Annotated[TableFormat, typer.Option("--format", help="How the result is written.")]
FormatOption = Annotated[TextOrJson, typer.Option("--format", help="How the result is written.")]


def image_shape(size: str, channels: int) -> tuple[int, int, int]:
    """Return ``(C, H, W)`` from ``32`` or ``32x48``."""
    parts = size.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SepnetError(f"image size '{size}' is not understood: expected pixels as 32 or, height first, 32x48")
    return channels, int(parts[0]), int(parts[-1])


@contextlib.contextmanager
def only_results() -> Iterator[None]:
    """Send what a user's network prints to standard error, so that standard output stays the result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Keep Python's collector from looking, again and again, through the objects that a second of imports makes."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def print_json(value: Any) -> None:
    """Print plain values as JSON on standard output."""
    print(json.dumps(value, indent=2))


def print_text(result: object) -> None:
    """Print a result for a person at once; on a terminal no word is broken at its edge."""
    print(fitted(str(result), sys.stdout), flush=True)
