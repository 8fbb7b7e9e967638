"""``sepnet train``."""

from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.completion import complete_datasets, complete_fields, complete_recipes
from sepnet.cli.options import FormatOption, NetworkArgument, TextOrJson, only_results, print_json

DataOption = Annotated[
    str, typer.Option(metavar="cifar10|sample", help="The dataset.", autocompletion=complete_datasets)
]
RECIPES = "published|champion|short|FILE.toml"
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="auto|cpu|cuda", help="Where to train; auto takes a GPU if there is one."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(metavar="auto|bf16|fp32", help="Of products; auto is bf16 where the processor computes in it."),
]
ValidationOption = Annotated[
    str | None,
    typer.Option(
        metavar="test|holdout",
        help="Score after each epoch on the test images, as the assignment does, or on a tenth of the training "
        "images held out: the only one to choose anything by. Default: test.",
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any field of the recipe, as label_smoothing=0.1; may be given several times.",
        autocompletion=complete_fields,
    ),
]
OutOption = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder that runs are kept in.")]


def command(
    network: NetworkArgument,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="cifar10|sample", help="The dataset; sample unless given.", autocompletion=complete_datasets
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar=RECIPES,
            help="How to train; unless given the network's own, which is champion for yours.",
            autocompletion=complete_recipes,
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; the recipe's unless given.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step; the recipe's unless given.")] = None,
    lr: Annotated[float | None, typer.Option(help="(Highest) learning rate; the recipe's unless given.")] = None,
    settings: SettingsOption = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random; 0 unless given.")] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    validation: ValidationOption = None,
    name: Annotated[
        str | None,
        typer.Option(help="Of the run's folder, NETWORK-DATA unless given; a taken one gets a number."),
    ] = None,
    out: OutOption = Path("runs"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run of that name; --epochs may be more than it had."),
    ] = False,
    reuse: Annotated[
        bool,
        typer.Option("--reuse", help="Take up a run of this very configuration under --out, if there is one."),
    ] = False,
    form: FormatOption = TextOrJson.text,
) -> None:
    """Train a network on a dataset by a recipe into a run folder.

    Ctrl-C saves and stops; a run stopped in any way goes on with --resume to the same final weights.
    """
    from sepnet import api
    from sepnet.training.recipe import VALIDATIONS, parse_settings

    with only_results():
        run = api.train(
            network,
            data,
            recipe,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            settings=parse_settings(settings or []),
            seed=seed,
            device=device,
            precision=precision,
            validation=validation,
            name=name,
            out=out,
            resume=resume,
            reuse=reuse,
        )
    result = run.result
    if form is TextOrJson.json:
        print_json({"run": str(run.path), **result})
    else:
        images = VALIDATIONS[result["validation"]]
        print(
            f"{run.path}: {100 * result['final_accuracy']:.2f} % of the {images} right after epoch "
            f"{result['epochs']}, at best {100 * result['best_accuracy']:.2f} % after epoch {result['best_epoch']}, "
            f"in {result['seconds']:,.0f} s"
        )
