"""The benchmarks' arithmetic, their workers, and one small race from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sepnet
from benchmarks import (
    depthwise,
    engine_pytorch,
    scaling,
    training,
    wide,
)
from benchmarks.race import ROOT, Lane, Worker, jobs_for, ratios
from benchmarks.tables import figure, markdown
from sepnet.backend import native
from sepnet.errors import SepnetError
from sepnet.networks.champion import STEM_FILTERS
from tests.backend.support import needs_kernels
from tests.cli_support import Captured, prepare

SETTINGS: dict[str, Any] = {"batch_size": 16, "image_shape": (3, 32, 32), "classes": 10, "images": 40}


def _without_tensorflow(folder: Path) -> dict[str, str]:
    """Return an environment in which Python finds no TensorFlow, whatever is installed."""
    (folder / "tensorflow.py").write_text("raise ImportError('no TensorFlow here')\n")
    path = os.pathsep.join(filter(None, [str(folder), str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.slow
def test_a_race_from_end_to_end(tmp_path: Path) -> None:
    prepare(tmp_path)
    network = f"{tmp_path / 'net.py'}:small"
    options = (
        f"--rounds 3 --seconds 0.01 --networks {network} --engines sepnet,pytorch,keras --batch-size 32 --images 64"
    )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options.split(), "--out", str(tmp_path / "new/speed")],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        cwd=ROOT,
        env=_without_tensorflow(tmp_path),
    )
    record = json.loads((tmp_path / "new/speed/speed.json").read_text())
    assert record["command"] == f"python -m benchmarks {options}", "all that counts, and no place of this machine"
    ours, stock, keras = record["rows"]
    assert [row["engine"] for row in record["rows"]] == ["sepnet", "pytorch", "keras"]
    assert len(ours["rounds"]) == len(stock["rounds"]) == 3
    each = sorted(mine / its for mine, its in zip(ours["rounds"], stock["rounds"], strict=True))
    assert [stock["sepnet_is_faster"][name] for name in ("lowest", "median", "highest")] == pytest.approx(each)
    assert stock["images_per_second"]["median"] == sorted(stock["rounds"])[1]
    assert stock["versions"]["torch"] == torch.__version__
    assert "no TensorFlow here" in keras["missing"]
    assert (keras["images_per_second"], keras["sepnet_is_faster"], keras["rounds"]) == (None, None, [])
    assert record["machine"]["processor"]
    page = (tmp_path / "new/speed/speed.md").read_text()
    assert done.stdout == page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert "Keras on TensorFlow (missing)" in table[-1]
    assert "no TensorFlow here" in done.stderr


def test_ratios_are_of_each_round() -> None:
    ours, theirs = Lane(engine="sepnet", rates=[10.0, 20.0, 90.0]), Lane(engine="pytorch", rates=[5.0, 20.0, 30.0])
    assert ratios(ours, theirs) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}
    assert ratios(ours, Lane(engine="keras", missing="not here")) is None


def test_peers_get_the_recipes_optimizer() -> None:
    kinds = {name: jobs_for(name, ["pytorch"], **SETTINGS)["pytorch"]["optimizer"] for name in ("base", "champion")}
    assert kinds["champion"]["kind"] == "muon", "which the peers do not have: they take SGD"
    model = torch.nn.Linear(2, 2)
    adam = engine_pytorch.build_optimizer(model, kinds["base"])
    sgd = engine_pytorch.build_optimizer(model, kinds["champion"])
    assert isinstance(adam, torch.optim.Adam)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["nesterov"]
    assert adam.defaults["eps"] == 1e-7, "Keras's"


def test_what_keras_cannot_express_is_missing_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "rms.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.RMSNorm(3072))\n"
    )
    jobs = jobs_for(f"{tmp_path / 'rms.py'}:net", ["pytorch", "keras"], **SETTINGS)
    assert "RMSNorm" in jobs["keras"]["missing"]
    assert "missing" not in jobs["pytorch"]


def test_stock_pytorch_takes_whole_steps_and_epochs() -> None:
    job = jobs_for("champion", ["pytorch"], **SETTINGS)["pytorch"]
    with torch.random.fork_rng():
        engine = engine_pytorch.prepare(job)
        images, seconds = engine.commands["turn"](seconds=0.0)
        assert images == 16, "one step after the one that is not timed"
        assert seconds > 0
        assert engine.commands["epoch"]()[0] == 40, "the smaller batch at the end included"


@pytest.mark.slow
def test_a_worker_that_fails_is_named() -> None:
    job = {**jobs_for("base", ["pytorch"], **SETTINGS)["pytorch"], "network": "no-such-network"}
    with (
        Worker("pytorch", sys.executable) as worker,
        pytest.raises(SepnetError, match=r"PyTorch as it comes ended with 1: .*no-such-network"),
    ):
        worker.ask(**job)
    with pytest.raises(SepnetError, match="cannot be run"):
        Worker("keras", str(ROOT / "no-such-python"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--engines sepnet,torch", "unknown engine 'torch'"),
        ("--networks champoin", "did you mean 'champion'"),
    ],
)
def test_a_mistake_is_told(arguments: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments.split()])
    with pytest.raises(SepnetError, match=message):
        training.main()


def test_an_unknown_series_or_shape_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling", "--series", "bach"])
    with pytest.raises(SepnetError, match="did you mean 'batch'"):
        scaling.main()
    monkeypatch.setattr(sys, "argv", ["depthwise", "--shape", "1x2x3"])
    with pytest.raises(SepnetError, match="shape '1x2x3'"):
        depthwise.main()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux's")
def test_peak_memory_is_the_processs_own() -> None:
    code = (
        "from benchmarks.turns import peak_mib\n"
        "before = peak_mib()\n"
        "held = bytearray(b'x') * 2**28\n"
        "print(before, peak_mib())"
    )
    held = bytearray(b"x") * 2**28
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    before, after = map(float, done.stdout.split())
    assert before < 200, f"not that of the process that started it, which holds {len(held)} bytes more"
    assert 250 < after - before < 300


def test_time_per_multiplication() -> None:
    figures = depthwise.picoseconds({"forward": [9e-6], "backward": [36e-6]}, (2, 5, 10, 10), 3)
    assert figures["forward"]["median"] == pytest.approx(1_000)  # 9 µs for 9,000 multiplications
    assert figures["backward"]["median"] == pytest.approx(2_000)  # 36 µs for 18,000


@pytest.mark.parametrize("kernel", depthwise.KERNELS)
def test_depthwise_engines_compute_the_same(kernel: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 20, 11, 13), torch.randn(20, 1, kernel, kernel)
    expected = depthwise.stock(x.double(), weight)
    for convolve, dtype in depthwise.engines().values():
        found = convolve(x.to(dtype).contiguous(memory_format=torch.channels_last), weight)
        tolerance = (1e-5 if dtype == torch.float32 else 1e-2) * float(expected.abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


def test_depthwise_has_a_row_for_each_engine_and_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    options = f"--rounds 1 --seconds 0.001 --shape 2x16x9x7 --out {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["depthwise", *options.split()])
    with torch.random.fork_rng():
        depthwise.main()
    torch.set_flush_denormal(False)
    record = json.loads((tmp_path / "depthwise.json").read_text())
    assert len(record["rows"]) == len(depthwise.engines()) * len(depthwise.KERNELS) * 2
    assert all(row["picoseconds"]["median"] > 0 for row in record["rows"])
    assert capsys.readouterr().out == (tmp_path / "depthwise.md").read_text()


@pytest.mark.slow
@needs_kernels
def test_limits_count_the_work_that_anatomy_counts(tmp_path: Path) -> None:
    code = "from benchmarks import limits; limits.PRODUCTS, limits.COPY_MIB = (64,), 1; limits.main()"
    options = f"--network champion --batch-size 4 --repeats 1 --out {tmp_path}"
    command = [sys.executable, "-c", code, *options.split()]
    environment = {name: value for name, value in os.environ.items() if name != native.SWITCH}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    record = json.loads((tmp_path / "limits-champion.json").read_text())
    work = {"forward": 0, "backward": 0}
    for kernel in record["kernels"]:
        work["backward" if "backward" in kernel["kernel"] else "forward"] += kernel["products"] + kernel["depthwise"]
    convolutions = sum(layer.macs for layer in sepnet.summary("champion").layers if layer.kind != "dense")
    assert work["forward"] == 4 * convolutions
    first = 3 * STEM_FILTERS * 3 * 3 * 32 * 32
    assert work["backward"] == 4 * (2 * convolutions - first), "images need no gradient by the first depthwise layer"
    assert record["share"] > 0
    assert done.stdout == (tmp_path / "limits-champion.md").read_text()


@pytest.mark.slow
def test_the_wide_network_of_width_32_is_of_its_weight_class() -> None:
    counts = [sepnet.summary(build()).parameters for build in (wide.width_16, wide.width_32, wide.width_64)]
    assert counts[1] == 93_637
    assert 2 < counts[1] / counts[0] < 4 > counts[2] / counts[1] > 2, "pointwise weights grow with the width's square"


def test_tables() -> None:
    assert markdown(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | --: |\n| x | 1 |"
    assert [figure(value) for value in (None, 1234.56, 99.94, 1.234)] == ["–", "1,235", "99.9", "1.23"]
