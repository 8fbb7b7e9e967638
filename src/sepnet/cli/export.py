"""``sepnet export``."""

from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.evaluate import RunArgument
from sepnet.cli.options import TrustOption, only_results
from sepnet.errors import SepnetError
from sepnet.notices import notice

TAKES = {
    "keras": "a Keras model of pixels 0 to 255, images (N, height, width, channels), to a score for each class",
    "onnx": "an ONNX model of pixels 0 to 255, images (N, channels, height, width), to a score for each class",
    "onnx-int8": "an int8 ONNX model of pixels 0 to 255, images (N, channels, height, width), to class scores",
    "tflite": "an int8 TensorFlow Lite model of pixels 0 to 255, images (N, height, width, channels), to class scores",
    "c": "int8 C99 source, its header beside it: pixels 0 to 255, (height, width, channels), to a score for each class",
    "html": "a page of its own: open it in a browser, and give it pictures by file, drop, paste or camera",
}


def command(
    run: RunArgument,
    form: Annotated[
        str,
        typer.Option("--format", metavar=f"{'|'.join(TAKES)}", help="Target format, or several, a comma between them."),
    ] = "keras",
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
            help="Score what was written on all images that the run was scored on: print a table, and keep it in the "
            "run's folder and its reports.",
        ),
    ] = False,
    trust: TrustOption = False,
) -> None:
    """Write a trained network for Keras, ONNX, TensorFlow Lite, a microcontroller or a browser; print the file's path.

    Weights, mean and deviation are inside: every format takes raw pixels, 0 to 255. onnx-int8, tflite, c and html are
    one int8 network, calibrated on training images of the run's data; c needs no library, no allocation and no floating
    point, html no network access. An existing file is replaced only if sepnet wrote it. keras computes in fp32, so its
    accuracy is that of `sepnet evaluate --precision fp32`. Needs pip install 'sepnet[keras]', 'sepnet[onnx]' or
    'sepnet[tflite]'; c and html need none.
    """
    from sepnet.export.from_run import Exports, require_formats
    from sepnet.runs.scores import to_text

    formats = form.split(",")
    require_formats(formats)
    if out is not None and len(formats) > 1:
        raise SepnetError(
            f"--out names one file and --format {form} makes {len(formats)}: give one format, or no --out"
        )
    with only_results():
        exports = Exports.of(run, trust=trust)
    for name in formats:
        with only_results():
            file = exports.write(name, out)
        notice(TAKES[name])
        print(file)
    if score:
        with only_results():
            table = to_text(exports.score(formats))
        print(table)
