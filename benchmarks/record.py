"""Where, when and how a benchmark was run, and its two files under ``results/``."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.race import ROOT
from sepnet import environment
from sepnet.errors import SepnetError
from sepnet.files import write_atomically
from sepnet.notices import notice

UNRECORDED = ("out", "keras_python")
"""Options that are places on this machine."""


def context(module: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the command, the commit and the machine; call it first, that the load is other people's."""
    words = [
        f"--{name.replace('_', '-')} {value if not isinstance(value, list) else ','.join(value)}"
        for name, value in vars(options).items()
        if name not in UNRECORDED
    ]
    machine = {name: value for name, value in environment.describe().items() if name != "argv"}
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    if machine["threads"] != machine["cores"]:
        notice(
            f"PyTorch takes {machine['threads']} of {machine['cores']} cores (OMP_NUM_THREADS?), TensorFlow takes all"
        )
    return {
        "command": " ".join([f"python -m {module}", *words]),
        "commit": commit(),
        "machine": {**machine, "load_before": load},
    }


def commit() -> str | None:
    """Return the checkout's commit, and whether files outside ``results`` differ from it; None without git."""
    return environment.commit(ROOT, ("--", ".", ":!results"))


def described(record: dict[str, Any]) -> str:
    """Return the record's machine, commit and command as a paragraph of Markdown."""
    machine = record["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, threads: {machine['threads']}, "
        f"{machine['memory_gib']} GiB, {machine['platform']}, Python {machine['python']}, PyTorch {machine['torch']}; "
        f"load before: {machine['load_before']}; {machine['time']}; commit {record['commit']}.\n\n"
        f"```sh\n{record['command']}\n```"
    )


def save(folder: Path, name: str, record: dict[str, Any], text: str) -> None:
    """Write ``name.json`` and ``name.md``, and print the latter."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SepnetError(f"folder '{folder}' cannot be made: {error.strerror}") from error
    write_atomically(folder / f"{name}.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_atomically(folder / f"{name}.md", text + "\n")
    print(text)
    notice(f"written to {folder / name}.json and .md")


def finish(main: Callable[[], None]) -> None:
    """Run a benchmark's main function; a mistake is one line and exit 2, Ctrl-C exit 130."""
    try:
        main()
    except SepnetError as error:
        notice(f"benchmarks: error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        notice("benchmarks: interrupted")
        sys.exit(130)


def at_least_one(text: str) -> int:
    """Return a whole number of at least 1 of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}', expected a whole number of at least 1")
    return int(text)


def positive(text: str) -> float:
    """Return a finite number above 0 of the command line."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}', expected a number above 0")
    return value


def names(text: str) -> list[str]:
    """Return names between commas of the command line."""
    return [name.strip() for name in text.split(",")]
