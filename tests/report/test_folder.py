"""The report's folder: whole or not there, and never in place of anything but a report."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt

import sepnet
from sepnet.cli.app import run
from sepnet.errors import SepnetError
from sepnet.networks import fingerprint
from sepnet.recipes.recipe import Recipe, load_recipe
from sepnet.report import kernel
from tests.cli_support import Captured
from tests.report.support import finished_run
from tests.training.support import patterns, tiny, unseal

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pytorch_alone")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pictures: None) -> Path:
    """Work in an empty folder, and leave notebooks unexecuted and pictures small: test_report.py has them whole."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kernel, "execute", lambda cells, **_: cells)
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
    assert "% | 31.25 ± 6.25 (standard error, 2 seeds) | 81.25 ± 6.25 (standard error, 2 seeds) |" in text
    assert "Welch's 95 % interval" in text
    assert text.count("### mine, seed ") == 2


def test_three_networks_are_each_judged_by_the_first(folder: Path) -> None:
    runs = [finished_run(Path("runs"), name, right) for name, right in (("base", 3), ("worse", 1), ("better", 8))]
    path = sepnet.write_report(*runs)
    assert path == Path("runs/worse-0-and-better-0-against-base-0/report")
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
    assert training == "sequential = recorded.require('Sequential-patterns')"
    assert "SeparableConv2D" in (path / "README.md").read_text()


def test_images_that_have_changed_are_not_shown(folder: Path, capsys: Captured) -> None:
    one = finished_run(Path("runs"), "tiny", 5)
    path = sepnet.write_report(one, data=patterns(seed=1))
    assert "is no longer what run" in capsys.readouterr().err
    assert not list(path.glob("mistakes-*"))


def test_what_was_held_out_is_said_to_be(folder: Path) -> None:
    one = finished_run(Path("runs"), "tiny", 5, changes={"validation": "holdout"})
    path = sepnet.write_report(one)
    assert "Scored on training images held out." in (path / "README.md").read_text()
    cells = nbformat.read(path / "assignment.ipynb", as_version=4)
    curves = next(cell for cell in cells.cells if cell.id == "curves").source
    assert "images='held-out training images'" in curves


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
    assert "'mine' holds 'thesis.txt', which is not part of a report of sepnet's" in captured.err
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("more", ["thesis.txt", ".git/HEAD", "curves.png", "recipe.toml"])
def test_a_report_that_was_added_to_is_left_alone(folder: Path, capsys: Captured, more: str) -> None:
    path = sepnet.write_report(finished_run(Path("runs"), "tiny", 5), out="mine")
    (path / more).parent.mkdir(exist_ok=True)
    (path / more).write_text("mine")
    assert run(["report", "runs/tiny-0", "--out", "mine"]) == 2
    assert f"'mine' holds '{more.split('/')[0]}'" in capsys.readouterr().err
    assert (path / more).read_text() == "mine"


@pytest.mark.parametrize("out", [".", "..", "runs/.."])
def test_the_folder_one_works_in_is_not_replaced(folder: Path, capsys: Captured, out: str) -> None:
    finished_run(Path("runs"), "tiny", 5)
    assert run(["report", "runs/tiny-0", "--out", out]) == 2
    assert "is the current folder" in capsys.readouterr().err


def test_another_comparison_has_a_report_of_its_own(folder: Path) -> None:
    base, long = finished_run(Path("runs"), "base", 4), finished_run(Path("runs"), "mine", 5, history=[0.1])
    short = finished_run(Path("runs"), "mine", 6, seed=1)
    assert sepnet.write_report(base, long) != sepnet.write_report(base, short)


def test_a_run_without_its_answers_is_left_as_it_is(folder: Path, capsys: Captured) -> None:
    one = finished_run(Path("runs"), "tiny", 5)
    unseal(one.path)
    for name in ("logits.safetensors", "anatomy.json", "definition.py"):
        (one.path / name).unlink()
    before = sorted(one.path.iterdir())
    assert run(["report", str(one.path)]) == 2
    assert "has no logits.safetensors" in capsys.readouterr().err
    assert sorted(one.path.iterdir()) == before


HOSTILE = "<script>alert(1)</script> **|` # Owned"


def test_names_are_shown_and_not_obeyed(folder: Path) -> None:
    """A stranger's run may be called anything: Markdown renders it as text."""
    one = finished_run(Path("runs"), "tiny", 5, changes={"network": HOSTILE, "classes": (HOSTILE, "b", "c")})
    unseal(one.path)
    (one.path / "definition.py").write_text("```\n\n<img src=x onerror=alert(2)>\n````\n")
    path = sepnet.write_report(one)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render((path / "README.md").read_text())
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "onerror" not in re.sub(r"<code.*?</code>", "", html, flags=re.DOTALL)
    assert "<h1>Owned" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_commands_survive_names_with_spaces_and_quotes(folder: Path) -> None:
    one = finished_run(Path("my runs; touch owned"), "it's", 5, changes={"network": "champion", "data": "sample"})
    text = (sepnet.write_report(one, out="my report") / "README.md").read_text()
    for command in text.split("```sh\n")[1].split("```")[0].splitlines():
        words = shlex.split(command)
        assert "owned" not in words
        assert str(one.path) in words or (str(one.path.parent) in words and one.path.name in words)


