"""``sepnet compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepnet.cli.options import NETWORK_HELP, FormatOption, TextOrJson, print_json
from sepnet.cli.train import (
    DataOption,
    DeviceOption,
    OutOption,
    PrecisionOption,
    RecipeOption,
    ValidationOption,
)

if TYPE_CHECKING:
    from sepnet.runs import Run


def command(
    base: Annotated[str, typer.Argument(metavar="BASE", help=f"The network to beat: {NETWORK_HELP}")] = "base",
    challenger: Annotated[
        str, typer.Argument(metavar="CHALLENGER", help="The network that is to beat it, named likewise.")
    ] = "champion",
    data: DataOption = "sample",
    epochs: Annotated[int, typer.Option(help="Epochs of both networks.")] = 50,
    seeds: Annotated[int, typer.Option(help="Runs of each network, with seeds 0, 1, …")] = 1,
    base_recipe: RecipeOption = None,
    recipe: RecipeOption = None,
    rules: Annotated[
        str, typer.Option(metavar="assignment|FILE.toml", help="The rules that the challenger has to keep.")
    ] = "assignment",
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    validation: ValidationOption = None,
    out: OutOption = Path("runs"),
    form: FormatOption = TextOrJson.text,
) -> None:
    """Check the challenger, train both networks on the same data, and say who won.

    Either may be the folder of a finished run, which is then judged as it is. Runs of the same configuration
    under --out are taken up, finished or broken off, so a comparison that was stopped goes on when called again.
    """
    from sepnet import api

    comparison = api.compare(
        _run_or_name(base),
        _run_or_name(challenger),
        data,
        epochs=epochs,
        seeds=seeds,
        base_recipe=base_recipe,
        recipe=recipe,
        device=device or "auto",
        precision=precision or "auto",
        validation=validation or "test",
        rules=rules,
        out=out,
    )
    if form is TextOrJson.json:
        print_json(comparison.to_dict())
    else:
        print(comparison)


def _run_or_name(text: str) -> "str | Run":
    """Return the run in the folder ``text``, or, where there is no such folder, the network's name."""
    from sepnet.networks import NETWORKS
    from sepnet.runs import Run

    return Run.open(Path(text)) if text not in NETWORKS and Path(text).is_dir() else text
