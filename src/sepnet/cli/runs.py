"""``sepnet runs``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.options import TableFormat, TableFormatOption, print_json, print_text


def command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder that holds runs.")] = Path("runs"),
    form: TableFormatOption = TableFormat.text,
) -> None:
    """List the runs in a folder and their figures: epochs done, last and best accuracy, seconds.

    A run that cannot be read is skipped, with a notice that says why.
    """
    from sepnet.runs.listing import list_runs, to_csv, to_text

    rows = list_runs(folder)
    if form is TableFormat.json:
        print_json([asdict(row) for row in rows])
    elif form is TableFormat.csv:
        print(to_csv(rows), end="")
    else:
        print_text(to_text(rows))