def test_a_folder_with_a_readme_of_its_own_is_left_alone(folder: Path, capsys: Captured) -> None:
    finished_run(Path("runs"), "tiny", 5)
    (folder / "mine").mkdir()
    (folder / "mine/README.md").write_text("mine")
    assert run(["report", "runs/tiny-0", "--out", "mine"]) == 2
    assert "'mine' holds 'README.md', which is not part of a report of sepnet's" in capsys.readouterr().err
    assert (folder / "mine/README.md").read_text() == "mine"


def test_what_a_killed_report_left_is_cleared_away(folder: Path) -> None:
    one = finished_run(Path("runs"), "tiny", 5)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    for suffix in ("", "-old"):
        (one.path / f".report.sepnet-{process.pid}{suffix}").mkdir()
    of_another = one.path / f".report.sepnet-{os.getppid()}"
    of_another.mkdir()
    assert sepnet.write_report(one).is_dir()
    assert [path for path in one.path.iterdir() if path.name.startswith(".report")] == [of_another]


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

    monkeypatch.setattr(kernel, "execute", interrupt)
    with pytest.raises(type(error) if isinstance(error, SepnetError) else KeyboardInterrupt):
        sepnet.write_report(one)
    assert {entry.name: entry.read_bytes() for entry in path.iterdir()} == before
    assert [entry.name for entry in one.path.iterdir() if entry.name.startswith(".report")] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("report nowhere", "'nowhere' is not a run"),
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
    (finished_run(Path("more"), "tiny", 5, changes={"data": "others"}).path).rename("runs/elsewhere")
    (finished_run(Path("more"), "tiny", 5).path).rename("runs/unfinished")
    Path("runs/unfinished/manifest.json").unlink()
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
    assert "is in the Python file 'net.py', which is not run by default" in capsys.readouterr().err
    assert run(["report", str(one.path), "--trust"]) == 2
    assert "network file 'net.py' does not exist" in capsys.readouterr().err


OWN = """
from torch import nn

from sepnet.networks.layers import GlobalAveragePool, SeparableConv2d


"""


def test_a_report_writes_into_no_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that does not say what its network is stays so, and its report says it, the executed notebook, too."""
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    Path("net.py").write_text(OWN + "CLASSES = range(3)\n\n\n" + inspect.getsource(tiny))
    one = finished_run(Path("runs"), "net.py:tiny", 5, changes={"fingerprint": fingerprint(tiny())})
    said = one.definition
    for name in ("anatomy.json", "definition.py"):
        (one.path / name).unlink()
    before = {file: file.read_bytes() for file in one.path.iterdir()}
    path = sepnet.write_report(one, rules=sepnet.Rules(ram_below=10_000), out="report", trust=True)
    assert {file: file.read_bytes() for file in one.path.iterdir()} == before
    assert said is not None
    assert said.splitlines()[-2] in (path / "README.md").read_text()
    cells = {cell.id: cell for cell in nbformat.read(path / "assignment.ipynb", as_version=4).cells}
    assert said.splitlines()[-2] in cells["definition-1"].outputs[0].text
    assert "net.py:tiny, for an image 3×8×8" in str(cells["layers-1"].outputs)
    assert "bytes of arena in int8, below 10,000" in str(cells["rules-1"].outputs)


def test_write_is_all_or_nothing_on_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = finished_run(Path("runs"), "tiny", 5)

    def refuse(*_: object, **__: object) -> None:
        raise SepnetError("no space left")

    monkeypatch.setattr("sepnet.report.folder.write_atomically", refuse)
    with pytest.raises(SepnetError, match="no space left"):
        sepnet.write_report(one)
    assert not (one.path / "report").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("environment.json", "[]", "environment.json' is []: expected a JSON object"),
        ("result.json", "[]", "result.json' is []: expected a JSON object"),
        ("result.json", '{"epochs": 1}', "validation is None, and test by the run's history"),
        ("config.toml", ("seed = 0", 'seed = "__import__"'), "seed is '__import__': expected a whole number"),
        ("config.toml", ('validation = "test"', 'validation = "all"'), "validation is 'all': expected test or holdout"),
        ("config.toml", ('network = "tiny"', "network = 3"), "network is 3: expected a text"),
    ],
)
def test_a_damaged_run_is_one_line(
    folder: Path, capsys: Captured, file: str, content: str | tuple[str, str], message: str
) -> None:
    one = finished_run(Path("runs"), "tiny", 5)
    unseal(one.path)
    path = one.path / file
    path.write_text(content if isinstance(content, str) else path.read_text().replace(*content))
    assert run(["report", str(one.path)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert captured.err.splitlines()[-1].startswith("sepnet: error: ")


def test_a_session_that_says_little_is_enough(folder: Path) -> None:
    one = finished_run(Path("runs"), "tiny", 5)
    unseal(one.path)
    (one.path / "environment.json").write_text('{"sessions": [{"time": "noon"}]}')
    assert "the last begun noon" in (sepnet.write_report(one) / "README.md").read_text()
