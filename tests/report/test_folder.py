"""The report's folder: whole or not there, and never in place of anything but a report."""

import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

import sepnet
from sepnet.cli.app import run
from sepnet.errors import SepnetError
from sepnet.report import notebook
from sepnet.runs import Run
from sepnet.training.recipe import Recipe, load_recipe
from tests.cli_support import Captured
from tests.report.support import finished_run
from tests.training.support import patterns, tiny


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, and leave notebooks unexecuted: test_report.py executes them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebook, "execute", lambda cells, **_: cells)
    return tmp_path


def test_a_single_run_has_its_report_inside(folder: Path) -> None:
    one = finished_run(Path("runs"), "tiny", 5)
    path = sepnet.write_report(one)
    assert path == one.path / "report"
    text = (path / "README.md").read_text()
    assert text.startswith("# tiny on patterns\n")
    assert "tiny: 62.50 % after the last epoch" in text
    assert "By the statistics" not in text
    assert "of the base network" not in text


def test_seeds_are_told_with_their_standard_error(folder: Path) -> None:
    bases = [finished_run(Path("runs"), "base", right, seed=seed) for seed, right in enumerate((2, 3))]
    others = [finished_run(Path("runs"), "mine", right, seed=seed) for seed, right in enumerate((6, 7))]
    text = (sepnet.write_report(*bases, *others) / "README.md").read_text()
    # Accuracies of 6 / 8 and 7 / 8: mean 81.25, standard deviation 8.84, over the root of two 6.25.
    assert "| accuracy after the last epoch, % | 31.25 ± 6.25 | 81.25 ± 6.25 |" in text
    assert "Welch's 95 % interval" in text
    assert text.count("### mine, seed ") == 2


def test_three_networks_are_each_judged_by_the_first(folder: Path) -> None:
    runs = [finished_run(Path("runs"), name, right) for name, right in (("base", 3), ("worse", 1), ("better", 8))]
    path = sepnet.write_report(*runs)
    assert path == Path("runs/worse-and-better-against-base-patterns/report")
    text = (path / "README.md").read_text()
    assert "**better beats base:" in text
    assert "**worse does not beat base:" in text
    assert text.count("By the statistics, ") == 2


def test_one_network_by_two_recipes(folder: Path) -> None:
    slow, quick = load_recipe("champion", lr=0.01), Recipe(name="quick")
    runs = [finished_run(folder / name, "mine", 4, recipe=recipe) for name, recipe in (("a", slow), ("b", quick))]
    path = sepnet.write_report(*runs)
    text = (path / "README.md").read_text()
    assert "mine, quick" in text
    assert "mine, champion" in text


def test_without_its_images_a_report_says_so(folder: Path, capsys: Captured) -> None:
    path = sepnet.write_report(finished_run(Path("runs"), "tiny", 5))
    assert "the report has no pictures of images: unknown dataset 'patterns'" in capsys.readouterr().err
    assert not list(path.glob("mistakes-*")) + list(path.glob("fields-*"))
    assert "mistakes" not in (path / "README.md").read_text()


def test_a_dataset_and_a_network_of_a_python_session(folder: Path) -> None:
    data = patterns()
    one = sepnet.train(tiny(), data, Recipe(epochs=1, batch_size=50), device="cpu", out="runs")
    path = sepnet.write_report(one, data=data)
    assert (path / "mistakes-1-dark.png").is_file()
    cells = nbformat.read(path / "assignment.ipynb", as_version=4)
    training = next(cell for cell in cells.cells if cell.id == "training-1").source
    assert training == f"sequential = sepnet.Run.open('{one.path}')"
    assert "SeparableConv2D" in (path / "README.md").read_text()


def test_images_that_have_changed_are_not_shown(folder: Path, capsys: Captured) -> None:
    one = finished_run(Path("runs"), "tiny", 5)
    path = sepnet.write_report(one, data=patterns(seed=1))
    assert "is no longer what run" in capsys.readouterr().err
    assert not list(path.glob("mistakes-*"))


