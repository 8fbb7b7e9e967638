"""The tables of README and docs that are made from code and results: ``python -m docs.tables`` writes them anew.

A table stands between ``<!-- table: NAME -->`` and ``<!-- /table -->``; what is between is replaced.
"""

import ast
import inspect
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from benchmarks.tables import NOTHING, figure, markdown
from sepnet.anatomy import KINDS
from sepnet.comparison.significance import judge, spread
from sepnet.recipes.recipe import _RANGES, PRESETS, Recipe, load_recipe
from sepnet.rules import Rules
from sepnet.runs import Run
from sepnet.runs.scores import HEADS
from sepnet.sweep.ledger import read_ledger

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "results/search/README.md")
BLOCK = re.compile(r"(<!-- table: ([a-z0-9-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)
AS_PUBLISHED = (  # by the assignment, whose runs are not ours
    ("the base network, as the assignment published it", "1,172,410", "", "50", "82.78", "82.82 (epoch 43)", ""),
    ("the separable network, as published", "96,009", "41,610,340", "50", "81.89", "82.85 (epoch 28)", "2,378 (GPU)"),
)
RESULTS = {
    "published-cifar10": "`published`",
    "base-cifar10": "`base`",
    "champion-cifar10": "`champion`",
    "champion-short-cifar10": "`champion` by recipe `short`",
    "resnet8-champion-recipe-cifar10": "`resnet8` by recipe `champion`",
}
MORE_RESULTS = {"resnet8-cifar10": "`resnet8` by recipe `published`"}
"""Those that the README has no room for."""
EXPORTED = ("champion-cifar10", "resnet8-champion-recipe-cifar10")
SEARCHES = ("tpe-0", "tpe-1", "tpe-2", "random-0", "random-1", "random-2")
ENGINES = ("sepnet, images/s", "PyTorch as it comes", "PyTorch, keeping freed memory", "Keras on TensorFlow")


def current(page: Path) -> str:
    """Return a page with its tables made anew."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}{TABLES[match[2]](page)}\n{match[3]}"

    return BLOCK.sub(made, page.read_text(encoding="utf-8"))


def results(page: Path) -> str:
    """Return the measured runs of ``results/``; the docs have more of them, and what the assignment published."""
    brief = page.name == "README.md"
    rows = [] if brief else [*AS_PUBLISHED]
    for name, label in (RESULTS if brief else RESULTS | MORE_RESULTS).items():
        run = Run.open(ROOT / "results" / name)
        result, anatomy = run.result, run.anatomy
        assert anatomy is not None
        folder = Path(os.path.relpath(run.path, page.parent)).as_posix()
        rows.append(
            (
                f"[{label}]({folder})",
                f"{anatomy.parameters:,}",
                f"{anatomy.macs:,}",
                str(result["epochs"]),
                f"{100 * result['final_accuracy']:.2f}",
                f"{100 * result['best_accuracy']:.2f} (epoch {result['best_epoch']})",
                f"{result['seconds']:,.0f}",
            )
        )
    heads = ("run", "parameters", "MACs", "epochs", "last, %", "best, %", "seconds")
    return markdown(heads, rows)


def exports(page: Path) -> str:
    """Return how runs of ``results/`` answer in each format that they were exported to."""
    rows = []
    for name in EXPORTED:
        run = Run.open(ROOT / "results" / name)
        rows += [(f"`{run.config.network}`", *score.cells) for score in run.scores]
    return markdown(("network", *HEADS), rows, words=2)


def verdict(page: Path) -> str:
    """Return how `champion` was judged against `base`."""
    judged = judge(*([Run.open(ROOT / "results" / name)] for name in ("base-cifar10", "champion-cifar10")))
    return (
        f"- By the assignment, {judged.by_assignment.sentence('`base`', '`champion`')}.\n"
        f"- By the statistics, {judged.by_statistics.sentence('`base`', '`champion`')}."
    )


def speed(record: str) -> Callable[[Path], str]:
    """Return what makes the table of a record of ``python -m benchmarks``."""

    def table(page: Path) -> str:
        rows = []
        for network, engines in _speeds(record):
            cells = [
                figure(row["images_per_second"]["median"])
                + (f" ({figure(row['sepnet_is_faster']['median'])}×)" if place else "")
                for place, row in enumerate(engines)
            ]
            rows.append((f"`{network}`", *cells))
        return markdown(("network", *ENGINES), rows)

    return table


def speed_sentence(page: Path) -> str:
    """Return the ratios of speed in one sentence."""
    epyc, xeon = (
        {network: figure(engines[1]["sepnet_is_faster"]["median"]) for network, engines in _speeds(record)}
        for record in ("speed", "amx/speed")
    )
    return (
        f"On two cores of an AMD EPYC sepnet, in bf16, trains `published` {epyc['published']} times and `champion` "
        f"{epyc['champion']} times as fast as\nPyTorch as it comes, in fp32; on an Intel Xeon with AMX, "
        f"{xeon['published']} and {xeon['champion']} times."
    )


def search(page: Path) -> str:
    """Return what the searches under 25,000 parameters came to, and their best designs trained again."""
    again = read_ledger(page.parent / "best")
    rows = []
    for name in SEARCHES:
        designs = read_ledger(page.parent / name).values()
        best = max((one for one in designs if one.finished), key=lambda one: one.accuracy)
        seeds = [100 * one.accuracy for (row, _), one in again.items() if row == name]
        rows.append(
            (
                f"[{name}]({name}.toml)",
                str(len(designs)),
                str(sum(one.finished for one in designs)),
                str(sum(one.epochs for one in designs)),
                f"`{best.row}`",
                f"{best.parameters:,}",
                f"{100 * best.accuracy:.2f}",
                spread(seeds) if seeds else "missing",
            )
        )
    heads = (
        "search",
        "designs",
        "to the end",
        "epochs",
        "best",
        "parameters",
        "its accuracy, %",
        "of seeds 1 and 2, %",
    )
    return markdown(heads, rows)


def _speeds(record: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    rows = json.loads((ROOT / f"results/speed/{record}.json").read_text(encoding="utf-8"))["rows"]
    for network, engines in itertools.groupby(rows, key=lambda row: row["network"]):
        yield network, list(engines)


def recipe(page: Path) -> str:
    """Return every field of a recipe: its default, what it takes, its meaning."""
    return _fields(Recipe, "field", _RANGES)


def rules(page: Path) -> str:
    """Return every rule: its default, what it takes, its meaning."""
    return _fields(Rules, "rule", {})


def _fields(kind: Any, what: str, ranges: dict[str, tuple[float, float, str]]) -> str:
    rows = [
        (f"`{one.name}`", _shown(one.default), _taken(one.type, ranges.get(one.name)), _meaning(kind, one.name))
        for one in fields(kind)
        if one.name != "name"
    ]
    return markdown((what, "default", "takes", "meaning"), rows, words=4)


def presets(page: Path) -> str:
    """Return what the presets set that is not a default."""
    recipes = [load_recipe(name) for name in PRESETS]
    rows = []
    for field in fields(Recipe):
        values = [getattr(recipe, field.name) for recipe in recipes]
        if field.name != "name" and set(values) != {field.default}:
            cells = (NOTHING if value == field.default else _shown(value) for value in values)
            rows.append((f"`{field.name}`", *cells))
    return markdown(("field", *(f"`{name}`" for name in PRESETS)), rows, words=4)


def kinds(page: Path) -> str:
    """Return the kinds of layers in a line."""
    return ", ".join(f"`{kind}`" for kind in KINDS)


def _taken(annotation: Any, bounds: tuple[float, float, str] | None) -> str:
    if bounds is not None:
        return bounds[2]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    words = {bool: "true or false", int: "a whole number", float: "a number", int | None: "a whole number"}
    return words.get(annotation, "a list of names")


def _shown(value: Any) -> str:
    return NOTHING if value is None else f"`{json.dumps(value)}`".replace('"', "")


def _meaning(kind: type, name: str) -> str:
    """Return the text below a field in its class, in Markdown."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    for statement, following in itertools.pairwise(body.body):
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == name:
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                return " ".join(str(following.value.value).split()).replace("``", "`").replace("|", "\\|")
            break
    raise LookupError(f"{kind.__name__}.{name} has no text below it that says what it means")


TABLES: dict[str, Callable[[Path], str]] = {
    "results": results,
    "exports": exports,
    "verdict": verdict,
    "speed": speed("speed"),
    "speed-amx": speed("amx/speed"),
    "speed-avx2": speed("avx2/speed"),
    "speed-sentence": speed_sentence,
    "search": search,
    "recipe": recipe,
    "presets": presets,
    "rules": rules,
    "kinds": kinds,
}

if __name__ == "__main__":
    for path in PAGES:
        path.write_text(current(path), encoding="utf-8")
