"""Opening a run runs no code but sepnet's own, unless the user says so; what was trained just now is known."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sepnet
from sepnet.cli.app import run as run_cli
from sepnet.errors import SepnetError
from sepnet.notices import printable
from sepnet.recipes.recipe import Recipe
from sepnet.runs import Run
from tests.cli_support import Captured, train_small
from tests.training.support import patterns, seal, tiny

pytestmark = pytest.mark.usefixtures("pytorch_alone")

RECIPE = Recipe(name="test", epochs=1, batch_size=50, lr=0.1)
MARK = "owned"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_small(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def bundle(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work above an unpacked bundle: a run, and files whose import leaves a mark."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("evil.py", "run/evil.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"from pathlib import Path\nPath({MARK!r}).touch()\nsmall = None\n")
    for file in trained.iterdir():
        if file.is_file():
            (folder / "run" / file.name).write_bytes(file.read_bytes())
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("image.png")
    return folder


def _name(run: Path, network: str) -> None:
    opened = Run.open(run)
    opened.write_config(replace(opened.config, network=network))
    seal(run)


VERBS = {
    "evaluate": ["bundle/run"],
    "predict": ["bundle/run", "image.png"],
    "export": ["bundle/run"],
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "file",
    ["bundle/evil.py", "bundle/run/evil.py", "ABSOLUTE/evil.py", "/proc/self/cwd/bundle/evil.py", "bundle/../evil.py"],
)
def test_a_strangers_code_is_not_run(verb: str, file: str, bundle: Path, capsys: Captured) -> None:
    file = file.replace("ABSOLUTE", str(bundle))
    (bundle.parent / "evil.py").write_bytes((bundle / "evil.py").read_bytes())
    _name(bundle / "run", f"{file}:small")
    assert run_cli([verb, *VERBS[verb]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"is in the Python file '{file}', which is not run by default" in line
    assert "--trust" in line
    assert not Path(MARK).exists()


@pytest.mark.slow
def test_neither_the_standard_library_nor_a_comparison_is_imported_from(bundle: Path, capsys: Captured) -> None:
    for network in (f"{os.__file__}:abort", f"{bundle / 'evil.py'}:small"):
        _name(bundle / "run", network)
        assert run_cli(["evaluate", "bundle/run"]) == 2
        assert run_cli(["compare", "bundle/run", "bundle/run", "--no-report"]) == 0  # by the anatomy it came with
        assert not Path(MARK).exists()
        (bundle / "run/anatomy.json").rename("anatomy.json")
        assert run_cli(["compare", "bundle/run", "bundle/run", "--no-report"]) == 2
        assert "--trust" in capsys.readouterr().err.splitlines()[-1]
        Path("anatomy.json").rename(bundle / "run/anatomy.json")


def test_code_that_is_trusted_is_run(trained: Path, capsys: Captured) -> None:
    assert run_cli(["evaluate", str(trained)]) == 2
    assert run_cli(["evaluate", str(trained), "--trust"]) == 0
    accuracy = 100 * Run.open(trained).result["final_accuracy"]
    assert f"accuracy           {accuracy:.2f} %" in capsys.readouterr().out
    assert isinstance(sepnet.load(trained, trust=True), nn.Sequential)


@pytest.mark.slow
@pytest.mark.parametrize("network", [tiny(), tiny], ids=["module", "function"])
def test_what_python_just_trained_can_be_used(network: nn.Module, tmp_path: Path) -> None:
    data = patterns()
    run = sepnet.train(network, data, RECIPE, out=tmp_path, precision="fp32")
    assert sepnet.evaluate(run, data).accuracy == run.result["final_accuracy"]
    pixels = data.test.images[0].permute(1, 2, 0).numpy()
    (prediction,) = sepnet.predict(run, Image.fromarray(pixels))
    logits = run.logits()[0][0].double().softmax(0)
    assert prediction.guesses[0].probability == pytest.approx(logits.max().item(), rel=1e-5)
    assert sepnet.export_run(run).is_file()
    loaded = sepnet.load(run)
    assert all(torch.equal(tensor, run.weights()[name]) for name, tensor in loaded.state_dict().items())
    comparison = sepnet.compare(run, run, data, out=tmp_path)
    assert comparison.base.anatomy.network == run.config.network
    with pytest.raises(SepnetError, match="was created in a Python session: pass it as network=…"):
        sepnet.load(Run.open(run.path))


@pytest.mark.slow
def test_loading_leaves_the_users_module_as_it_is(tmp_path: Path) -> None:
    model = tiny()
    run = sepnet.train(model, patterns(), RECIPE, out=tmp_path, precision="fp32")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    loaded = sepnet.load(run)
    assert loaded is not model
    assert not any(bool(parameter.any()) for parameter in model.parameters())
    assert all(torch.equal(tensor, run.weights()[name]) for name, tensor in loaded.state_dict().items())


ESCAPE = "\x1b[2Jcat"


def test_a_terminal_is_told_nothing_by_names(bundle: Path, capsys: Captured) -> None:
    """Neither by a configuration's, nor by an anatomy's, nor by a folder's."""
    config, anatomy = bundle / "run/config.toml", bundle / "run/anatomy.json"
    texts = config.read_text(), anatomy.read_text()
    config.write_text(texts[0].replace('"cat"', '"\\u001b[2Jcat"'))
    seal(bundle / "run")
    assert run_cli(["evaluate", "bundle/run"]) == 2
    config.write_text(texts[0])
    anatomy.write_text(texts[1].replace('"name": "', '"name": "\\u001b[2J'))
    seal(bundle / "run")
    assert run_cli(["compare", "bundle/run", "bundle/run"]) == 2
    (bundle / "run").rename(bundle / ESCAPE)
    assert run_cli(["evaluate", f"bundle/{ESCAPE}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "control character" in lines[0]
    assert "control character" in lines[1]
    assert printable(ESCAPE) in lines[2]
    assert not any("\x1b" in line for line in lines)


def test_names_of_control_characters_are_refused_before_training(tmp_path: Path) -> None:
    data = replace(patterns(), classes=("dark", ESCAPE, "striped"))
    with pytest.raises(SepnetError, match="holds a control character"):
        sepnet.train(tiny(), data, RECIPE, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
