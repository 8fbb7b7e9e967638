"""The assignment's notebook: code and logs for all contenders through the Python interface, executed."""

import asyncio
import builtins
import keyword
import os
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sepnet.errors import SepnetError, first_line
from sepnet.report.contents import Contender, Contents
from sepnet.report.markdown import escape
from sepnet.report.reproduce import train_call
from sepnet.rules import PRESETS

NOTEBOOK = "assignment.ipynb"
START_SECONDS = 120
OPEN_FILES = 128
"""Of this process while a notebook is executed, at most; about 60 were counted."""


def build(contents: Contents, *, folder: Path, headline: list[str]) -> NotebookNode:
    """Return the notebook, not executed yet; ``folder`` is where it will lie.

    Its cells' ids are made from what the cells are for, so the same runs give the same notebook.
    """
    names = _variables(contents.contenders)
    cells = [
        _markdown(
            "title",
            f"# {escape(contents.title)}\n\n" + "".join(f"**{escape(line)}.**\n\n" for line in headline) + INTRODUCTION,
        )
    ]
    cells.append(_code("setup", _setup(folder)))
    for number, contender in enumerate(contents.contenders, 1):
        cells += _contender_cells(contender, names[contender.label], number)
    cells += _closing_cells(contents, names)
    notebook = new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.validate(notebook)
    return notebook


def execute(notebook: NotebookNode, *, folder: Path) -> NotebookNode:
    """Run all cells in a fresh kernel of this Python, started in ``folder``; return the notebook with its outputs.

    Raises:
        SepnetError: a cell failed, or the kernel could not be started.

    """
    _require_open_files()
    with tempfile.TemporaryDirectory() as place:
        manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=_ThisPython())
        if os.name == "posix":  # sockets that only this user can open, in place of ports
            manager.transport = "ipc"
            manager.ip = str(Path(place) / "kernel")
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=None,
            startup_timeout=START_SECONDS,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            _run(client, manager, {**os.environ, **_PLAIN, **_python_path(), "IPYTHONDIR": place})
        except CellExecutionError as error:
            raise SepnetError(f"the report's notebook failed: {error.ename}: {first_line(error.evalue)}") from error
        except (DeadKernelError, RuntimeError, OSError) as error:
            raise SepnetError(f"the report's notebook could not be run: {first_line(error)}") from error
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.validate(notebook)
    return notebook


def _require_open_files() -> None:
    """Raise where this process may not open as many files as a kernel and its sockets take: ZeroMQ would abort it."""
    if os.name != "posix":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < OPEN_FILES:
        wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        if wanted < OPEN_FILES:
            raise SepnetError(
                f"a process may open {hard} files here, and a report's notebook takes up to {OPEN_FILES}: "
                f"allow more by `ulimit -n {OPEN_FILES}`"
            )


def _run(client: NotebookClient, manager: AsyncKernelManager, environment: dict[str, str]) -> None:
    """Execute in a thread of its own, where nbclient takes no signals: Ctrl-C ends the kernel, and is passed on."""
    with ThreadPoolExecutor(1) as pool:
        execution = pool.submit(lambda: asyncio.run(client.async_execute(cleanup_kc=True, env=environment)))
        try:
            execution.result()
        except KeyboardInterrupt:
            while not execution.done():
                kernel = getattr(manager.provisioner, "process", None)
                if kernel is not None:
                    kernel.kill()
                time.sleep(0.05)
            raise


def to_text(notebook: NotebookNode) -> str:
    """Return the notebook as its file's text."""
    return str(nbformat.writes(notebook)) + "\n"


def _python_path() -> dict[str, str]:
    """Return PYTHONPATH, if there is one, as another folder needs it."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, paths))} if paths else {"PYTHONPATH": ""}


_PLAIN = {"PYTHONSAFEPATH": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
"""What the kernel's environment sets: no module is imported from the folder it starts in, whoever's files lie there."""


class _ThisPython(KernelSpecManager):
    """Knows one kernel: the Python that sepnet runs in, whatever else is installed for the user."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002
        spec = KernelSpec(resource_dir="", **get_kernel_dict())
        spec.argv.append("--IPKernelApp.ignore_cwd=True")  # else IPython puts it on the path by itself
        return spec


INTRODUCTION = """\
Made by `sepnet report`. The training cells take up finished runs of the same configuration where they find them, and
train where there are none; the line above each log says which. A run that names alone cannot make again, as one of an
object in a Python session, is opened where it lies.
"""


