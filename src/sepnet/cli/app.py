"""The ``sepnet`` command: its subcommands, and how a mistake or an interruption ends it."""

import os
import sys
from typing import Annotated

import typer

from sepnet import __version__
from sepnet.cli import bench, check, compare, data, evaluate, export, predict, report, summary, train
from sepnet.errors import SepnetError
from sepnet.notices import notice
from sepnet.training.interrupts import Interrupted

app = typer.Typer(
    name="sepnet",
    help="Design, check, train and compare small image classifiers under a hard budget.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("summary")(summary.command)
app.command("check")(check.command)
app.command("train")(train.command)
app.command("compare")(compare.command)
app.command("evaluate")(evaluate.command)
app.command("predict")(predict.command)
app.command("report")(report.command)
app.command("export")(export.command)
app.command("bench")(bench.command)
app.add_typer(data.app, name="data")

OUT_OF_MEMORY = ("allocate memory", "out of memory")
"""What PyTorch says on a processor and on a GPU."""
INTERRUPTED = 130
"""The exit code of Ctrl-C: 128 and the number of SIGINT."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"sepnet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = app(arguments or ["--help"], prog_name="sepnet", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # Typer has caught a KeyboardInterrupt
            notice("sepnet: interrupted")
        return int(code or 0)
    except (SepnetError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        return _fail(message)
    except Interrupted as error:
        notice(f"sepnet: {error}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        notice("sepnet: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as in `sepnet … | head`: leave quietly, also when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except RuntimeError as error:
        if not any(phrase in str(error) for phrase in OUT_OF_MEMORY):
            raise
        return _fail("there is not enough memory: choose a smaller --batch-size, or a smaller network")
    except OSError as error:
        place = f"'{error.filename}': " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}")


def _fail(message: str) -> int:
    notice(f"sepnet: error: {' '.join(message.split())}")
    return 2
