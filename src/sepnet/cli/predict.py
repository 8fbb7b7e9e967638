"""``sepnet predict``."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.evaluate import DeviceOption, PrecisionOption, RunOrFileArgument
from sepnet.cli.options import TableFormat, TableFormatOption, TrustOption, only_results, print_json


def command(
    run: RunOrFileArgument,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE|FOLDER",
            help="Image files in any format that Pillow reads, and folders: all images in and below them.",
        ),
    ],
    top: Annotated[int, typer.Option(help="How many classes to show, the most likely first.")] = 5,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Skip files that cannot be read, with a notice for each.")
    ] = False,
    trust: TrustOption = False,
    form: TableFormatOption = TableFormat.text,
) -> None:
    """Classify images: the most likely classes and their probabilities.

    Images of another size are cropped about the centre to the network's shape and resized (Lanczos). Hidden files
    in a folder are left out. Nothing is printed before all images have been read. As CSV, each class of each image
    is a row: file, rank, class, probability.
    """
    from sepnet import api
    from sepnet.inference.prediction import to_csv, to_text

    with only_results():
        predictions = api.predict(
            run, images, top, skip_broken=skip_broken, trust=trust, device=device, precision=precision
        )
    if form is TableFormat.json:
        print_json([prediction.to_dict() for prediction in predictions])
    elif form is TableFormat.csv:
        print(to_csv(predictions), end="")
    else:
        print(to_text(predictions, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
