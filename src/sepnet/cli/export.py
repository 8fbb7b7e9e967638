"""``sepnet export``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.evaluate import RunArgument
from sepnet.cli.options import TrustOption, only_results
from sepnet.notices import notice


class ExportFormat(StrEnum):
    """What the file is for."""

    keras = "keras"


def command(
    run: RunArgument,
    form: Annotated[ExportFormat, typer.Option("--format", help="Target format.")] = ExportFormat.keras,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file; unless given, NETWORK.keras in the run's folder, or here where the weights come with "
            "sepnet.",
        ),
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Write a trained network as a .keras file, weights and all; print the file's path.

    It takes raw pixels, 0 to 255, as (N, H, W, C): the run's mean and deviation are in its first layer. Keras
    computes in fp32, so its accuracy is that of `sepnet evaluate --precision fp32`. A file that sepnet wrote before
    is replaced; another's is not. Needs Keras: pip install 'sepnet[keras]'.
    """
    from sepnet import api

    with only_results():
        file = api.export_run(run, str(form), out, trust=trust)
    notice("a Keras model of pixels 0 to 255, images (N, height, width, channels), to a score for each class")
    print(file)
