"""``sepnet sweep``."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.options import only_results, print_text
from sepnet.errors import SepnetError


class Export(StrEnum):
    """How a ledger is printed for other programs."""

    csv = "csv"
    jsonl = "jsonl"


def command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.toml", help="The sweep: [[row]]s and a [grid], or a [search], as docs/sweeps.md has them."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the sweep's runs; FILE without .toml unless given."),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Processes that train, each with its share of the cores; auto measures how many are fastest. "
            "Unless given one a core, or one on a GPU.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|FILE.toml",
            help="Train on the workers of a Dask cluster instead: at tcp://HOST:PORT, or one that a file starts, as on "
            "SLURM; needs pip install 'sepnet[cluster]'.",
        ),
    ] = None,
    table: Annotated[
        bool,
        typer.Option("--table", help="Train nothing; print the rows as Markdown: means, standard errors, intervals."),
    ] = False,
    best: Annotated[
        bool,
        typer.Option("--best", help="Train nothing; print the rows that none beats at their cost, and the best one."),
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Train nothing; draw accuracy against costs into FOLDER, print the file.")
    ] = False,
    export: Annotated[
        Export | None, typer.Option(help="Train nothing; print a line for each run, for other programs.")
    ] = None,
) -> None:
    """Train many runs: named rows, a grid, or a search under a budget. Called again, it trains what is missing.

    Every trial is an ordinary run in FOLDER, scored on held-out training images. Ctrl-C saves all that are running.
    --table, --best, --plot and --export show what is there, one of them at a time.
    """
    from sepnet import api
    from sepnet.sweep.tables import to_csv

    if sum([table, best, plot, export is not None]) > 1:
        raise SepnetError("--table, --best, --plot and --export are given together: expected one of them")
    with only_results():
        sweep = api.open_sweep(file, out)
        only_shown = table or best or plot or export
        ledger = sweep.ledger() if only_shown else sweep.run(workers=workers, cluster=cluster)
        picture = sweep.draw(ledger) if plot else None
    if table:
        print(sweep.to_markdown(ledger))
    elif picture:
        print(picture)
    elif export is Export.jsonl:
        print("".join(json.dumps(asdict(outcome)) + "\n" for outcome in ledger.values()), end="")
    elif export is Export.csv:
        print(to_csv(ledger.values()), end="")
    else:
        print_text(sweep.best_to_text(ledger))
