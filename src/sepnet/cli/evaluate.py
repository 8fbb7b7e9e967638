"""``sepnet evaluate``."""

from typing import Annotated

import typer

from sepnet.cli.completion import complete_datasets, complete_networks
from sepnet.cli.options import (
    FormatOption,
    SkipBrokenOption,
    TextOrJson,
    TrustOption,
    only_results,
    print_json,
    print_text,
)

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|NETWORK",
        help="A finished run's folder, or a network whose trained weights come with sepnet.",
        autocompletion=complete_networks,
    ),
]
RunOrFileArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|NETWORK|FILE",
        help="A finished run's folder, a network whose trained weights come with sepnet, or a .keras, .onnx or .tflite "
        "file that `sepnet export` wrote.",
        autocompletion=complete_networks,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="auto|cpu|cuda", help="Device to compute on; the run's unless given. Not for a file."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(metavar="auto|bf16|fp32", help="Arithmetic precision; the run's unless given. Not for a file."),
]


def command(
    run: RunOrFileArgument,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="A dataset of the same classes; the run's unless given; a file needs one. Pictures are read as the "
            "run's own are.",
            autocompletion=complete_datasets,
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="test|holdout",
            help="Which of its images: the test images, or the held-out tenth of the training images; "
            "unless given those the run was scored on; of a file, the test images.",
        ),
    ] = None,
    mirrored: Annotated[
        bool,
        typer.Option("--mirrored", help="Answer by the mean of the logits on an image and on its mirror image."),
    ] = False,
    skip_broken: SkipBrokenOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    trust: TrustOption = False,
    form: FormatOption = TextOrJson.text,
) -> None:
    """Evaluate a trained network: accuracy, loss, calibration, scores per class, and confusion matrix.

    On the images that the run was scored on this gives the run's own last accuracy. The calibration error is the
    expected one, over 15 bins of confidence (Guo et al. 2017).
    """
    from sepnet import api

    with only_results():
        evaluation = api.evaluate(
            run,
            data,
            validation=validation,
            mirrored=mirrored,
            skip_broken=skip_broken,
            trust=trust,
            device=device,
            precision=precision,
        )
    if form is TextOrJson.json:
        print_json(evaluation.to_dict())
    else:
        print_text(evaluation)
