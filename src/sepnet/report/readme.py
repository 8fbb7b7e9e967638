"""The report's README, in the assignment's shape after a first screen with the verdict."""

from collections import defaultdict
from pathlib import Path
from shlex import quote
from typing import Any

import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined

from sepnet.anatomy import to_markdown
from sepnet.comparison.contestants import SCORED_ON
from sepnet.report.contents import Contender, Contents
from sepnet.report.markdown import escape, fenced
from sepnet.report.reproduction import can_be_made_again, has_preset, train_command
from sepnet.runs import scores
from sepnet.runs.history import best


def to_readme(contents: Contents, pictures: dict[str, str], *, folder: Path) -> str:
    """Return the README as Markdown.

    Args:
        contents: what to say.
        pictures: the names of the pictures that were made, and what each shows, for those who cannot see it.
        folder: where the report will lie, as commands name it.

    """
    environment = Environment(
        loader=PackageLoader("sepnet.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, of names that the user gave
    )
    environment.filters["escape"] = escape
    environment.filters["fenced"] = fenced
    environment.filters["anatomy"] = to_markdown
    template = environment.get_template("README.md.j2")
    return template.render(
        contents=contents,
        first=contents.contenders[0],
        last=contents.contenders[-1],
        pictures=pictures,
        rows=_rows(contents),
        machine=[(contender, _machine(contender)) for contender in contents.contenders],
        scored_on=SCORED_ON[contents.config.validation],
        headline=headline(contents),
        commands=commands(contents, folder),
        best=best,
        score_heads=scores.HEADS,
        data=escape(_data(contents)),
    )


def _data(contents: Contents) -> str:
    """Return what the networks were trained and scored on, in words."""
    config, dataset = contents.config, contents.dataset
    channels, height, width = config.image_shape
    text = f"{config.data}: {len(config.classes):,} classes, images {channels}×{height}×{width}"
    if dataset is not None:
        text += f", {len(dataset.train):,} for training and {len(dataset.test):,} {contents.images}"
    if config.pictures is not None:
        text += (
            f"; pictures of '{config.pictures.path}', cropped about the centre and resized (Lanczos) where they are "
            "of another size"
        )
    return text + "."


def headline(contents: Contents) -> list[str]:
    """Return the finding in one sentence for each challenger, or for the only network there is."""
    first, *others = contents.contenders
    if not others:
        top = best(first.runs[0].history)
        last = first.figure(lambda run: 100 * run.result["final_accuracy"])
        return [f"{first.label}: {last} % after the last epoch, at best {100 * top.val_accuracy:.2f} %"]
    return [
        contender.verdict.by_assignment.sentence(first.label, contender.label) + first.of_seed
        for contender in others
        if contender.verdict is not None
    ]


def recipe_files(contents: Contents) -> dict[str, str]:
    """Return the file name and the text of each recipe that is no preset."""
    return {
        _recipe_file(number): tomli_w.dumps(contender.config.recipe.to_dict())
        for number, contender in enumerate(contents.contenders, 1)
        if not has_preset(contender.config.recipe)
    }


def commands(contents: Contents, folder: Path) -> list[str]:
    """Return the commands that make every run and this report again."""
    lines = []
    for number, contender in enumerate(contents.contenders, 1):
        for run in contender.runs:
            if can_be_made_again(run.config):
                out = f" --out {quote(str(run.path.parent))} --name {quote(run.path.name)} --reuse"
                lines.append(train_command(run.config, str(folder / _recipe_file(number))) + out)
            else:
                path = quote(str(run.path))
                lines.append(f"# {path} was made in Python or in several steps; its config.toml tells all of it")
    paths = " ".join(quote(str(run.path)) for contender in contents.contenders for run in contender.runs)
    return [*lines, f"sepnet report {paths} --out {quote(str(folder))}"]


def _recipe_file(number: int) -> str:
    return f"recipe-{number}.toml"


def _rows(contents: Contents) -> list[tuple[str, list[str]]]:
    """Return the first screen's table: what is measured, and its value for each contender."""

    def row(name: str, value: Any) -> tuple[str, list[str]]:
        return name, [value(contender) for contender in contents.contenders]

    def percent(key: str) -> Any:
        return lambda contender: contender.figure(lambda run: 100 * run.result[key])

    return [
        row("parameters (trainable and moving statistics)", lambda one: f"{one.anatomy.parameters:,}"),
        row("multiplications (MACs) an image", lambda one: f"{one.anatomy.macs:,}"),
        row("epochs", lambda one: str(one.config.recipe.epochs)),
        row("recipe", lambda one: one.config.trained_by),
        row("accuracy after the last epoch, %", percent("final_accuracy")),
        row("best accuracy, %", percent("best_accuracy")),
        row("at epoch", lambda one: " ".join(str(run.result["best_epoch"]) for run in one.runs)),
        row("loss after the last epoch", lambda one: one.figure(lambda run: run.history[-1].val_loss, "{:.4f}")),
        row(
            "calibration error of the last epoch, %",
            lambda one: f"{100 * one.evaluation.calibration.error:.1f}{one.of_seed}",
        ),
        row("seconds to train", lambda one: one.figure(lambda run: run.result["seconds"], "{:,.0f}")),
        row("images a second in training", lambda one: one.figure(_images_per_second, "{:,.0f}")),
        row("peak memory, MiB", _peak_memory),
        row("seeds", lambda one: " ".join(str(run.config.seed) for run in one.runs)),
        row(f"rules '{contents.rules.name}'", lambda one: "kept" if one.rules.kept else "broken"),
    ]


def _peak_memory(contender: Contender) -> str:
    known = all(run.result.get("peak_memory_mib") for run in contender.runs)
    return contender.figure(lambda run: run.result["peak_memory_mib"], "{:,.0f}") if known else "unknown"


def _images_per_second(run: Any) -> float:
    rates = sorted(epoch.images_per_second for epoch in run.history)
    return float(rates[len(rates) // 2])


def _machine(contender: Contender) -> list[tuple[str, str]]:
    """Return what the runs were made on and with."""
    sessions = [session for run in contender.runs for session in run.sessions]
    config = contender.config
    last = defaultdict(lambda: "unknown", sessions[-1] if sessions else {})
    return [
        ("processor", f"{last['processor']}, {last['cores']} cores, {last['threads']} threads"),
        ("memory, GiB", str(last["memory_gib"])),
        ("GPU", str(last["gpu"] or "none")),
        ("device and precision", f"{config.device}, {config.precision}"),
        ("versions", f"sepnet {last['sepnet']}, Python {last['python']}, PyTorch {last['torch']}"),
        ("system", str(last["platform"])),
        ("sessions", f"{len(sessions)}, the last begun {last['time']}"),
    ]
