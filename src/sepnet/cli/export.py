"""``sepnet export``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.evaluate import RunArgument
from sepnet.cli.options import TrustOption, only_results
from sepnet.errors import SepnetError
from sepnet.notices import notice


class ExportFormat(StrEnum):
    """What the file is for."""

    keras = "keras"
    onnx = "onnx"
    onnx_int8 = "onnx-int8"
    tflite = "tflite"
    c = "c"


TAKES = {
    "keras": "a Keras model of pixels 0 to 255, images (N, height, width, channels), to a score for each class",
    "onnx": "an ONNX model of pixels 0 to 255, images (N, channels, height, width), to a score for each class",
    "onnx-int8": "an int8 ONNX model of pixels 0 to 255, images (N, channels, height, width), to class scores",
    "tflite": "an int8 TensorFlow Lite model of pixels 0 to 255, images (N, height, width, channels), to class scores",
    "c": "int8 C99 source, its header beside it: pixels 0 to 255, (height, width, channels), to a score for each class",
}


def command(
    run: RunArgument,
    form: Annotated[ExportFormat, typer.Option("--format", help="Target format.")] = ExportFormat.keras,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file; unless given, it is named after the network, in the run's folder, or here where the "
            "weights come with sepnet.",
        ),
    ] = None,
    score: Annotated[
        bool,
        typer.Option(
            "--score",
            help="Score what was written on all images that the run was scored on, and print a table; not for keras.",
        ),
    ] = False,
    trust: TrustOption = False,
) -> None:
    """Write a trained network for Keras, ONNX, TensorFlow Lite or a microcontroller; print the file's path.

    Weights, mean and deviation are inside: every format takes raw pixels, 0 to 255. onnx-int8, tflite and c are one
    int8 network, calibrated on training images of the run's data; c needs no library, no allocation and no floating
    point. An existing file is replaced only if sepnet wrote it. keras computes in fp32, so its accuracy is that of
    `sepnet evaluate --precision fp32`. Needs pip install 'sepnet[keras]', 'sepnet[onnx]' or 'sepnet[tflite]'; c needs
    none.
    """
    from sepnet import api
    from sepnet.export.artifacts import score_table

    if score and form == ExportFormat.keras:
        raise SepnetError("--score is not for --format keras: score the file with keras.Model.evaluate")
    with only_results():
        file = api.export_run(run, str(form), out, trust=trust)
        table = score_table(api.score_exports(run, [str(form)], trust=trust)) if score else ""
    notice(TAKES[str(form)])
    print(file)
    if table:
        print(table)
