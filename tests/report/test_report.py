"""Reports of real comparisons: a user's own sequential and residual networks, trained on the sample."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from PIL import Image

import sepnet
from sepnet.cli.app import run
from sepnet.errors import SepnetError
from sepnet.recipes.recipe import Recipe
from sepnet.report import kernel
from sepnet.report.keras_listing import listing
from sepnet.runs import Run
from tests.cli_support import Captured, prepare
from tests.training.support import patterns, seal, tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pytorch_alone")]

COMPARE = (
    "compare net.py:small net.py:Residual --epochs 2 --base-recipe quick.toml --recipe quick.toml "
    "--precision fp32 --device cpu"
)
FOLDER = Path("runs/Residual-against-small-sample/report")


@pytest.fixture(scope="module")
def made(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Return a folder in which the comparison was made, and its standard output kept."""
    return once("made", _make)


def _make(folder: Path) -> None:
    prepare(folder)
    with pytest.MonkeyPatch.context() as patch, (folder / "out.txt").open("w") as out:
        patch.chdir(folder)
        patch.setattr("sys.stdout", out)
        assert run(COMPARE.split()) == 0


@pytest.fixture
def folder(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in that folder, which the test must leave as it is."""
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of that folder."""
    place = tmp_path / "copy"
    shutil.copytree(made, place)
    monkeypatch.chdir(place)
    return place


def _outputs(cells: NotebookNode, name: str) -> str:
    cell = next(cell for cell in cells.cells if cell.id == name)
    return "".join(str(output.get("text") or output.get("data")) for output in cell.outputs)


def test_the_path_is_the_last_line(folder: Path) -> None:
    lines = (folder / "out.txt").read_text().splitlines()
    assert Path(lines[-1]) == FOLDER
    assert lines[-2].startswith("verdict in ")
    assert (folder / lines[-1] / "README.md").is_file()


def test_the_readme_has_what_the_assignment_asks_for(folder: Path) -> None:
    text = (folder / FOLDER / "README.md").read_text()
    base, challenger = Run.open(Path("runs/small-sample")), Run.open(Path("runs/Residual-sample"))
    section = text.split("## Final validation accuracy of the base network")[1].split("\n## ")[0]
    assert f"**{100 * base.result['final_accuracy']:.2f} %** after epoch 2" in section
    assert f"best {100 * base.result['best_accuracy']:.2f} %" in section
    for one in (base, challenger):
        assert (one.path / "log.txt").read_text() in text
        assert "seconds to train" in one.log
        assert listing(one).strip() in text
        assert "# sepnet trained it by " in listing(one)
    definition = text.split("## Model definition")[1].split("\n## ")[0]
    assert re.search(r"model\.add\(Dense\(.*\)\) +# Receptive field 32x32, output size 10", definition)
    assert re.search(r"# Receptive field 12x12, output size 8x8x6\n\w+ = Conv2D\(", definition)


def test_the_first_screen_has_verdict_figures_and_curves(folder: Path) -> None:
    text = (folder / FOLDER / "README.md").read_text()
    screen = text.split("\n## ")[0]
    verdict = json.loads((folder / FOLDER.parent / "verdict.json").read_text())
    assert f"best {100 * verdict['verdict']['by_assignment']['challenger_best']:.2f}" in screen.splitlines()[2]
    for side, column in (("base", 0), ("challenger", 1)):
        figures = {
            "parameters (trainable and moving statistics)": f"{verdict[side]['parameters']:,}",
            "multiplications (MACs) an image": f"{verdict[side]['macs']:,}",
            "accuracy after the last epoch, %": f"{100 * verdict[side]['final_accuracy'][0]:.2f}",
            "seconds to train": f"{verdict[side]['seconds'][0]:,.0f}",
        }
        for name, value in figures.items():
            row = next(line for line in screen.splitlines() if line.startswith(f"| {name} |"))
            assert row.split(" | ")[1 + column].strip(" |") == value
    assert 'srcset="curves-dark.png"' in screen


def test_every_picture_is_shown_in_both_themes_and_is_there(folder: Path) -> None:
    report = folder / FOLDER
    shown = re.findall(r'(?:src|srcset)="([^"]+)"', (report / "README.md").read_text())
    made = {path.name for path in report.glob("*.png")}
    assert set(shown) == made
    assert len(shown) == len(made) == 2 * 8  # curves, data, fields, classes, and two each of confusion and mistakes
    for name in made:
        with Image.open(report / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5, f"{name} is blank"


def test_markdown_tables_are_whole(folder: Path) -> None:
    lines = (folder / FOLDER / "README.md").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line.startswith("|") and before.startswith("|"):
            assert line.count(" |") == before.count(" |")
        if line.startswith("|") and not before.startswith("|"):
            assert before == ""


def test_the_notebook_is_executed_and_valid(folder: Path) -> None:
    cells = nbformat.read(folder / FOLDER / "assignment.ipynb", as_version=4)
    nbformat.validate(cells)
    assert all(cell.execution_count for cell in cells.cells if cell.cell_type == "code")
    assert not any(output.output_type == "error" for cell in cells.cells for output in cell.get("outputs", []))
    for number, name in ((1, "small"), (2, "Residual")):
        assert f"reusing the finished run ../../{name}-sample" in _outputs(cells, f"training-{number}")
        assert _outputs(cells, f"log-{number}").strip() == Path(f"runs/{name}-sample/log.txt").read_text().strip()
        assert "# Receptive field" in _outputs(cells, f"definition-{number}")
        assert "class Residual(nn.Module)" in _outputs(cells, f"source-{number}")
        (table,) = next(cell for cell in cells.cells if cell.id == f"layers-{number}").outputs
        assert ">receptive field</th>" in table.data["text/html"]
        assert table.data["text/plain"].startswith(f"net.py:{name}, for an image 3×32×32")
    assert "image/png" in _outputs(cells, "curves")
    assert "by" in _outputs(cells, "verdict-2")


def test_the_notebook_runs_again_from_a_clean_kernel(copy: Path) -> None:
    """In another place, as after a clone: it finds the runs there and makes none."""
    report = copy / FOLDER
    cells = nbformat.read(report / "assignment.ipynb", as_version=4)
    before = nbformat.writes(cells)
    for cell in cells.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    again = kernel.execute(cells, folder=report)
    assert nbformat.writes(again) == before
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "Residual-against-small-sample",
        "Residual-sample",
        "small-sample",
    ]


def test_a_copy_of_the_report_trains_nothing_unless_asked(copy: Path) -> None:
    """One line says what is missing; with TRAIN it trains into its own folder, to the same weights."""
    place = copy / "elsewhere/report"
    shutil.copytree(FOLDER, place)
    before = sorted(copy.rglob("*"))
    cells = nbformat.read(place / "assignment.ipynb", as_version=4)
    with pytest.raises(SepnetError, match=r"missing beside this notebook: '../../small-sample' and .* 1 minute"):
        kernel.execute(cells, folder=place)
    setup = next(cell for cell in cells.cells if cell.id == "setup")
    assert [output.traceback for output in setup.outputs] == [[f"SepnetError: {setup.outputs[0].evalue}"]]
    assert sorted(copy.rglob("*")) == before
    setup.source = setup.source.replace("TRAIN = False", "TRAIN = True")
    (place / "../../../net.py").write_text((copy / "net.py").read_text())
    again = kernel.execute(cells, folder=place)
    assert "Epoch 2/2" in _outputs(again, "log-2")
    assert sorted(path.name for path in place.iterdir() if path.is_dir()) == ["Residual-sample", "small-sample"]
    for name in ("small", "Residual"):
        mine, theirs = (Path(runs) / f"{name}-sample/weights.safetensors" for runs in ("runs", place))
        assert mine.read_bytes() == theirs.read_bytes(), "the same configuration"


def test_the_same_runs_give_the_same_report(copy: Path, capsys: Captured) -> None:
    before = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert run(f"report --trust runs/small-sample runs/Residual-sample --out {FOLDER}".split()) == 0
    assert capsys.readouterr().out == f"{FOLDER}\n"
    after = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == []


def test_the_commands_of_the_readme_make_the_same_runs(copy: Path, capsys: Captured) -> None:
    block = (FOLDER / "README.md").read_text().split("```sh\n")[1].split("```")[0].splitlines()
    weights = Path("runs/Residual-sample/weights.safetensors").read_bytes()
    shutil.rmtree("runs/Residual-sample")
    command = next(line for line in block if "net.py:Residual" in line)
    assert run(command.removeprefix("sepnet ").split()) == 0
    capsys.readouterr()
    assert Path("runs/Residual-sample/weights.safetensors").read_bytes() == weights
    assert block[-1] == f"sepnet report runs/small-sample runs/Residual-sample --out {FOLDER}"


def test_ctrl_c_while_the_notebook_runs(copy: Path) -> None:
    """A real signal: quietly out, the old report as it was, no kernel left behind."""
    before = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    command = [sys.executable, "-m", "sepnet", "report", "runs/small-sample", "--out", "mine"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not list(copy.glob(".mine.sepnet-*/assignment.ipynb")):
            time.sleep(0.02)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "sepnet: interrupted"
    assert "Traceback" not in err
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == before
    assert not list(copy.glob("*mine*"))


@pytest.mark.usefixtures("small_pictures")
def test_a_network_and_a_dataset_of_a_python_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name leads to them: the notebook opens the run where it lies."""
    monkeypatch.chdir(tmp_path)
    data = patterns()
    one = sepnet.train(tiny(), data, Recipe(epochs=1, batch_size=50), device="cpu", out="runs")
    path = sepnet.write_report(one, data=data)
    cells = nbformat.read(path / "assignment.ipynb", as_version=4)
    assert _outputs(cells, "log-1").strip() == one.log.strip()
    assert "SeparableConv2D" in _outputs(cells, "definition-1")


@pytest.mark.usefixtures("small_pictures")
def test_a_network_that_has_changed_is_not_trained_anew(copy: Path) -> None:
    """The report is of the runs that were given, whatever has become of their network."""
    net = copy / "net.py"
    net.write_text(net.read_text().replace("x + self.norm(self.inner(x))", "self.norm(self.inner(x))"))
    path = sepnet.write_report("runs/Residual-sample", out="mine")
    cells = nbformat.read(path / "assignment.ipynb", as_version=4)
    assert _outputs(cells, "log-1").strip() == sepnet.Run.open("runs/Residual-sample").log.strip()
    assert "sepnet.train(" not in str(cells)
    assert len(list(Path("runs").iterdir())) == 3


def test_a_strangers_code_is_not_run(copy: Path) -> None:
    """A folder unpacked from elsewhere: the run in it names a file that came along, and modules lie beside it."""
    shutil.copytree(copy / "runs/small-sample", copy / "bundle/run")
    code = "from pathlib import Path\nPath('owned').touch()\nsmall = None\n"
    for name in ("evil", "filelock", "psutil", "stack_data"):
        (copy / f"bundle/{name}.py").write_text(code)
    opened = Run.open("bundle/run")
    opened.write_config(replace(opened.config, network="evil.py:small"))
    seal(opened.path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sepnet", "report", "run"],
        cwd=copy / "bundle",
        env={**os.environ, "MPLBACKEND": "nonsense"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "run/report\n")
    assert not list(copy.rglob("owned"))
