"""``sepnet train``."""

from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.completion import DATASETS, complete_datasets, complete_fields, complete_recipes
from sepnet.cli.options import (
    FormatOption,
    GroupByOption,
    NetworkArgument,
    PictureChannelsOption,
    PictureSizeOption,
    SkipBrokenOption,
    SplitSeedOption,
    TestShareOption,
    TextOrJson,
    only_results,
    opened,
    print_json,
    print_text,
)

DATA = "NAME|FOLDER"
DataOption = Annotated[
    str,
    typer.Option(
        metavar=DATA,
        help=f"The dataset: {', '.join(DATASETS)}, or a folder (or .npz) of pictures.",
        autocompletion=complete_datasets,
    ),
]
RECIPES = "published|champion|short|FILE.toml"
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="auto|cpu|cuda", help="Device to train on; auto uses a GPU if there is one."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(metavar="auto|bf16|fp32", help="Arithmetic precision; auto is bf16 where the processor supports it."),
]
ValidationOption = Annotated[
    str | None,
    typer.Option(
        metavar="test|holdout",
        help="Score after each epoch on the test images, as the assignment does, or on a tenth of the training "
        "images held out (holdout), which is the one to select models by. Default: test.",
    ),
]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        metavar="RUN[,RUN...]",
        help="Learn from the mean logits of finished runs, too, on the same images: see the recipe's distillation and "
        "temperature. A run is a folder, or a network whose weights are shipped.",
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
TensorBoardOption = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Also write each epoch's figures as TensorBoard's files, into the run's folder; needs "
        "pip install 'sepnet[tensorboard]'.",
    ),
]
MLflowOption = Annotated[
    bool,
    typer.Option(
        "--mlflow",
        help="Also write each epoch's figures to MLflow, where $MLFLOW_TRACKING_URI says; needs "
        "pip install 'sepnet[mlflow]'.",
    ),
]
OutOption = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of runs.")]


def command(
    network: NetworkArgument,
    data: Annotated[
        str | None,
        typer.Option(
            metavar=DATA,
            help=f"The dataset: {', '.join(DATASETS)}, or a folder; sample unless given. A folder has train/ and test/ "
            "(or val/) with a folder a class, or one level of class folders, which is split; or a metadata.csv; or it "
            "is an .npz file.",
            autocompletion=complete_datasets,
        ),
    ] = None,
    image_size: PictureSizeOption = None,
    channels: PictureChannelsOption = None,
    group_by: GroupByOption = None,
    test_share: TestShareOption = None,
    split_seed: SplitSeedOption = None,
    skip_broken: SkipBrokenOption = False,
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
    lr: Annotated[
        float | None, typer.Option(help="Learning rate (the highest of a schedule); the recipe's unless given.")
    ] = None,
    settings: SettingsOption = None,
    seed: Annotated[int | None, typer.Option(help="Random seed [default: 0].")] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    validation: ValidationOption = None,
    teacher: TeacherOption = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the Python files that the teachers' networks are in.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run's folder; NETWORK-DATA unless given. If it is taken, a number is added."),
    ] = None,
    out: OutOption = Path("runs"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the run of that name; --epochs may be raised."),
    ] = False,
    reuse: Annotated[
        bool,
        typer.Option("--reuse", help="Reuse a run of exactly this configuration under --out, if there is one."),
    ] = False,
    tensorboard: TensorBoardOption = False,
    mlflow: MLflowOption = False,
    form: FormatOption = TextOrJson.text,
) -> None:
    """Train a network on a dataset by a recipe into a run folder.

    Ctrl-C saves and stops. A run that was stopped in any way can be resumed with --resume, to the same final weights.
    """
    from sepnet import api
    from sepnet.recipes.recipe import parse_settings

    with only_results():
        dataset = opened(
            data,
            image_size,
            channels=channels,
            group_by=group_by,
            test_share=test_share,
            split_seed=split_seed,
            skip_broken=skip_broken,
        )
        run = api.train(
            network,
            dataset,
            recipe,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            settings=parse_settings(settings or []),
            seed=seed,
            device=device,
            precision=precision,
            validation=validation,
            teacher=teacher.split(",") if teacher else (),
            trust=trust,
            name=name,
            out=out,
            resume=resume,
            reuse=reuse,
            tensorboard=tensorboard,
            mlflow=mlflow,
        )
    result = run.result
    if form is TextOrJson.json:
        print_json({"run": str(run.path), **result})
    else:
        images = "test" if result["validation"] == "test" else "held-out"
        print_text(
            f"{run.path}: {images} accuracy {100 * result['final_accuracy']:.2f} % after epoch "
            f"{result['epochs']}, best {100 * result['best_accuracy']:.2f} % after epoch {result['best_epoch']}, "
            f"in {result['seconds']:,.0f} s"
        )
