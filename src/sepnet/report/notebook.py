"""The assignment's notebook: code and logs for all contenders through the Python interface, executed."""

import builtins
import keyword
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sepnet.folders import numbered
from sepnet.networks import split_name
from sepnet.report.contents import Contender, Contents
from sepnet.report.markdown import escape
from sepnet.report.reproduction import train_call
from sepnet.rules import PRESETS, Rules
from sepnet.runs import RunConfig

NOTEBOOK = "assignment.ipynb"
MARK = "Made by `sepnet report`"
"""What every notebook of sepnet's says, and nobody else's."""


@dataclass(frozen=True)
class Names:
    """What the cells call things: the variable of each contender's label, the name of each run's folder."""

    variables: dict[str, str]
    runs: dict[Path, str]


def build(contents: Contents, *, folder: Path, headline: list[str]) -> NotebookNode:
    """Return the notebook, not executed yet; ``folder`` is where it will lie.

    Its cells' ids are made from what the cells are for, so the same runs give the same notebook.
    """
    names = Names(_variables(contents.contenders), _run_names(contents))
    cells = [
        _markdown(
            "title",
            f"# {escape(contents.title)}\n\n" + "".join(f"**{escape(line)}.**\n\n" for line in headline) + INTRODUCTION,
        )
    ]
    cells.append(_code("setup", _setup(contents, names, folder)))
    for number, contender in enumerate(contents.contenders, 1):
        cells += _contender_cells(contender, names, number, folder, contents.rules)
    cells += _closing_cells(contents, names.variables)
    notebook = new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.validate(notebook)
    return notebook


def to_text(notebook: NotebookNode) -> str:
    """Return the notebook as its file's text."""
    return str(nbformat.writes(notebook)) + "\n"


INTRODUCTION = f"""\
{MARK}. The runs are where they were when it was made, seen from this notebook's folder, and are reused. Where one is
missing, nothing is trained unless `TRAIN` is set, and then into this notebook's folder alone.
"""


def _setup(contents: Contents, names: Names, folder: Path) -> str:
    rows = ""
    for one in contents.contenders:
        for run in one.runs:
            row = (_relative(run.path, folder), run.result["final_accuracy"], round(run.seconds))
            rows += f"        {names.runs[run.path]!r}: {row!r},\n"
    return f"""\
import inspect
from pathlib import Path

import sepnet
from sepnet.inference.evaluation import evaluate_logits
from sepnet.networks import NETWORKS
from sepnet.report.keras_listing import listing
from sepnet.report.plots import accuracy_curves, per_class_accuracy
from sepnet.report.recorded import RecordedRuns
from sepnet.report.theme import theme

%matplotlib inline

# True: train the runs that are missing, into this notebook's folder.
TRAIN = False
# Each run's folder, its last accuracy, and the seconds it took to train.
recorded = RecordedRuns(
    {{
{rows}    }},
    train=TRAIN,
)"""


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _contender_cells(contender: Contender, names: Names, number: int, folder: Path, rules: Rules) -> list[NotebookNode]:
    several = len(contender.runs) > 1
    name = names.variables[contender.label]
    log = f"for run in {name}:\n    print(run.log)" if several else f"print({name}.log)"
    first = f"{name}[0]" if several else name
    config = contender.config
    file, attribute, arguments = split_name(config.network)
    if file and not Path(file).is_absolute():
        config = replace(config, network=f"{_relative(Path(file), folder)}:{attribute}{arguments}")
    pictures = config.pictures
    if pictures is not None and not Path(pictures.path).is_absolute():
        there = _relative(Path(pictures.path), folder)
        config = replace(config, pictures=replace(pictures, path=there))
    found = "from sepnet.training.trained_network import describe\n\n" if _built_again(contender) else ""
    if file and (_built_again(contender) or rules.need_footprint):
        found += f"{first}.network = {config.network!r}\n"
    heading = f"## {escape(contender.label)}\n\nEvery layer with its receptive field and output size."
    return [
        _markdown(f"network-{number}", heading),
        *([_code(f"source-{number}", _source(config.network))] if contender.repeatable else []),
        _code(f"training-{number}", f"{name} = {_training(contender, config, names)}"),
        _code(f"definition-{number}", f"{found}print(listing({first}))"),
        _code(f"layers-{number}", _anatomy(contender, first)),
        _code(f"log-{number}", log),
    ]


def _built_again(contender: Contender) -> bool:
    """Whether the first run's folder does not say what its network is."""
    return contender.runs[0].anatomy is None or contender.runs[0].definition is None


def _anatomy(contender: Contender, run: str) -> str:
    return f"describe({run}).anatomy" if _built_again(contender) else f"{run}.anatomy"


def _source(network: str) -> str:
    file, attribute, _ = split_name(network)
    code = f"Path({file!r}).read_text()" if file else f"inspect.getsource(NETWORKS[{attribute!r}].build)"
    return f"print({code})"


