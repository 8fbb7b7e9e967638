"""``sepnet compare``."""

from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.completion import complete_networks, complete_recipes
from sepnet.cli.options import (
    NETWORK_HELP,
    FormatOption,
    GroupByOption,
    PictureChannelsOption,
    PictureSizeOption,
    RulesOption,
    SkipBrokenOption,
    SplitSeedOption,
    TestShareOption,
    TextOrJson,
    TrustOption,
    only_results,
    opened,
    print_json,
    print_text,
)
from sepnet.cli.train import (
    RECIPES,
    DataOption,
    DeviceOption,
    MLflowOption,
    OutOption,
    PrecisionOption,
    SettingsOption,
    TensorBoardOption,
    ValidationOption,
)

EPOCHS = 50


def command(
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help=f"The network to beat: {NETWORK_HELP}", autocompletion=complete_networks),
    ] = "base",
    challenger: Annotated[
        str,
        typer.Argument(
            metavar="CHALLENGER",
            help="The network that is to beat it, named in the same way.",
            autocompletion=complete_networks,
        ),
    ] = "champion",
    data: DataOption = "sample",
    image_size: PictureSizeOption = None,
    channels: PictureChannelsOption = None,
    group_by: GroupByOption = None,
    test_share: TestShareOption = None,
    split_seed: SplitSeedOption = None,
    skip_broken: SkipBrokenOption = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs of both networks; 50 unless given.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each network, with seeds 0, 1, ...")] = 1,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Processes that train side by side, each with its share of the cores; auto measures how many are "
            "fastest. Unless given, one a core where there are seeds.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step of both networks; each recipe's unless given.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate (the highest of a schedule) of both networks; each recipe's unless given."),
    ] = None,
    settings: SettingsOption = None,
    base_recipe: Annotated[
        str | None,
        typer.Option(
            metavar=RECIPES, help="How to train the base; its own recipe unless given.", autocompletion=complete_recipes
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar=RECIPES,
            help="How to train the challenger; its own recipe unless given.",
            autocompletion=complete_recipes,
        ),
    ] = None,
    rules: RulesOption = "assignment",
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    validation: ValidationOption = None,
    out: OutOption = Path("runs"),
    report: Annotated[bool, typer.Option(help="Also write a report: README, pictures, notebook.")] = True,
    trust: TrustOption = False,
    tensorboard: TensorBoardOption = False,
    mlflow: MLflowOption = False,
    fail_unless_better: Annotated[
        bool,
        typer.Option(
            "--fail-unless-better",
            help="Exit with 1 unless the challenger is better by the statistics: significantly, at the 5 % level.",
        ),
    ] = False,
    form: FormatOption = TextOrJson.text,
) -> int:
    """Check the challenger, train both networks on the same data, report which is better, and write a report.

    Either may be the folder of a finished run, which is then used as it is. Runs of the same configuration
    under --out are reused, finished or not, so a comparison that was stopped continues when called again.
    """
    from sepnet import api
    from sepnet.recipes.recipe import parse_settings

    fields = parse_settings(settings or [])
    if epochs is None and "epochs" not in fields:
        epochs = EPOCHS
    with only_results():
        comparison = api.compare(
            base,
            challenger,
            opened(
                data,
                image_size,
                channels=channels,
                group_by=group_by,
                test_share=test_share,
                split_seed=split_seed,
                skip_broken=skip_broken,
            ),
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            settings=fields,
            seeds=seeds,
            workers=workers,
            base_recipe=base_recipe,
            recipe=recipe,
            device=device or "auto",
            precision=precision or "auto",
            validation=validation or "test",
            rules=rules,
            out=out,
            trust=trust,
            tensorboard=tensorboard,
            mlflow=mlflow,
        )
    if form is TextOrJson.text:
        print_text(comparison)
    path = None
    try:
        if report:
            with only_results():
                path = api.write_report(comparison, rules=rules, trust=trust)
    finally:  # a report that fails takes no verdict with it
        if form is TextOrJson.json:
            written = {"report": None if path is None else str(path)} if report else {}
            print_json({**comparison.to_dict(), **written})
    if path is not None and form is TextOrJson.text:
        print(path)
    return 1 if fail_unless_better and comparison.verdict.by_statistics.winner != "challenger" else 0
