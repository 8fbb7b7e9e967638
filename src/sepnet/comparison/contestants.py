"""A comparison: two contestants, their runs, and the verdict."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from sepnet import data as datasets
from sepnet import html
from sepnet.anatomy import Anatomy, trace
from sepnet.comparison.significance import Verdict, judge, require_same_images
from sepnet.data import Dataset
from sepnet.errors import SepnetError
from sepnet.export.int8.footprint import footprint
from sepnet.files import exclusively, exists, read_text, write_atomically
from sepnet.folders import numbered
from sepnet.networks import split_name
from sepnet.notices import notice, printable
from sepnet.recipes.recipe import VALIDATIONS, Recipe
from sepnet.rules import Footprint, Rules, RulesReport, check
from sepnet.runs import Run, RunConfig
from sepnet.runs.history import best
from sepnet.settings import parse_json
from sepnet.text_table import text_table
from sepnet.training import experiment, trained_network

VERDICT = "verdict.json"
SCORED_ON = {
    "test": "the test images after each epoch, which is the assignment's protocol; do not select models by it",
    "holdout": "training images held out",
}


@dataclass(frozen=True)
class Contestant:
    """A network to train by a recipe (its own when None), or a run to judge as it is."""

    network: experiment.Network | Run
    recipe: str | Path | Recipe | None = None


@dataclass(frozen=True, kw_only=True)
class ContestantResult:
    """One contestant's part of a comparison."""

    anatomy: Anatomy
    runs: tuple[Run, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures beside the verdict; accuracies and the like are of each run, seed by seed."""
        histories = [run.history for run in self.runs]
        return {
            "network": self.anatomy.network,
            "parameters": self.anatomy.parameters,
            "macs": self.anatomy.macs,
            "runs": [str(run.path) for run in self.runs],
            "seeds": [run.config.seed for run in self.runs],
            "recipe": self.runs[0].config.trained_by,
            "epochs": [len(history) for history in histories],
            "seconds": [round(run.seconds, 2) for run in self.runs],
            "final_accuracy": [history[-1].val_accuracy for history in histories],
            "best_accuracy": [best(history).val_accuracy for history in histories],
            "best_epoch": [best(history).epoch for history in histories],
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """Who won, and what was measured."""

    base: ContestantResult
    challenger: ContestantResult
    rules: RulesReport
    """Of the challenger."""
    verdict: Verdict
    path: Path
    """The folder the verdict was written to."""

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {
            "base": self.base.to_dict(),
            "challenger": self.challenger.to_dict(),
            "rules": self.rules.to_dict(),
            "verdict": self.verdict.to_dict(),
            "path": str(self.path),
        }

    def __repr__(self) -> str:
        return to_text(self)

    def _repr_html_(self) -> str:
        """Return the table, the curve and the judgements that a notebook shows."""
        sides = self.base, self.challenger
        curves = {side.anatomy.network: [100 * epoch.val_accuracy for epoch in side.runs[0].history] for side in sides}
        names = ("", *(side.anatomy.network for side in sides))
        title = f"Accuracy in per cent after each epoch, {VALIDATIONS[self.verdict.validation]}"
        return html.table(names, _figures(*sides)) + html.curves(curves, title=title) + html.lines(_judgements(self))


def compare(
    base: Contestant,
    challenger: Contestant,
    data: str | Path | Dataset,
    *,
    rules: Rules,
    seeds: int,
    out: Path,
    trust: bool = False,
    train: Callable[[Sequence[experiment.Job], Path], None] | None = None,
    **options: Any,
) -> Comparison:
    """Check the challenger, bring every run to its end, judge, and write the verdict under ``out``.

    ``trust`` is of :func:`~sepnet.training.trained_network.rebuild`; ``train``, where it is given, brings all jobs to
    their ends before they are taken up one after the other; ``options`` go to
    :func:`~sepnet.training.experiment.prepare`.
    """
    if seeds < 1:
        raise SepnetError(f"seeds is {seeds}: expected at least 1")
    contestants = (base, challenger)
    if isinstance(data, str | Path) and not all(isinstance(contestant.network, Run) for contestant in contestants):
        data = datasets.open_data(data)
    starts = [_start(contestant, data, seeds, options, trust=trust) for contestant in contestants]
    require_same_images(starts[0].config, starts[1].config)
    anatomies = [start.anatomy for start in starts]
    report = check(anatomies[1], rules, starts[1].footprint)
    if not report.kept:
        notice(f"{anatomies[1].network} breaks the rules ({', '.join(report.broken)}); training it anyway")
    if train is not None:
        train([job for start in starts for job in start.jobs], out)
    sides = [
        ContestantResult(
            anatomy=start.anatomy, runs=start.runs or tuple(experiment.take_up(job, out) for job in start.jobs)
        )
        for start in starts
    ]
    verdict = judge(sides[0].runs, sides[1].runs)
    labels = [split_name(anatomy.network).attribute for anatomy in anatomies]
    name = f"{labels[1]}-against-{labels[0]}-{starts[0].config.data}"
    path = _folder(out, name, sides[0].runs, sides[1].runs)
    comparison = Comparison(base=sides[0], challenger=sides[1], rules=report, verdict=verdict, path=path)
    with exclusively(path, busy=f"'{path}' is being written by another process: try again", timeout=10):
        write_atomically(path / VERDICT, json.dumps(comparison.to_dict(), indent=2) + "\n")
    return comparison


def _folder(out: Path, name: str, *sides: Sequence[Run]) -> Path:
    """Make the folder ``out/name``, with a number where the verdict in it is of other runs."""
    runs = [[str(run.path) for run in side] for side in sides]
    for path in numbered(out / name):
        if exists(path) and not path.is_dir():
            continue
        path.mkdir(parents=True, exist_ok=True)
        if not exists(path / VERDICT) or _judged_runs(path / VERDICT) == runs:
            return path
    raise AssertionError("there is no last number")


def _judged_runs(file: Path) -> list[list[str]] | None:
    try:
        verdict = parse_json(read_text(file), f"'{file}'")
        return [verdict[side]["runs"] for side in ("base", "challenger")]
    except (SepnetError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class _Start:
    """A contestant read but not yet trained: everything that can be wrong about it has been found."""

    config: RunConfig
    anatomy: Anatomy
    footprint: Callable[[], Footprint]
    jobs: Sequence[experiment.Job] = ()
    runs: tuple[Run, ...] = ()
    """In place of jobs, where it was trained before."""


def _start(
    contestant: Contestant, data: str | Path | Dataset, seeds: int, options: dict[str, Any], *, trust: bool
) -> _Start:
    network = contestant.network
    if isinstance(network, Run):
        if seeds > 1:
            raise SepnetError(f"'{network.path}' is one run and seeds is {seeds}: name its network to train several")
        network.require_finished()
        anatomy = None if trust or trained_network.is_own(network) else network.anatomy
        if anatomy is None:
            model = trained_network.rebuild(network, trust=trust)
            anatomy = trace(model, network.config.image_shape, name=network.config.network)
        return _Start(
            network.config,
            anatomy,
            partial(trained_network.memory_on_device, network, trust=trust),
            runs=(network,),
        )
    if isinstance(network, nn.Module) and seeds > 1:
        raise SepnetError(
            f"{type(network).__name__} is one module with one set of weights and seeds is {seeds}: "
            "give a function that builds it"
        )
    job = experiment.prepare(network, data, contestant.recipe, **options)
    model = experiment.build_network(network, job.dataset, job.config.recipe, job.config.seed)
    anatomy = trace(model, job.config.image_shape, name=job.config.network)
    seeded = [replace(job, config=replace(job.config, seed=seed)) for seed in range(seeds)]
    measured = partial(footprint, model, job.config.image_shape, name=job.config.network)
    return _Start(job.config, anatomy, measured, jobs=seeded)


def to_text(comparison: Comparison) -> str:
    """Return the comparison for a person: the figures side by side, then the two lines of judgement."""
    base, challenger = comparison.base, comparison.challenger
    rows = [("", base.anatomy.network, challenger.anatomy.network), *_figures(base, challenger)]
    return "\n".join([text_table(rows), "", *_judgements(comparison)])


def _judgements(comparison: Comparison) -> list[str]:
    names = comparison.base.anatomy.network, comparison.challenger.anatomy.network
    verdict, rules = comparison.verdict, comparison.rules
    judged = f"{names[1]} keeps them" if rules.kept else f"{names[1]} breaks them: {', '.join(rules.broken)}"
    seeds = " (of seed 0)" if len(comparison.base.runs) > 1 else ""
    return [
        f"scored on: {SCORED_ON[verdict.validation]}",
        f"rules ({rules.name}): {judged}",
        f"by the assignment: {verdict.by_assignment.sentence(*names)}{seeds}",
        f"by the statistics: {verdict.by_statistics.sentence(*names)}",
        f"verdict in {printable(str(comparison.path / VERDICT))}",
    ]


def _figures(base: ContestantResult, challenger: ContestantResult) -> list[tuple[str, str, str]]:
    first, second = base.to_dict(), challenger.to_dict()

    def row(label: str, key: str, form: Callable[[Any], str]) -> tuple[str, str, str]:
        return label, _listed(first[key], form), _listed(second[key], form)

    return [
        row("parameters", "parameters", "{:,}".format),
        row("MACs", "macs", "{:,}".format),
        row("recipe", "recipe", str),
        row("epochs", "epochs", str),
        row("seconds", "seconds", "{:,.0f}".format),
        row("last accuracy", "final_accuracy", _percent),
        row("best accuracy", "best_accuracy", _percent),
        row("best at epoch", "best_epoch", str),
    ]


def _listed(value: Any, form: Callable[[Any], str]) -> str:
    return " ".join(form(item) for item in value) if isinstance(value, list) else form(value)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