def _training(contender: Contender, config: RunConfig, names: Names) -> str:
    """Return the expression that gives the contender's run, or the list of its runs."""
    folders = [names.runs[run.path] for run in contender.runs]
    if not contender.repeatable:
        opened = [f"recorded.require({name!r})" for name in folders]
        return opened[0] if len(opened) == 1 else f"[{', '.join(opened)}]"
    if len(folders) == 1:
        return f"recorded.open({folders[0]!r}) or {train_call(config, name=repr(folders[0]))}"
    pairs = ", ".join(repr((name, run.config.seed)) for name, run in zip(folders, contender.runs, strict=True))
    call = f"recorded.open(name) or {train_call(config, name='name', seed='seed')}"
    return "[\n" + "".join(f"    {line}\n" for line in call.splitlines()) + f"    for name, seed in ({pairs})\n]"


def _closing_cells(contents: Contents, names: dict[str, str]) -> list[NotebookNode]:
    contenders, rules = contents.contenders, contents.rules
    judged_by = repr(rules.name) if PRESETS.get(rules.name) == rules else f"sepnet.{rules!r}"

    def runs(contender: Contender) -> str:
        name = names[contender.label]
        return name if len(contender.runs) > 1 else f"[{name}]"

    def first(contender: Contender) -> str:
        return names[contender.label] + ("[0]" if len(contender.runs) > 1 else "")

    entries = "".join(f"    {one.label!r}: {runs(one)},\n" for one in contenders)
    base = contenders[0]
    of_base = " of the base network" if len(contenders) > 1 else ""
    cells = [
        _markdown("final-accuracy", f"## Final validation accuracy{of_base}"),
        _code(
            "final-accuracy-figures",
            f"for run in {runs(base)}:\n"
            "    last = run.history[-1]\n"
            f'    print(f"{{100 * last.val_accuracy:.2f}} % after epoch {{last.epoch}} (seed {{run.config.seed}})")',
        ),
        _markdown("results", "## Results"),
        _code(
            "curves",
            f"contenders = {{\n{entries}}}\n"
            'with theme("light"):\n'
            "    histories = {name: [run.history for run in runs] for name, runs in contenders.items()}\n"
            f"    figure = accuracy_curves(histories, images={contents.images!r})\n"
            "figure",
        ),
        _code(
            "right-answers",
            "evaluations = {\n"
            "    name: evaluate_logits(*runs[0].logits(), runs[0].config.classes)\n"
            "    for name, runs in contenders.items()\n"
            "}\n"
            'with theme("light"):\n'
            "    figure = per_class_accuracy(evaluations)\n"
            "figure",
        ),
    ]
    _, *others = contenders
    seed = f' + " (seed {base.config.seed})"' if len(base.runs) > 1 else ""
    for number, other in enumerate(others, 2):
        judged = f"sepnet.judge({runs(base)}, {runs(other)})"
        cells.append(
            _code(
                f"verdict-{number}",
                f"verdict = {judged}\n"
                f"print(verdict.by_assignment.sentence({base.label!r}, {other.label!r}){seed})\n"
                f"print(verdict.by_statistics.sentence({base.label!r}, {other.label!r}))",
            )
        )
    cells += [
        _code(f"rules-{number}", f"sepnet.check({first(one)}, {judged_by})") for number, one in enumerate(contenders, 1)
    ]
    return cells


def _run_names(contents: Contents) -> dict[Path, str]:
    """Return a name for each run: its folder's, with a number where two are called the same."""
    names: dict[Path, str] = {}
    for run in (run for one in contents.contenders for run in one.runs):
        taken = set(names.values())
        names[run.path] = next(path.name for path in numbered(run.path.resolve()) if path.name not in taken)
    return names


def _variables(contenders: tuple[Contender, ...]) -> dict[str, str]:
    """Return a variable's name for each contender's label."""
    names: dict[str, str] = {}
    for number, contender in enumerate(contenders, 1):
        name = re.sub(r"\W+", "_", contender.label.lower()).strip("_")
        if not name.isidentifier() or keyword.iskeyword(name) or name in {*TAKEN, *dir(builtins), *names.values()}:
            name = f"network_{number}"
        names[contender.label] = name
    return names


TAKEN = {
    *(
        "inspect",
        "Path",
        "sepnet",
        "listing",
        "recorded",
        "RecordedRuns",
        "TRAIN",
        "last",
        "evaluate_logits",
        "accuracy_curves",
        "per_class_accuracy",
        "theme",
        "describe",
    ),
    *("contenders", "histories", "evaluations", "figure", "verdict", "run", "runs", "name", "seed"),
    *("exit", "quit", "display", "get_ipython"),
}
"""Names that other cells use."""


def _markdown(name: str, text: str) -> NotebookNode:
    return new_markdown_cell(text, id=name)


def _code(name: str, text: str) -> NotebookNode:
    return new_code_cell(text, id=name)
