"""The ``sepnet`` command: its subcommands, and how a mistake or an interruption ends it."""

import gc
import itertools
import json
import sys
import traceback
from typing import Annotated

import typer

from sepnet import __version__
from sepnet.cli import (
    bench,
    check,
    compare,
    data,
    doctor,
    evaluate,
    export,
    predict,
    report,
    runs,
    streams,
    summary,
    sweep,
    train,
)
from sepnet.cli.streams import OutputError
from sepnet.errors import SepnetError
from sepnet.notices import notice
from sepnet.training.interrupts import Interrupted

EXIT_CODES = """Exit codes: 0 done; 1 a network breaks a rule (check), a file is damaged (data verify), the kernels
are wrong (doctor), or the challenger is not better (compare --fail-unless-better); 2 a mistake in the command or in
its files; 70 an error in sepnet; 74 standard output could not be written; 130 and 143 interrupted; 141 the reader of
a pipe has gone. With --format json an error is one line of JSON on standard error: {"error": ..., "exit_code":
...}."""
BROKEN_PIPE = 141
INTERNAL_ERROR = 70
OUTPUT_FAILED = 74
"""As BSD's sysexits.h has them: EX_SOFTWARE and EX_IOERR."""

app = typer.Typer(
    name="sepnet",
    help="Design, check, train and compare small image classifiers under a hard budget.",
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("summary")(summary.command)
app.command("check")(check.command)
app.command("train")(train.command)
app.command("compare")(compare.command)
app.command("sweep")(sweep.command)
app.command("evaluate")(evaluate.command)
app.command("predict")(predict.command)
app.command("report")(report.command)
app.command("runs")(runs.command)
app.command("export")(export.command)
app.command("bench")(bench.command)
app.command("doctor")(doctor.command)
app.add_typer(data.app, name="data")

OUT_OF_MEMORY = ("allocate memory", "out of memory")
"""What PyTorch says on a processor and on a GPU."""
NOT_ENOUGH_MEMORY = "there is not enough memory: choose smaller images, a smaller batch or a smaller network"
WORDS = {
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": "expected a whole number",
    "Input should be a valid number, unable to parse string as a number": "expected a number",
    "Unable to parse input string as an integer, exceeded maximum size": "expected a whole number of fewer digits",
    "Input should be greater than or equal to": "expected at least",
}
"""Typer's parts of a message that are Pydantic's, and plain ones in their place."""
TRACEBACK = "--traceback"
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
    show_traceback: Annotated[
        bool, typer.Option(TRACEBACK, help="Show where in the code an error came up; may stand anywhere.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    arguments = sys.argv[1:]
    try:
        streams.guard()
    except OutputError as error:
        sys.exit(_end(arguments, f"error: standard output cannot be written: {error}", OUTPUT_FAILED))
    code = run(arguments)
    gc.freeze()  # so that the last collection passes over what PyTorch's import has made
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except OutputError as error:
        code = _end(arguments, f"error: standard output could not be written: {error}", OUTPUT_FAILED)
        streams.discard_rest()
        return code
    except BrokenPipeError:  # the reader has gone, as in `sepnet … | head`: leave quietly
        streams.discard_rest()
        return BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    try:
        _refuse_empty(arguments)
        given = [argument for argument in arguments if argument != TRACEBACK]
        code = app(given or ["--help"], prog_name="sepnet", standalone_mode=False)
        if code == INTERRUPTED:  # Typer has caught a KeyboardInterrupt
            return _end(arguments, "interrupted", INTERRUPTED)
        return int(code or 0)
    except (OutputError, BrokenPipeError):
        raise
    except SepnetError as error:
        return _end(arguments, f"error: {error}", 2)
    except typer.TyperException as error:
        return _end(arguments, f"error: {_usage_message(error)}", 2)
    except Interrupted as error:
        return _end(arguments, str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _end(arguments, "interrupted", INTERRUPTED)
    except MemoryError:
        return _end(arguments, f"error: {NOT_ENOUGH_MEMORY}", 2)
    except OSError as error:
        name = str(error.filename or "")
        place = f"'{name if len(name) < 200 else name[:90] + '...' + name[-90:]}': " if name else ""
        return _end(arguments, f"error: {place}{error.strerror or error}", 2)
    except Exception as error:
        if isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in OUT_OF_MEMORY):
            return _end(arguments, f"error: {NOT_ENOUGH_MEMORY}", 2)
        message = f"internal error: {type(error).__name__}: {error}; run again with --traceback and report it"
        return _end(arguments, message, INTERNAL_ERROR)


def _refuse_empty(arguments: list[str]) -> None:
    """Raise if an argument or an option's value is empty, as an unset variable of the shell's makes it."""
    for before, argument in itertools.pairwise(["", *arguments]):
        option, separator, value = argument.partition("=")
        if not argument.strip():
            place = before if before.startswith("-") and "=" not in before else "an argument"
        elif separator and option.startswith("--") and not value.strip():
            place = option
        else:
            continue
        raise SepnetError(f"{place} is empty: expected a value (is a shell variable unset?); otherwise leave it out")


def _usage_message(error: typer.TyperException) -> str:
    message = error.format_message()
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return message


def _end(arguments: list[str], message: str, code: int) -> int:
    """Say why a command ends, in one line, as JSON where the result would have been JSON; return its exit code."""
    message = " ".join(message.split())
    if TRACEBACK in arguments and sys.exc_info()[0] is not None:
        notice(traceback.format_exc().rstrip())
    if "--format=json" in arguments or ("--format", "json") in itertools.pairwise(arguments):
        notice(json.dumps({"error": message.removeprefix("error: "), "exit_code": code}, ensure_ascii=False))
    else:
        notice(f"sepnet: {message}")
    return code