def _setup(folder: Path) -> str:
    root = os.path.relpath(Path.cwd(), folder.resolve())
    return f"""\
import inspect
import os
from pathlib import Path

import sepnet
from sepnet.evaluation import evaluate_logits
from sepnet.networks import NETWORKS
from sepnet.report.pictures import accuracy_curves, per_class_accuracy
from sepnet.report.theme import theme

%matplotlib inline

if Path({NOTEBOOK!r}).is_file():
    os.chdir({root!r})  # from the report's folder to where its paths start"""


def _contender_cells(contender: Contender, name: str, number: int) -> list[NotebookNode]:
    config = contender.config
    several = len(contender.runs) > 1
    log = f"for run in {name}:\n    print(run.log)" if several else f"print({name}.log)"
    cells = [
        _markdown(
            f"network-{number}",
            f"## {escape(contender.label)}\n\nEvery layer with its receptive field and output size.",
        )
    ]
    if contender.repeatable:
        shape = f"image_shape={config.image_shape}, classes={len(config.classes)}"
        network = repr(config.network)
        cells += [
            _code(f"source-{number}", _source(config.network)),
            _code(f"definition-{number}", f"print(sepnet.keras_definition({network}, {shape}))"),
            _code(f"layers-{number}", f"sepnet.summary({network}, {shape})"),
        ]
    else:
        cells += [
            _code(f"definition-{number}", f"print(sepnet.Run.open({str(contender.runs[0].path)!r}).definition)"),
            _code(f"layers-{number}", f"sepnet.Run.open({str(contender.runs[0].path)!r}).anatomy"),
        ]
    return [
        *cells,
        _code(f"training-{number}", f"{name} = {_training(contender)}"),
        _code(f"log-{number}", log),
    ]


def _source(network: str) -> str:
    path, separator, _ = network.rpartition(":")
    code = f"Path({path!r}).read_text()" if separator else f"inspect.getsource(NETWORKS[{network!r}].build)"
    return f"print({code})"


def _training(contender: Contender) -> str:
    """Return the expression that gives the contender's run, or the list of its runs."""
    runs, config = contender.runs, contender.config
    out = str(runs[0].path.parent)
    if contender.repeatable:
        if len(runs) == 1:
            return train_call(config, out=out)
        seeds = ", ".join(repr(run.config.seed) for run in runs)
        call = train_call(config, out=out, seed="seed")
        return "[\n" + "".join(f"    {line}\n" for line in call.splitlines()) + f"    for seed in ({seeds})\n]"
    opened = [f"sepnet.Run.open({str(run.path)!r})" for run in runs]
    return opened[0] if len(opened) == 1 else f"[{', '.join(opened)}]"


def _closing_cells(contents: Contents, names: dict[str, str]) -> list[NotebookNode]:
    contenders, rules = contents.contenders, contents.rules
    judged_by = repr(rules.name) if PRESETS.get(rules.name) == rules else f"sepnet.{rules!r}"

    def runs(contender: Contender) -> str:
        name = names[contender.label]
        return name if len(contender.runs) > 1 else f"[{name}]"

    def first(contender: Contender) -> str:
        return names[contender.label] + ("[0]" if len(contender.runs) > 1 else "")

    entries = "".join(f"    {one.label!r}: {runs(one)},\n" for one in contenders)
    cells = [
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
    base, *others = contenders
    for number, other in enumerate(others, 2):
        judged = f"sepnet.judge({runs(base)}, {runs(other)})"
        cells.append(
            _code(
                f"verdict-{number}",
                f"verdict = {judged}\n"
                f"print(verdict.by_assignment.sentence({base.label!r}, {other.label!r}))\n"
                f"print(verdict.by_statistics.sentence({base.label!r}, {other.label!r}))",
            )
        )
    cells += [
        _code(f"rules-{number}", f"sepnet.check({first(one)}.anatomy, {judged_by})")
        for number, one in enumerate(contenders, 1)
    ]
    return cells


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
    *("inspect", "os", "Path", "sepnet", "evaluate_logits", "accuracy_curves", "per_class_accuracy", "theme"),
    *("contenders", "histories", "evaluations", "figure", "verdict", "run", "runs", "name", "seed"),
    *("exit", "quit", "display", "get_ipython"),
}
"""Names that other cells use."""


def _markdown(name: str, text: str) -> NotebookNode:
    return new_markdown_cell(text, id=name)


def _code(name: str, text: str) -> NotebookNode:
    return new_code_cell(text, id=name)
