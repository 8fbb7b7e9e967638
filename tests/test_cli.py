"""The command line: what it prints where, its exit codes, and how it words a mistake."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from sepnet import __version__, api
from sepnet.cli.app import app, run
from tests.cli_support import Captured, prepare, run_json

pytestmark = pytest.mark.usefixtures("pytorch_alone")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder with a user's networks in ``net.py`` and a quick recipe in ``quick.toml``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path / "cache"))
    prepare(tmp_path)
    return tmp_path


def _process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sepnet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


# summary.


def test_summary_as_json_is_the_documented_object(capsys: Captured) -> None:
    summary = run_json("summary published", capsys)
    assert list(summary) == ["network", "input", "layers", "totals"]
    assert summary["network"] == "published"
    assert summary["input"] == [3, 32, 32]
    assert summary["totals"] == {
        "trainable": 93_865,
        "non_trainable": 2_144,
        "parameters": 96_009,
        "macs": sum(layer["macs"] for layer in summary["layers"]),
        "kept_for_backward": sum(layer["kept_for_backward"] for layer in summary["layers"]),
    }
    keys = ["name", "kind", "output", "receptive_field", "jump", "trainable", "non_trainable", "macs"]
    keys.append("kept_for_backward")
    for layer in summary["layers"]:
        assert list(layer) == keys
        assert len(layer["receptive_field"]) == len(layer["jump"]) == 2
        assert len(layer["output"]) in (1, 3)
        assert all(isinstance(layer[key], int) for key in keys[5:])


def test_summary_measures_the_effective_receptive_field(capsys: Captured) -> None:
    assert run(["summary", "net.py:small", "--effective"]) == 0
    text = capsys.readouterr().out
    assert "effective field: the central window that holds 95% of the gradient's energy" in text
    assert "energy within the theoretical field: at least 100.00%" in text


def test_summary_shows_the_receptive_fields_of_the_assignment(capsys: Captured) -> None:
    layers = run_json("summary published", capsys)["layers"]
    fields = [layer["receptive_field"] for layer in layers if layer["kind"] in ("separable", "max pool")]
    assert fields == [[n, n] for n in (3, 5, 7, 7, 8, 12, 16, 20, 20, 22, 30, 38, 46, 50, 50)]


@pytest.mark.parametrize(("network", "total"), [("base", 1_172_410), ("resnet8", 78_666)])
def test_summary_totals(network: str, total: int, capsys: Captured) -> None:
    assert run_json(f"summary {network}", capsys)["totals"]["parameters"] == total


def test_summary_of_a_users_network_for_other_images(capsys: Captured) -> None:
    summary = run_json("summary net.py:small --classes 4", capsys)
    assert summary["network"] == "net.py:small"
    assert summary["layers"][-1]["output"] == [4]
    assert summary["totals"]["parameters"] == 48 * 4 + 4


@pytest.mark.parametrize(
    ("options", "image"),
    [("--image-size 48", [3, 48, 48]), ("--image-size 40x48 --channels 1", [1, 40, 48])],
)
def test_summary_of_another_image_size(options: str, image: list[int], capsys: Captured) -> None:
    summary = run_json(f"summary champion {options}", capsys)
    assert summary["input"] == image
    assert summary["layers"][0]["output"][1:] == image[1:]


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_summary_for_reading(form: str, capsys: Captured) -> None:
    assert run(["summary", "published", "--format", form]) == 0
    captured = capsys.readouterr()
    assert "96,009" in captured.out
    assert "50×50" in captured.out
    assert captured.err == ""
    if form == "markdown":
        rows = [line for line in captured.out.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) == 1


@pytest.mark.slow
def test_a_summary_whose_reader_has_gone() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sepnet", "summary", "base"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before the first line: what `| head` does, without its luck
        assert process.stderr.read() == ""


# check.


def test_check_names_each_offending_layer_of_base(capsys: Captured) -> None:
    assert run(["check", "base"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("plain 3×3 convolution") == 6
    assert captured.err == ""


@pytest.mark.parametrize("network", ["published", "champion"])
def test_check_of_a_network_that_keeps_the_rules(network: str, capsys: Captured) -> None:
    assert run(["check", network]) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_check_asrun_json(capsys: Captured) -> None:
    report = run_json("check base", capsys, code=1)
    assert report["kept"] is False
    separable = report["results"][0]
    assert len(separable["violations"]) == 6
    assert set(separable["violations"][0]) == {"layer", "reason"}


def test_check_by_rules_of_a_file(folder: Path, capsys: Captured) -> None:
    (folder / "mine.toml").write_text("macs_below = 1_000\n")
    assert run_json("check net.py:small --rules mine.toml", capsys)["kept"] is True
    (folder / "mine.toml").write_text("macs_below = 480\n")
    assert run_json("check net.py:small --rules mine.toml", capsys, code=1)["results"][0]["over"] == 0


def test_check_of_a_users_network(capsys: Captured) -> None:
    report = run_json("check net.py:bsconv", capsys, code=1)
    assert [violation["layer"] for violation in report["results"][0]["violations"]] == ["0", "1"]


# data.


def test_data_show(capsys: Captured) -> None:
    shown = run_json("data show sample", capsys)
    assert shown["image_shape"] == [3, 32, 32]
    assert sum(shown["images"]["train"].values()) == 2_000
    assert set(shown["images"]["test"].values()) == {50}
    assert run(["data", "show", "sample"]) == 0
    assert "2,000 training and 500 test images" in capsys.readouterr().out


def test_data_verify(capsys: Captured) -> None:
    rows = run_json("data verify sample", capsys)
    assert rows
    assert all(row["ok"] and row["expected"] == row["found"] for row in rows)


# Mistakes.

MISTAKES = [
    ("summary bse", "unknown network 'bse': did you mean 'base'"),
    ("summary nosuch.py:net", "'nosuch.py' does not exist"),
    ("summary net.py", "names a file but nothing in it"),
    ("summary net.py:nothing", "defines no 'nothing'"),
    ("summary net.py:F", "has type module: expected an nn.Module"),
    ("summary net.py:misfit", "cannot be read"),
    ("summary base --image-size 0", "image size '0' is not understood"),
    ("summary base --image-size 32x32x3", "image size '32x32x3' is not understood"),
    ("summary base --image-size big", "image size 'big' is not understood"),
    ("summary base --image-size 8", "3×8×8"),
    ("summary base --image-size 32x8", "32"),
    ("summary base --format yaml", "yaml"),
    ("summary base --classes 0", "classes"),
    ("summary base --clases 3", "--clases"),
    ("summary", "NETWORK"),
    ("sumary base", "sumary"),
    ("check base --rules contest", "unknown rules 'contest'"),
    ("check base --rules none.toml", "none.toml"),
    ("check base --rules net.py", "net.py"),
    ("check net.py:misfit", "cannot be read"),
    ("train bse", "unknown network 'bse'"),
    ("train net.py:small --data cifar11", "unknown dataset 'cifar11': did you mean 'cifar10'"),
    ("train net.py:small --recipe publishd", "unknown recipe 'publishd': did you mean 'published'"),
    ("train net.py:small --recipe none.toml", "none.toml"),
    ("train net.py:small --recipe net.py", "unknown recipe 'net.py'"),
    ("train net.py:small --epochs 0", "epochs is 0"),
    ("train net.py:small --epochs many", "--epochs"),
    ("train net.py:small --batch-size -3", "batch_size is -3"),
    ("train net.py:small --lr 0", "lr is 0"),
    ("train net.py:small --set epoch=3", "unknown key 'epoch': did you mean 'epochs'"),
    ("train net.py:small --set name=mine", "name is not a setting"),
    ("runs nowhere", "'nowhere' is not a folder"),
    ("train net.py:small --set seed=3", "unknown key 'seed'"),
    ("train net.py:small --set lr=1 --set lr=2", "lr is set twice, to 1 and to 2"),
    ("train net.py:small --lr 1 --set lr=2", "lr is given twice"),
    ("train net.py:small --set lr", "setting 'lr' is not understood"),
    ("train net.py:small --set flip=sideways", "flip is 'sideways'"),
    ("train net.py:small --precision fp8", "precision is 'fp8'"),
    ("train net.py:small --validation train", "validation is 'train'"),
    ("train net.py:small --device abacus", "device is 'abacus': expected auto, cpu or cuda"),
    ("train net.py:small --name a/b", "run name 'a/b'"),
    ("train net.py:small --name .. --epochs 1", "run name '..'"),
    ("train net.py:small --out net.py", "net.py"),
    ("train net.py:small --resume", "is not a run"),
    ("train net.py:five_classes --epochs 1", "5"),
    ("train net.py:misfit --epochs 1", "net.py:misfit"),
    ("compare net.py:small nosuch", "unknown network 'nosuch'"),
    ("compare net.py:small net.py:larger --seeds 0", "seeds is 0"),
    ("compare net.py:small net.py:larger --rules contest", "unknown rules 'contest'"),
    ("compare net.py:small net.py:misfit", "does not take the images"),
    ("compare net.py:small cache", "cache"),
    ("data", "Missing command"),
    ("data fetch imagenet", "unknown dataset 'imagenet'"),
    ("data show sampel", "did you mean 'sample'"),
    ("data show sample --source net.py", "leave --source out"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_2(folder: Path, arguments: str, message: str, capsys: Captured) -> None:
    (folder / "cache").mkdir()
    assert run(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sepnet: error: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    assert message in captured.err


@pytest.mark.slow
def test_a_mistake_in_a_process_of_its_own() -> None:
    done = _process("summary", "bse")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "sepnet: error: unknown network 'bse': did you mean 'base'?\n"


# Help and version.


def _commands() -> list[list[str]]:
    def walk(command: Any, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, [*path, name])

    return list(walk(typer.main.get_command(app), []))


def _parameters(path: list[str]) -> list[Any]:
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return list(command.params)


def test_the_commands_are_those_of_the_documentation() -> None:
    paths = {" ".join(path) for path in _commands()}
    verbs = {"summary", "check", "train", "compare", "report", "evaluate", "predict", "export", "runs"}
    assert verbs | {"data fetch", "data verify", "data show"} <= paths


@pytest.mark.parametrize("path", _commands(), ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_describes_every_option(path: list[str], flag: str, capsys: Captured) -> None:
    assert run([*path, flag]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("Usage: sepnet")
    assert captured.out.isascii()  # Typer writes it in UTF-8, whatever the stream's encoding
    shown = " ".join(captured.out.split())
    for parameter in _parameters(path):
        assert parameter.help, parameter.name
        assert parameter.help.split()[0] in shown
        if parameter.opts[0].startswith("-"):
            assert parameter.opts[0] in shown


def test_no_arguments_show_the_help(capsys: Captured) -> None:
    assert run([]) == 0
    assert "Usage: sepnet" in capsys.readouterr().out


def test_version(capsys: Captured) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"sepnet {__version__}\n"


def test_help_does_not_wait_for_pytorch() -> None:
    code = "import sys; from sepnet.cli.app import run; run(['train', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300, check=False).returncode == 0


# Interruptions, and code that prints.


def test_what_a_network_prints_is_no_result(folder: Path, capsys: Captured) -> None:
    (folder / "loud.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Flatten):\n"
        "    def forward(self, x):\n"
        "        print('forward')\n"
        "        return super().forward(x)\n"
        "print('import')\n"
    )
    code = run(["summary", "loud.py:Net", "--format", "json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert json.loads(captured.out)["network"] == "loud.py:Net"
    assert {"import", "forward"} <= set(captured.err.splitlines())


def test_an_interruption_says_so(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "check", interrupt)
    assert run(["check", "base"]) == 130
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "sepnet: interrupted\n")


@pytest.mark.parametrize("command", ["--traceback summary wrong.py:net", "summary wrong.py:net --traceback"])
def test_an_error_in_a_users_file_keeps_file_and_line(command: str, folder: Path, capsys: Captured) -> None:
    (folder / "wrong.py").write_text("def net():\n    return missing\n")
    assert run(["summary", "wrong.py:net"]) == 2
    line = capsys.readouterr().err
    assert "wrong.py:2: NameError: name 'missing' is not defined" in line
    assert line.count("\n") == 1
    assert run(command.split()) == 2
    whole = capsys.readouterr().err
    assert 'wrong.py", line 2, in net' in whole
    assert whole.endswith(line)
