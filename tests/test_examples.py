"""The examples run, on the sample and for an epoch."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from sepnet.cli.app import run
from sepnet.report import kernel

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    """With a run in the base's place, which would train for longer than all the rest."""
    notebook = nbformat.read(EXAMPLES / "assignment.ipynb", as_version=4)
    code = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    assert not any(cell.outputs for cell in code.values())
    code["setup"].source = code["setup"].source.replace("EPOCHS = 2", "EPOCHS = 1")
    code["compare"].source = code["compare"].source.replace('"base"', "run")
    kernel.execute(notebook, folder=tmp_path)
    shown = {name: [output.data for output in cell.outputs if "data" in output] for name, cell in code.items()}
    progress, _ = shown["train"]
    assert progress["text/html"] == ""  # it was there while the cell ran
    for name in ("summary", "check", "train", "compare", "verdict"):
        assert "<table>" in shown[name][-1]["text/html"]
    assert len(eval(shown["columns"][0]["text/plain"])) == 1


@pytest.mark.slow
def test_one_s_own_network_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "own_network.py"), "1"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "pass  separable only: 4 of 4" in done.stdout
    assert (tmp_path / "runs/mine-sample/result.json").is_file()


def test_a_network_is_checked_by_the_budget() -> None:
    assert run(["check", "champion", "--rules", str(EXAMPLES / "budget.toml")]) == 0
    assert run(["check", "base", "--rules", str(EXAMPLES / "budget.toml")]) == 1