def test_an_old_report_gives_way_to_a_new_one(folder: Path) -> None:
    one = finished_run(Path("runs"), "tiny", 5)
    path = sepnet.write_report(one)
    (path / "mistakes-9-light.png").write_bytes(b"of an older report")
    sepnet.write_report(one)
    assert not (path / "mistakes-9-light.png").exists()
    assert [entry.name for entry in one.path.iterdir() if entry.name.startswith(".report")] == []


def test_a_folder_of_something_else_is_left_alone(folder: Path, capsys: Captured) -> None:
    finished_run(Path("runs"), "tiny", 5)
    (folder / "mine").mkdir()
    (folder / "mine/thesis.txt").write_text("years of work")
    assert run(["report", "runs/tiny-0", "--out", "mine"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "'mine' holds something that is no report of sepnet's" in captured.err
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.txt"]


def test_a_file_in_the_way(folder: Path, capsys: Captured) -> None:
    finished_run(Path("runs"), "tiny", 5)
    (folder / "mine").write_text("")
    assert run(["report", "runs/tiny-0", "--out", "mine"]) == 2
    assert "'mine' is a file" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, SepnetError("the kernel is gone")])
def test_an_interrupted_report_leaves_the_old_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    one = finished_run(Path("runs"), "tiny", 5)
    path = sepnet.write_report(one)
    before = {entry.name: entry.read_bytes() for entry in path.iterdir()}

    def interrupt(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(notebook, "execute", interrupt)
    with pytest.raises(type(error) if isinstance(error, SepnetError) else KeyboardInterrupt):
        sepnet.write_report(one)
    assert {entry.name: entry.read_bytes() for entry in path.iterdir()} == before
    assert [entry.name for entry in one.path.iterdir() if entry.name.startswith(".report")] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("report nowhere", "'nowhere' is no run"),
        ("report runs/tiny-0 runs/tiny-0", "is given twice"),
        ("report runs/tiny-0 runs/tiny-0/../tiny-0", "is given twice"),
        ("report runs/tiny-0 runs/other-0 runs/other-1", "1 runs against 2"),
        ("report runs/tiny-0 runs/elsewhere", "data 'patterns' and .* 'others': expected the same"),
        ("report runs/tiny-0 runs/unfinished", "is not finished"),
        ("report runs/tiny-0 --rules none", "unknown rules 'none'"),
        ("report", "Missing argument"),
    ],
)
def test_mistakes_are_one_line(arguments: str, message: str, folder: Path, capsys: Captured) -> None:
    finished_run(Path("runs"), "tiny", 5)
    finished_run(Path("runs"), "other", 5)
    finished_run(Path("runs"), "other", 5, seed=1)
    (finished_run(Path("more"), "tiny", 5).path).rename("runs/elsewhere")
    (finished_run(Path("more"), "tiny", 5).path).rename("runs/unfinished")
    elsewhere = Run.open(Path("runs/elsewhere"))
    elsewhere.write_config(replace(elsewhere.config, data="others"))
    Path("runs/unfinished/result.json").unlink()
    assert run(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error = captured.err.splitlines()[-1]
    assert error.startswith("sepnet: error: ")
    assert re.search(message, error)
    assert not list(Path("runs").glob("*/report"))


def test_a_run_whose_network_is_gone_says_so(folder: Path, capsys: Captured) -> None:
    one = finished_run(Path("runs"), "net.py:gone", 5)
    for name in ("anatomy.json", "definition.py"):
        (one.path / name).unlink()
    assert run(["report", str(one.path)]) == 2
    assert "network file 'net.py' does not exist" in capsys.readouterr().err


def test_write_is_all_or_nothing_on_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = finished_run(Path("runs"), "tiny", 5)

    def refuse(*_: object, **__: object) -> None:
        raise SepnetError("no space left")

    monkeypatch.setattr("sepnet.report.write.write_atomically", refuse)
    with pytest.raises(SepnetError, match="no space left"):
        sepnet.write_report(one)
    assert not (one.path / "report").exists()
