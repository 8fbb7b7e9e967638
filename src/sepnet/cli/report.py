"""``sepnet report``."""

from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.options import FormatOption, RulesOption, TextOrJson, TrustOption, only_results, print_json


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of finished runs: of one network or of several, one or more seeds each. The first one's "
            "network is the baseline.",
        ),
    ],
    rules: RulesOption = "assignment",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the report; unless given, `report` in the run's folder, or in RUN-against-RUN beside the "
            "last run.",
        ),
    ] = None,
    trust: TrustOption = False,
    form: FormatOption = TextOrJson.text,
) -> None:
    """Write README, pictures and executed notebook of finished runs; print the report's folder.

    An existing report in the folder is replaced once the new one is complete.
    """
    from sepnet import api

    with only_results():
        folder = api.write_report(*runs, rules=rules, out=out, trust=trust)
    if form is TextOrJson.json:
        print_json({"report": str(folder)})
    else:
        print(folder)
